# SPDX-License-Identifier: Apache-2.0
"""Training: data, optimiser, resuming, and the whole way from photographs to a model that encodes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import load_tool, untrained
from PIL import Image
from skimage import data

from vqcodec.codec import Codec
from vqcodec.config import ModelConfig
from vqcodec.model import lambdas, registry, weights
from vqcodec.model.loading import pack_model
from vqcodec.nets.autoencoder import Autoencoder, Reconstruction
from vqcodec.nets.quality import WINDOW, ms_ssim
from vqcodec.prior.export import to_integers
from vqcodec.training import checkpoint, linear
from vqcodec.training.autoencoder import AutoencoderTask, AutoencoderTraining
from vqcodec.training.average import Average
from vqcodec.training.data import CropSampler, grid, load_images
from vqcodec.training.export import load_model_file
from vqcodec.training.joint import JointTask
from vqcodec.training.loop import train
from vqcodec.training.metric import PIXEL_VARIANCE, squared_jacobians
from vqcodec.training.muon import Muon, orthogonalized, parameter_groups
from vqcodec.training.presets import VAE_PRESETS, VQVAE2_PRESETS, VQVAE_PRESETS
from vqcodec.training.prior import Coded, CodedTiles, Priors, PriorTask, coded_tiles
from vqcodec.training.schedule import Clock, TrainConfig
from vqcodec.training.vae import VAETask, VAETraining
from vqcodec.vae.model import VAEModel

SHORT = TrainConfig(steps=6, batch=2, crop=32, validate_every=3, log_every=2, warmup=2, bf16=False)
SPECIAL = AutoencoderTraining(unquantized_steps=2, kmeans_batches=4)


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
    optimizer = Muon(parameter_groups(module, {}), lr=0.02)
    image = torch.rand(4, 3, 12, 12)
    losses = []
    for _ in range(60):
        loss = (module(image) - image[:, :, 2:-2, 2:-2]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_ms_ssim_to_train_with(photos):
    """It is the field's own, under a shorter window; its gradient is finite where structure is reversed."""
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    image = torch.from_numpy(np.stack([photo[:128, :128] for photo in photos])).permute(0, 3, 1, 2) / 255
    blurred = torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
    for decoded in (image + 0.05 * torch.randn_like(image), image + 0.2 * torch.randn_like(image), blurred):
        reference = pytorch_msssim.ms_ssim(decoded, image, data_range=1.0, size_average=False, win_size=WINDOW)
        assert torch.allclose(ms_ssim(decoded, image), reference, atol=1e-5)
    assert torch.allclose(ms_ssim(image, image), torch.ones(len(image)))
    reversed_ = (1 - image).requires_grad_()
    (gradient,) = torch.autograd.grad(ms_ssim(reversed_, image).sum(), [reversed_])
    assert gradient.isfinite().all()


def test_ms_ssim_in_the_loss(photos):
    config = dataclasses.replace(SHORT, crop=128)
    with pytest.raises(ValueError, match="at least 97 pixels"):
        autoencoder_task(photos, SHORT, AutoencoderTraining(ms_ssim=0.3))
    image = CropSampler(photos, 128).batch(2)
    result = Reconstruction(image + 0.05 * torch.randn_like(image), [], [torch.zeros(2)] * 2)
    losses = []
    for special in (AutoencoderTraining(), AutoencoderTraining(ms_ssim=0.3)):
        loss, scalars = autoencoder_task(photos, config, special).distortion(result, image, torch.full((2,), 0.5))
        losses.append(loss)
    assert scalars["train/ms_ssim"] < 0.99
    assert (losses[1] - losses[0]).item() == pytest.approx(0.3 * (1 - scalars["train/ms_ssim"].item()), rel=1e-3)


def autoencoder_task(photos, config=SHORT, special=SPECIAL):
    return AutoencoderTask(VQVAE2_PRESETS["tiny"], config, special, photos, photos[:1])


def vae_task(photos):
    return VAETask(VAE_PRESETS["tiny"], SHORT, VAETraining(), photos, photos[:1])


def joint_task(photos):
    torch.manual_seed(0)
    return JointTask(VQVAE2_PRESETS["tiny"], SHORT, SPECIAL, photos, photos[:1])


def prior_task(photos):
    """On what an untrained autoencoder makes of photographs."""
    config = VQVAE2_PRESETS["tiny"]
    autoencoder, _ = untrained(config)
    torch.manual_seed(0)
    priors = Priors(config)
    return PriorTask(config, SHORT, priors, *coded_tiles(config, autoencoder, priors, photos, photos[:1], SHORT))


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
    own = module[0].weight.detach().clone()
    with average.applied(module):
        assert torch.equal(module[0].weight, average.state["0.weight"])
    assert torch.equal(module[0].weight, own)


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


def test_grids_of_pictures():
    images = torch.arange(3.0)[:, None, None, None].expand(3, 3, 4, 5) / 3
    found = grid(images, 2)
    assert found.shape == (3, 10, 12)
    assert (found[:, :4, :5] == 0).all()
    assert (found[:, :4, 5:7] == 1).all()
    assert torch.equal(found[:, 6:, :5], images[2])
    assert (found[:, 6:, 7:] == 1).all()


PRESETS = {
    **{f"vqvae-{k}": v for k, v in VQVAE_PRESETS.items()},
    **{f"vqvae2-{k}": v for k, v in VQVAE2_PRESETS.items()},
}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_codec_preset_trains(tmp_path, name):
    """Autoencoder for some steps, quantised from the second; then its priors on its indices: losses are finite, and
    every parameter that can move moves."""
    model = PRESETS[name]
    side = model.tile_size
    photo = [np.ascontiguousarray(data.astronaut()[100 : 100 + side, 100 : 100 + side])]
    config = TrainConfig(
        steps=4, batch=1, crop=min(128, side), validate_every=100, log_every=100, warmup=1, bf16=False, ema=0.5
    )
    special = AutoencoderTraining(unquantized_steps=1, kmeans_batches=16)
    task = AutoencoderTask(model, config, special, photo, photo)
    before = {k: v.clone() for k, v in task.module.named_parameters()}
    train(task, config, tmp_path)
    assert all(not torch.equal(v, before[k]) for k, v in task.module.named_parameters())
    settings = dataclasses.replace(config, steps=1 if model.priors[0].layers > 10 else 3, learning_rate=1e-3)
    networks = Priors(model)
    priors = PriorTask(model, settings, networks, *coded_tiles(model, task.autoencoder, networks, photo, photo, config))
    start = [p.detach().clone() for p in priors.module.parameters()]
    assert train(priors, settings, tmp_path).name == "prior.best.safetensors"
    moved = [not torch.equal(a, b) for a, b in zip(start, priors.module.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("name", sorted(VAE_PRESETS))
def test_every_vae_preset_trains(tmp_path, photos, name):
    config = TrainConfig(steps=4, batch=2, validate_every=100, log_every=100, warmup=1, bf16=False)
    task = VAETask(VAE_PRESETS[name], config, VAETraining(), photos, photos[:1])
    before = {k: v.clone() for k, v in task.module.named_parameters()}
    assert train(task, config, tmp_path).name == "vae.best.safetensors"
    assert all(not torch.equal(v, before[k]) for k, v in task.module.named_parameters())


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


def test_tiles_are_what_the_encoder_makes_of_them(photos):
    """Rates lie in the model's range; the choice by cost under the priors has fewer bits under them than that by
    order-0 lengths."""
    config = VQVAE2_PRESETS["tiny"]
    autoencoder, (_, fine) = untrained(config)
    priors = Priors(config)
    priors[1] = fine
    tiles = CodedTiles(config, autoencoder, priors, photos, seed=3)
    (coarse, found), tradeoffs = tiles.batch(4, tradeoff=1.0)
    assert tradeoffs.tolist() == [1.0] * 4
    assert coarse.shape == (4, 1, 8, 8)
    assert found.shape == (4, 2, 16, 16)
    image = CropSampler(photos, config.tile_size, seed=3).batch(4)
    lmbdas = lambdas.at(config, torch.ones(4))
    assert lmbdas[0].tolist() == [0.0] * 4
    assert lmbdas[1].tolist() == pytest.approx([2.0] * 4)
    assert lambdas.at(config, torch.tensor([0.0, 0.5]))[1].tolist() == pytest.approx([0.06, 0.12**0.5])
    with torch.no_grad():
        plain = autoencoder.encode(image, lmbdas)
        assert torch.equal(plain[0], coarse)
        bits = [float(fine(maps, [coarse]).mean()) for maps in (plain[1], found)]
    assert bits[1] < 0.95 * bits[0]


def test_enlarged_crops_are_smooth(photos):
    def edges(batch):
        return batch.diff(dim=-1).square().mean((1, 2, 3)) / batch.var((1, 2, 3)).clamp(min=1e-6)

    plain, smooth, some = (CropSampler(photos, 64, seed=2, enlarged=share).batch(12) for share in (0.0, 1.0, 0.5))
    assert edges(smooth).median() < 0.1 * edges(plain).median()
    assert 2 <= sum(torch.equal(a, b) for a, b in zip(some, plain, strict=True)) <= 10


@torch.no_grad()
def test_linear_start_is_a_transform_code(photos):
    """Before any training the levels leave little of a photograph, every level less, and errors of a latent cost what
    the metric says."""
    config = VQVAE2_PRESETS["tiny-light"].autoencoder
    torch.manual_seed(0)
    model = Autoencoder(config)
    image = CropSampler(photos, 64, seed=1).batch(16)
    linear.start(model, image)
    model.eval()
    for quantizer in model.level_quantizers():
        quantizer.enabled = False
    error = (model(image).image - image).square().mean()
    features, state = model.features(image), None
    for i in range(len(config.levels)):
        latent = model.latent(i, features[i], state)
        assert latent.square().mean() == pytest.approx(1, rel=0.3)  # one unit for all channels of a level
        assert latent[:, 0].var() > 2 * latent[:, -1].var()  # principal components, strongest first
        state = model.descend(i, latent, state)
    assert error < 0.03 * image.var()


def test_metric_is_what_an_error_does_to_the_picture(photos):
    """Against the picture's own change, for small errors of random latents."""
    config = VQVAE2_PRESETS["tiny-light"]
    torch.manual_seed(0)
    model = Autoencoder(config.autoencoder).eval()
    tradeoffs = torch.full((2,), 0.5)
    image = CropSampler(photos, 64, seed=1).batch(2)
    with torch.no_grad():
        indices = model.encode(image, torch.zeros(2, 2), None, tradeoffs)
    draws = [squared_jacobians(model, indices, tradeoffs, torch.Generator().manual_seed(i)) for i in range(200)]
    for level, jacobian in enumerate(torch.stack(parts).mean(0) for parts in zip(*draws, strict=True)):
        latents = [q.lookup(m).permute(0, 3, 1, 2) for q, m in zip(model.level_quantizers(), indices, strict=True)]

        def decode(latents):
            state = None
            for i, latent in enumerate(latents):
                state = model.descend(i, latent, state, tradeoffs)
            return model.to_pixels(state, tradeoffs)

        step = 1e-2 * torch.randn(latents[level].shape, generator=torch.Generator().manual_seed(9))
        moved = [latent + step if i == level else latent for i, latent in enumerate(latents)]
        with torch.no_grad():
            measured = (decode(moved) - decode(latents)).square().sum() / PIXEL_VARIANCE
        rows = step.permute(0, 2, 3, 1).flatten(0, 2)
        assert float((rows @ jacobian * rows).sum()) == pytest.approx(float(measured), rel=0.3)


def test_light_model_from_nothing(tmp_path, photos, folder):
    """`joint --preset`: stops, product stages, gains, linear start, and out comes a model that encodes."""
    common = ["--out", tmp_path / "run", "--data", folder, "--val", folder, "--no-bf16", "--prior-share", "0.5"]
    target = tmp_path / "new.safetensors"
    run_tool(
        [
            "joint",
            *common,
            "--preset",
            "tiny-light",
            "--shape",
            "log",
            "--silent",
            "0.2",
            "--crop",
            "64",
            "--steps",
            "70",
        ]
        + ["--batch", "4", "--unquantized-steps", "10", "--ramp", "20", "40"],
        ["export", "--out", tmp_path / "run", "--val", folder, target],
    )
    codec = Codec.load(registry.find(target), "cpu")
    image = Image.fromarray(photos[0])
    sizes = []
    for quality in (0, 100):
        encoded = codec.encode(image, quality=quality, verify=True)
        sizes.append(len(encoded))
    assert sizes[0] < 0.7 * sizes[1]
    error = np.square(np.asarray(codec.decode(encoded), np.float64) - photos[0]).mean()
    assert error < 0.3 * photos[0].astype(np.float64).var()


def run_tool(*commands):
    for command in commands:
        result = CliRunner().invoke(load_tool("train").main, [str(part) for part in command], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(tmp_path, photos):
    (tmp_path / "photos").mkdir()
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_going_on_from_a_weights_file(tmp_path, folder, tiny_models):
    """Nothing is lost on the way into training, and what comes out is a model again."""
    shipped = tiny_models / "tiny.safetensors"
    tensors, meta = weights.load(shipped)
    config, model, priors = load_model_file(shipped)
    assert config == ModelConfig.from_dict(meta["model"])
    again = pack_model(model, [to_integers(prior) for prior in priors.levels()])
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name].float(), value.float()) for name, value in tensors.items())
    common = ["--out", tmp_path / "run", "--data", folder, "--val", folder, "--no-bf16", "--batch", "2"]
    run_tool(
        ["joint", *common, "--start", shipped, "--lambda", "0.1", "1.0", "--crop", "64", "--steps", "2"],
        ["prior", *common, "--steps", "2", "--validate-every", "1"],
        ["export", "--out", tmp_path / "run", "--val", folder, tmp_path / "more.safetensors"],
    )
    meta = weights.load_meta(tmp_path / "more.safetensors")
    assert meta["model"]["rates"] == [0.1, 1.0]
    assert sorted(meta["training"]) == ["commit", "joint", "prior"]


@pytest.mark.parametrize("system", ["vqvae", "vqvae2"])
def test_from_photographs_to_a_model_that_encodes(tmp_path, photos, folder, system):
    """The tool's commands, as docs/training.md has them, on the tiny preset."""
    common = ["--out", tmp_path / "run", "--data", folder, "--val", folder, "--no-bf16"]
    target = tmp_path / "new.safetensors"
    said = run_tool(
        [system, *common, "--preset", "tiny", "--crop", "32", "--steps", "260", "--batch", "4"],
        *([["joint", *common, "--crop", "64", "--steps", "6", "--batch", "2"]] if system == "vqvae2" else []),
        ["prior", *common, "--steps", "10", "--batch", "2", "--validate-every", "5"],
        ["export", "--out", tmp_path / "run", "--val", folder, target],
    )
    assert "PSNR" in said
    assert "integer:" in said
    codec = Codec.load(registry.find(target), "cpu")
    image = Image.fromarray(photos[0])
    encoded = codec.encode(image, verify=True)
    decoded = np.asarray(codec.decode(encoded), np.float64)
    error = np.square(decoded - photos[0]).mean()
    assert error < 0.6 * photos[0].astype(np.float64).var()


def test_from_photographs_to_a_vae(tmp_path, photos, folder):
    common = ["--out", tmp_path / "run", "--data", folder, "--val", folder, "--no-bf16"]
    target = tmp_path / "new.safetensors"
    said = run_tool(
        ["vae", *common, "--preset", "tiny", "--steps", "300", "--learning-rate", "2e-3"],
        ["export", "--out", tmp_path / "run", "--val", folder, target],
    )
    assert "ELBO" in said
    model = VAEModel.load(registry.find(target))
    assert model.figures(photos[0]).elbo < 8  # a uniform distribution has 8 bits per dim
    error = np.square(model.reconstruct(photos[0]).astype(np.float64) - photos[0]).mean()
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
    found = checkpoint.load(tmp_path / "a.safetensors", other, Average(other, 0.9), loaded, {"g": generator})
    assert found["step"] == 1
    assert generator.get_state().equal(torch.Generator().manual_seed(4).get_state())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert optimizer.state[a].keys() == loaded.state[b].keys()
        assert all(torch.equal(v, loaded.state[b][k]) for k, v in optimizer.state[a].items())
