# SPDX-License-Identifier: Apache-2.0
"""The choice of codes against all choices there are: endings, product stages, metrics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vqcodec.config import LevelConfig
from vqcodec.nets import choice
from vqcodec.nets.choice import Choice, OrderZero, choose
from vqcodec.nets.quantizer import ResidualQuantizer

LEVEL = LevelConfig(stride=4, codebooks=2, codes=5, dim=4, stop=True, products=1, groups=2, group_codes=4)


class Priced:
    """Code lengths that differ between positions and depend on all earlier codes of a position."""

    def __init__(self, level: LevelConfig, positions: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator) * 1.5

        self.level = level
        self.stage_costs = [drawn(positions, 6) for _ in range(level.stages)]
        widths = [sum(level.alphabets[level.stage_maps(stage)]) for stage in range(level.stages)]
        self.heads = [drawn(6, width) for width in widths]
        self.tables = [drawn(len(range(*level.stage_maps(s).indices(level.maps))), level.codes, 6)
                       for s in range(level.stages)]  # fmt: skip

    def logs(self, stage: int, earlier: Tensor | None, rows: Tensor) -> Tensor:
        x = self.stage_costs[stage][rows][:, None]
        x = x if earlier is None else x + earlier
        logits = x @ self.heads[stage]
        if stage >= self.level.codebooks:
            logits = logits.unflatten(-1, (self.level.groups, -1))
        return logits.log_softmax(-1)

    def handed_on(self, stage: int, index: Tensor) -> Tensor:
        groups = index if stage >= self.level.codebooks else index[..., None]
        return sum(self.tables[stage][group][groups[..., group]] for group in range(groups.shape[-1]))


def quantizer(level: LevelConfig = LEVEL, seed: int = 0, metric: bool = False) -> ResidualQuantizer:
    torch.manual_seed(seed)
    made = ResidualQuantizer(level).eval()
    made.codebooks.mul_(8)
    if level.products:
        made.get_buffer("product_codebooks").mul_(4)
    if metric:
        made.metric.copy_(torch.eye(level.dim) + 0.4 * torch.randn(level.dim, level.dim))
    return made


def cost(q: ResidualQuantizer, z: Tensor, weight: Tensor, lengths: Priced, indices: Tensor) -> Tensor:
    """|R (z - c)|^2 + weight * bits of what is coded, by position, written out. indices: int64 [M, maps]."""
    level = q.level
    left = z - q.lookup(indices[:, :, None, None])[:, 0, 0]
    total = (left @ q.metric.t()).square().sum(1)
    live = torch.ones(len(z), dtype=torch.bool)
    earlier = None
    rows = torch.arange(len(z))
    for stage in range(level.stages):
        stage_indices = indices[:, level.stage_maps(stage)]
        logs = lengths.logs(stage, earlier, rows).view(len(z), stage_indices.shape[1], -1)
        bits = -logs.gather(2, stage_indices[..., None])[..., 0].sum(1) / torch.tensor(2.0).log()
        total = total + weight * bits * live
        handed_on = lengths.handed_on(
            stage, (stage_indices if stage >= level.codebooks else stage_indices[:, 0])[:, None]
        )
        earlier = handed_on if earlier is None else earlier + handed_on
        live = live & ((stage_indices != 0).any(1) | (not level.stop))
    return total


def all_choices(level: LevelConfig) -> Iterator[tuple[int, ...]]:
    for indices in itertools.product(*(range(k) for k in level.alphabets)):
        live, fits = True, True
        for stage in range(level.stages):
            some = any(indices[level.stage_maps(stage)])
            fits &= live or not some
            live &= some
        if fits or not level.stop:
            yield indices


def least(q: ResidualQuantizer, z: Tensor, weight: Tensor, lengths: Priced) -> Tensor:
    costs = [cost(q, z, weight, lengths, torch.tensor(one).expand(len(z), -1)) for one in all_choices(q.level)]
    return torch.stack(costs).amin(0)


@pytest.mark.parametrize("stop", [True, False])
def test_a_wide_beam_finds_the_best_of_all_endings(stop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PATIENCE", 9)
    level = LevelConfig(4, 2, 5, 4, stop, 1, 2, 4)
    q, lengths = quantizer(level), Priced(level, 200)
    z, weights = torch.randn(200, 4), torch.rand(200) * 0.8
    best = least(q, z, weights, lengths)
    chosen = choose(q.prepared(), z, weights, lengths, beam=25)
    torch.testing.assert_close(cost(q, z, weights, lengths, chosen.indices), best, atol=1e-4, rtol=1e-4)
    if stop:
        assert chosen.stages.unique().tolist() == [0, 1, 2, 3]  # all endings occur
    greedy, narrow = (cost(q, z, weights, lengths, choose(q.prepared(), z, weights, lengths, beam=beam).indices)
                      for beam in (1, 3))  # fmt: skip
    assert (greedy >= best - 1e-4).all()
    assert greedy.sum() > narrow.sum() > best.sum() - 1e-3
    assert greedy.sum() > best.sum() + 0.1


def test_what_follows_a_stop_is_zero() -> None:
    level = LevelConfig(4, 2, 5, 4, stop=True, products=2, groups=2, group_codes=4)
    q, lengths = quantizer(level), Priced(level, 400)
    for beam in (1, 4):
        chosen = choose(q.prepared(), torch.randn(400, 4), torch.rand(400) * 0.3, lengths, beam=beam)
        assert chosen.stages.unique().tolist() == [0, 1, 2, 3, 4]
        for stage in range(level.stages):
            used = chosen.indices[:, level.stage_maps(stage)].any(1)
            assert torch.equal(used, chosen.stages > stage)


def test_distances_are_those_of_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PATIENCE", 9)
    level = LevelConfig(4, 2, 5, 4, stop=True)
    q, lengths = quantizer(level, metric=True), Priced(level, 60)
    z, weights = torch.randn(60, 4), torch.rand(60) * 0.5
    chosen = choose(q.prepared(), z, weights, lengths, beam=25)
    best = least(q, z, weights, lengths)
    torch.testing.assert_close(cost(q, z, weights, lengths, chosen.indices), best, atol=1e-4, rtol=1e-4)
    plain = quantizer(level).prepared()  # the same codes
    other = choose(plain, z, weights, lengths, beam=25)
    assert cost(q, z, weights, lengths, other.indices).sum() > best.sum() + 1


def test_groups_are_chosen_one_after_the_other_where_the_metric_joins_them() -> None:
    level = LevelConfig(4, 1, 4, 4, products=1, groups=2, group_codes=4)
    q, lengths = quantizer(level, metric=True), Priced(level, 50)
    q.codebooks.zero_()
    z, weights = torch.randn(50, 4), torch.rand(50) * 0.3
    maps = torch.zeros(50, 3, dtype=torch.int64)
    maps[:, 0] = choose(q.prepared(), z, weights, lengths).indices[:, 0]
    for group in (1, 2):
        tried = maps[None].repeat(4, 1, 1)
        tried[:, :, group] = torch.arange(4)[:, None]
        maps = tried[torch.stack([cost(q, z, weights, lengths, one) for one in tried]).argmin(0), torch.arange(50)]
    assert torch.equal(choose(q.prepared(), z, weights, lengths).indices, maps)


def same(a: Choice, b: Choice) -> bool:
    return torch.equal(a.indices, b.indices) and torch.equal(a.stages, b.stages)


def test_positions_do_not_depend_on_what_they_are_looked_at_with(monkeypatch: pytest.MonkeyPatch) -> None:
    q, lengths = quantizer(), Priced(LEVEL, 200)
    z, weights = torch.randn(200, 4), torch.rand(200)
    whole = [choose(q.prepared(), z, weights, lengths, beam=beam) for beam in (1, 3)]
    monkeypatch.setattr(choice, "ROWS", 30)
    for beam, chosen in zip((1, 3), whole, strict=True):
        again = choose(q.prepared(), z, weights, lengths, beam=beam)
        assert (again.indices == chosen.indices).all(1).float().mean() > 0.97  # but for when others leave the search


def test_no_weight_is_the_nearest_code() -> None:
    q = quantizer(LevelConfig(4, 1, 16, 4))
    z = torch.randn(300, 4)
    chosen = choose(q.prepared(), z, torch.zeros(300), OrderZero([torch.rand(16) * 9]))
    assert torch.equal(chosen.indices[:, 0], torch.cdist(z, q.codebooks[0]).argmin(1))


@pytest.mark.parametrize(("columns", "number"), [(512, 8), (2048, 16), (500, 3), (64, 1), (40, 40)])
def test_the_smallest(columns: int, number: int) -> None:
    costs = torch.randn(50, columns, generator=torch.Generator().manual_seed(0))
    values, positions = choice._smallest(costs.clone(), number)
    ordered = costs.sort(1)
    assert torch.equal(values, ordered.values[:, :number])
    assert torch.equal(positions, ordered.indices[:, :number])
