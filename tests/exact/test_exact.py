# SPDX-License-Identifier: Apache-2.0
"""The contract of the probability path: the same integers, however they are computed."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from conftest import ROOT, staged_config
from randomprior import random_maps, random_priors, random_tensors
from referenceprior import ReferencePrior, reference
from torch import Tensor

from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.encoder.lengths import PriorLengths
from vqcodec.exact import orders
from vqcodec.exact.engine import Batch, known, run
from vqcodec.exact.network import IntegerPrior

TRADEOFF = 100
SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (6, 7)]  # of the coarser level


@dataclass
class Tiles:
    """Index maps of all levels of a batch of tiles, [N, maps, h, w], and where they are valid."""

    maps: list[Tensor]
    valid: list[Tensor | None]

    def part(self, tile: int) -> Tiles:
        """One of them."""
        part = slice(tile, tile + 1)
        return Tiles([m[part] for m in self.maps], [None if v is None else v[part] for v in self.valid])


def random_tiles(config: ModelConfig, number: int, height: int, width: int, *, cut: bool = False) -> Tiles:
    """Tiles of height x width positions of the coarsest level; cut: the second at the right, the third below."""
    tiles = Tiles([], [])
    levels = config.autoencoder.levels
    for seed, level in enumerate(levels):
        scale = levels[0].stride // level.stride
        valid = torch.ones(number, height * scale, width * scale, dtype=torch.bool)
        if cut:
            valid[1, :, (width + 1) // 2 * scale :] = False
            valid[2, (height + 1) // 2 * scale :] = False
        tiles.maps.append(random_maps(level, *valid.shape, seed, valid))
        tiles.valid.append(valid if cut else None)
    return tiles


Coded = list[tuple[Batch, Tensor, Tensor]]


def coded(prior: IntegerPrior, level: int, tiles: Tiles, tradeoff: int = TRADEOFF) -> Coded:
    """What is coded of a level, by whole maps."""
    level_maps, valid = tiles.maps[level], tiles.valid[level]
    condition = prior.condition(tiles.maps[:level], (len(level_maps), *level_maps.shape[2:]), valid, tradeoff)
    return list(known(prior, level_maps, condition, valid))


def by_steps(prior: IntegerPrior, level: int, tiles: Tiles, tradeoff: int = TRADEOFF) -> Coded:
    """The same step by step, feeding the true indices back."""
    level_maps, valid = tiles.maps[level], tiles.valid[level]
    n, _, h, w = level_maps.shape
    seen: Coded = []

    def draw(frequencies: Tensor, batch: Batch) -> Tensor:
        stage = level_maps[:, prior.level.stage_maps(batch.stage)].flatten(2)
        symbols = stage[batch.tiles, :, batch.positions].flatten()
        seen.append((batch, symbols, frequencies))
        return symbols

    maps = run(prior, prior.condition(tiles.maps[:level], (n, h, w), valid, tradeoff), draw, valid)
    assert torch.equal(maps, level_maps)
    return seen


def same(a: Coded, b: Coded) -> bool:
    return len(a) == len(b) and all(
        (x.step, x.stage, x.groups) == (y.step, y.stage, y.groups)
        and torch.equal(x.tiles, y.tiles)
        and torch.equal(x.positions, y.positions)
        and torch.equal(s, t)
        and torch.equal(f, g)
        for (x, s, f), (y, t, g) in zip(a, b, strict=True)
    )


def dense(prior: IntegerPrior, batches: Coded, tiles: int, positions: int) -> list[Tensor]:
    """Frequencies by stage, [tiles, positions, groups, K]; 0 where none are coded."""
    level = prior.level
    stages = [torch.zeros(tiles, positions, prior.groups(s), prior.codes(s)) for s in range(level.stages)]
    for batch, _, frequencies in batches:
        stages[batch.stage][batch.tiles, batch.positions] = frequencies.view(-1, *stages[batch.stage].shape[2:])
    return stages


@pytest.fixture(params=sorted(orders.KINDS))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """Stops, product stages, attention, rates and both conditioning stacks, in every order."""
    return staged_config(request.param)


@pytest.fixture
def priors(config: ModelConfig) -> list[IntegerPrior]:
    """Random priors of that configuration."""
    return random_priors(config)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_whole_maps_equal_steps(priors, config, size, cut):
    tiles = random_tiles(config, 3, *size, cut=cut)
    for level, prior in enumerate(priors):
        whole = coded(prior, level, tiles)
        assert same(whole, by_steps(prior, level, tiles))
        frequencies = torch.cat([f.flatten() for _, _, f in whole])
        assert frequencies.min() >= 1
        assert max(float(f.sum(1).max()) for _, _, f in whole) < 2**24
        assert frequencies.std() > 0


@pytest.mark.parametrize("above", [False, True])
@torch.inference_mode()
def test_a_second_implementation_gives_the_same(config, above):
    """Position by position in 64-bit integers, from the document alone: a whole tile and a cut one."""
    levels = config.autoencoder.levels
    tiles = random_tiles(config, 3, 4, 3, cut=True)
    for level, plan in enumerate(config.priors):
        changed = PriorConfig(**{**vars(plan), "cond_above": above, "attention_every": 2})
        tensors = random_tensors(changed, levels[level], levels[:level], 5)
        prior = IntegerPrior(changed, levels[level], levels[:level], tensors)
        integers = {name: tensor.long().numpy() for name, tensor in tensors.items()}
        for tile in range(2):
            part = tiles.part(tile)
            maps = [m[0].numpy() for m in part.maps]
            valid = part.valid[level]
            assert valid is not None
            other = ReferencePrior(
                changed, levels[level], levels[:level], integers, maps[:level], valid[0].numpy(), TRADEOFF
            )
            expected = iter(reference(other, maps[level]))
            for batch, symbols, frequencies in coded(prior, level, part):
                rows = zip(batch.positions.tolist(), symbols.view(-1, batch.groups), strict=True)
                groups = frequencies.view(-1, batch.groups, prior.codes(batch.stage))
                for (position, indices), row_frequencies in zip(rows, groups, strict=True):
                    row = (batch.step, batch.stage, position, indices.tolist(), row_frequencies.tolist())
                    assert row == next(expected)
            assert next(expected, None) is None


@torch.inference_mode()
def test_shipped_priors_whole_maps_equal_steps(shipped):
    side = shipped.config.tile_size // shipped.config.autoencoder.coarsest
    tiles = random_tiles(shipped.config, 2, side, side)
    for level, prior in enumerate(shipped.priors):
        assert same(coded(prior, level, tiles), by_steps(prior, level, tiles))


@torch.inference_mode()
def test_threads_do_not_matter(priors, config, shipped):
    for some_priors, number in ((priors, 3), (shipped.priors, 2)):
        plan = config if some_priors is priors else shipped.config
        tiles = random_tiles(plan, number, 8, 8)
        for level, prior in enumerate(some_priors):
            results = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                results.append(coded(prior, level, tiles))
            assert same(*results)


@torch.inference_mode()
def test_a_tile_alone_equals_the_tile_in_a_batch(priors, config):
    tiles = random_tiles(config, 4, 5, 6, cut=True)
    for level, prior in enumerate(priors):
        positions = tiles.maps[level][0, 0].numel()
        together = dense(prior, coded(prior, level, tiles), 4, positions)
        for tile in range(4):
            alone = dense(prior, coded(prior, level, tiles.part(tile)), 1, positions)
            assert all(torch.equal(a[0], b[tile]) for a, b in zip(alone, together, strict=True))


@torch.inference_mode()
def test_a_cut_tile_equals_a_smaller_one(priors, config):
    """What lies outside the image is as if it were not there."""
    tiles = random_tiles(config, 3, 4, 5, cut=True)
    for tile, rows, columns in ((1, 4, 3), (2, 2, 5)):
        for level, prior in enumerate(priors):
            scale = 1 + level
            part = tiles.part(tile)
            cropped = [m[..., : rows * (1 + i), : columns * (1 + i)] for i, m in enumerate(part.maps)]
            smaller = Tiles(cropped, [None] * 2)
            h, w = tiles.maps[level].shape[2:]
            a = dense(prior, coded(prior, level, part), 1, h * w)
            b = dense(prior, coded(prior, level, smaller), 1, rows * columns * scale**2)
            for x, y in zip(a, b, strict=True):
                shape = (h, w, *x.shape[2:])
                assert torch.equal(x.view(shape)[: rows * scale, : columns * scale].flatten(0, 1), y[0])


@torch.inference_mode()
def test_float64_gives_the_same_integers(priors, config, shipped):
    """The float32 products are exact, so that double precision changes nothing in any bit."""
    for some_priors, plan in ((priors, config), (shipped.priors, shipped.config)):
        tiles = random_tiles(plan, 2, 8, 8)
        for level, prior in enumerate(some_priors):
            double = coded(_double(prior), level, tiles)
            assert double[0][2].dtype == torch.float64
            assert same(coded(prior, level, tiles), [(b, s, f.float()) for b, s, f in double])


def _double(value):
    """A copy in which every float32 is a float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_double(v) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_double(v) for v in value)
    if isinstance(value, dict):
        return {k: _double(v) for k, v in value.items()}
    if type(value).__module__.startswith("vqcodec.exact") and hasattr(value, "__dict__"):
        copy = object.__new__(type(value))
        for name, held in vars(value).items():
            object.__setattr__(copy, name, _double(held))
        return copy
    return value


@torch.inference_mode()
def test_causality_by_perturbation(priors, config):
    """Change any index, to another code or to a stop: no frequency of any earlier step changes, nor elsewhere in its
    own, nor at its own position for its own stage and those before; and at the stages and steps after it, some do."""
    tiles = random_tiles(config, 1, 4, 3)
    for index, prior in enumerate(priors):
        level = prior.level
        level_maps = tiles.maps[index]
        positions = level_maps.shape[2] * level_maps.shape[3]
        order = orders.order(prior.config.order, *level_maps.shape[2:])
        changes = []  # stage, map, position, maps
        for stage in range(level.stages):
            maps = level.stage_maps(stage)
            for m in range(maps.start, maps.stop):
                for position in range(positions):
                    flat = level_maps.flatten(2)[0]
                    if stage and not flat[level.stage_maps(stage - 1), position].any():
                        continue  # stopped before
                    for value in {0, 1, int(flat[m, position]) % (level.alphabets[m] - 1) + 1} - {
                        int(flat[m, position])
                    }:
                        changed = flat.clone()
                        changed[m, position] = value
                        if not changed[maps, position].any():
                            changed[maps.stop :, position] = 0
                        changes.append((stage, m, position, changed.view_as(level_maps[0])))
        number = len(changes)
        assert number > 2 * positions
        many = Tiles([m.repeat(number + 1, 1, 1, 1) for m in tiles.maps], [None] * 2)
        many.maps[index] = torch.stack([level_maps[0], *(change[3] for change in changes)])
        tables = dense(prior, coded(prior, index, many), number + 1, positions)
        differs = torch.stack([(f[1:] != f[:1]).flatten(2).any(2) for f in tables], 1)  # [changes, stages, positions]
        later_ones = 0
        for (stage, _, position, _), where in zip(changes, differs, strict=True):
            elsewhere = where.clone()
            elsewhere[:, position] = False
            later = order.step > order.step[position]
            assert not elsewhere[:, ~later].any()
            assert not where[: stage + 1, position].any()
            assert where[stage + 1 : stage + 2, position].all()
            later_ones += bool(elsewhere.any()) or not later.any()
        assert later_ones > 0.8 * number


@torch.inference_mode()
def test_a_position_that_stops_is_asked_no_more(priors, config):
    for level, prior in enumerate(priors):
        shape = (2, 4, 6)
        coarse = random_tiles(config, 2, 2, 3).maps[:level]
        condition = prior.condition(coarse, shape)
        for last in range(prior.level.stages):
            asked = torch.zeros(prior.level.stages, dtype=torch.int64)

            def draw(frequencies: Tensor, batch: Batch, asked: Tensor = asked, last: int = last) -> Tensor:
                assert len(frequencies) == len(batch.tiles) * batch.groups
                asked[batch.stage] += len(batch.tiles)
                chosen = torch.zeros(len(batch.tiles), batch.groups, dtype=torch.int64)
                if batch.stage < last:
                    chosen[:, -1] = 1  # a single group that is not silent keeps the position
                return chosen.flatten()

            maps = run(prior, condition, draw)
            assert asked.tolist() == [48] * (last + 1) + [0] * (prior.level.stages - last - 1)
            assert int((maps != 0).sum()) == 48 * last


@torch.inference_mode()
def test_coarser_maps_and_the_tradeoff_are_used(priors, config):
    """Conditioning is real: a change in a coarser map moves frequencies of all stages, and so does the tradeoff."""
    tiles = random_tiles(config, 1, 6, 6)
    tiles.maps[1] = random_maps(LevelConfig(4, 3, 16, 8, products=2, groups=2, group_codes=8), 1, 12, 12)
    tiles.maps[1][tiles.maps[1] == 0] = 1
    prior = priors[1]
    before = dense(prior, coded(prior, 1, tiles), 1, 144)
    for m in range(2):
        changed = Tiles([tiles.maps[0].clone(), tiles.maps[1]], tiles.valid)
        changed.maps[0][0, m, 3, 3] = (changed.maps[0][0, m, 3, 3] + 1) % 16
        after = dense(prior, coded(prior, 1, changed), 1, 144)
        assert all((a != b).any() for a, b in zip(before, after, strict=True))
        changed = (after[0] != before[0]).flatten(2).any(2)[0].view(12, 12)
        assert changed[:6].any()  # also ahead of what it belongs to
        assert not changed.all()
    for tradeoff, differs in ((TRADEOFF, False), (127, False), (63, True), (128, True), (255, True)):
        after = dense(prior, coded(prior, 1, tiles, tradeoff), 1, 144)
        assert any((a != b).any() for a, b in zip(before, after, strict=True)) == differs
    for tradeoff in (-1, 256):
        with pytest.raises(ValueError, match="byte"):
            coded(prior, 1, tiles, tradeoff)


@torch.inference_mode()
def test_code_lengths_are_those_of_the_frequencies(priors, config):
    tiles = random_tiles(config, 3, 4, 5, cut=True)
    for level, prior in enumerate(priors):
        level_maps, valid = tiles.maps[level], tiles.valid[level]
        condition = prior.condition(tiles.maps[:level], (3, *level_maps.shape[2:]), valid, TRADEOFF)
        assert valid is not None
        lengths = PriorLengths(prior, level_maps, condition, valid)
        expected = dense(prior, coded(prior, level, tiles), 3, level_maps[0, 0].numel())
        inside = valid.flatten(1)
        earlier: Tensor | None = None
        rows = torch.arange(int(inside.sum()))
        for stage in range(prior.level.stages):
            frequencies = torch.cat([f[where] for f, where in zip(expected[stage], inside, strict=True)])
            logs = lengths.logs(stage, earlier, rows)[:, 0]
            some = rows[::3]
            assert torch.equal(logs[some], lengths.logs(stage, None if earlier is None else earlier[some], some)[:, 0])
            logs = logs.view(len(rows), prior.groups(stage), -1)
            live = frequencies.sum((1, 2)) > 0
            away = (logs - (frequencies / frequencies.sum(-1, keepdim=True)).log()).abs() / math.log(2)
            assert live.any()
            assert away[frequencies >= 100].max() < 0.1  # two halves of a unit of the logits, in bits
            assert away[live].max() < 1.5  # frequencies of few units are rounded
            index = level_maps[:, prior.level.stage_maps(stage)].flatten(2).transpose(1, 2)[inside]
            if stage + 1 < prior.level.stages:
                add = lengths.handed_on(stage, index if stage >= prior.level.codebooks else index[:, 0])
                assert add is not None
                earlier = add[:, None] if earlier is None else earlier + add[:, None]


CODE = """
import sys
import test_exact
print(test_exact.digest())
"""


@torch.inference_mode()
def digest() -> str:
    """Of all frequencies of random priors of every order."""
    total = hashlib.sha256()
    for name in sorted(orders.KINDS):
        config = staged_config(name)
        tiles = random_tiles(config, 3, 6, 7, cut=True)
        for level, prior in enumerate(random_priors(config)):
            for _, _, frequencies in coded(prior, level, tiles):
                total.update(frequencies.numpy().astype("<f4").tobytes())
    return total.hexdigest()


def test_another_process_on_another_instruction_set_gives_the_same():
    here = digest()
    for settings in (
        {"OMP_NUM_THREADS": "2"},
        {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    ):
        environment = (
            os.environ
            | settings
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "exact")])}
        )
        result = subprocess.run(
            [sys.executable, "-c", CODE], env=environment, check=True, capture_output=True, text=True, timeout=300
        )
        assert result.stdout.strip() == here
