# SPDX-License-Identifier: Apache-2.0
"""Streams to index maps, as `writer` wrote them; and index maps from any other source that draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vqcodec import timing
from vqcodec.errors import FormatError, ImageError, ModelError
from vqcodec.exact import orders
from vqcodec.exact.engine import Batch, Draw, run
from vqcodec.exact.network import IntegerPrior
from vqcodec.format.container import Container, Header
from vqcodec.model.limits import DEFAULT_LIMITS, Deadline, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import GROUP_TILES, Tiling
from vqcodec.stream import proportion
from vqcodec.stream.coding import SymbolDecoder

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
    sources: list[Source] = []

    def source(level: int, first: int) -> Draw:
        if sources:
            sources[-1].check()  # ahead of the work that the next level is
        group = first // group_tiles
        sources.append(Source(streams[group * len(model.priors) + level :: len(model.priors)], group_tiles, clock))
        return sources[-1]

    batch = max(1, -(-batch_tiles(model, width, height) // group_tiles)) * group_tiles
    tiles = produce(model, source, tilings, batch, tradeoff=tradeoff)
    sources[-1].check()
    levels = tuple(tiling.join(maps) for tiling, maps in zip(tilings, tiles, strict=True))
    return IndexMaps(levels, width, height)


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


@exactly
def produce(
    model: Model,
    source: Callable[[int, int], Draw],
    tilings: Sequence[Tiling],
    batch: int,
    *,
    images: int = 1,
    priors: Sequence[IntegerPrior] | None = None,
    tradeoff: int = 0,
) -> list[Tensor]:
    """Index maps of images of one size, as tiles: per level int64 [images * tiles, maps, h, w] on the CPU.

    Args:
        model: whose indices they are.
        source: level and first tile of a batch -> what reads or draws its indices.
        tilings: of all levels.
        batch: tiles that are produced together.
        images: their number.
        priors: in place of the model's own.
        tradeoff: 0 to 255.
    """
    masks = [tiling.valid() for tiling in tilings]
    number = images * math.prod(tilings[0].grid)
    tiles: list[list[Tensor]] = [[] for _ in tilings]
    for first in timing.steps("reading indices", range(0, number, batch)):
        count = min(batch, number - first)
        coarse: list[Tensor] = []
        for level, prior in enumerate(priors or model.priors):
            valid = masks[level]
            inside = None if valid is None else valid.repeat(images, 1, 1)[first : first + count].to(model.device)
            with timing.part("prior"):
                condition = prior.condition(coarse, (count, *tilings[level].tile_shape), inside, tradeoff)
                coarse.append(run(prior, condition, source(level, first), inside))
            tiles[level].append(coarse[level].cpu())
    return [torch.cat(maps) for maps in tiles]


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
