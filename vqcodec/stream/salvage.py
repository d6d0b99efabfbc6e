# SPDX-License-Identifier: Apache-2.0
"""The index maps of streams of which some are lost: group by group, as many levels as there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from vqcodec.errors import FormatError
from vqcodec.format.container import Header
from vqcodec.model.limits import Deadline, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import Tiling
from vqcodec.stream import proportion, reader
from vqcodec.stream.levels import empty_maps, produce


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
    levels = empty_maps(model, tilings)
    intact = []
    for group, part in enumerate(tilings[0].groups):
        tiles = range(part.start, part.stop)
        source = partial(_source, model, tilings, streams, group, clock)
        intact.append(0)
        with suppress(FormatError):  # the finer levels of this group are lost
            for level, maps in enumerate(produce(model, tilings, [tiles] * len(tilings), source, head.rate)):
                tilings[level].paste(levels[level], tiles, maps.cpu())
                intact[-1] += 1
    return IndexMaps(tuple(levels), head.width, head.height), intact


def _source(
    model: Model, tilings: Sequence[Tiling], streams: Mapping[int, bytes], group: int, clock: Deadline, level: int
) -> reader.Source:
    """The stream of a group of tiles at one level. Raises FormatError if it is lost or too short."""
    stream = streams.get(group * len(model.priors) + level)
    if stream is None:
        raise FormatError(f"the stream of group {group} and level {level} is lost")
    proportion.check_length(proportion.least_bits(model.priors[level]), tilings[level], group, stream)
    return reader.Source([stream], tilings[level].group_tiles, clock)
