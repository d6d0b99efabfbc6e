# SPDX-License-Identifier: Apache-2.0
"""The contract of the probability path: the same integers, however they are computed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import untrained
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.config import VQVAE2_PRESETS
from vqcodec.errors import ExactnessError, ModelError
from vqcodec.exact import ops, waves
from vqcodec.exact.check import check_device
from vqcodec.exact.network import IntegerPrior
from vqcodec.exact.waveorder import coding_order, number_of_waves, positions_by_wave, rows_of_wave, wave_of
from vqcodec.prior.export import from_integers, to_integers
from vqcodec.prior.network import LevelPrior


def random_maps(codec: Codec, tiles: int, side: int = 8) -> list[Tensor]:
    """Index maps of a number of tiles, per level [tiles, S, h, w]; side: of the coarsest level's map."""
    levels = codec.config.autoencoder.levels
    generator = torch.Generator().manual_seed(3)
    shapes = [(tiles, v.codebooks, *[side * levels[0].stride // v.stride] * 2) for v in levels]
    return [torch.randint(0, v.codes, s, generator=generator) for v, s in zip(levels, shapes, strict=True)]


def edges(maps: list[Tensor], level: int) -> Tensor:
    """A mask in which the second tile is cut at the right and the third at the bottom, at the coarsest stride."""
    n, _, h, w = maps[level].shape
    valid = torch.ones(n, h, w, dtype=torch.bool)
    valid[1, :, w // 2 :] = False
    valid[2, h // 2 :] = False
    return valid


def whole(prior: IntegerPrior, level: int, maps: list[Tensor], valid: Tensor | None) -> Tensor:
    """Frequencies of all stages by whole maps, [S, N, H, W, K]."""
    own = maps[level] if valid is None else maps[level] * valid[:, None]
    condition = prior.condition(maps[:level], own[:, 0].shape, valid)
    return torch.stack(list(prior.map_frequencies(own, condition, valid)))


def by_waves(prior: IntegerPrior, level: int, maps: list[Tensor], valid: Tensor | None) -> Tensor:
    """The same by waves, feeding the true indices back."""
    own = maps[level] if valid is None else maps[level] * valid[:, None]
    n, s, h, w = own.shape
    order = positions_by_wave(h, w)
    truth = own.reshape(n, s, -1)[:, :, order]
    seen: list[list[Tensor]] = [[] for _ in range(s)]
    calls = itertools.count()

    def draw(frequencies: Tensor, mask: Tensor | None) -> Tensor:
        stage = next(calls) % s
        start = sum(part.shape[1] for part in seen[stage])
        seen[stage].append(frequencies)
        return truth[:, stage, start : start + frequencies.shape[1]]

    found = waves.run(prior, prior.condition(maps[:level], (n, h, w), valid), draw, valid)
    assert torch.equal(found, own)
    out = torch.empty(s, n, h * w, seen[0][0].shape[-1])
    out[:, :, order] = torch.stack([torch.cat(parts, 1) for parts in seen])
    return out.view(s, n, h, w, -1)


@pytest.mark.parametrize("cut", [False, True])
@torch.inference_mode()
def test_whole_maps_equal_waves(tiny, cut):
    maps = random_maps(tiny, 3)
    for level, prior in enumerate(tiny.priors):
        valid = edges(maps, level) if cut else None
        coarse = [m * edges(maps, i)[:, None] if cut else m for i, m in enumerate(maps)]
        a = whole(prior, level, coarse, valid)
        b = by_waves(prior, level, coarse, valid)
        if valid is not None:
            a, b = a[:, valid], b[:, valid]
        assert torch.equal(a, b)
        assert a.min() >= 1
        assert a.sum(-1).max() < 2**24
        assert a.std() > 0


@torch.inference_mode()
def test_shipped_priors_whole_maps_equal_waves(shipped):
    side = shipped.config.tile_size // shipped.config.autoencoder.coarsest
    maps = random_maps(shipped, 2, side)
    for level, prior in enumerate(shipped.priors):
        assert torch.equal(whole(prior, level, maps, None), by_waves(prior, level, maps, None))


@torch.inference_mode()
def test_threads_do_not_matter(shipped):
    maps = random_maps(shipped, 2)
    for level, prior in enumerate(shipped.priors):
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(whole(prior, level, maps, None))
        assert torch.equal(*found)


@torch.inference_mode()
def test_a_tile_alone_equals_the_tile_in_a_batch(tiny):
    maps = random_maps(tiny, 5)
    for level, prior in enumerate(tiny.priors):
        together = whole(prior, level, maps, None)
        for tile in range(5):
            alone = whole(prior, level, [m[tile : tile + 1] for m in maps], None)
            assert torch.equal(alone[:, 0], together[:, tile])


@torch.inference_mode()
def test_float64_gives_the_same_integers(shipped):
    """The float32 products are exact, so that double precision changes nothing in any bit."""
    maps = random_maps(shipped, 1)
    for level, prior in enumerate(shipped.priors):
        single = whole(prior, level, maps, None)
        tensors = dict(vars(prior))
        double = object.__new__(IntegerPrior)
        vars(double).update({k: _double(v) for k, v in tensors.items()})
        assert torch.equal(single.double(), whole(double, level, maps, None).double())


def _double(value):
    if isinstance(value, Tensor):
        return value.double()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_double(v) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_double(v) for v in value)
    if isinstance(value, dict):
        return {k: _double(v) for k, v in value.items()}
    return value


@torch.inference_mode()
def test_causality_by_perturbation(tiny):
    """Change any index: no frequency in any earlier wave changes, nor elsewhere in its own, nor at its own position for
    its own stage and those before; and somewhere after it, one does."""
    maps = random_maps(tiny, 1, side=4)
    for level, prior in enumerate(tiny.priors):
        before = whole(prior, level, maps, None)
        _, stages, h, w = maps[level].shape
        wave = wave_of(h, w)
        for stage in range(stages):
            for y in range(h):
                for x in range(w):
                    changed = [m.clone() for m in maps]
                    changed[level][0, stage, y, x] = (changed[level][0, stage, y, x] + 1) % prior.level.codes
                    differs = (whole(prior, level, changed, None) != before).any(-1)[:, 0]  # [S, H, W]
                    own = differs[:, y, x].clone()
                    differs[:, y, x] = False
                    assert not differs[:, wave <= wave[y, x]].any()
                    assert differs.any() or wave[y, x] >= wave.max() - 2
                    assert not own[: stage + 1].any()
                    assert own[stage + 1 :].all()


@torch.inference_mode()
def test_coarser_maps_are_used(tiny):
    """Conditioning is real: a change in a coarser map moves frequencies of all stages, also before its own position."""
    maps = random_maps(tiny, 1)
    for level, prior in enumerate(tiny.priors):
        before = whole(prior, level, maps, None)
        for i in range(level):
            changed = [m.clone() for m in maps]
            changed[i][0, 0, 3, 3] = (changed[i][0, 0, 3, 3] + 1) % tiny.config.autoencoder.levels[i].codes
            assert (whole(prior, level, changed, None) != before).flatten(1).any(1).all()


def test_training_simulates_the_integers():
    """The trained network in float32 is the integer network: the same rate up to the table's rounding, and the same
    code lengths for the choice of codes."""
    _, priors = untrained()
    level = priors[1]
    exact = IntegerPrior(level.config, level.level, level.coarser, to_integers(level))
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randint(0, 32, (2, 1, 8, 8), generator=generator)]
    maps.append(torch.randint(0, 16, (2, 2, 16, 16), generator=generator))
    with torch.inference_mode():
        frequencies = whole(exact, 1, maps, None)
        nats = -(frequencies / frequencies.sum(-1, keepdim=True)).log()
        own = nats.gather(-1, maps[1].transpose(0, 1)[..., None])[..., 0].transpose(0, 1)
        units = level.logits(maps[1], maps[:1]) * 2**ops.LOGIT_BITS
        assert torch.equal(ops.frequencies(units, exact.table).view_as(frequencies), frequencies)
        simulated = level(maps[1], maps[:1])
        torch.testing.assert_close(simulated, own, atol=0.2, rtol=0)  # frequencies of few units are rounded
        assert abs(float(simulated.mean() - own.mean())) < 2e-3
        floating = level(maps[1], maps[:1], exact=False)
        assert abs(float(floating.mean() - own.mean())) < 0.02 * float(own.mean())
        condition = exact.condition(maps[:1], (2, 16, 16))
        trained, tiles = level.code_lengths(maps[1], maps[:1]), exact.code_lengths(maps[1], condition)
        assert len(tiles) == 2
        for stage in range(2):
            frequent = frequencies[stage].flatten(0, 2) >= 100
            told = [costs.told(0, maps[1][part, 0].flatten()) for costs, part in zip(tiles, (0, 1), strict=True)]
            parts = [costs.bits(stage, one if stage else None) for costs, one in zip(tiles, told, strict=True)]
            for bits in (trained.bits(stage, torch.cat(told) if stage else None), torch.cat(parts)):
                away = (bits * math.log(2) - nats[stage].flatten(0, 2)).abs()
                assert away.max() < 0.8  # frequencies of few units are rounded
                assert away[frequent].max() < 0.03


def test_integers_survive_the_way_back_to_training():
    _, priors = untrained()
    for prior in priors:
        tensors = to_integers(prior)
        again = LevelPrior(prior.config, prior.level, prior.coarser)
        from_integers(again, tensors)
        assert all(torch.equal(v, tensors[k]) for k, v in to_integers(again).items())


def test_every_parameter_learns():
    """One backward pass reaches every parameter of both priors: no rounding cuts the gradient."""
    _, priors = untrained()
    maps = [torch.randint(0, 32, (4, 1, 8, 8)), torch.randint(0, 16, (4, 2, 16, 16))]
    for i, prior in enumerate(priors):
        prior(maps[i], maps[:i]).mean().backward()
        without = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not without


def test_an_overflowing_model_is_refused():
    weight, bias = torch.full((1041, 2), 127), torch.zeros(2)
    with pytest.raises(ExactnessError, match="exact below"):
        ops.linear(weight, bias, 7)
    ops.linear(weight[:1030], bias, 7)
    for wrong in (weight[:1] * 2, weight[:1] * 0.5):
        with pytest.raises(ExactnessError, match="integers"):
            ops.linear(wrong, bias, 7)
    with pytest.raises(ExactnessError, match="exact below"):
        ops.linear(weight[:1], torch.tensor([0, 2**24]), 7)


def test_folding_the_shift_in_keeps_every_bit():
    """A product at the edge of the bound, against int64: half up, negative and positive, for every shift in use."""
    generator = torch.Generator().manual_seed(0)
    for shift in (ops.SHIFT, ops.SHIFT_TANH, ops.SHIFT_PROJECT, ops.SHIFT_LOGIT):
        x = torch.randint(-127, 128, (300, 1030), generator=generator)
        w = torch.randint(-127, 128, (1030, 40), generator=generator)
        x[:10], w[:, :5] = 127, torch.tensor([127, -127, 126, -126, 1])
        b = torch.randint(-1000, 1000, (40,), generator=generator)
        got = ops.rounded(x.float(), ops.linear(w, b, shift))
        assert torch.equal(got.long(), (x @ w + b + 2 ** (shift - 1)) >> shift)


def test_a_model_with_wrong_tensors_is_refused(tiny):
    _, priors = untrained()
    prior = priors[1]
    tensors = to_integers(prior)

    def make(**changes: Tensor) -> IntegerPrior:
        changed = {k: v for k, v in (tensors | changes).items() if v is not None}
        return IntegerPrior(prior.config, prior.level, prior.coarser, changed)

    make()
    for name, value in (
        ("embed", None),
        ("embed", tensors["embed"][:1]),
        ("embed", tensors["embed"].float()),
        ("table", torch.zeros(256, dtype=torch.int32)),
        ("table", torch.full((256,), 2**21, dtype=torch.int32)),
    ):
        with pytest.raises(ModelError):
            make(**{name: value})


def test_this_machine_is_exact_and_a_wrong_one_is_refused(monkeypatch):
    check_device("cpu")
    from vqcodec.exact import check

    def sloppy(x: Tensor, parameters: ops.Linear) -> Tensor:
        return ((x.bfloat16() @ parameters.weight.bfloat16()).float() + parameters.bias).floor()

    for name, wrong in (
        ("rounded", sloppy),
        ("rescale", lambda x, shift: torch.round(x * 2.0**-shift)),  # half to even
        ("gate", lambda x: x.chunk(2, -1)[0]),
        ("attend", lambda q, *rest: q),
    ):
        monkeypatch.setattr(check, "_passed", set())
        with monkeypatch.context() as patch:
            patch.setattr(ops, name, wrong)
            with pytest.raises(ExactnessError):
                check_device("cpu")


def test_wave_order():
    for h, w in ((1, 1), (5, 3), (3, 5), (32, 32)):
        order = positions_by_wave(h, w)
        assert sorted(order.tolist()) == list(range(h * w))
        expected = [y * w + t - 2 * y for t in range(number_of_waves(h, w)) for y in range(*rows_of_wave(t, h, w))]
        assert order.tolist() == expected
    assert number_of_waves(32, 32) == 94
    assert number_of_waves(64, 64) == 190
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[0, 1] = False
    # waves 0..3 of two 2x2 tiles, the first without its second row
    assert coding_order(2, 2, 2, valid).tolist() == [0, 4, 1, 5, 6, 7]


@pytest.mark.parametrize("preset", sorted(VQVAE2_PRESETS))
@torch.inference_mode()
def test_every_preset_exports_within_the_bound(preset):
    """New networks of all sizes: the bound holds, and whole maps equal waves on small maps."""
    config = VQVAE2_PRESETS[preset]
    levels = config.autoencoder.levels
    generator = torch.Generator().manual_seed(0)
    maps = []
    for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True)):
        side = 4 * levels[0].stride // level.stride
        maps.append(torch.randint(0, level.codes, (2, level.codebooks, side, side), generator=generator))
        torch.manual_seed(0)
        exact = IntegerPrior(prior, level, levels[:i], to_integers(LevelPrior(prior, level, levels[:i])))
        assert torch.equal(whole(exact, i, maps, None), by_waves(exact, i, maps, None))
