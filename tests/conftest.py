# SPDX-License-Identifier: Apache-2.0
"""Shared pictures and models. No test needs a file from outside the repository."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from randomprior import random_tensors
from skimage import data

from vqcodec.codec import Codec
from vqcodec.config import AutoencoderConfig, LevelConfig, ModelConfig, PriorConfig
from vqcodec.encoder import fallback, noise
from vqcodec.indices.arrays import Indices, extract
from vqcodec.model import registry, weights
from vqcodec.model.loading import pack_model
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.prior.export import to_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.training.presets import VQVAE2_PRESETS, VQVAE_PRESETS

# The models of tests are untrained: they do every picture so badly that all files would be lossless. `falling`
# puts these back.
FALLBACK = [
    (module, name, getattr(module, name))
    for module, names in ((fallback, ("LOOSE", "TRUSTED", "GRAPHICS")), (noise, ("SHARP", "LOOSE")))
    for name in names
]
fallback.LOOSE = fallback.TRUSTED = fallback.GRAPHICS = noise.LOOSE = 0.0
noise.SHARP = math.inf


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))  # as for a script that runs: some import others


def pytest_configure(config: pytest.Config) -> None:
    """Divide the cores among the processes of `-n`: they inherit the environment, and so do their children."""
    processes = getattr(config.option, "numprocesses", None)
    if processes:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


def load_tool(name: str) -> ModuleType:
    """The script tools/NAME.py as a module."""
    path = ROOT / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_tool", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _threads():
    """Every test starts with the same number of threads, whatever the one before it set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fallback as it is for everyone."""
    for module, name, value in FALLBACK:
        monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A real photograph, uint8 [300, 451, 3]: neither side is a multiple of anything."""
    return np.ascontiguousarray(data.chelsea())


@pytest.fixture(scope="session")
def photos() -> list[NDArray[np.uint8]]:
    """Parts of three photographs, uint8 [256, 320, 3], to train on."""
    return [np.ascontiguousarray(image[:256, :320]) for image in (data.chelsea(), data.coffee(), data.astronaut())]


@pytest.fixture
def photo_folder(tmp_path: Path, photos: list[NDArray[np.uint8]]) -> Path:
    """A folder with them as PNG files."""
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(photos):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def untrained(config: ModelConfig = VQVAE2_PRESETS["tiny"], seed: int = 0) -> tuple[Autoencoder, list[LevelPrior]]:
    """Networks with random weights, large enough that every operation of the path matters."""
    torch.manual_seed(seed)
    autoencoder = Autoencoder(config.autoencoder).eval()
    levels = config.autoencoder.levels
    pairs = enumerate(zip(config.priors, levels, strict=True))
    priors = [LevelPrior(prior, level, levels[:i]).eval() for i, (prior, level) in pairs]
    with torch.no_grad():
        for quantizer in autoencoder.level_quantizers():
            quantizer.codebooks.mul_(10)
            quantizer.codebooks[1:, 0] = 0
        for prior in priors:
            for head in prior.heads:
                head.weight.mul_(10)
                head.bias.normal_()
    return autoencoder, priors


def save_untrained(path: Path, config: ModelConfig = VQVAE2_PRESETS["tiny"], seed: int = 0) -> None:
    """Write the weights file of such networks."""
    autoencoder, priors = untrained(config, seed)
    tensors = pack_model(autoencoder, [to_integers(p) for p in priors])
    weights.save(path, tensors, {"model": config.to_dict()})


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for VQCODEC_MODELS that holds `tiny.safetensors` and nothing else. Tests must not write to it."""
    directory = tmp_path_factory.mktemp("models")
    save_untrained(directory / "tiny.safetensors")
    return directory


@pytest.fixture(scope="session")
def tiny(tiny_models: Path) -> Codec:
    """A codec of the tiny preset, untrained, through its weights file: two levels, the second of two stages."""
    return Codec.load(registry.find(tiny_models / "tiny.safetensors"), "cpu")


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty; the tiny model is installed and encodes by default."""
    monkeypatch.setenv(registry.ENVIRONMENT, str(tiny_models))
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(tiny_folder: Path) -> Path:
    """The same with a.png, 40x24 pixels, and b.png, 30x20."""
    for name, (width, height) in {"a.png": (40, 24), "b.png": (30, 20)}.items():
        drawn(width, height).save(name)
    return tiny_folder


def drawn(width: int = 40, height: int = 24) -> Image.Image:
    """Ramps of colour."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([6 * x, 10 * y, 3 * (x + y)], axis=2).astype(np.uint8))


@pytest.fixture(scope="session")
def image(photo: NDArray[np.uint8]) -> Image.Image:
    """A part of the photograph, 130x70 pixels."""
    return Image.fromarray(photo[100:170, 100:230])


@pytest.fixture(scope="session")
def image_indices(tiny: Codec, image: Image.Image) -> Indices:
    """Its indices."""
    return extract(tiny, image)


@pytest.fixture(scope="session")
def one_level_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of an untrained model of one level, of 64-pixel tiles too."""
    path = tmp_path_factory.mktemp("models") / "one-level.safetensors"
    save_untrained(path, VQVAE_PRESETS["tiny"])
    return path


@pytest.fixture(scope="session")
def one_level(one_level_file: Path) -> Codec:
    """The codec of that file."""
    return Codec.load(registry.find(one_level_file), "cpu")


@pytest.fixture(scope="session")
def other_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the same shape as `tiny` with other weights."""
    path = tmp_path_factory.mktemp("models") / "other.safetensors"
    save_untrained(path, seed=1)
    return path


@pytest.fixture(scope="session")
def other(other_file: Path) -> Codec:
    """The codec of that file."""
    return Codec.load(registry.find(other_file), "cpu")


@pytest.fixture(scope="session")
def shipped() -> Codec:
    """The model that encodes by default."""
    return Codec.load(registry.find(), "cpu")


def staged_config(order: str) -> ModelConfig:
    """Two levels whose positions may stop, the second with product stages, under priors with all that they can have."""
    levels = (
        LevelConfig(8, 2, 16, 8, stop=True),
        LevelConfig(4, 3, 16, 8, stop=True, products=2, groups=2, group_codes=8),
    )
    return ModelConfig(
        AutoencoderConfig(levels, widths=(8, 8, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1)),
        priors=(
            PriorConfig(16, 2, 2, 2, 0, 1, order=order, out_channels=8, tradeoffs=4),
            PriorConfig(16, 3, 0, 2, 1, 1, order=order, out_channels=8, tradeoffs=4, cond_above=True),
        ),
        tile_size=16,
        lmbdas=(0.06, 2.0),
    )


def staged_codec(order: str) -> Codec:
    """An untrained codec of that configuration, of 16-pixel tiles."""
    config = staged_config(order)
    torch.manual_seed(0)
    levels = config.autoencoder.levels
    priors = [
        random_tensors(prior, level, levels[:i], i, stopping=24)
        for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True))
    ]
    return Codec(config, weights.single(pack_model(Autoencoder(config.autoencoder), priors)))


@pytest.fixture(scope="session", params=["waves", "seven"])
def staged(request: pytest.FixtureRequest) -> Codec:
    """Such a codec, of every order."""
    return staged_codec(request.param)
