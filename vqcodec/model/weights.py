# SPDX-License-Identifier: Apache-2.0
"""Weights files and checkpoints: safetensors whose metadata holds the configuration as JSON. No pickle anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor

from vqcodec.errors import ModelError
from vqcodec.format.container import IDENTITY_BYTES

MAX_BYTES = 1 << 32
"""Largest weights file of a model."""

MAX_HEADER = 1 << 24
"""Longest header of a weights file of a model, in bytes: names, shapes and metadata."""


class Entry(NamedTuple):
    """What the header of a weights file says of a tensor. dtype: a name of safetensors."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """A weights file, read once and not looked into: its identity is that of these very bytes.

    Args:
        meta: the metadata.
        entries: the tensors by name.
    """

    path: Path
    identity: bytes
    meta: dict[str, Any]
    entries: dict[str, Entry]
    _data: bytes

    def tensors(self) -> dict[str, Tensor]:
        """Read all tensors, on the CPU. Raises ModelError if they are not where the header says."""
        try:
            return load_bytes(self._data)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
            raise ModelError(f"cannot read the weights file {self.path}: {error}") from error


def save(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a safetensors file, beside its final name first, then renamed.

    Args:
        path: of the file.
        tensors: by name.
        meta: what JSON can hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    detached = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(detached, beside, metadata={"vqcodec": json.dumps(meta, sort_keys=True)})
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(beside, 0o666 & ~umask)  # safetensors leaves it readable by its owner alone
    os.replace(beside, path)


def load(path: str | Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote.

    Args:
        path: of the file.
        device: where the tensors go, as PyTorch names it.

    Returns: tensors by name and the metadata. Raises ModelError if the file is not one of ours.
    """
    with _opened(path, device) as (file, meta):
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def load_model(path: str | Path) -> ModelWeights:
    """Read the weights file of a model, whoever wrote it: only its header is looked at.

    Raises ModelError if it is none of ours, too large, or no ordinary file.
    """
    try:
        check_ordinary(path)
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"cannot read the weights file {path}: {error.strerror or error}") from error
    length = int.from_bytes(data[:8], "little")
    if len(data) > MAX_BYTES or length > min(MAX_HEADER, len(data) - 8):
        raise ModelError(f"{path} is no weights file, or too large")
    header = parsed(data[8 : 8 + length], path)
    metadata = header.pop("__metadata__", None)
    text = metadata.get("vqcodec") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ModelError(f"{path} is a safetensors file, but not one of vqcodec's")
    entries = {name: _entry(name, value, path) for name, value in header.items()}
    return ModelWeights(Path(path), hashlib.sha256(data).digest()[:IDENTITY_BYTES], parsed(text, path), entries, data)


def check_ordinary(path: str | os.PathLike[str]) -> None:
    """Raise ModelError for FIFOs, devices and folders, which may never end; OSError if there is no such file."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ModelError(f"{os.fspath(path)} is no ordinary file")


def parsed(text: str | bytes, path: str | Path) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: the JSON.
        path: of the file that it is from, for the error.

    Raises: ModelError if it is none, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} has no valid JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} has no JSON object where one should be")
    return value


def _entry(name: str, value: object, path: str | Path) -> Entry:
    shape = value.get("shape") if isinstance(value, dict) else None
    dtype = value.get("dtype") if isinstance(value, dict) else None
    whole = isinstance(shape, list) and all(type(side) is int and 0 <= side < 1 << 48 for side in shape)
    if not whole or not isinstance(dtype, str):
        raise ModelError(f"{path} does not say what its tensor {name[:80]!r} is")
    return Entry(dtype, tuple(shape or ()))


def load_meta(path: str | Path) -> dict[str, Any]:
    """Read the metadata alone. Raises as `load`."""
    with _opened(path, "cpu") as (_, meta):
        return meta


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Take one part of a file's tensors, without its prefix.

    Args:
        tensors: by name.
        name: autoencoder, prior.0; model, average, optimizer.
    """
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put float32 in place of the half precision that files hold."""
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


@contextlib.contextmanager
def _opened(path: str | Path, device: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        check_ordinary(path)
        with safe_open(str(path), framework="pt", device=device) as file:
            text = (file.metadata() or {}).get("vqcodec")
            if text is None:
                raise ModelError(f"{path} is a safetensors file, but not one of vqcodec's")
            yield file, parsed(text, path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read the weights file {path}: {error}") from error
