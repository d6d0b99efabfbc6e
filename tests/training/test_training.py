# SPDX-License-Identifier: Apache-2.0
"""Runs: resumed, stopped, refused, logged; priors that learn."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal

import numpy as np
import pytest
import torch
from tasks import SHORT, autoencoder_task, joint_task, prior_task, vae_task

from vqcodec.model import weights
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.training import checkpoint
from vqcodec.training.average import Average
from vqcodec.training.loop import train
from vqcodec.training.muon import Muon, parameter_groups
from vqcodec.training.presets import VQVAE2_PRESETS
from vqcodec.training.prior import Coded, Priors, PriorTask
from vqcodec.training.schedule import Clock, TrainConfig


@pytest.mark.parametrize("make", [autoencoder_task, vae_task, joint_task, prior_task])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, photos, make):
    """Bit for bit, with one thread: the checkpoint of step 3 goes on to the same weights, averages, moments and random
    states at step 6."""
    torch.set_num_threads(1)
    (tmp_path / "half").mkdir()
    task = make(photos)
    name = f"{task.name}.ckpt.safetensors"
    real = task.validate

    def watch(*arguments):
        if (tmp_path / "whole" / name).exists():
            shutil.copy(tmp_path / "whole" / name, tmp_path / "half")
        return real(*arguments)

    task.validate = watch
    train(task, SHORT, tmp_path / "whole")
    assert weights.load(tmp_path / "half" / name)[1]["step"] == 3
    train(make(photos), SHORT, tmp_path / "half")
    a, meta_a = weights.load(tmp_path / "whole" / name)
    b, meta_b = weights.load(tmp_path / "half" / name)
    assert meta_a["step"] == meta_b["step"] == 6
    assert a.keys() == b.keys()
    assert {k.split(".")[0] for k in a} == {"model", "average", "optimizer", "random"}
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, photos, monkeypatch):
    task = autoencoder_task(photos)
    real = task.after

    def poison(step, clock, scalars):
        real(step, clock, scalars)
        if step == 4:
            with torch.no_grad():
                task.module.head.weight.fill_(float("nan"))

    monkeypatch.setattr(task, "after", poison)
    with pytest.raises(FloatingPointError, match="the last checkpoint is kept"):
        train(task, SHORT, tmp_path)
    tensors, meta = weights.load(tmp_path / "autoencoder.ckpt.safetensors")
    assert meta["step"] == 3
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


def test_a_stop_signal_saves_first(tmp_path, photos):
    task = autoencoder_task(photos)
    real = task.after

    def interrupt(step, clock, scalars):
        real(step, clock, scalars)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    task.after = interrupt
    train(task, dataclasses.replace(SHORT, steps=1000, validate_every=1000), tmp_path)
    assert weights.load(tmp_path / "autoencoder.ckpt.safetensors")[1]["step"] == 2


def test_averages_follow_the_weights_and_are_lent(photos):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = Average(module, decay=0.9)
    expected = module[0].weight.detach().double().numpy().copy()
    for n in range(12):
        with torch.no_grad():
            module[0].weight.add_(torch.randn(2, 2))
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * module[0].weight.detach().double().numpy()
        average.update(module)
    np.testing.assert_allclose(average.state["0.weight"].numpy(), expected, rtol=1e-5, atol=1e-6)
    weight = module[0].weight.detach().clone()
    with average.applied(module):
        assert torch.equal(module[0].weight, average.state["0.weight"])
    assert torch.equal(module[0].weight, weight)


def test_the_log_is_json_lines_and_tensorboard(tmp_path, photos, capsys):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra train)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(autoencoder_task(photos), SHORT, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "autoencoder.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [2, 4, 6]
    last = lines[-1]
    assert [len(row) for row in last["val/usage"]] == [1, 2]
    assert last["val/order0_bits_per_dim"] == pytest.approx(last["val/order0_bits_per_pixel"] / 3, rel=1e-4)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "autoencoder")).Reload()
    assert {"loss", "train/psnr", "val/psnr", "val/perplexity/1/0"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["val/reconstruction"]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([s["loss"] for s in steps], rel=1e-4)


def test_learning_rate_and_time():
    clock = Clock(TrainConfig(steps=100, warmup=10, learning_rate=1.0))
    for step, expected in ((0, 0.1), (50, 0.505), (100, 0.01)):
        assert clock.running(step) is (step < 100)
        assert clock.learning_rate(step) == pytest.approx(expected, rel=0.01)
    late = Clock(TrainConfig(steps=100, minutes=1), elapsed=30)
    late.running(1)
    assert late.progress == pytest.approx(0.5, abs=0.01)
    with clock:
        signal.raise_signal(signal.SIGTERM)
    assert not clock.running(1)
    assert clock.stopped
    with pytest.raises(ValueError, match="optimizer"):
        TrainConfig(optimizer="sgd")


class FixedTiles:
    """The same maps in every batch."""

    def __init__(self, *maps: torch.Tensor):
        self.maps, self.generator = maps, torch.Generator()

    def batch(self, number: int) -> Coded:
        return Coded([m.expand(number, *m.shape) for m in self.maps], torch.zeros(number))


def test_priors_learn(tmp_path):
    """On maps with an obvious rule the rate falls far below that of uniform indices; a second call resumes."""
    config = VQVAE2_PRESETS["tiny"]
    rows = torch.arange(8)
    top = ((rows[:, None] + rows) % 4 * 8)[None]
    fine = torch.arange(16)
    bottom = torch.stack([(fine[:, None] + fine) % 16, fine.expand(16, 16) % 16])
    tiles = FixedTiles(top, bottom)
    settings = TrainConfig(steps=40, batch=4, learning_rate=5e-3, warmup=5, validate_every=20, log_every=20, bf16=False)
    measured = {"train": tiles.batch(2), "val": tiles.batch(2)}
    task = PriorTask(config, settings, Priors(config), tiles, measured)
    best = train(task, settings, tmp_path)
    _, meta = weights.load(best)
    uniform = 5 / 64 + 2 * 4 / 16
    assert meta["best"] < 0.6 * uniform
    assert meta["step"] in (20, 40)
    last = json.loads((tmp_path / "prior.jsonl").read_text().splitlines()[-1])
    for name in ("val", "train/evaluated"):
        nats, bits = last[f"{name}/nats_per_position"], last[f"{name}/bits_per_position"]
        assert [len(row) for row in nats] == [1, 2]
        assert bits[1][1] == pytest.approx(nats[1][1] / np.log(2), rel=1e-3)
    again = PriorTask(config, settings, Priors(config), tiles, measured)
    train(again, settings, tmp_path)
    pairs = zip(task.module.parameters(), again.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    from vqcodec.errors import ModelError

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"no safetensors at all")
    for name in ("foreign", "noise", "missing"):
        with pytest.raises(ModelError):
            weights.load(tmp_path / f"{name}.safetensors")


def test_checkpoint_keeps_the_optimizer(tmp_path):
    torch.manual_seed(0)
    model = Autoencoder(VQVAE2_PRESETS["tiny"].autoencoder)
    optimizer = Muon(parameter_groups(model, {}), 1e-3)
    model(torch.rand(1, 3, 16, 16)).image.sum().backward()
    optimizer.step()
    average = Average(model, 0.9)
    generators = {"g": torch.Generator().manual_seed(4)}
    checkpoint.save(tmp_path / "a.safetensors", model, average, optimizer, generators, {"step": 1})
    other = Autoencoder(VQVAE2_PRESETS["tiny"].autoencoder)
    loaded = Muon(parameter_groups(other, {}), 1e-3)
    generator = torch.Generator()
    meta = checkpoint.load(tmp_path / "a.safetensors", other, Average(other, 0.9), loaded, {"g": generator})
    assert meta["step"] == 1
    assert generator.get_state().equal(torch.Generator().manual_seed(4).get_state())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert optimizer.state[a].keys() == loaded.state[b].keys()
        assert all(torch.equal(v, loaded.state[b][k]) for k, v in optimizer.state[a].items())
