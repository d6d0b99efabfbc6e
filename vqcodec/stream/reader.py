# SPDX-License-Identifier: Apache-2.0
"""Streams to index maps, as `writer` wrote them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vqcodec import timing
from vqcodec.errors import FormatError, ImageError, ModelError
from vqcodec.exact import orders
from vqcodec.exact.engine import Batch
from vqcodec.format.container import Container, Header
from vqcodec.model.limits import DEFAULT_LIMITS, Deadline, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import GROUP_TILES
from vqcodec.stream import proportion
from vqcodec.stream.coding import SymbolDecoder
from vqcodec.stream.levels import empty_maps, produce

BATCH_GROUPS = 4  # groups decoded together at most; bounds the memory of large images
STEP_ROWS = 1024  # positions of a step from which a processor gains nothing by decoding more groups together


def read(model: Model, file: Container, limits: Limits = DEFAULT_LIMITS) -> IndexMaps:
    """Read the index maps that a file holds.

    Args:
        model: that it was made with.
        file: unpacked.
        limits: what reading may cost.

    Raises: FormatError on a damaged file, ModelError if it was made with another model, ImageError if it holds no maps
        or would cost more than the limits.
    """
    check(model, file)
    head = file.header
    limits.check_pixels(head.width, head.height)
    limits.check_memory(memory(model, head.width, head.height, head.group_tiles))
    size = head.width, head.height
    return decompress(model, file.streams, *size, head.group_tiles, head.rate, limits.deadline())


def check(model: Model, file: Container) -> None:
    """Check that a file has index maps of a model.

    Args:
        model: of the maps.
        file: unpacked.

    Raises: ModelError, FormatError or ImageError.
    """
    check_header(model, file.header)
    if file.levels != len(model.priors):
        raise FormatError(f"{file.levels} levels do not fit model {model.name}")


def check_header(model: Model, head: Header) -> None:
    """Check the same by the header alone.

    Args:
        model: of the maps.
        head: of the file.

    Raises: ModelError, FormatError or ImageError.
    """
    if head.lossless:
        raise ImageError("the file holds its picture without loss and no indices")
    if head.model != model.identity:
        raise ModelError(f"the file needs model {head.model.hex()}, this is {model.name} ({model.identity.hex()})")
    if head.tile_size != model.config.tile_size:
        raise FormatError(f"tiles of {head.tile_size} pixels do not fit model {model.name}")
    if head.group_tiles > GROUP_TILES:
        raise FormatError(f"groups have at most {GROUP_TILES} tiles, not {head.group_tiles}")


@exactly
def decompress(
    model: Model,
    streams: Sequence[bytes],
    width: int,
    height: int,
    group_tiles: int | None = None,
    tradeoff: int = 0,
    deadline: Deadline | None = None,
) -> IndexMaps:
    """Read index maps from streams. Inverse of `writer.compress`.

    Args:
        model: whose indices they are.
        streams: by group of tiles and level, group by group.
        width: of the image, in pixels.
        height: of the image, in pixels.
        group_tiles: tiles that share a stream; None: as many as this version writes.
        tradeoff: 0 to 255.
        deadline: looked at before every batch of indices.

    Raises: FormatError on a stream that `writer.compress` would not write, ImageError after the deadline.
    """
    tilings = model.tilings(width, height, group_tiles)
    group_tiles = tilings[0].group_tiles
    proportion.check_lengths(model.priors, tilings, streams)
    clock = Deadline() if deadline is None else deadline
    batch = max(1, -(-batch_tiles(model, width, height) // group_tiles)) * group_tiles
    number = math.prod(tilings[0].grid)
    levels = empty_maps(model, tilings)
    for first in timing.steps("reading indices", range(0, number, batch)):
        tiles = range(first, min(first + batch, number))
        held = streams[first // group_tiles * len(model.priors) :]
        source = partial(_source, held, len(model.priors), group_tiles, clock)
        for level, maps in enumerate(produce(model, tilings, [tiles] * len(tilings), source, tradeoff)):
            tilings[level].paste(levels[level], tiles, maps.cpu())
    return IndexMaps(tuple(levels), width, height)


def _source(streams: Sequence[bytes], levels: int, group_tiles: int, deadline: Deadline, level: int) -> Source:
    """The streams of a level, from the first of a group on."""
    return Source(streams[level::levels], group_tiles, deadline)


def memory(model: Model, width: int, height: int, group_tiles: int) -> int:
    """Estimate how many bytes reading an image takes, see `proportion.memory`.

    Args:
        model: of the image.
        width: of the image, in pixels.
        height: of the image, in pixels.
        group_tiles: tiles that share a stream.
    """
    together = max(group_tiles, batch_tiles(model, width, height))
    return proportion.memory(model.config, model.tilings(width, height), together)


def batch_tiles(model: Model, width: int, height: int, levels: int | None = None) -> int:
    """Choose how many tiles to decode together, so that the steps of the finest level are large enough.

    Args:
        model: of the image.
        width: of the image, in pixels.
        height: of the image, in pixels.
        levels: that are decoded; None: all.
    """
    most = BATCH_GROUPS * GROUP_TILES
    if model.device.type != "cpu":
        return most
    finest = (levels or len(model.priors)) - 1
    h, w = model.tiling(finest, width, height).tile_shape
    steps = len(orders.order(model.config.priors[finest].order, h, w).steps)
    return min(most, STEP_ROWS * steps // (h * w))


class Source:
    """Reads the indices of a batch from one range decoder per group of tiles."""

    def __init__(self, streams: Sequence[bytes], group_tiles: int, deadline: Deadline) -> None:
        self._streams, self._deadline = streams, deadline
        self._decoders: dict[int, SymbolDecoder] = {}
        self._group_tiles = group_tiles

    @timing.timed("entropy coding")
    def __call__(self, frequencies: Tensor, batch: Batch) -> Tensor:
        self._deadline.check()
        values = frequencies.cpu().numpy()
        groups = (batch.tiles // self._group_tiles).repeat_interleave(batch.groups).cpu().numpy()
        symbols = np.zeros(len(values), np.int64)
        if not groups.any():
            symbols[:] = self._decoder(0).decode(values)
        else:
            for group in np.unique(groups).tolist():
                rows = np.flatnonzero(groups == group)
                symbols[rows] = self._decoder(group).decode(values[rows])
        return torch.from_numpy(symbols).to(frequencies.device)

    def _decoder(self, group: int) -> SymbolDecoder:
        if group not in self._decoders:
            self._decoders[group] = SymbolDecoder(self._streams[group])
        return self._decoders[group]

    def check(self) -> None:
        """Raise FormatError unless the streams are what an encoder writes for the indices that were read."""
        if not all(decoder.complete() for decoder in self._decoders.values()):
            raise FormatError("an index stream is longer than its indices, or another coding of them")
