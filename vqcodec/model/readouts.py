# SPDX-License-Identifier: Apache-2.0
"""The linear maps of previews (`model.preview`), kept beside a weights file as `NAME.preview`, so that nobody waits for
their fit. They change no file and no picture, only small ones, and are no part of a model's identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vqcodec.errors import ModelError
from vqcodec.model import weights

SUFFIX = ".preview"
MAX_BYTES = 1 << 24


def save(path: str | Path, identity: bytes, readouts: Mapping[int, Tensor]) -> Path:
    """Write the maps of a model.

    Args:
        path: of its weights file.
        identity: that of the model.
        readouts: by level, float [outputs, features + 1].

    Returns: the path of the file that was written.
    """
    beside = Path(path).with_suffix(SUFFIX)
    tensors = {f"level{level}": readout.half() for level, readout in readouts.items()}
    weights.save(beside, tensors, {"identity": identity.hex()})
    return beside


def load(path: str | Path, identity: bytes) -> dict[int, Tensor]:
    """Read what `save` wrote; nothing where there is no such file, or it is another model's or damaged.

    Args:
        path: of the weights file.
        identity: that of the model.

    Returns: by level, float [outputs, features + 1] on the CPU.
    """
    beside = Path(path).with_suffix(SUFFIX)
    try:
        if beside.stat().st_size > MAX_BYTES:
            return {}
        tensors, meta = weights.load(beside)
    except (ModelError, OSError):
        return {}
    if meta.get("identity") != identity.hex():
        return {}
    maps = {
        int(name[5:]): tensor.float() for name, tensor in tensors.items() if name[:5] == "level" and name[5:].isdigit()
    }
    return {level: map for level, map in maps.items() if map.ndim == 2 and bool(torch.isfinite(map).all())}
