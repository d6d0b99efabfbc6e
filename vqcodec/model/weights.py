# SPDX-License-Identifier: Apache-2.0
"""Weights files and checkpoints: safetensors whose metadata holds the configuration as JSON. No pickle anywhere."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vqcodec.errors import ModelError


def save(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata to a safetensors file, beside its final name first, then renamed."""
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
    """Read what `save` wrote: tensors by name and the metadata. Raises ModelError if the file is not one of ours."""
    with _opened(path, device) as (file, meta):
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def load_meta(path: str | Path) -> dict[str, Any]:
    """The metadata alone. Raises as `load`."""
    with _opened(path, "cpu") as (_, meta):
        return meta


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part (autoencoder, prior.0; model, average, optimizer) without their prefix."""
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With float32 in place of the half precision that files hold."""
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


@contextlib.contextmanager
def _opened(path: str | Path, device: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            text = (file.metadata() or {}).get("vqcodec")
            if text is None:
                raise ModelError(f"{path} is a safetensors file, but not one of vqcodec's")
            meta = json.loads(text)
            if not isinstance(meta, dict):
                raise ModelError(f"the metadata of the weights file {path} are no JSON object")
            yield file, meta
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelError(f"cannot read the weights file {path}: {error}") from error
