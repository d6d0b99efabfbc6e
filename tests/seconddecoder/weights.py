# SPDX-License-Identifier: Apache-2.0
"""Reads the priors of a weights file: docs/prior.md, "The weights file". The container is that of safetensors: the
length of a JSON header, u64; the header; then the bytes of the tensors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"I8": "<i1", "I32": "<i4"}


@dataclass(frozen=True)
class Model:
    """identity: what files name it by. config: the JSON object `model`. tensors: by level, int64, by their names after
    `prior.LEVEL.`."""

    identity: bytes
    config: dict[str, Any]
    tensors: list[dict[str, NDArray[np.int64]]]


def read(path: Path) -> Model:
    """The model of a weights file. Tensors of the autoencoder are left out."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])
    config = json.loads(entries.pop("__metadata__")["vqcodec"])["model"]
    tensors: list[dict[str, NDArray[np.int64]]] = [{} for _ in config["priors"]]
    for name, entry in entries.items():
        if name.startswith("prior."):
            _, level, short = name.split(".", 2)
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[start + first : start + last], TYPES[entry["dtype"]])
            tensors[int(level)][short] = values.astype(np.int64).reshape(entry["shape"])
    return Model(hashlib.sha256(data).digest()[:4], config, tensors)
