# SPDX-License-Identifier: Apache-2.0
"""Orders of the positions of a tile: which are evaluated and coded together, and what they see of those before.

An order gives every position a step. A position sees the neighbours among its taps whose step is smaller than its own,
and nothing outside the map. The stream has the indices by step, then by stage, by position (row by row) and by tile.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

Taps = tuple[tuple[int, int], ...]

# The neighbours (dy, dx) at distance 1, in the order of the rows of a layer's weight.
RING: Taps = ((0, -1), (-1, 1), (-1, 0), (-1, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True)
class OrderKind:
    """What a prior's weights know of an order, whatever the size of the map.

    Args:
        reaches: the taps of each kind of position; each has weights of its own.
        steps: number of steps that add a learned vector to the condition, 0: none.
    """

    reaches: tuple[Taps, ...]
    steps: int


KINDS = {
    "waves": OrderKind((RING[:4],), 0),
    "seven": OrderKind((RING, tuple((2 * dy, 2 * dx) for dy, dx in RING)), 7),
}


@dataclass(frozen=True, eq=False)
class Order:
    """An order for maps of height x width; flat positions are y * width + x.

    Args:
        step: int64 [H * W].
        reach: int64 [H * W], which of the kind's `reaches` a position has.
        neighbours: by reach, int64 [P_r, taps], flat positions that the positions of that reach see, H * W ("nothing")
            where a tap is masked or outside.
        positions: by reach, int64 [P_r].
        steps: the positions of every step that has any, int64 [n] each, row by row; all positions of a step have one
            reach.
    """

    kind: OrderKind
    height: int
    width: int
    step: Tensor
    reach: Tensor
    neighbours: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]
    steps: tuple[Tensor, ...]


def _waves(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Position (y, x) is in step x + 2y: left, above right, above and above left are earlier."""
    step = torch.arange(width) + 2 * torch.arange(height)[:, None]
    return step, torch.zeros_like(step)


def _seven(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Phases (y, x) modulo 2 in the order (0, 0), (1, 1), (0, 1), (1, 0); those of (0, 0) again in four by y / 2 and
    x / 2, which see their neighbours at distance 2."""
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    phase = torch.tensor([[0, 2], [3, 1]])
    fine, coarse = phase[y % 2, x % 2], phase[y // 2 % 2, x // 2 % 2]
    return torch.where(fine == 0, coarse, fine + 3), (fine == 0).long()


_TABLES = {"waves": _waves, "seven": _seven}


@functools.lru_cache(maxsize=256)
def order(name: str, height: int, width: int) -> Order:
    """Make the order of a name for a map of this size, on the CPU.

    Args:
        name: `seven` or `waves`.
        height: positions of the map, from top to bottom.
        width: positions of the map, from left to right.

    Raises: KeyError if there is no such order.
    """
    with torch.inference_mode(False):  # kept for all callers, those that train included
        return _order(name, height, width)


def _order(name: str, height: int, width: int) -> Order:
    kind = KINDS[name]
    step, reach = (table.flatten() for table in _TABLES[name](height, width))
    nothing = height * width
    y, x = torch.arange(nothing) // width, torch.arange(nothing) % width
    neighbours, positions = [], []
    for r, taps in enumerate(kind.reaches):
        members = (reach == r).nonzero()[:, 0]
        offsets = torch.tensor(taps)
        ny, nx = y[members, None] + offsets[:, 0], x[members, None] + offsets[:, 1]
        inside = (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
        flat = torch.where(inside, ny * width + nx, 0)
        earlier = inside & (step[flat] < step[members, None])
        neighbours.append(torch.where(earlier, flat, nothing))
        positions.append(members)
    steps = tuple((step == s).nonzero()[:, 0] for s in step.unique().tolist())
    return Order(kind, height, width, step, reach, tuple(neighbours), tuple(positions), steps)
