# SPDX-License-Identifier: Apache-2.0
"""What the tests of trust need of the package beside its public names, in one place."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from randomprior import random_maps, random_tensors

from vqcodec import indices
from vqcodec.codec import Codec
from vqcodec.config import ModelConfig
from vqcodec.format import chunks, container
from vqcodec.model import inventory, registry, schema, weights
from vqcodec.model.loading import pack_model
from vqcodec.model.maps import IndexMaps
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.stream import proportion
from vqcodec.vae.model import VAEModel

__all__ = ["Codec", "IndexMaps", "ModelConfig", "chunks", "container", "inventory", "proportion", "schema", "weights"]


def load(path: Path) -> Codec:
    """The codec of a weights file."""
    return Codec.load(registry.find(path), "cpu")


def save_random(path: Path, config: ModelConfig, *, stopping: int = 0) -> Path:
    """Write the weights file of an untrained model, with priors of random integers. stopping: see `random_tensors`."""
    torch.manual_seed(0)
    levels = config.autoencoder.levels
    pairs = enumerate(zip(config.priors, levels, strict=True))
    priors = [random_tensors(prior, level, levels[:i], i, stopping=stopping) for i, (prior, level) in pairs]
    weights.save(path, pack_model(Autoencoder(config.autoencoder), priors), {"model": config.to_dict()})
    return path


def random_file(codec: Codec, width: int, height: int, tradeoff: int = 0) -> tuple[bytes, list[NDArray[np.int64]]]:
    """A file of random indices, and those."""
    maps = []
    for i, level in enumerate(codec.config.autoencoder.levels):
        shape = codec.tiling(i, width, height).map_shape
        maps.append(random_maps(level, 1, *shape, seed=i)[0])
    streams: Sequence[bytes] = codec.compress(IndexMaps(tuple(maps), width, height), tradeoff)
    header = codec.header(width, height, "RGB", tradeoff)
    return container.pack(container.Container(header, tuple(streams))), [m.numpy() for m in maps]


def index_maps(codec: Codec, file: bytes) -> list[NDArray[np.int64]]:
    """The index maps that the package decodes."""
    return [maps.numpy() for maps in codec.read_indices(container.unpack(file)).levels]


def forged(
    codec: Codec, width: int, height: int, streams: Sequence[bytes], *, group_tiles: int | None = None, rate: int = 0
) -> bytes:
    """A file with right checksums that claims this size and has these streams."""
    header = codec.header(width, height, "RGB", rate)
    if group_tiles is not None:
        header = replace(header, group_tiles=group_tiles)
    return container.pack(container.Container(header, tuple(streams)))


def shipped(name: str = registry.DEFAULT_MODEL) -> Codec:
    """An installed model."""
    return Codec.load(registry.find(name), "cpu")


def load_module(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_npz(data: bytes) -> indices.Indices:
    """The indices of an .npz file."""
    return indices.load(io.BytesIO(data))


def load_vae(path: Path) -> VAEModel:
    """The VAE of a weights file."""
    return VAEModel.load(registry.find(path))


def shipped_vae(name: str) -> Path:
    """Where the weights of an installed VAE are."""
    return registry.find(name).path
