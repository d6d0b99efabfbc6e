# SPDX-License-Identifier: Apache-2.0
"""Finds the models that are installed. Knows no torch: it looks at files, not into them.

A model is `NAME.safetensors`, with a card `NAME.md` for people and its measured figures `NAME.json` beside it.
Directories are searched in this order: those in the environment variable `VQCODEC_MODELS` (separated as in PATH),
the package's own, and `models/` of the repository where the package runs from a checkout. The first file of a
name is the one that the name means.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqcodec.errors import ModelError
from vqcodec.format.container import IDENTITY_BYTES

DEFAULT_MODEL = "vq2-light"
"""Name of the model that encodes where none is asked for."""

ENVIRONMENT = "VQCODEC_MODELS"
SUFFIX = ".safetensors"

_PACKAGE = Path(__file__).resolve().parent.parent
_SHIPPED = (_PACKAGE / "_models", _PACKAGE.parent / "models")
_identities: dict[tuple[str, int, int], bytes] = {}


@dataclass(frozen=True)
class ModelFile:
    """An installed model: its name, its weights file, and the first bytes of that file's SHA-256."""

    name: str
    path: Path
    identity: bytes


def installed() -> list[ModelFile]:
    """List the models that can be asked for by name, in search order.

    A file that cannot be read is left out.
    """
    models: dict[str, ModelFile] = {}
    for model in _readable():
        models.setdefault(model.name, model)
    return list(models.values())


def find(name_or_path: str | os.PathLike[str] | None = None, tune: str | None = None) -> ModelFile:
    """Find the model of that name, or the weights file at that path.

    Args:
        name_or_path: a string is a path when it ends in `.safetensors` or holds a directory separator; None: the model
            that was trained for `tune`, `DEFAULT_MODEL-TUNE`, else `DEFAULT_MODEL`.
        tune: what an encoder optimises.

    Raises `ModelError` where there is no such model.
    """
    tuned = [f"{DEFAULT_MODEL}-{tune}"] if name_or_path is None and tune is not None else []
    wanted = DEFAULT_MODEL if name_or_path is None else os.fspath(name_or_path)
    if isinstance(name_or_path, os.PathLike) or wanted.endswith(SUFFIX) or Path(wanted).name != wanted:
        return _describe(Path(wanted))
    for name in (*tuned, wanted):
        for path in _files():
            if path.stem == name:
                model = _describe(path)
                _warn_of_shadow(model)
                return model
    raise ModelError(f"model '{wanted}' is not installed; {_advice()}")


def find_identity(identity: bytes) -> ModelFile:
    """Find the model whose weights have this identity, whatever its name.

    Raises `ModelError` if it is not installed.
    """
    for model in _readable():
        if model.identity == identity:
            return model
    raise ModelError(f"the file needs the model with identity {identity.hex()}, which is not installed; {_advice()}")


def figures(model: ModelFile) -> dict[str, Any]:
    """Read what `NAME.json` beside the weights says of the model; empty where there is none.

    The keys used here are "title", a string, and "figures", numbers or strings by name. Raises `ModelError` if the
    file is no JSON object.
    """
    path = model.path.with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"the figures of model '{model.name}' cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise ModelError(f"the figures of model '{model.name}' are no JSON object")
    return card


def directories() -> list[Path]:
    """List the directories that are searched, in order; they need not exist."""
    listed = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
    folders = [Path(entry).expanduser() for entry in listed if entry]
    folders.append(_PACKAGE / "_models")
    # In a wheel the parent is site-packages, where `models` would be somebody else's.
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        folders.append(_PACKAGE.parent / "models")
    return folders


def _files() -> Iterator[Path]:
    for directory in directories():
        yield from _weights_in(directory)


def _weights_in(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == SUFFIX and path.is_file())
    except OSError:
        return []


def _warn_of_shadow(model: ModelFile) -> None:
    """Say so if a model of `VQCODEC_MODELS` has the name of a shipped one and other weights."""
    for directory in directories()[-2:]:
        shipped = directory / f"{model.name}{SUFFIX}"
        if directory in _SHIPPED and model.path.parent not in _SHIPPED and shipped.is_file():
            identity = _describe(shipped).identity
            if identity != model.identity:
                text = f"{ENVIRONMENT}: {model.path} stands for '{model.name}', not the shipped model of that name"
                warnings.warn(text, stacklevel=3)


def _readable() -> Iterator[ModelFile]:
    for path in _files():
        with contextlib.suppress(ModelError):
            yield _describe(path)


def _describe(path: Path) -> ModelFile:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would never end
            raise ModelError(f"model file {path} is no ordinary file")
        return ModelFile(path.stem, path, _identity(path))
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror or error}") from error


def _identity(path: Path) -> bytes:
    """First bytes of the SHA-256 of a file, remembered for as long as the file looks the same."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
        if key not in _identities:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
            _identities[key] = digest.digest()[:IDENTITY_BYTES]
    return _identities[key]


def _advice() -> str:
    names = ", ".join(f"{model.name} ({model.identity.hex()})" for model in installed()) or "none"
    return f"installed: {names}; put its weights file into a directory that {ENVIRONMENT} names"
