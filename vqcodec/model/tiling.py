# SPDX-License-Identifier: Apache-2.0
"""Cutting the index maps of a level into tiles and back, and tiles into groups. Tiles concern the prior alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP_TILES = 16  # tiles that share a stream per level: with 256x256 tiles a megapixel


def groups(tiles: int) -> list[slice]:
    """Consecutive tiles of an image, GROUP_TILES at once and what is left."""
    return [slice(i, min(i + GROUP_TILES, tiles)) for i in range(0, tiles, GROUP_TILES)]


@dataclass(frozen=True)
class Tiling:
    """Tiles of an image of width x height pixels, for maps of one level, in raster order.

    tile_size: pixels, a multiple of the coarsest stride; coarsest: the stride the image is padded to; stride: that
    of the level. Tiles at the right and bottom edges may be cut short: positions outside are not valid.
    """

    width: int
    height: int
    tile_size: int
    coarsest: int
    stride: int

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
        """[S, H, W] -> [tiles, S, h, w], zero outside the image."""
        rows, columns = self.grid
        h, w = self.tile_shape
        height, width = maps.shape[1:]
        padded = torch.nn.functional.pad(maps, (0, columns * w - width, 0, rows * h - height))
        return padded.view(-1, rows, h, columns, w).permute(1, 3, 0, 2, 4).reshape(rows * columns, -1, h, w)

    def join(self, tiles: Tensor) -> Tensor:
        """Inverse of `split`: [tiles, S, h, w] -> [S, H, W]."""
        rows, columns = self.grid
        h, w = self.tile_shape
        height, width = self.map_shape
        whole = tiles.view(rows, columns, -1, h, w).permute(2, 0, 3, 1, 4).reshape(-1, rows * h, columns * w)
        return whole[:, :height, :width].contiguous()

    def valid(self) -> Tensor | None:
        """bool [tiles, h, w], False outside the image; None where every tile is whole."""
        height, width = self.map_shape
        inside = self.split(torch.ones(1, height, width, dtype=torch.bool))[:, 0]
        return None if bool(inside.all()) else inside
