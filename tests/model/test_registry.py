# SPDX-License-Identifier: Apache-2.0
"""Finding models: search order, identities, cards, and what `info` makes of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vqcodec
import vqcodec.pillow_plugin
from vqcodec.errors import FormatError, ModelError
from vqcodec.format import container
from vqcodec.model import registry


@pytest.fixture
def model_dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two directories of made-up models, the only ones that are searched."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    (first / "alpha.safetensors").write_bytes(b"weights of alpha")
    (first / "notes.md").write_text("no model")
    (second / "alpha.safetensors").write_bytes(b"other weights")
    (second / "beta.safetensors").write_bytes(b"weights of beta" * 100_000)
    (second / "beta.json").write_text(json.dumps({"title": "Beta", "figures": {"bpp": 0.25}}))
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path / "package")
    monkeypatch.setenv(registry.ENVIRONMENT, os.pathsep.join([str(first), str(tmp_path / "missing"), "", str(second)]))
    return [first, second]


def identity_of(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()[:4]


def test_installed_in_search_order(model_dirs: list[Path]) -> None:
    first, second = model_dirs
    models = registry.installed()
    assert [(model.name, model.path) for model in models] == [
        ("alpha", first / "alpha.safetensors"),
        ("beta", second / "beta.safetensors"),
    ]
    assert all(model.identity == identity_of(model.path) for model in models)


def test_find_by_name_and_path(model_dirs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = model_dirs
    assert registry.find("alpha").path == first / "alpha.safetensors"
    assert registry.find(second / "alpha.safetensors").identity == identity_of(second / "alpha.safetensors")
    assert registry.find(str(second / "beta.safetensors")).name == "beta"
    with pytest.raises(ModelError, match=registry.DEFAULT_MODEL):
        registry.find()
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "beta")
    assert registry.find().name == "beta"


def test_the_model_of_a_tune_stands_in_for_the_default(model_dirs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = model_dirs
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "beta")
    assert registry.find(None, "psnr").name == "beta"
    shutil.copy(first / "alpha.safetensors", second / "beta-psnr.safetensors")
    assert registry.find(None, "psnr").name == "beta-psnr"
    assert registry.find(None, "eye").name == "beta"
    assert registry.find("alpha", "psnr").name == "alpha"


def test_tunes_of_the_shipped_models(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 255, (40, 50, 3), np.uint8))
    options: dict[str, Any] = {"device": "cpu", "effort": 1, "fallback": False}
    made_by = {"eye": "vq2-light", "psnr": "vq2-light-psnr", "ssim": "vq2-light"}
    for tune, name in made_by.items():
        assert vqcodec.info(vqcodec.encode(picture, tune=tune, **options)).model_name == name
    picture.save(tmp_path / "p.vq2", tune="psnr", effort=1, fallback=False)
    assert vqcodec.info(tmp_path / "p.vq2").model_name == "vq2-light-psnr"
    named = vqcodec.encode(picture, tune="psnr", model="vq2-light", **options)
    assert vqcodec.info(named).model_name == "vq2-light"


@pytest.mark.parametrize("wanted", ["gamma", "gamma.safetensors", "no/such/place", ""])
def test_missing_models(model_dirs: list[Path], wanted: str) -> None:
    with pytest.raises(ModelError):
        registry.find(wanted)


def test_missing_model_says_what_to_do(model_dirs: list[Path]) -> None:
    with pytest.raises(ModelError, match=r"'gamma' is not installed.*alpha \([0-9a-f]{8}\), beta.*VQCODEC_MODELS"):
        registry.find("gamma")
    with pytest.raises(ModelError, match=r"00112233.*not installed.*alpha.*VQCODEC_MODELS"):
        registry.find_identity(bytes.fromhex("00112233"))


def test_find_identity_also_behind_a_name_that_is_taken(model_dirs: list[Path]) -> None:
    hidden = model_dirs[1] / "alpha.safetensors"
    assert registry.find_identity(identity_of(hidden)).path == hidden


def test_identity_follows_the_file(model_dirs: list[Path]) -> None:
    path = model_dirs[0] / "alpha.safetensors"
    before = registry.find("alpha").identity
    path.write_bytes(b"retrained, and longer")
    assert registry.find("alpha").identity == identity_of(path) != before


def test_identity_is_remembered(model_dirs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = registry.find("beta")
    monkeypatch.setattr(hashlib, "sha256", None)
    assert registry.find("beta") == expected


def test_figures(model_dirs: list[Path]) -> None:
    assert registry.figures(registry.find("beta")) == {"title": "Beta", "figures": {"bpp": 0.25}}
    assert registry.figures(registry.find("alpha")) == {}
    for broken in ("{", "[1]", "\udcff"):
        (model_dirs[0] / "alpha.json").write_bytes(broken.encode("utf-8", "surrogateescape"))
        with pytest.raises(ModelError, match="alpha"):
            registry.figures(registry.find("alpha"))


def test_directories_of_package_and_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path / "package")
    assert registry.directories() == [tmp_path / "package" / "_models"]
    (tmp_path / "pyproject.toml").touch()
    assert registry.directories() == [tmp_path / "package" / "_models", tmp_path / "models"]


def packed(identity: bytes, mode: str = "RGB") -> bytes:
    header = container.Header(100, 50, mode, identity)
    alpha = b"some PNG" if mode.endswith("A") else None
    return container.pack(container.Container(header, (b"\0" * 40, b"\0" * 80), alpha, icc=b"icc" * 9, xmp=b"x"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_info(model_dirs: list[Path], tmp_path: Path, mode: str) -> None:
    data = packed(registry.find("beta").identity, mode)
    path = tmp_path / "a.vq2"
    path.write_bytes(data)
    shown = vqcodec.info(path)
    assert shown == vqcodec.info(str(path)) == vqcodec.info(data)
    assert (shown.width, shown.height, shown.mode, shown.model_name) == (100, 50, mode, "beta")
    assert shown.model_identity == registry.find("beta").identity.hex()
    parts = shown.header_bytes + shown.metadata_bytes + shown.alpha_bytes + shown.overhead_bytes
    assert parts + sum(shown.level_bytes) == shown.file_bytes == len(data)
    assert shown.level_bits == (320, 640)
    assert shown.bpp == 8 * len(data) / 5000
    assert shown.bits_per_dim == pytest.approx(shown.bpp / {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode])
    assert shown.metadata_bytes == (shown.icc_bytes or 0) + (shown.xmp_bytes or 0)
    assert shown.exif_bytes is None
    assert json.loads(json.dumps(dataclasses.asdict(shown)))["level_bits"] == [320, 640]


def test_info_without_the_model_and_of_damage(model_dirs: list[Path]) -> None:
    data = packed(b"\0" * 4)
    assert vqcodec.info(data).model_name is None
    with pytest.raises(FormatError):
        vqcodec.info(data[:-1])


def test_a_name_of_a_shipped_model_warns(tmp_path, tiny_models, monkeypatch):
    shutil.copy(tiny_models / "tiny.safetensors", tmp_path / "vqvae-base.safetensors")
    monkeypatch.setenv(registry.ENVIRONMENT, str(tmp_path))
    with pytest.warns(UserWarning, match="not the shipped model"):
        assert registry.find("vqvae-base").path.parent == tmp_path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.find()
        shipped = registry._SHIPPED[1] / "vqvae-base.safetensors"
        shutil.copy(shipped, tmp_path / "vqvae-base.safetensors")  # the same weights
        registry.find("vqvae-base")
