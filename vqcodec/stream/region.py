# SPDX-License-Identifier: Apache-2.0
"""The index maps around a part of an image, from the groups of tiles that lie there and no others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vqcodec import timing
from vqcodec.format.container import Container
from vqcodec.model.limits import DEFAULT_LIMITS, Deadline, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import Tiling
from vqcodec.nets.windows import Window
from vqcodec.stream import proportion, reader
from vqcodec.stream.levels import empty_maps, produce


@exactly
def read(model: Model, file: Container, windows: Sequence[Window], limits: Limits = DEFAULT_LIMITS) -> IndexMaps:
    """Read the index maps that a file holds in some windows; 0 elsewhere.

    Args:
        model: that the file was made with.
        file: its parts.
        windows: by level, coarsest first, each inside the one before; levels beyond are not read.
        limits: what it may cost.

    Raises: what `reader.read` does.
    """
    reader.check(model, file)
    head, clock = file.header, limits.deadline()
    tilings = model.tilings(head.width, head.height, head.group_tiles)
    proportion.check_lengths(model.priors, tilings, file.streams)
    wanted = [_groups(tiling, window) for tiling, window in zip(tilings, windows, strict=False)]
    count = len(wanted[0]) * head.group_tiles
    together = max(1, -(-reader.batch_tiles(model, head.width, head.height, len(wanted)) // head.group_tiles))
    limits.check_memory(proportion.memory(model.config, tilings, min(count, together * head.group_tiles)))
    levels, parts = empty_maps(model, tilings), tilings[0].groups  # the same groups at all levels
    for first in timing.steps("reading indices", range(0, len(wanted[0]), together)):
        batch = wanted[0][first : first + together]
        groups = [[group for group in batch if group in of_level] for of_level in wanted]
        tiles = [[tile for group in of_level for tile in _tiles(parts[group])] for of_level in groups]
        source = partial(_source, model, file, groups, clock)
        for level, maps in enumerate(produce(model, tilings, tiles, source, head.rate)):
            tilings[level].paste(levels[level], tiles[level], maps.cpu())
    return IndexMaps(tuple(levels), head.width, head.height)


def _source(
    model: Model, file: Container, groups: Sequence[Sequence[int]], deadline: Deadline, level: int
) -> reader.Source:
    """The streams of a level, of groups by level."""
    streams = [file.streams[group * len(model.priors) + level] for group in groups[level]]
    return reader.Source(streams, file.header.group_tiles, deadline)


def _groups(tiling: Tiling, window: Window) -> list[int]:
    """The groups of tiles that a window lies in, in order."""
    columns, size = tiling.grid[1], tiling.tile_size
    touched = {
        row * columns + column
        for row in range(window.top // size, -(-window.bottom // size))
        for column in range(window.left // size, -(-window.right // size))
    }
    return sorted({number // tiling.group_tiles for number, tile in enumerate(tiling.sequence) if tile in touched})


def _tiles(part: slice) -> range:
    """The tiles of a group."""
    return range(part.start, part.stop)
