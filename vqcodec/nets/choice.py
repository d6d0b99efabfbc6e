# SPDX-License-Identifier: Apache-2.0
"""The choice of codes of a residual quantiser: distortion + weight * bits, over all stages and all endings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vqcodec.config import LevelConfig

PATIENCE = 2  # stages without a better ending after which a position leaves the search


class CodeLengths(Protocol):
    """What every code costs at each of M positions, given the codes that the stages before have there."""

    def bits(self, stage: int, told: Tensor | None, rows: Tensor | None = None) -> Tensor:
        """float [..., M, K] or [K]; of a product stage [..., M, G, K] or [G, K]. told: sum of `told` over the stages
        before, None for the first. rows: int64 [M'], the positions that are asked for (None: all)."""

    def told(self, stage: int, index: Tensor) -> Tensor:
        """What the indices of a stage, int64 [..., M], of a product stage [..., M, G], tell the later ones: float
        [..., M, C]."""


class OrderZero:
    """The same cost everywhere: code lengths of one table per stage, float [K] or, of a product stage, [G, K]."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        self.tables = tables

    def bits(self, stage: int, told: Tensor | None, rows: Tensor | None = None) -> Tensor:
        return self.tables[stage]

    def told(self, stage: int, index: Tensor) -> Tensor:
        return self.tables[0].new_zeros(())


class Codebooks(Protocol):
    """What the search needs of a quantiser."""

    level: LevelConfig

    def codes_of(self, stage: int) -> Tensor:
        """The codewords of a stage, float [K, D], of a product stage [G, K, D / G]."""


class Choice(NamedTuple):
    """indices: int64 [M, maps]. residual: float [M, D], what they leave. stages: int64 [M], the stages that added
    something."""

    indices: Tensor
    residual: Tensor
    stages: Tensor


class Step(NamedTuple):
    """The best codes of a stage: index int64 [M] or [M, G]; added: float [M, D], their codewords; spent: float [M],
    weight * bits of them; ending: the same of code 0."""

    index: Tensor
    added: Tensor
    spent: Tensor
    ending: Tensor


def nearest(vectors: Tensor, codes: Tensor, price: Tensor, going_on: bool = False) -> Tensor:
    """Index of the best of the codes [K, D] for every vector. vectors: float [M, D] -> int64 [M]. price: float [M, K]
    or [K], added to the squared distances. going_on: any code but 0."""
    # |r - c|^2 without |r|^2, which is the same for all codes
    cost = torch.addmm(codes.square().sum(1) + price, vectors, codes.t(), alpha=-2.0)
    return cost[:, 1:].argmin(1) + 1 if going_on else cost.argmin(1)


def best_codes(books: Codebooks, stage: int, residual: Tensor, weight: Tensor, bits: Tensor) -> Step:
    """One stage. residual: float [M, D]; weight: float [M]; bits: of `CodeLengths`."""
    codes = books.codes_of(stage)
    if stage < books.level.codebooks:
        price = weight[:, None] * bits  # [M, K]
        index = nearest(residual, codes, price, books.level.stop)
        return Step(index, codes[index], price.gather(1, index[:, None])[:, 0], price[:, 0])
    price = weight[:, None, None] * bits  # [M, G, K]
    index, cost = _best_of_groups(residual, codes, price)
    added = codes[torch.arange(books.level.groups, device=index.device), index].flatten(1)
    price = price.expand_as(cost)
    return Step(index, added, price.gather(2, index[..., None])[..., 0].sum(1), price[:, :, 0].sum(1))


def _best_of_groups(residual: Tensor, codes: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [M, G] of a product stage, and every code's cost without the residual's own square, [M, G, K]."""
    groups = residual.view(len(residual), len(codes), -1)
    cost = torch.einsum("mgd,gkd->mgk", groups, codes).mul_(-2).add_(codes.square().sum(-1)).add_(price)
    return cost.argmin(-1), cost


class _Endings:
    """The cheapest ending of every position so far."""

    def __init__(self, vectors: Tensor) -> None:
        m = len(vectors)
        self.cost = vectors.new_full((m,), math.inf)
        self.stages = torch.zeros(m, dtype=torch.int64, device=vectors.device)
        self.residual = vectors.clone()

    def note(self, rows: Tensor, residual: Tensor, spent: Tensor, stages: int) -> Tensor:
        """An ending after so many stages, at some positions; bool [rows], where it is better than those before."""
        cost = residual.square().sum(1) + spent
        improved = cost < self.cost[rows]
        better = rows[improved]
        self.cost[better], self.stages[better], self.residual[better] = cost[improved], stages, residual[improved]
        return improved


def greedy(books: Codebooks, vectors: Tensor, weights: Tensor, costs: CodeLengths) -> Choice:
    """The best code stage after stage; of all endings on the way the cheapest. vectors: float [M, D], weights: [M]."""
    level = books.level
    rows = torch.arange(len(vectors), device=vectors.device)  # that still look for a better ending
    residual, spent = vectors, vectors.new_zeros(len(vectors))
    indices = torch.zeros(len(vectors), level.maps, dtype=torch.int64, device=vectors.device)
    since = torch.zeros_like(rows)
    best = _Endings(vectors)
    told: Tensor | None = None
    for stage in range(level.stages):
        step = best_codes(books, stage, residual, weights[rows], costs.bits(stage, told, rows))
        if level.stop:
            since = torch.where(best.note(rows, residual, spent + step.ending, stage), 0, since + 1)
            go = (since < PATIENCE) & (spent < best.cost[rows])
            if not bool(go.all()):
                rows, residual, spent, since = rows[go], residual[go], spent[go], since[go]
                step = Step(*(part[go] for part in step))
                told = told if told is None or told.dim() < 2 else told[go]
        if not len(rows):
            break
        residual, spent = residual - step.added, spent + step.spent
        indices[rows, level.stage_maps(stage)] = step.index.view(len(rows), -1)
        if stage + 1 < level.stages:
            add = costs.told(stage, step.index)
            told = add if told is None else told + add
    else:
        best.note(rows, residual, spent, level.stages)
    return Choice(ended(indices, best.stages, level), best.residual, best.stages)


def choose_by_beam(books: Codebooks, vectors: Tensor, weights: Tensor, costs: CodeLengths, beam: int) -> Choice:
    """As `greedy`, with the `beam` best partial choices at every position: tensors [B, M, ...].

    A position leaves once no partial choice can still beat its best ending, or none has for PATIENCE stages.
    """
    level, device = books.level, vectors.device
    rows = torch.arange(len(vectors), device=device)
    residual, spent = vectors[None], vectors.new_zeros(1, len(vectors))
    chosen = torch.zeros(1, len(vectors), level.maps, dtype=torch.int64, device=device)
    indices = torch.zeros(len(vectors), level.maps, dtype=torch.int64, device=device)
    since = torch.zeros_like(rows)
    best = _Endings(vectors)
    told: Tensor | None = None

    def end(extra: Tensor | None, stages: int) -> Tensor:
        """Note the best of the partial choices as an ending; bool [rows], where it is better than those before."""
        total = spent if extra is None else spent + extra
        which = (residual.square().sum(-1) + total).argmin(0)
        here = torch.arange(len(rows), device=device)
        improved = best.note(rows, residual[which, here], total[which, here], stages)
        indices[rows[improved]] = chosen[which[improved], here[improved]]
        return improved

    for stage in range(level.stages):
        codes = books.codes_of(stage)
        bits = costs.bits(stage, told, rows)
        bits = bits.expand(len(residual), len(rows), *codes.shape[:-1])  # [B, M, K] or [B, M, G, K]
        product = stage >= level.codebooks
        price = weights[rows].view(-1, *[1] * (bits.dim() - 2)) * bits
        if level.stop:
            nothing = price[..., 0].sum(-1) if product else price[..., 0]
            since = torch.where(end(nothing, stage), 0, since + 1)
            go = (since < PATIENCE) & (spent.amin(0) < best.cost[rows])
            if not bool(go.all()):
                rows, since, residual, spent = rows[go], since[go], residual[:, go], spent[:, go]
                chosen, price = chosen[:, go], price[:, go]
                told = told if told is None or told.dim() < 2 else told[..., go, :]
        if not len(rows):
            break
        here = torch.arange(len(rows), device=device)
        if product:
            b, m = spent.shape
            index, _ = _best_of_groups(residual.reshape(b * m, -1), codes, price.reshape(b * m, *price.shape[2:]))
            added = codes[torch.arange(level.groups, device=device), index].view(b, m, -1)
            index = index.view(b, m, -1)
            spent = spent + price.gather(-1, index[..., None])[..., 0].sum(-1)
            parent = torch.arange(b, device=device)[:, None].expand(b, m)
        else:
            flat = residual.reshape(-1, residual.shape[-1])
            left = torch.addmm(codes.square().sum(1), flat, codes.t(), alpha=-2.0).view(price.shape)
            left = left.add_(price).add_((spent + residual.square().sum(-1))[..., None])
            if level.stop:
                left[..., 0] = math.inf  # ended above
            parent, single = _smallest(left, min(beam, len(left) * (len(codes) - level.stop)))  # [B', M]
            spent = spent[parent, here] + price[parent, here, single]
            added, index = codes[single], single[..., None]
        residual = residual[parent, here] - added
        chosen = chosen[parent, here]
        chosen[..., level.stage_maps(stage)] = index
        if stage + 1 < level.stages:
            add = costs.told(stage, index if product else index[..., 0])
            if told is None or told.dim() < 2:
                told = add
            else:
                told = told[parent, here] + add
    else:
        end(None, level.stages)
    return Choice(ended(indices, best.stages, level), best.residual, best.stages)


def _smallest(costs: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Places (b, k) of the smallest values at every m, [B, M, K] -> int64 [number, M] each; overwrites them. For few of
    them this is much faster on a CPU than `topk`, or than `argmin` over all: `amin` is quick, places are not."""
    rows = torch.arange(costs.shape[1], device=costs.device)
    parents, codes = [], []
    for _ in range(number):
        parent = costs.amin(-1).argmin(0)
        code = costs[parent, rows].argmin(-1)
        costs[parent, rows, code] = math.inf
        parents.append(parent)
        codes.append(code)
    return torch.stack(parents), torch.stack(codes)


def ended(indices: Tensor, stages: Tensor, level: LevelConfig) -> Tensor:
    """Indices [M, maps] with 0 for all stages but the first `stages`, int64 [M]."""
    of_map = [s for s in range(level.stages) for _ in range(*level.stage_maps(s).indices(level.maps))]
    return indices * (torch.tensor(of_map, device=indices.device) < stages[:, None])
