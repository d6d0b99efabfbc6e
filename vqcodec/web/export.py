# SPDX-License-Identifier: Apache-2.0
"""Models as browsers load them: compressed files named by the model's identity, and a manifest of all of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

from vqcodec.model import loading, readouts, registry
from vqcodec.model.registry import ModelFile
from vqcodec.web import graphs

MANIFEST = "manifest.json"
_CODEBOOKS = ("codebooks", "product_codebooks")


def export(models: Iterable[ModelFile], out: Path) -> dict[str, Any]:
    """Write models and their manifest into a folder.

    Args:
        models: to be written; the first one is what the manifest names first.
        out: the folder; it is made if it is missing, and files of other models in it stay.

    Returns: the manifest. By model its name, its identity and its files, each with its role (`priors`, or `level0` and
    so on), its bytes and the SHA-256 of them as they are sent.

    Raises:
        ModelError: a weights file is none of a codec model.
    """
    out.mkdir(parents=True, exist_ok=True)
    described = []
    for model in models:
        files = []
        for role, content in _parts(model):
            packed = gzip.compress(content, 9, mtime=0)
            name = f"{model.name}-{model.identity.hex()}.{role}.gz"
            (out / name).write_bytes(packed)
            files.append({"role": role, "file": name, "bytes": len(packed), "sha256": _digest(packed)})
        described.append({"name": model.name, "identity": model.identity.hex(), "files": files})
    manifest = {"version": 1, "models": described}
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _parts(model: ModelFile) -> Iterator[tuple[str, bytes]]:
    """The files of a model, uncompressed, by their roles."""
    file = loading.read_codec(model.path)
    arrays = {name: tensor.numpy() for name, tensor in file.tensors.items()}
    decoder = {name.removeprefix("autoencoder."): a for name, a in arrays.items() if name.startswith("autoencoder.")}
    maps = readouts.load(model.path, model.identity)
    yield "priors", _priors(model, arrays, decoder, maps)
    auto = file.config.autoencoder
    for number in range(len(auto.levels)):
        yield f"level{number}", graphs.level(auto, decoder, number)


def _priors(model: ModelFile, arrays: graphs.Arrays, decoder: graphs.Arrays, maps: dict[int, torch.Tensor]) -> bytes:
    """Priors as they are, and in float16 the codebooks, the decoder's gains and the linear maps of previews."""
    kept: dict[str, npt.NDArray[Any]] = {name: a for name, a in arrays.items() if name.startswith("prior.")}
    for name, array in decoder.items():
        wanted = name.startswith("quantizers.") and name.rsplit(".", 1)[1] in _CODEBOOKS
        if wanted or name in ("gains.finest.logs", "gains.head.logs"):
            kept[name] = array.astype(np.float16)
    kept |= {f"readout.{level}": readout.numpy().astype(np.float16) for level, readout in maps.items()}
    meta = _metadata(model.path)
    return bytes(save({name: np.ascontiguousarray(a) for name, a in kept.items()}, {"vqcodec": meta}))


def _metadata(path: Path) -> str:
    """The metadata of a weights file, as they stand in it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return str(header["__metadata__"]["vqcodec"])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def installed() -> list[ModelFile]:
    """List the codec models that are installed, the default one first."""
    models = [model for model in registry.installed() if not model.name.startswith("vae")]
    return sorted(models, key=lambda model: model.name != registry.DEFAULT_MODEL)
