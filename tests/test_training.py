# SPDX-License-Identifier: Apache-2.0
"""Training: data, optimiser, resuming, and the whole way from photographs to a model that encodes."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from skimage import data

from vqcodec import registry, weights
from vqcodec.codec import Codec
from vqcodec.config import PRESETS
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.training import autoencoder as autoencoder_training
from vqcodec.training import checkpoint
from vqcodec.training.autoencoder import AutoencoderTraining, train_autoencoder
from vqcodec.training.data import CropSampler, load_images
from vqcodec.training.muon import Muon, orthogonalized
from vqcodec.training.prior import TileSampler, train_priors
from vqcodec.training.schedule import Clock, TrainConfig

SHORT = TrainConfig(steps=6, batch=2, crop=32, validate_every=3, log_every=2, warmup=2, bf16=False)
SPECIAL = AutoencoderTraining(rate=(0.0, 0.05), unquantized_steps=2, kmeans_batches=4)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [np.ascontiguousarray(image[:256, :320]) for image in (data.chelsea(), data.coffee(), data.astronaut())]


def test_images_from_folders_zips_and_files(tmp_path, photos):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    Image.fromarray(photos[0]).save(tmp_path / "folder" / "deep" / "a.png")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    Image.fromarray(photos[1]).save(tmp_path / "b.png")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(tmp_path / "b.png", "inside/b.png")
        archive.writestr("readme.txt", "no image")
    found = load_images([tmp_path / "folder", tmp_path / "c.zip", tmp_path / "b.png"])
    assert [np.array_equal(a, photos[i]) for a, i in zip(found, (0, 1, 1), strict=True)] == [True] * 3
    assert len(load_images([tmp_path / "folder", tmp_path / "b.png"], limit=1)) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        load_images([tmp_path / "empty"])


def test_crops_come_from_the_images_and_repeat_with_the_seed(photos):
    batch = CropSampler(photos, 64, seed=5).batch(8)
    assert batch.shape == (8, 3, 64, 64)
    assert torch.equal(batch, CropSampler(photos, 64, seed=5).batch(8))
    assert not torch.equal(batch, CropSampler(photos, 64, seed=6).batch(8))
    ramp = np.arange(80 * 90, dtype=np.int64).reshape(80, 90)
    coded = np.stack([ramp % 256, ramp // 256, ramp * 0], 2).astype(np.uint8)
    for crop in (CropSampler([coded], 32).batch(20) * 255).round().long():
        rows = crop[0] + 256 * crop[1]
        flipped = rows[0, 0] > rows[0, 1]
        rows = rows.flip(1) if flipped else rows
        assert torch.equal(rows, rows[0, 0] + torch.arange(32) + 90 * torch.arange(32)[:, None])
    with pytest.raises(ValueError, match="at least 999"):
        CropSampler(photos, 999)


def test_muon_steps_are_orthogonal_and_descend():
    for shape in ((16, 40), (40, 16), (24, 24)):
        values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
        assert values.max() < 1.35
        assert values.median() > 0.6
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 3, 3))
    optimizer = Muon(module, lr=0.02)
    image = torch.rand(4, 3, 12, 12)
    losses = []
    for _ in range(60):
        loss = (module(image) - image[:, :, 2:-2, 2:-2]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, photos, monkeypatch):
    """Bit for bit, with one thread: the checkpoint of step 3 goes on to the same weights at step 6."""
    torch.set_num_threads(1)
    real = autoencoder_training.validate
    (tmp_path / "half").mkdir()

    def watch(*arguments):
        if not (tmp_path / "half" / "autoencoder.ckpt.safetensors").exists():
            shutil.copy(tmp_path / "whole" / "autoencoder.ckpt.safetensors", tmp_path / "half")
        return real(*arguments)

    monkeypatch.setattr(autoencoder_training, "validate", watch)
    arguments = (PRESETS["tiny"], SHORT, SPECIAL, photos, photos[:1])
    train_autoencoder(*arguments, tmp_path / "whole")
    assert weights.load(tmp_path / "half" / "autoencoder.ckpt.safetensors")[1]["step"] == 3
    train_autoencoder(*arguments, tmp_path / "half")
    a, meta_a = weights.load(tmp_path / "whole" / "autoencoder.ckpt.safetensors")
    b, meta_b = weights.load(tmp_path / "half" / "autoencoder.ckpt.safetensors")
    assert meta_a["step"] == meta_b["step"] == 6
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_not_a_number_stops_the_run(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(autoencoder_training, "PIXEL_VARIANCE", float("nan"))
    with pytest.raises(FloatingPointError, match="checkpoint"):
        train_autoencoder(PRESETS["tiny"], SHORT, SPECIAL, photos, photos[:1], tmp_path)


def test_learning_rate_and_time():
    clock = Clock(TrainConfig(steps=100, warmup=10, learning_rate=1.0))
    assert clock.learning_rate(0) == pytest.approx(0.1, rel=0.01)
    assert clock.learning_rate(50) == pytest.approx(0.505)
    assert clock.learning_rate(100) == pytest.approx(0.01)
    assert not clock.running(100)
    late = Clock(TrainConfig(steps=100, minutes=1), elapsed=30)
    assert late.progress(1) == pytest.approx(0.5, abs=0.01)
    with clock:
        import signal

        signal.raise_signal(signal.SIGTERM)
    assert clock.stopped
    assert not clock.running(1)


def test_priors_learn_and_stop_when_told(tmp_path, photos):
    """On maps with an obvious rule the rate falls far below that of uniform indices; a second call resumes."""
    config = PRESETS["tiny"]
    rows = torch.arange(16)
    top = ((rows[:, None] + rows) % 4 * 8).to(torch.int16)[None].numpy()
    fine = torch.arange(32)
    bottom = torch.stack([(fine[:, None] + fine) % 16, fine.expand(32, 32) % 16]).to(torch.int16).numpy()
    settings = TrainConfig(steps=40, batch=4, learning_rate=5e-3, warmup=5, validate_every=20, log_every=20, bf16=False)
    priors = train_priors(config, settings, [[top, bottom]] * 2, [[top, bottom]], tmp_path)
    tensors, meta = weights.load(tmp_path / "priors.best.safetensors")
    uniform = 5 / 64 + 2 * 4 / 16
    assert meta["best"] < 0.6 * uniform
    assert meta["step"] in (20, 40)
    again = train_priors(config, settings, [[top, bottom]] * 2, [[top, bottom]], tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(priors.parameters(), again.parameters(), strict=True))


def test_tiles_of_maps_stay_aligned():
    top = np.arange(144, dtype=np.int16).reshape(1, 12, 12)
    bottom = np.arange(576, dtype=np.int16).reshape(1, 24, 24)
    sampler = TileSampler([[top, np.concatenate([bottom, bottom])]], PRESETS["tiny"])
    coarse, fine = sampler.batch(10)
    assert coarse.shape == (10, 1, 8, 8)
    assert fine.shape == (10, 2, 16, 16)
    y, x = coarse[:, 0, 0, 0] // 12, coarse[:, 0, 0, 0] % 12
    assert torch.equal(fine[:, 0, 0, 0], 2 * y * 24 + 2 * x)


def tool():
    path = Path(__file__).resolve().parent.parent / "tools" / "train.py"
    spec = importlib.util.spec_from_file_location("train_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_from_photographs_to_a_model_that_encodes(tmp_path, photos):
    """The tool's three commands, as docs/training.md has them, on the tiny preset."""
    (tmp_path / "photos").mkdir()
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{i}.png")
    common = ["--out", str(tmp_path / "run"), "--data", str(tmp_path / "photos"), "--val", str(tmp_path / "photos")]
    short = ["--steps", "260", "--batch", "4", "--validate-every", "260", "--no-bf16"]
    for command in (
        ["autoencoder", *common, "--preset", "tiny", "--crop", "32", *short],
        ["priors", *common, "--steps", "10", "--batch", "2", "--validate-every", "5", "--no-bf16"],
        [
            "export",
            "--out",
            str(tmp_path / "run"),
            "--val",
            str(tmp_path / "photos"),
            str(tmp_path / "new.safetensors"),
        ],
    ):
        result = CliRunner().invoke(tool(), command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "PSNR" in result.output
    assert "integer:" in result.output
    codec = Codec.load(registry.find(tmp_path / "new.safetensors"), "cpu")
    image = Image.fromarray(photos[0])
    encoded = codec.encode(image, verify=True)
    decoded = np.asarray(codec.decode(encoded), np.float64)
    error = np.square(decoded - photos[0]).mean()
    assert error < 0.6 * photos[0].astype(np.float64).var()


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
    model = Autoencoder(PRESETS["tiny"].autoencoder)
    optimizer = Muon(model, 1e-3)
    model(torch.rand(1, 3, 16, 16)).image.sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "a.safetensors", model, optimizer, {"g": torch.Generator().manual_seed(4)}, {"step": 1})
    other = Autoencoder(PRESETS["tiny"].autoencoder)
    loaded = Muon(other, 1e-3)
    generator = torch.Generator()
    assert checkpoint.load(tmp_path / "a.safetensors", other, loaded, {"g": generator}) == {"step": 1}
    assert generator.get_state().equal(torch.Generator().manual_seed(4).get_state())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert optimizer.state[a].keys() == loaded.state[b].keys()
        assert all(torch.equal(v, loaded.state[b][k]) for k, v in optimizer.state[a].items())
