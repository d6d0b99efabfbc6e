# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with a weights file is a ModelError that says so."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_untrained

from vqcodec.codec import Codec
from vqcodec.errors import ModelError
from vqcodec.model import loading, registry, weights
from vqcodec.training.export import load_model_file
from vqcodec.training.presets import VAE_PRESETS, VQVAE2_PRESETS
from vqcodec.vae.model import VAEModel
from vqcodec.vae.network import VAE

TINY = VQVAE2_PRESETS["tiny"].to_dict()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "no valid model configuration"),
        ({}, "no valid model configuration"),
        ("tiny", "no valid model configuration"),
        (TINY | {"priors": TINY["priors"][:1]}, "1 priors for 2 levels"),
        (TINY | {"priors": [*TINY["priors"], TINY["priors"][0]]}, "3 priors for 2 levels"),
        (TINY | {"priors": [{"depth": 3}] * 2}, "no valid model configuration"),
        (TINY | {"rates": [1.0]}, "no valid model configuration"),
        (TINY | {"autoencoder": TINY["autoencoder"] | {"widths": [16, 24, 40]}}, "do not fit"),
        (VAE_PRESETS["tiny"].to_dict(), "is a VAE"),
    ],
)
def test_faults_of_a_codecs_file(tmp_path: Path, tiny_models: Path, model: Any, message: str) -> None:
    tensors, _ = weights.load(tiny_models / "tiny.safetensors")
    path = tmp_path / "wrong.safetensors"
    weights.save(path, tensors, {} if model is None else {"model": model})
    with pytest.raises(ModelError, match=message):
        Codec.load(registry.find(path), "cpu")
    with pytest.raises(ModelError, match=message):
        load_model_file(path)


@pytest.mark.parametrize("prefix", ["autoencoder.", "prior.0.", "prior.1."])
def test_missing_tensors(tmp_path: Path, tiny_models: Path, prefix: str) -> None:
    tensors, meta = weights.load(tiny_models / "tiny.safetensors")
    path = tmp_path / "wrong.safetensors"
    weights.save(path, {name: x for name, x in tensors.items() if not name.startswith(prefix)}, meta)
    with pytest.raises(ModelError):
        Codec.load(registry.find(path), "cpu")
    with pytest.raises(ModelError):
        load_model_file(path)


def test_metadata_that_are_no_object(tmp_path: Path) -> None:
    path = tmp_path / "list.safetensors"
    weights.save(path, {"a": torch.zeros(1)}, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no JSON object"):
        loading.read_codec(path)


def test_faults_of_a_vaes_file(tmp_path: Path, tiny_models: Path) -> None:
    with pytest.raises(ModelError, match="tiny is no VAE"):
        VAEModel.load(registry.find(tiny_models / "tiny.safetensors"))
    path = tmp_path / "small.safetensors"
    tensors = {f"vae.{name}": value for name, value in VAE(VAE_PRESETS["tiny"]).state_dict().items()}
    for config in (dataclasses.replace(VAE_PRESETS["tiny"], latents=16).to_dict(), {"system": "vae", "widths": 3}):
        weights.save(path, tensors, {"model": config})
        with pytest.raises(ModelError, match="do not fit|no valid"):
            VAEModel.load(registry.find(path))


def test_configurations_keep_their_names_in_files(tmp_path: Path) -> None:
    """Files say `rates` for what the code calls lmbdas and tradeoffs."""
    config = VQVAE2_PRESETS["tiny-light"]
    data = config.to_dict()
    assert data["rates"] == (0.004, 2.0)
    assert [prior["rates"] for prior in data["priors"]] == [4, 4]
    assert type(config).from_dict(data) == config
    save_untrained(tmp_path / "light.safetensors", config)
    assert Codec.load(registry.find(tmp_path / "light.safetensors"), "cpu").config == config


@pytest.mark.parametrize("holder", ["model", "prior"])
def test_names_of_the_code_are_none_of_files(tmp_path: Path, tiny_models: Path, holder: str) -> None:
    tensors, _ = weights.load(tiny_models / "tiny.safetensors")
    data = VQVAE2_PRESETS["tiny"].to_dict()
    if holder == "model":
        data["lmbdas"] = data.pop("rates")
    else:
        data["priors"][0]["tradeoffs"] = data["priors"][0].pop("rates")
    weights.save(tmp_path / "new.safetensors", tensors, {"model": data})
    with pytest.raises(ModelError, match="has no '(lmbdas|tradeoffs)'"):
        loading.read_codec(tmp_path / "new.safetensors")


def test_the_identity_is_that_of_the_bytes_that_were_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_untrained(path, VQVAE2_PRESETS["tiny"])
    entry = registry.find(path)
    save_untrained(path, VQVAE2_PRESETS["tiny-light"])  # another file in its place before it is read
    codec = Codec.load(entry, "cpu")
    assert codec.config == VQVAE2_PRESETS["tiny-light"]
    assert codec.identity == hashlib.sha256(path.read_bytes()).digest()[:4] != entry.identity
