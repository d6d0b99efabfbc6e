# SPDX-License-Identifier: Apache-2.0
"""Cutting the index maps of a level into tiles and back, and tiles into groups. Tiles concern the prior alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP_TILES = 16  # tiles that share a stream per level: with 256x256 tiles a megapixel
LARGE = 64  # tiles of an image above which groups have a quarter of that, so that a region reads little
BAND = 4  # rows of tiles that are listed column by column: groups are squares, or nearly


@functools.lru_cache(maxsize=64)
def sequence(rows: int, columns: int, group_tiles: int) -> tuple[int, ...]:
    """List the tiles of a grid in the order of a file: group after group, row by row in a group.

    Args:
        rows: of tiles.
        columns: of tiles.
        group_tiles: tiles of a group.

    Returns: numbers of the tiles, which are counted row by row.
    """
    listed = [
        row * columns + column
        for top in range(0, rows, BAND)
        for column in range(columns)
        for row in range(top, min(top + BAND, rows))
    ]
    groups = (listed[first : first + group_tiles] for first in range(0, len(listed), group_tiles))
    return tuple(tile for group in groups for tile in sorted(group))


@dataclass(frozen=True)
class Tiling:
    """Tiles of an image of width x height pixels, for maps of one level, in the order of a file.

    tile_size: pixels, a multiple of the coarsest stride; coarsest: the stride the image is padded to; stride: that
    of the level. Tiles at the right and bottom edges may be cut short: positions outside are not valid. per_group:
    tiles that share a stream; None: as many as this version writes.
    """

    width: int
    height: int
    tile_size: int
    coarsest: int
    stride: int
    per_group: int | None = None

    @property
    def group_tiles(self) -> int:
        """Tiles that share a stream of every level."""
        if self.per_group is not None:
            return self.per_group
        return GROUP_TILES if math.prod(self.grid) <= LARGE else max(1, GROUP_TILES // 4)

    @property
    def sequence(self) -> tuple[int, ...]:
        """The tiles, numbered row by row, in the order of a file."""
        return sequence(*self.grid, self.group_tiles)

    @property
    def groups(self) -> list[slice]:
        """The tiles that share a stream."""
        tiles = math.prod(self.grid)
        return [slice(i, min(i + self.group_tiles, tiles)) for i in range(0, tiles, self.group_tiles)]

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the level's maps."""
        per = self.coarsest // self.stride
        return -(-self.height // self.coarsest) * per, -(-self.width // self.coarsest) * per

    @property
    def side(self) -> int:
        """Indices along the side of a whole tile."""
        return self.tile_size // self.stride

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // self.tile_size), -(-self.width // self.tile_size)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of the batched tiles: whole tiles, or the map itself where it is smaller than one."""
        height, width = self.map_shape
        return min(self.side, height), min(self.side, width)

    def split(self, maps: Tensor) -> Tensor:
        """Cut maps into tiles: [S, H, W] -> [tiles, S, h, w], zero outside the image."""
        rows, columns = self.grid
        h, w = self.tile_shape
        height, width = maps.shape[1:]
        padded = torch.nn.functional.pad(maps, (0, columns * w - width, 0, rows * h - height))
        tiles = padded.view(-1, rows, h, columns, w).permute(1, 3, 0, 2, 4).reshape(rows * columns, -1, h, w)
        return tiles if self.sequence == tuple(range(len(tiles))) else tiles[list(self.sequence)]

    def join(self, tiles: Tensor) -> Tensor:
        """Put tiles together, the inverse of `split`: [tiles, S, h, w] -> [S, H, W]."""
        rows, columns = self.grid
        h, w = self.tile_shape
        height, width = self.map_shape
        if self.sequence != tuple(range(len(tiles))):
            tiles = tiles[torch.tensor(self.sequence, device=tiles.device).argsort()]
        whole = tiles.view(rows, columns, -1, h, w).permute(2, 0, 3, 1, 4).reshape(-1, rows * h, columns * w)
        return whole[:, :height, :width].contiguous()

    def paste(self, maps: Tensor, numbers: Sequence[int], tiles: Tensor) -> None:
        """Paste tiles into maps.

        Args:
            maps: [S, H, W], is changed.
            numbers: of the tiles, in the order of a file.
            tiles: [n, S, h, w].
        """
        (h, w), columns = self.tile_shape, self.grid[1]
        for number, tile in zip(numbers, tiles, strict=True):
            row, column = divmod(self.sequence[number], columns)
            part = maps[:, row * h : (row + 1) * h, column * w : (column + 1) * w]
            part[:] = tile[:, : part.shape[1], : part.shape[2]]

    def valid(self, numbers: Sequence[int] | None = None) -> Tensor | None:
        """Say which positions of tiles lie in the image.

        Args:
            numbers: of the tiles, in the order of a file; None: all.

        Returns: bool [tiles, h, w]; None where every tile of the image is whole.
        """
        (h, w), (height, width) = self.tile_shape, self.map_shape
        if height % h == 0 and width % w == 0:
            return None
        listed = self.sequence if numbers is None else [self.sequence[number] for number in numbers]
        tiles = torch.tensor(listed)[:, None]
        inside_rows = tiles // self.grid[1] * h + torch.arange(h) < height  # [tiles, h]
        inside_columns = tiles % self.grid[1] * w + torch.arange(w) < width  # [tiles, w]
        return inside_rows[:, :, None] & inside_columns[:, None, :]
