# SPDX-License-Identifier: Apache-2.0
"""The index maps of streams of which some are lost: group by group, as many levels as there are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vqcodec.errors import FormatError
from vqcodec.exact.engine import run
from vqcodec.exact.network import IntegerPrior
from vqcodec.format.container import Header
from vqcodec.model.limits import Deadline, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import Tiling
from vqcodec.stream import proportion, reader


@exactly
def read(model: Model, head: Header, streams: Mapping[int, bytes], limits: Limits) -> tuple[IndexMaps, list[int]]:
    """Read what can be read.

    Args:
        model: that the file was made with.
        head: of the file.
        streams: those that are sound, by their number in the file: group by group, in it coarsest level first.
        limits: what it may cost.

    Returns: the maps, 0 where they are lost; and of every group of tiles how many levels it has, from the coarsest on:
    a level without the coarser ones says nothing.

    Raises FormatError, ModelError and ImageError where nothing could be read at all, as `reader.read`.
    """
    reader.check_header(model, head)
    limits.check_memory(reader.memory(model, head.width, head.height, head.group_tiles))
    tilings, clock = model.tilings(head.width, head.height, head.group_tiles), limits.deadline()
    levels = [
        torch.zeros(level.maps, *tiling.map_shape, dtype=torch.int64)
        for level, tiling in zip(model.config.autoencoder.levels, tilings, strict=True)
    ]
    masks = [tiling.valid() for tiling in tilings]
    intact = []
    for group, part in enumerate(tilings[0].groups):
        tiles = list(range(part.start, part.stop))
        coarse: list[Tensor] = []
        for level, (prior, tiling, mask) in enumerate(zip(model.priors, tilings, masks, strict=True)):
            stream = streams.get(group * len(model.priors) + level)
            inside = None if mask is None else mask[tiles].to(model.device)
            maps = None if stream is None else _maps(prior, tiling, stream, group, coarse, inside, head.rate, clock)
            if maps is None:
                break
            coarse.append(maps)
            tiling.place(levels[level], tiles, maps.cpu())
        intact.append(len(coarse))
    return IndexMaps(tuple(levels), head.width, head.height), intact


def _maps(
    prior: IntegerPrior,
    tiling: Tiling,
    stream: bytes,
    group: int,
    coarse: list[Tensor],
    inside: Tensor | None,
    tradeoff: int,
    clock: Deadline,
) -> Tensor | None:
    """The maps of a group of tiles at one level, int64 [tiles, maps, h, w]; None if the stream is damaged."""
    try:
        proportion.check_length(proportion.least_bits(prior), tiling, group, stream)
        source = reader.Source([stream], tiling.group_tiles, clock)
        part = tiling.groups[group]
        condition = prior.condition(coarse, (part.stop - part.start, *tiling.tile_shape), inside, tradeoff)
        maps = run(prior, condition, source, inside)
        source.check()
    except FormatError:
        return None
    return maps
