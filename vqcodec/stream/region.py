# SPDX-License-Identifier: Apache-2.0
"""The index maps around a part of an image, from the groups of tiles that lie there and no others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqcodec import timing
from vqcodec.exact.engine import run
from vqcodec.format.container import Container
from vqcodec.model.limits import DEFAULT_LIMITS, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import Tiling
from vqcodec.nets.windows import Window
from vqcodec.stream import proportion, reader


@exactly
def read(model: Model, file: Container, windows: Sequence[Window], limits: Limits = DEFAULT_LIMITS) -> IndexMaps:
    """The index maps that a file holds in some windows; 0 elsewhere. Raises what `reader.read` does.

    Args:
        model: that the file was made with.
        file: its parts.
        windows: by level, coarsest first, each inside the one before; levels beyond are not read.
        limits: what it may cost.
    """
    reader.check(model, file)
    head, clock = file.header, limits.deadline()
    tilings = model.tilings(head.width, head.height, head.group_tiles)
    proportion.check_lengths(model.priors, tilings, file.streams)
    wanted = [_groups(tiling, window) for tiling, window in zip(tilings, windows, strict=False)]
    count = len(wanted[0]) * head.group_tiles
    together = max(1, -(-reader.batch_tiles(model, head.width, head.height, len(wanted)) // head.group_tiles))
    limits.check_memory(proportion.memory(model.config, tilings, min(count, together * head.group_tiles)))
    levels = [
        torch.zeros(level.maps, *tiling.map_shape, dtype=torch.int64)
        for level, tiling in zip(model.config.autoencoder.levels, tilings, strict=True)
    ]
    masks = [tiling.valid() for tiling in tilings[: len(wanted)]]
    parts = tilings[0].groups  # the same at all levels
    for first in range(0, len(wanted[0]), together):
        coarse: list[Tensor] = []
        groups = wanted[0][first : first + together]
        for level, (tiling, mask, prior) in enumerate(zip(tilings, masks, model.priors, strict=False)):
            present = [group for group in groups for _ in _tiles(parts[group])]
            rows = [row for row, group in enumerate(present) if group in wanted[level]]
            coarse, groups = [maps[rows] for maps in coarse], [group for group in groups if group in wanted[level]]
            if not groups:
                break
            tiles = [tile for group in groups for tile in _tiles(parts[group])]
            inside = None if mask is None else mask[tiles].to(model.device)
            streams = [file.streams[group * len(model.priors) + level] for group in groups]
            source = reader.Source(streams, head.group_tiles, clock)
            with timing.part("prior"):
                condition = prior.condition(coarse, (len(tiles), *tiling.tile_shape), inside, head.rate)
                coarse.append(run(prior, condition, source, inside))
            source.check()
            tiling.place(levels[level], tiles, coarse[-1].cpu())
    return IndexMaps(tuple(levels), head.width, head.height)


def _groups(tiling: Tiling, window: Window) -> list[int]:
    """The groups of tiles that a window lies in, in order."""
    columns, size = tiling.grid[1], tiling.tile_size
    touched = {
        row * columns + column
        for row in range(window.top // size, -(-window.bottom // size))
        for column in range(window.left // size, -(-window.right // size))
    }
    return sorted({place // tiling.group_tiles for place, tile in enumerate(tiling.sequence) if tile in touched})


def _tiles(part: slice) -> range:
    """The tiles of a group."""
    return range(part.start, part.stop)
