# SPDX-License-Identifier: Apache-2.0
"""The choice of codes of a residual quantiser: distortion + weight * bits, over all stages and all endings.

Costs are in nats: -log p of what was chosen plus the squared distance divided by the weight of a nat, which differs
between positions. So all codes of a stage are priced by one product, added to the log probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vqcodec.config import LevelConfig

PATIENCE = 2  # stages without a better ending after which a position leaves the search
ROWS = 1024  # partial choices that are priced together: their costs stay in a processor's cache
ROWS_ELSEWHERE = 1 << 17
LEAST_WEIGHT = 1e-9  # of a bit: with none, the distance decides alone
CLASSES = 64  # of the candidates of a position, among which the best are looked for first


class CodeLengths(Protocol):
    """What every code costs at each of M positions, given the codes that the stages before have there."""

    def logs(self, stage: int, earlier: Tensor | None, rows: Tensor) -> Tensor:
        """Logarithms of the probabilities of a stage's codes.

        Args:
            stage: residual or product stage.
            earlier: float [M', B, C], the sum of `handed_on` over the stages before; None for the first.
            rows: int64 [M'], the positions that are asked for.

        Returns: float [M', B, K], of a product stage [M', B, G, K], or what can be expanded to it; B is 1 where
        `earlier` is None.
        """

    def handed_on(self, stage: int, index: Tensor) -> Tensor | None:
        """Compute what the indices of a stage tell the later ones.

        Args:
            stage: number of the stage, from 0.
            index: int64 [M', B], of a product stage [M', B, G].

        Returns: float [M', B, C]; None for nothing.
        """


class OrderZero:
    """The same cost everywhere: bits of one table per stage, float [K] or, of a product stage, [G, K]."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        self._logs = [table * -math.log(2) for table in tables]

    def logs(self, stage: int, earlier: Tensor | None, rows: Tensor) -> Tensor:
        """As `CodeLengths.logs`; positions do not matter here.

        Args:
            stage: number of the stage, from 0.
            earlier: not used.
            rows: not used.
        """
        return self._logs[stage]

    def handed_on(self, stage: int, index: Tensor) -> Tensor | None:
        """As `CodeLengths.handed_on`: nothing.

        Args:
            stage: not used.
            index: not used.
        """
        return None


class Choice(NamedTuple):
    """indices: int64 [M, maps]. stages: int64 [M], the stages that added something."""

    indices: Tensor
    stages: Tensor


class Codebooks:
    """A quantiser's codewords, ready for products. Distances are |R (r - c)|^2 with the metric R."""

    def __init__(self, level: LevelConfig, residual: Tensor, products: Tensor | None, metric: Tensor) -> None:
        """residual: float [S, K, D]; products: float [P, G, K', D / G]; metric: R, float [D, D]."""
        self.level, self.metric = level, metric
        self.codes = residual @ metric.t()  # [S, K, D]
        self.prices = _priced(self.codes, self.codes.square().sum(-1))
        if products is not None:
            square = metric.t() @ metric
            moved = [part @ square[rows] for part, rows in zip(products.unbind(1), self._groups(), strict=True)]
            self.moved = torch.stack(moved, 1)  # [P, G, K', D], R^T R c
            within = [(part[..., rows] * codes).sum(-1) for part, codes, rows in
                      zip(moved, products.unbind(1), self._groups(), strict=True)]  # fmt: skip
            self.product_prices = _priced(products, torch.stack(within, 1))

    def _groups(self) -> list[slice]:
        size = self.level.dim // self.level.groups
        return [slice(first, first + size) for first in range(0, self.level.dim, size)]


def _priced(codes: Tensor, squares: Tensor) -> Tensor:
    """Codes [..., K, D] and their squared lengths [..., K] as the right side of a product that gives costs, [..., D +
    2, K]: on the left side are s * r, s and what is added for all codes."""
    rows = torch.stack([squares, torch.ones_like(squares)], -2)
    return torch.cat([codes.transpose(-1, -2) * -2, rows], -2)


@torch.no_grad()
def choose(books: Codebooks, vectors: Tensor, weights: Tensor, lengths: CodeLengths, beam: int = 1) -> Choice:
    """Choose the cheapest codes and the cheapest ending, as far as a beam finds them.

    Args:
        books: of the level.
        vectors: float [M, D], of half precision too.
        weights: float [M], of a bit.
        lengths: of the codes at the M positions.
        beam: partial choices that are kept at every position from stage to stage; 1: greedily the best code.
    """
    number = max(1, (ROWS if vectors.device.type == "cpu" else ROWS_ELSEWHERE) // beam)
    scales = math.log(2) / weights.clamp(min=LEAST_WEIGHT)
    rows = torch.arange(len(vectors), device=vectors.device)
    parts = [_Search(books, vectors, scales, lengths, part, beam).run() for part in rows.split(number)]
    return Choice(torch.cat([part.indices for part in parts]).long(), torch.cat([part.stages for part in parts]))


class _Search:
    """Of some positions. M of them are still looked at, each has B partial choices.

    rows: int64 [M], among all positions; here: among those of this search. Partial choices are sorted by cost, but for
    those of product stages. scale: float [M], what squared distances are
    multiplied by. residual: float [M, B, D], scale * R (vector - codewords), from the first product stage on scale *
    R^T R (vector - codewords). cost: float [M, B], of the partial choice if nothing were to follow for free.
    """

    def __init__(
        self,
        books: Codebooks,
        vectors: Tensor,
        scales: Tensor,
        lengths: CodeLengths,
        rows: Tensor,
        beam: int,
    ) -> None:
        self.books, self.level, self.lengths, self.beam = books, books.level, lengths, beam
        self.rows, self.scale = rows, scales[rows]
        chosen_for = vectors[rows].float()
        moved = chosen_for @ books.metric.t()
        self.cost = (moved.square().sum(1) * self.scale)[:, None]
        self.residual = (moved * self.scale[:, None])[:, None]
        self.chosen = torch.zeros(len(rows), 1, self.level.maps, dtype=torch.int16, device=rows.device)
        self.earlier: Tensor | None = None
        self.here = torch.arange(len(rows), device=rows.device)
        self.since = torch.zeros_like(rows)  # stages without a better ending
        self.best = chosen_for.new_full((len(rows),), math.inf)
        self.stages = torch.zeros_like(rows)
        self.indices = torch.zeros(len(rows), self.level.maps, dtype=torch.int16, device=rows.device)

    def run(self) -> Choice:
        for stage in range(self.level.stages):
            product = stage >= self.level.codebooks
            logs = self.lengths.logs(stage, self.earlier, self.rows)
            prices = self._group_prices(logs) if product else self._prices(stage, logs)
            if self.level.stop:
                nothing = self.cost - prices[..., 0].sum(-1) if product else prices[..., 0]
                prices = self._leave(nothing, prices, stage)
                if not len(self.rows):
                    break
            index = self._extend_groups(stage, prices) if product else self._extend(stage, prices)
            if stage + 1 < self.level.stages and (added := self.lengths.handed_on(stage, index)) is not None:
                self.earlier = added if self.earlier is None else added.add_(self.earlier)
        else:
            self._end(self.cost, self.level.stages)
        return Choice(self.indices, self.stages)

    def _left(self, residual: Tensor, cost: Tensor) -> Tensor:
        """The left side of a product with `_priced` codes, [M * B, D + 2]."""
        columns = self.scale[:, None].expand_as(cost)[..., None], cost[..., None]
        return torch.cat([residual, *columns], -1).flatten(0, 1)

    def _prices(self, stage: int, logs: Tensor) -> Tensor:
        """Costs with every code of a residual stage, [M, B, K]."""
        left, right = self._left(self.residual, self.cost), self.books.prices[stage]
        shape = (*self.cost.shape, right.shape[1])
        if logs.shape == shape:
            return logs.view(len(left), -1).addmm_(left, right, beta=-1).view(shape)
        return torch.addmm(logs.expand(shape).reshape(len(left), -1), left, right, beta=-1).view(shape)

    def _group_prices(self, logs: Tensor) -> Tensor:
        """Logarithms of a product stage, [M, B, G, K]."""
        return logs.expand(*self.cost.shape, *logs.shape[-2:])

    def _leave(self, nothing: Tensor, prices: Tensor, stage: int) -> Tensor:
        """Note the endings before a stage, of these costs [M, B], and drop the positions that gain no more. Returns the
        prices of those that stay."""
        self.since = torch.where(self._end(nothing, stage), 0, self.since + 1)
        stay = self.since < PATIENCE
        if 0 < stage <= self.level.codebooks:
            stay &= self._spent() < self.best[self.here]
        if int(stay.sum()) > 0.9 * len(stay):  # dropping fewer is no gain
            return prices
        keep = stay.nonzero()[:, 0]
        for name in ("rows", "here", "scale", "since", "cost", "residual", "chosen", "earlier"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.index_select(0, keep))
        return prices.index_select(0, keep)

    def _spent(self) -> Tensor:
        """Nats of the cheapest partial choice of every position, [M]: no ending can cost less."""
        return (self.cost - self.residual.square().sum(-1) / self.scale[:, None]).amin(1)

    def _end(self, costs: Tensor, stages: int) -> Tensor:
        """Note the cheapest of partial choices as an ending after so many stages; bool [M], where it is better than
        those before. costs: [M, B]."""
        cost, which = costs.min(1)
        improved = cost < self.best[self.here]
        rows = improved.nonzero()[:, 0]
        at = self.here[rows]
        self.best[at], self.stages[at] = cost[rows], stages
        self.indices[at] = self.chosen[rows, which[rows]]
        return improved

    def _extend(self, stage: int, prices: Tensor) -> Tensor:
        """Keep the best partial choices with one more code; its index, int64 [M, B']."""
        if self.level.stop:
            prices[..., 0] = math.inf  # that is an ending
        m, b, k = prices.shape
        number = min(self.beam, b * (k - self.level.stop))
        self.cost, flat = _smallest(prices.view(m, b * k), number)
        index = flat % k
        parent = flat // k + torch.arange(0, m * b, b, device=flat.device)[:, None]
        added = self.books.codes[stage].index_select(0, index.flatten()).view(m, number, -1)
        self.residual = self._of(parent, self.residual).addcmul_(added, self.scale[:, None, None], value=-1)
        self.chosen = self._of(parent, self.chosen)
        self.chosen[..., stage] = index.short()
        self.earlier = None if self.earlier is None else self._of(parent, self.earlier)
        return index

    @staticmethod
    def _of(parent: Tensor, values: Tensor) -> Tensor:
        """[M, B, ...] -> those of the chosen partial choices, int64 [M, B'] in 0..M*B-1."""
        return values.flatten(0, 1).index_select(0, parent.flatten()).view(*parent.shape, *values.shape[2:])

    def _extend_groups(self, stage: int, logs: Tensor) -> Tensor:
        """Add the best code of every group, group after group, to every partial choice; int64 [M, B, G]."""
        m, b = self.cost.shape
        product, size = stage - self.level.codebooks, self.level.dim // self.level.groups
        scale = self.scale[:, None].expand(m, b).reshape(-1, 1)
        residual, total = self.residual.flatten(0, 1), self.cost.flatten()
        if not product:
            residual = residual @ self.books.metric
        none = torch.zeros_like(scale)
        indices = []
        for group in range(self.level.groups):
            left = torch.cat([residual[:, group * size : (group + 1) * size], scale, none], 1)
            costs = logs[..., group, :].reshape(m * b, -1)
            cost, index = torch.addmm(costs, left, self.books.product_prices[product, group], beta=-1).min(1)
            total = total + cost
            residual = torch.addcmul(residual, self.books.moved[product, group][index], scale, value=-1)
            indices.append(index)
        chosen = torch.stack(indices, 1)
        if self.level.stop:  # all zero is an ending
            total = total.masked_fill(~chosen.any(1), math.inf)
        self.residual, self.cost = residual.view(m, b, -1), total.view(m, b)
        self.chosen[..., self.level.stage_maps(stage)] = chosen.view(m, b, -1).short()
        return chosen.view(m, b, -1)


def _smallest(costs: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the smallest of every row, the least first, [M, N] -> [M, number] each.

    On a CPU the least of many is quick to find, its index is not: the smallest lie in those classes (indices modulo
    CLASSES) whose own least is smallest.
    """
    m, n = costs.shape
    if number == 1:
        value, flat = costs.min(1)
        return value[:, None], flat[:, None]
    if n % CLASSES or n <= 4 * CLASSES or number > CLASSES // 4:
        values, indices = costs.topk(number, 1, largest=False)
        return values, indices
    members = costs.view(m, -1, CLASSES)
    classes = members.amin(1).topk(number, 1, largest=False, sorted=False).indices  # [M, number]
    few = members.gather(2, classes[:, None].expand(-1, members.shape[1], -1)).flatten(1)
    values, which = few.topk(number, 1, largest=False)
    return values, which // number * CLASSES + classes.gather(1, which % number)
