# SPDX-License-Identifier: Apache-2.0
"""The order in which indices are coded: by wave t = x + 2y, within a wave by stage, then by tile, then by row."""

from __future__ import annotations

import torch
from torch import Tensor


def wave_of(height: int, width: int) -> Tensor:
    """Wave of every position, int64 [H, W]: 3x3 causal neighbours are one, two and three waves back."""
    return torch.arange(width) + 2 * torch.arange(height)[:, None]


def number_of_waves(height: int, width: int) -> int:
    """94 for a 32x32 map, 190 for 64x64."""
    return width + 2 * (height - 1)


def rows_of_wave(t: int, height: int, width: int) -> tuple[int, int]:
    """First and one-past-last row that wave t touches; row y is touched at column t - 2y."""
    return max(0, (t - width + 2) // 2), min(height - 1, t // 2) + 1


def positions_by_wave(height: int, width: int) -> Tensor:
    """Flat positions y * W + x of a map sorted by wave, then row: int64 [H * W]."""
    wave = wave_of(height, width).flatten()
    row = torch.arange(height).repeat_interleave(width)
    return torch.argsort(wave * height + row)


def drawing_order(stages: int, height: int, width: int) -> Tensor:
    """Flat places (s * H + y) * W + x of one tile's maps, by wave, stage, row: int64 [S * H * W]."""
    place = positions_by_wave(height, width)
    wave = wave_of(height, width).flatten()[place]
    stage = torch.arange(stages)[:, None]
    order = torch.argsort((wave * stages + stage).flatten(), stable=True)
    return (stage * height * width + place).flatten()[order]


def coding_order(tiles: int, height: int, width: int, valid: Tensor | None = None) -> Tensor:
    """Flat positions of a batch of tile maps, (n * H + y) * W + x, as a stage has them in the stream: by wave, tile,
    row. `coded_by_wave` says how many belong to each wave.

    valid: bool [N, H, W]; positions outside the image are not coded. Returns int64 [number of coded positions].
    """
    wave = wave_of(height, width).flatten()
    row = torch.arange(height).repeat_interleave(width)
    tile = torch.arange(tiles)[:, None]
    order = torch.argsort(((wave * tiles + tile) * height + row).flatten())
    return order if valid is None else order[valid.cpu().flatten()[order]]


def coded_by_wave(tiles: int, height: int, width: int, valid: Tensor | None = None) -> list[int]:
    """How many positions of `coding_order` belong to each wave."""
    wave = wave_of(height, width)
    inside = torch.ones(tiles, height, width, dtype=torch.bool) if valid is None else valid.cpu()
    return torch.bincount(wave.expand_as(inside)[inside], minlength=number_of_waves(height, width)).tolist()
