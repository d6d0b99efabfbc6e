# SPDX-License-Identifier: Apache-2.0
"""What a position is given ahead of its level: the maps of the coarser levels and the trade-off.

Layout is [tiles, H, W, channels].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.config import LevelConfig, PriorConfig
from vqcodec.exact import ops
from vqcodec.exact.rows import Rows
from vqcodec.exact.tensors import Reader

TRADEOFFS = 256  # a trade-off is a byte

# The neighbourhood of a position, as (dy, dx), in the order of the rows of the conditioning stack's weights.
AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


@dataclass(frozen=True, eq=False)
class Condition:
    """Vectors of all positions of a batch of tiles.

    Args:
        shape: (N, H, W).
        cells: float32 integers [N, h, w, r * r, C], of the r x r positions of every cell, row by row; r is H / h.
    """

    shape: tuple[int, int, int]
    cells: Tensor

    def of_rows(self, rows: Rows) -> Tensor:
        """Return the condition of rows, [M, C]."""
        _, height, width = self.shape
        ratio = height // self.cells.shape[1]
        y, x = rows.positions // width, rows.positions % width
        cell = (rows.tiles * (height // ratio) + y // ratio) * (width // ratio) + x // ratio
        index = (cell * ratio + y % ratio) * ratio + x % ratio
        return self.cells.flatten(0, 3).index_select(0, index)


class Conditioning:
    """The conditioning stack of a level's prior; it works at the stride of the level above if the configuration says
    so, and is expanded after it."""

    def __init__(self, config: PriorConfig, level: LevelConfig, coarser: Sequence[LevelConfig], reader: Reader) -> None:
        channels = config.channels
        self.coarser = tuple(coarser)
        self.above = config.cond_above and bool(coarser)
        self.stride = coarser[-1].stride if self.above else level.stride
        self.ratio = self.stride // level.stride
        self.base = reader.get("base", (channels,))
        self.rate = reader.get("rate", (config.tradeoffs, channels)) if config.tradeoffs else None
        self.tables = [
            reader.get(f"cond_coarse.{i}", ((other.stride // self.stride) ** 2 * sum(other.alphabets), channels))
            for i, other in enumerate(coarser)
        ]
        self.blocks = [
            (
                reader.linear(f"cond.{i}.inner", 9 * channels, channels),
                reader.linear(f"cond.{i}.outer", channels, channels),
            )
            for i in range(config.cond_blocks)
        ]
        self.expand = reader.linear("expand", channels, self.ratio**2 * channels) if self.above else None

    def __call__(
        self, coarse: Sequence[Tensor], shape: tuple[int, int, int], valid: Tensor | None, tradeoff: int
    ) -> Condition:
        """See `IntegerPrior.condition`."""
        n, height, width = shape
        r = self.ratio
        if height % r or width % r:
            raise ValueError(f"maps of {height}x{width} are no multiple of {r}")
        cells = (n, height // r, width // r)
        inside = None if valid is None else valid.view(n, height // r, r, width // r, r).any(4).any(2)
        x = self._start(coarse, cells, tradeoff)
        x = _inside(ops.clamped(x), inside)
        for inner, outer in self.blocks:
            update = ops.rectified(ops.rounded(shifted(x), inner))
            update = ops.clamped(ops.rounded(update, outer))
            x = _inside(ops.clamped(update.add_(x)), inside)
        if self.expand is not None:
            x = ops.clamped(ops.rounded(x, self.expand))
        return Condition(shape, x.view(*cells, r * r, -1))

    def _start(self, coarse: Sequence[Tensor], cells: tuple[int, int, int], tradeoff: int) -> Tensor:
        """The sum of all embeddings, [N, h, w, C]."""
        if not 0 <= tradeoff < TRADEOFFS:
            raise ValueError(f"the trade-off is a byte, not {tradeoff}")
        base = self.base if self.rate is None else self.base + self.rate[tradeoff * len(self.rate) // TRADEOFFS]
        x = base.repeat(*cells, 1)
        for table, maps, other in zip(self.tables, coarse, self.coarser, strict=True):
            ratio = other.stride // self.stride
            index = maps.permute(0, 2, 3, 1) + ops.offsets(other.alphabets).to(maps.device)  # [N, h_i, w_i, maps]
            index = upsampled(index, ratio, sum(other.alphabets))
            x += ops.embedded(table, index)
        return x


def shifted(x: Tensor) -> Tensor:
    """Every position and its eight neighbours side by side, zero outside: [N, H, W, C] -> [N, H, W, 9C]."""
    h, w = x.shape[1:3]
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in AROUND], -1)


def upsampled(index: Tensor, ratio: int, rows: int) -> Tensor:
    """Repeat every index over the positions it covers, and number them by their phase, (y % r) * r + x % r.

    Args:
        index: rows of a table, int64 [N, h, w, maps] in 0..rows-1.
        ratio: r, positions along each axis that one index covers.
        rows: rows of the table for one phase.

    Returns: int64 [N, r * h, r * w, maps] in 0..r*r*rows-1.
    """
    fine = index.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    y = torch.arange(fine.shape[1], device=index.device) % ratio
    x = torch.arange(fine.shape[2], device=index.device) % ratio
    return fine + ((y[:, None] * ratio + x) * rows)[..., None]


def _inside(x: Tensor, inside: Tensor | None) -> Tensor:
    return x if inside is None else x * inside[..., None]
