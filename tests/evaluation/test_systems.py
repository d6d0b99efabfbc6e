# SPDX-License-Identifier: Apache-2.0
"""The comparison of systems: figures against other ways to them, the page, the picture, the VAE's tool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, load_tool
from PIL import Image

from vqcodec.codec import Codec
from vqcodec.evaluation import systems
from vqcodec.model import registry, weights
from vqcodec.training.presets import VAE_PRESETS
from vqcodec.vae.model import VAEModel
from vqcodec.vae.network import VAE

TOOLS = ROOT / "tools"


def run(name, *arguments):
    module = load_tool(name)
    result = CliRunner().invoke(module.main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> registry.ModelFile:
    torch.manual_seed(0)
    model = VAE(VAE_PRESETS["tiny"])
    path = tmp_path_factory.mktemp("vae") / "small-vae.safetensors"
    tensors = {f"vae.{k}": v.half() for k, v in model.state_dict().items()}
    training = {"vae": {"minutes": 2.5, "steps": 3}, "commit": "none"}
    weights.save(path, tensors, {"model": model.config.to_dict(), "training": training})
    return registry.find(path)


@pytest.fixture
def pictures(photo) -> list[np.ndarray]:
    return [np.ascontiguousarray(photo[:64, :64]), np.ascontiguousarray(photo[100:164, 200:328])]


def test_figures_of_a_codec(tiny: Codec, tiny_models: Path, pictures):
    measured = systems.figures(tiny, registry.find(tiny_models / "tiny.safetensors"), pictures, 0)
    assert measured.system == "VQ-VAE-2"
    assert measured.bound is None
    files = [tiny.encode(Image.fromarray(p)) for p in pictures]
    dims = sum(p.size for p in pictures)
    assert measured.file_bits_per_dim == pytest.approx(8 * sum(map(len, files)) / dims)
    assert 0 < measured.index_bits_per_dim < measured.file_bits_per_dim
    indices = [tiny.to_indices(p).levels for p in pictures]
    for level, maps in enumerate(zip(*indices, strict=True)):
        codes = tiny.config.autoencoder.levels[level].codes
        for stage, usage in enumerate(measured.usage[level]):
            seen = {int(i) for m in maps for i in m[stage].flatten()}
            assert usage == pytest.approx(len(seen) / codes)
    numbers = [sum(m.numel() for m in maps) for maps in zip(*indices, strict=True)]
    nats = sum(n * number for n, number in zip(measured.nats_per_index, numbers, strict=True))
    assert nats / np.log(2) / dims == pytest.approx(measured.index_bits_per_dim)
    network = sum(p.numel() for p in tiny.autoencoder.parameters())
    assert measured.parameters["autoencoder"] == network + 32 * 8 + 2 * 16 * 8


def test_figures_of_a_vae(vae, pictures):
    measured = systems.figures(VAEModel.load(vae), vae, pictures, 4)
    assert (measured.system, measured.minutes) == ("VAE", 2.5)
    assert measured.importance_weighted == pytest.approx(sum(measured.bound), rel=0.05)
    assert measured.file_bits_per_dim is None
    assert not measured.usage


def test_minutes_of_all_stages():
    assert systems.training_minutes({}) == 0
    assert systems.training_minutes({"training": {"a": {"minutes": 2}, "b": {"minutes": 3}, "commit": "x"}}) == 5
    assert systems.training_minutes({"training": {"autoencoder": {"minutes": 9}, "autoencoder_minutes": 4.5}}) == 4.5


def test_the_page_the_record_and_the_picture(vae, tiny_models, pictures, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures of set: begin -->\nold\n<!-- figures of set: end -->\nafter\n")
    models = ["--model", vae.path, "--model", tiny_models / "tiny.safetensors"]
    where = ["--images", f"set={folder}", "--table", page, "--json", tmp_path / "all.json", "--bound-samples", 2]
    pictured = ["--picture", tmp_path / "sheet.png", "--pictured", TOOLS.parent / "docs" / "images" / "chelsea.png"]
    run("systems", *models, *where, *pictured)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("|")[2].strip() for row in rows] == ["VAE", "VQ-VAE-2"]
    record = json.loads((tmp_path / "all.json").read_text())["set"]
    assert f"{record[1]['file_bits_per_dim']:.4f}" in rows[1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 128


def test_the_tool_of_the_vae(vae, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(photo[::-1, ::-1]).save(tmp_path / "b.png")
    model = ["--model", vae.path]
    printed = json.loads(
        run("vae", "bound", *model, "--samples", 2, "--crop", 64, tmp_path / "a.png", tmp_path / "b.png")
    )
    assert printed["images"] == 2
    assert printed["elbo"] == pytest.approx(printed["reconstruction"] + printed["kl"])
    run("vae", "reconstruct", *model, tmp_path / "a.png", tmp_path / "c.png")
    run(
        "vae",
        "interpolate",
        *model,
        "--steps",
        3,
        "--crop",
        32,
        tmp_path / "a.png",
        tmp_path / "b.png",
        tmp_path / "d.png",
    )
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == photo.shape[1::-1]
    with Image.open(tmp_path / "d.png") as row:
        assert row.size == (3 * 32 + 2 * 2, 32)
