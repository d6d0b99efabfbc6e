# SPDX-License-Identifier: Apache-2.0
"""tools/train.py from photographs to a weights file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import load_tool, save_untrained
from PIL import Image

from vqcodec.codec import Codec
from vqcodec.config import ModelConfig
from vqcodec.model import registry, weights
from vqcodec.model.loading import pack_model
from vqcodec.prior.export import to_integers
from vqcodec.training.export import load_model_file, load_priors
from vqcodec.training.presets import VQVAE2_PRESETS
from vqcodec.vae.model import VAEModel


def test_light_model_from_nothing(tmp_path, photos, photo_folder):
    """`joint --preset`: stops, product stages, gains, linear start, and out comes a model that encodes."""
    common = [
        "--out",
        tmp_path / "run",
        "--data",
        photo_folder,
        "--val",
        photo_folder,
        "--no-bf16",
        "--prior-share",
        "0.5",
    ]
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
            "--passed",
            "0.2",
            "--crop",
            "64",
            "--steps",
            "50",
        ]
        + ["--batch", "4", "--unquantized-steps", "10", "--ramp", "15", "30"],
        ["export", "--out", tmp_path / "run", "--val", photo_folder, target],
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


def test_going_on_from_a_weights_file(tmp_path, photo_folder, tiny_models):
    """Nothing is lost on the way into training, and what comes out is a model again."""
    shipped = tiny_models / "tiny.safetensors"
    tensors, meta = weights.load(shipped)
    config, model, priors = load_model_file(shipped)
    assert config == ModelConfig.from_dict(meta["model"])
    again = pack_model(model, [to_integers(prior) for prior in priors.levels()])
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name].float(), value.float()) for name, value in tensors.items())
    common = ["--out", tmp_path / "run", "--data", photo_folder, "--val", photo_folder, "--no-bf16", "--batch", "2"]
    run_tool(
        ["joint", *common, "--start", shipped, "--lambda", "0.1", "1.0", "--crop", "64", "--steps", "2"],
        ["prior", *common, "--steps", "2", "--validate-every", "1"],
        ["export", "--out", tmp_path / "run", "--val", photo_folder, tmp_path / "more.safetensors"],
    )
    meta = weights.load_meta(tmp_path / "more.safetensors")
    assert meta["model"]["rates"] == [0.1, 1.0]
    assert sorted(meta["training"]) == ["commit", "joint", "prior"]


def test_mean_of_two_weights_files(tmp_path, photos):
    """Tensor by tensor; a share of 0 is the first again, and what comes out is a model that encodes."""
    first, second, target = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "mean"))
    save_untrained(first, seed=0)
    save_untrained(second, seed=1)
    run_tool(["mean", first, second, target, "--share", "0"])
    before, after = (weights.load(path)[0] for path in (first, target))
    assert all(torch.equal(before[name], value) for name, value in after.items())
    run_tool(["mean", first, second, target, "--share", "0.25"])
    a, b, mean = (weights.load(path)[0] for path in (first, second, target))
    for name, step in {"autoencoder.stem.weight": 2e-3, "prior.0.embed": 0.5}.items():  # rounded to half, to integers
        expected = 0.75 * a[name].float() + 0.25 * b[name].float()
        torch.testing.assert_close(mean[name].float(), expected, rtol=0, atol=step)
        assert not torch.equal(mean[name], a[name])
    codec = Codec.load(registry.find(target), "cpu")
    assert codec.decode(codec.encode(Image.fromarray(photos[0]), verify=True)).size == photos[0].shape[1::-1]
    training = weights.load_meta(target)["training"]
    assert training["mean"] == [registry.find(path).identity.hex() for path in (first, second)]
    assert training["share"] == 0.25


def test_no_mean_of_two_configurations(tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_untrained(first)
    save_untrained(second, VQVAE2_PRESETS["tiny-light"])
    for arguments in ((first, second), (first, first, "--share", "2")):
        command = ["mean", *arguments, tmp_path / "mean.safetensors"]
        assert CliRunner().invoke(load_tool("train").main, [str(part) for part in command]).exit_code == 2
    assert not (tmp_path / "mean.safetensors").exists()


def test_more_stages_on_a_weights_file(tmp_path, photo_folder):
    common = ["joint", "--out", tmp_path / "run", "--data", photo_folder, "--val", photo_folder, "--crop", "64"]
    refused = CliRunner().invoke(load_tool("train").main, [str(c) for c in (*common, "--products", "2")])
    assert refused.exit_code == 2
    assert "--start" in refused.output
    save_untrained(tmp_path / "tiny-light.safetensors", VQVAE2_PRESETS["tiny-light"])
    more = ("--no-bf16", "--batch", "2", "--steps", "1", "--start", tmp_path / "tiny-light.safetensors")
    run_tool([*common, *more, "--products", "2"])
    assert load_priors(tmp_path / "run" / "joint.ckpt.safetensors")[0].levels()[-1].level.products == 2


def test_the_coarsest_priors_alone(tmp_path, photo_folder, tiny_models):
    run = tmp_path / "run"
    common = ["--out", run, "--data", photo_folder, "--val", photo_folder, "--no-bf16", "--batch", "2"]
    run_tool(
        ["joint", *common, "--start", tiny_models / "tiny.safetensors", "--crop", "64", "--steps", "1"],
        ["prior", *common, "--levels", "1", "--enlarged", "0.5", "--steps", "2", "--validate-every", "2"],
    )
    before, after = (load_priors(run / name)[0] for name in ("joint.ckpt.safetensors", "prior.best.safetensors"))
    equal = [
        all(torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True))
        for old, new in zip(before.levels(), after.levels(), strict=True)
    ]
    assert equal == [False] + [True] * (len(equal) - 1)


@pytest.mark.parametrize("system", ["vqvae", "vqvae2"])
def test_from_photographs_to_a_model_that_encodes(tmp_path, photos, photo_folder, system):
    """The tool's commands, as docs/training.md has them, on the tiny preset."""
    common = ["--out", tmp_path / "run", "--data", photo_folder, "--val", photo_folder, "--no-bf16"]
    target = tmp_path / "new.safetensors"
    said = run_tool(
        [system, *common, "--preset", "tiny", "--crop", "32", "--steps", "260", "--batch", "4"],
        *([["joint", *common, "--crop", "64", "--steps", "6", "--batch", "2"]] if system == "vqvae2" else []),
        ["prior", *common, "--steps", "10", "--batch", "2", "--validate-every", "5"],
        ["export", "--out", tmp_path / "run", "--val", photo_folder, target],
    )
    assert "PSNR" in said
    assert "integer:" in said
    codec = Codec.load(registry.find(target), "cpu")
    image = Image.fromarray(photos[0])
    encoded = codec.encode(image, verify=True)
    decoded = np.asarray(codec.decode(encoded), np.float64)
    error = np.square(decoded - photos[0]).mean()
    assert error < 0.6 * photos[0].astype(np.float64).var()


def test_from_photographs_to_a_vae(tmp_path, photos, photo_folder):
    common = ["--out", tmp_path / "run", "--data", photo_folder, "--val", photo_folder, "--no-bf16"]
    target = tmp_path / "new.safetensors"
    said = run_tool(
        ["vae", *common, "--preset", "tiny", "--steps", "150", "--learning-rate", "4e-3"],
        ["export", "--out", tmp_path / "run", "--val", photo_folder, target],
    )
    assert "ELBO" in said
    model = VAEModel.load(registry.find(target))
    assert model.figures(photos[0]).elbo < 8  # a uniform distribution has 8 bits per dim
    error = np.square(model.reconstruct(photos[0]).astype(np.float64) - photos[0]).mean()
    assert error < 0.6 * photos[0].astype(np.float64).var()
