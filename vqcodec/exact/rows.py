# SPDX-License-Identifier: Apache-2.0
"""Positions as rows, in the order of the stream, and what each of them sees.

A row is a position of a tile that lies in the image. Rows are sorted by step, then position (row by row of the map),
then tile, so that those of a step lie together; a layer's inputs are [rows + 1, C], and the last row is zero: it stands
for all neighbours that are masked or outside.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.exact.orders import Order


@dataclass(frozen=True, eq=False)
class Part:
    """Rows start..stop-1, which have one reach and are evaluated together.

    Args:
        step: of the first of them.
        first, last: slots of the first position and behind the last one in `Rows.sequence`.
        live: taps that are not masked for all of them.
        neighbours: int32 [(stop - start) * len(live)], rows.
    """

    start: int
    stop: int
    step: int
    first: int
    last: int
    reach: int
    live: tuple[int, ...]
    neighbours: Tensor


@dataclass(frozen=True, eq=False)
class _Run:
    """Consecutive steps with one reach and the same live taps: slots first..last-1 of the sequence."""

    step: int
    first: int
    last: int
    reach: int
    live: tuple[int, ...]


class Rows:
    """The rows of a batch of tiles.

    sequence: int64 [H * W], flat positions y * W + x by step. tiles, positions: int64 [M], of every row. slots: int64
    [M], of its position in the sequence. steps: parts of one step each, without those that have no rows; maps: parts
    for whole maps, which join consecutive steps.
    """

    def __init__(self, order: Order, tiles: int, valid: Tensor | None, device: torch.device) -> None:
        """valid: bool [N, H, W], False outside the image; None: all inside."""
        self.order, self.number, self.device = order, tiles, device
        self.sequence = torch.cat(order.steps).to(device)
        positions = len(self.sequence)
        if valid is None:
            self.inside: Tensor | None = None
            self.slots = torch.arange(positions, device=device).repeat_interleave(tiles)
            self.tiles = torch.arange(tiles, device=device).repeat(positions)
            self._ends = [slot * tiles for slot in range(positions + 1)]
        else:
            self.inside = valid.to(device).reshape(tiles, positions).t()[self.sequence]  # [H * W, N]
            self.slots, self.tiles = self.inside.nonzero(as_tuple=True)
            self._ends = [0, *self.inside.sum(1).cumsum(0).tolist()]
        self.positions = self.sequence[self.slots]
        self._row_of = torch.full(((positions + 1) * tiles,), len(self.tiles), dtype=torch.int32, device=device)
        rows = torch.arange(len(self.tiles), dtype=torch.int32, device=device)
        self._row_of[self.positions * tiles + self.tiles] = rows

    def __len__(self) -> int:
        return len(self.tiles)

    @functools.cached_property
    def steps(self) -> tuple[Part, ...]:
        return self._parts(_runs(self.order, False))

    @functools.cached_property
    def maps(self) -> tuple[Part, ...]:
        return self._parts(_runs(self.order, True))

    def _parts(self, runs: tuple[_Run, ...]) -> tuple[Part, ...]:
        parts = []
        for run in runs:
            start, stop = self._ends[run.first], self._ends[run.last]
            if start < stop:
                table = _neighbours(self.order, run.first, run.last, run.reach, run.live).to(self.device)
                flat = table[self.slots[start:stop] - run.first] * self.number + self.tiles[start:stop, None]
                neighbours = self._row_of[flat.flatten()]
                parts.append(Part(start, stop, run.step, run.first, run.last, run.reach, run.live, neighbours))
        return tuple(parts)

    def gathered(self, maps: Tensor) -> Tensor:
        """Gather [N, S, H, W] -> what the rows have, [M, S]."""
        flat = maps.flatten(2).transpose(1, 2)  # [N, H * W, S]
        return flat[self.tiles, self.positions]

    def scattered(self, rows: Tensor) -> Tensor:
        """Inverse of `gathered`: [M, S] -> [N, S, H, W], 0 outside the image."""
        maps = rows.new_zeros(self.number, self.order.height * self.order.width, rows.shape[1])
        maps[self.tiles, self.positions] = rows
        return maps.transpose(1, 2).reshape(self.number, -1, self.order.height, self.order.width)


@functools.lru_cache(maxsize=256)
def _runs(order: Order, joined: bool) -> tuple[_Run, ...]:
    """The steps of an order, or joined where they follow each other with one reach and the same live taps."""
    nothing = order.height * order.width
    runs: list[_Run] = []
    last = 0
    for positions in order.steps:
        first, last = last, last + len(positions)
        reach = int(order.reach[positions[0]])
        seen = _seen(order, reach)[positions] != nothing
        live = tuple(seen.any(0).nonzero()[:, 0].tolist())
        step = int(order.step[positions[0]])
        if joined and runs and (runs[-1].reach, runs[-1].live) == (reach, live):
            step, first = runs[-1].step, runs[-1].first
            runs.pop()
        runs.append(_Run(step, first, last, reach, live))
    return tuple(runs)


@functools.lru_cache(maxsize=1024)
def _neighbours(order: Order, first: int, last: int, reach: int, live: tuple[int, ...]) -> Tensor:
    """Flat positions, H * W for nothing, int64 [last - first, len(live)], at slots first..last-1 of the sequence."""
    positions = torch.cat(order.steps)[first:last]
    return _seen(order, reach)[positions][:, list(live)]


@functools.lru_cache(maxsize=256)
def _seen(order: Order, reach: int) -> Tensor:
    """`Order.neighbours` of a reach by flat position, int64 [H * W, taps]."""
    table = torch.full((order.height * order.width, order.neighbours[reach].shape[1]), order.height * order.width)
    table[order.positions[reach]] = order.neighbours[reach]
    return table
