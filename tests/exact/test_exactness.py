# SPDX-License-Identifier: Apache-2.0
"""What guards the contract: bounds, shapes, orders, the known-answer test; the trained network beside the integers."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import staged_config, untrained
from randomprior import random_maps, random_tensors
from torch import Tensor

from vqcodec.config import LevelConfig
from vqcodec.errors import ExactnessError, ModelError
from vqcodec.exact import check, ops, orders
from vqcodec.exact.check import check_device
from vqcodec.exact.engine import known
from vqcodec.exact.network import IntegerPrior
from vqcodec.prior.export import from_integers, to_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.training.presets import VQVAE2_PRESETS


@pytest.mark.parametrize("name", sorted(orders.KINDS))
def test_orders(name):
    """Every position once; what it sees are its taps of earlier steps inside the map."""
    for h, w in ((1, 1), (1, 12), (12, 1), (5, 3), (32, 32)):
        order = orders.order(name, h, w)
        assert sorted(torch.cat(order.steps).tolist()) == list(range(h * w))
        assert all(len(positions) for positions in order.steps)
        steps = [int(order.step[positions[0]]) for positions in order.steps]
        assert steps == sorted(set(steps))
        for reach, (taps, positions) in enumerate(zip(order.kind.reaches, order.positions, strict=True)):
            for position, seen in zip(positions.tolist(), order.neighbours[reach].tolist(), strict=True):
                assert order.reach[position] == reach
                for (dy, dx), other in zip(taps, seen, strict=True):
                    y, x = position // w + dy, position % w + dx
                    earlier = 0 <= y < h and 0 <= x < w and order.step[y * w + x] < order.step[position]
                    assert other == (y * w + x if earlier else h * w)
    assert len(orders.order("waves", 32, 32).steps) == 94
    assert len(orders.order("seven", 32, 32).steps) == 7


def both_priors(order: str) -> list[tuple[LevelPrior, IntegerPrior]]:
    """Trained networks with random weights, and their integers."""
    config = staged_config(order)
    _, priors = untrained(config)
    return [(p, IntegerPrior(p.config, p.level, p.coarser, to_integers(p))) for p in priors]


@pytest.mark.parametrize("order", sorted(orders.KINDS))
@torch.inference_mode()
def test_training_simulates_the_integers(order):
    """The trained network in float32 is the integer network: the same rate up to the table's rounding."""
    pairs = both_priors(order)
    maps = [random_maps(p.level, 2, 5 * (1 + i), 6 * (1 + i), i) for i, (p, _) in enumerate(pairs)]
    for i, (trained, exact) in enumerate(pairs):
        level = exact.level
        condition = exact.condition(maps[:i], (2, *maps[i].shape[2:]), None, 200)
        tradeoffs = torch.full((2,), 200 / 255)
        simulated = trained(maps[i], maps[:i], tradeoffs=tradeoffs)  # [N, maps, H, W]
        shipped_nats = torch.zeros_like(simulated)
        for batch, symbols, frequencies in known(exact, maps[i], condition):
            nats = -(frequencies / frequencies.sum(1, keepdim=True)).log().gather(1, symbols[:, None])
            flat = shipped_nats[:, level.stage_maps(batch.stage)].flatten(2)
            flat[batch.tiles, :, batch.positions] = nats.view(-1, batch.groups)
            shipped_nats[:, level.stage_maps(batch.stage)] = flat.view(2, batch.groups, *shipped_nats.shape[2:])
        torch.testing.assert_close(simulated, shipped_nats, atol=0.2, rtol=0)  # frequencies of few units are rounded
        assert abs(float(simulated.mean() - shipped_nats.mean())) < 2e-3
        floating = trained(maps[i], maps[:i], exact=False, tradeoffs=tradeoffs)
        assert abs(float(floating.mean() - shipped_nats.mean())) < 0.02 * float(shipped_nats.mean())


def test_integers_survive_the_way_back_to_training():
    for prior, _ in both_priors("seven"):
        tensors = to_integers(prior)
        again = LevelPrior(prior.config, prior.level, prior.coarser)
        from_integers(again, tensors)
        assert all(torch.equal(v, tensors[k]) for k, v in to_integers(again).items())


@pytest.mark.parametrize("order", sorted(orders.KINDS))
def test_every_parameter_learns(order):
    """One backward pass reaches every parameter of both priors: no rounding cuts the gradient."""
    pairs = both_priors(order)
    maps = [random_maps(p.level, 4, 8 * (1 + i), 8 * (1 + i), i) for i, (p, _) in enumerate(pairs)]
    for i, (prior, _) in enumerate(pairs):
        prior(maps[i], maps[:i], tradeoffs=torch.tensor([0, 0.3, 0.6, 1])).mean().backward()
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


def test_the_bound_of_a_layer_holds_for_each_reach_with_its_condition():
    """Neither the taps nor the condition alone overflow."""
    config = staged_config("seven")
    level, plan = config.autoencoder.levels[0], config.priors[0]
    plan = type(plan)(**{**vars(plan), "channels": 64, "attention_every": 0})
    good = random_tensors(plan, level, ())
    assert IntegerPrior(plan, level, (), good)
    for reach in range(2):
        tensors = {name: tensor.clone() for name, tensor in good.items()}
        tensors["layer.1.bias"][:] = 0
        tensors[f"layer.1.conv.{reach}.weight"][:, 5] = 127  # 9 * 64 * 127^2 is below 2^24
        assert IntegerPrior(plan, level, (), tensors)
        tensors["layer.1.bias"][5] = 2**23 - 2**12
        with pytest.raises(ExactnessError, match="exact below"):
            IntegerPrior(plan, level, (), tensors)
        tensors["layer.1.bias"][5] = 2**24 - 64 * 9 * 127**2 - 2**9
        tensors["layer.1.cond.weight"][:, 5] = 0
        assert IntegerPrior(plan, level, (), tensors)
        tensors["layer.1.cond.weight"][:, 5] = 1
        with pytest.raises(ExactnessError, match="exact below"):
            IntegerPrior(plan, level, (), tensors)


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


def test_a_model_with_wrong_tensors_is_refused():
    config = staged_config("seven")
    levels, plan = config.autoencoder.levels, config.priors[1]
    tensors = random_tensors(plan, levels[1], levels[:1])

    def make(**changes: Tensor | None) -> IntegerPrior:
        changed = {k: v for k, v in (tensors | changes).items() if v is not None}
        return IntegerPrior(plan, levels[1], levels[:1], changed)

    make()
    for name in tensors:
        with pytest.raises(ModelError, match=name):
            make(**{name: None})
        with pytest.raises(ModelError, match=name):
            make(**{name: tensors[name][:-1]})
    for name, value in (
        ("embed", tensors["embed"].float()),
        ("table", torch.zeros(256, dtype=torch.int32)),
        ("table", torch.full((256,), 2**21, dtype=torch.int32)),
        ("exp_table", torch.full((256,), -1, dtype=torch.int32)),
    ):
        with pytest.raises(ModelError):
            make(**{name: value})
    with pytest.raises(ModelError, match="no order"):
        IntegerPrior(type(plan)(order="spiral"), levels[1], levels[:1], tensors)


def test_this_machine_is_exact_and_a_wrong_one_is_refused(monkeypatch):
    check_device("cpu")

    def sloppy(x: Tensor, parameters: ops.Linear) -> Tensor:
        return ((x.bfloat16() @ parameters.weight.bfloat16()).float() + parameters.bias).floor()

    for name, wrong in (
        ("rounded", sloppy),
        ("rescale", lambda x, shift: torch.round(x * 2.0**-shift)),  # half to even
        ("gate", lambda x: x.chunk(2, -1)[0]),
        ("embedded", lambda table, index: table[index].bfloat16().sum(-2).float()),
        ("attend", lambda q, *rest: q),
    ):
        monkeypatch.setattr(check, "_passed", set())
        with monkeypatch.context() as patch:
            patch.setattr(ops, name, wrong)
            with pytest.raises(ExactnessError):
                check_device("cpu")


@pytest.mark.parametrize("preset", sorted(VQVAE2_PRESETS))
@torch.inference_mode()
def test_every_preset_exports_within_the_bound(preset):
    """New networks of all sizes, at their widest: the bound holds, and what they give can be coded."""
    config = VQVAE2_PRESETS[preset]
    levels = config.autoencoder.levels
    maps: list[Tensor] = []
    for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True)):
        side = 2 * levels[0].stride // level.stride
        maps.append(random_maps(level, 1, side, side, i))
        torch.manual_seed(0)
        exact = IntegerPrior(prior, level, levels[:i], to_integers(LevelPrior(prior, level, levels[:i])))
        batches = list(known(exact, maps[i], exact.condition(maps[:i], (1, side, side))))
        assert sum(len(f) for _, _, f in batches) <= maps[i].numel()
        assert all(f.min() >= 1 and f.sum(1).max() < 2**24 for _, _, f in batches)


def test_offsets_of_flat_tables():
    level = LevelConfig(8, 2, 16, 8, products=1, groups=2, group_codes=4)
    assert ops.offsets(level.alphabets).tolist() == [0, 16, 32, 36]
    table = torch.arange(40.0)[:, None] * torch.tensor([1, -2])
    index = torch.tensor([[0, 17, 33, 39], [1, 16, 32, 36]])
    expected = torch.stack([table[row].sum(0) for row in index])
    assert torch.equal(ops.embedded(table, index), expected)
    assert torch.equal(ops.embedded(table, index[:, :1]), table[index[:, 0]])
    assert ops.embedded(table, index[:0]).shape == (0, 2)
    assert math.isclose(float(ops.embedded(table, index[None, None])[0, 0, 1, 1]), float(expected[1, 1]))
