# SPDX-License-Identifier: Apache-2.0
"""Shared pictures and models. No test needs a file from outside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

from vqcodec import registry, weights
from vqcodec.codec import Codec, pack_model
from vqcodec.config import PRESETS
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.prior.export import to_integers
from vqcodec.prior.network import LevelPrior


@pytest.fixture(autouse=True)
def _threads():
    """Every test starts with the same number of threads, whatever the one before it set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A real photograph, uint8 [300, 451, 3]: neither side is a multiple of anything."""
    return np.ascontiguousarray(data.chelsea())


def untrained(preset: str = "tiny", seed: int = 0) -> tuple[Autoencoder, list[LevelPrior]]:
    """Networks of a preset with random weights, large enough that every operation of the path matters."""
    torch.manual_seed(seed)
    config = PRESETS[preset]
    autoencoder = Autoencoder(config.autoencoder).eval()
    levels = config.autoencoder.levels
    priors = [LevelPrior(p, level, levels[:i]).eval() for i, (p, level) in enumerate(zip(config.priors, levels))]
    with torch.no_grad():
        for quantizer in autoencoder.level_quantizers():
            quantizer.codebooks.mul_(10)
            quantizer.codebooks[1:, 0] = 0
        for prior in priors:
            prior.head_weight.mul_(10)
            prior.head_bias.normal_()
    return autoencoder, priors


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """A codec of the tiny preset, untrained, through its weights file: two levels, the second of two stages."""
    autoencoder, priors = untrained()
    path: Path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    tensors = pack_model(autoencoder, [to_integers(p) for p in priors])
    weights.save(path, tensors, {"model": PRESETS["tiny"].to_dict()})
    return Codec.load(registry.find(path), "cpu")


@pytest.fixture(scope="session")
def shipped() -> Codec:
    """The model that encodes by default."""
    return Codec.load(registry.find(), "cpu")
