# SPDX-License-Identifier: Apache-2.0
"""A learned image codec: VQ-VAE-2 indices, an exact integer PixelCNN prior, range-coded `.vq2` files.

    data = vqcodec.encode(image)      # PIL.Image.Image -> bytes
    image = vqcodec.decode(data)      # bytes -> PIL.Image.Image; both also take and give lists
    vqcodec.info(data).bpp            # without torch
    indices = vqcodec.to_indices(image)  # arrays; vqcodec.from_indices(indices) -> PIL.Image.Image

The names below are imported on first use, so that reading a header never waits for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vqcodec.errors import (
    DamageWarning,
    ExactnessError,
    FormatError,
    ImageError,
    ModelError,
    OutOfMemoryError,
    UnexpectedError,
    VqcodecError,
)

if TYPE_CHECKING:
    from vqcodec.batch import decode, encode
    from vqcodec.codec import Codec, load_model
    from vqcodec.damage.salvage import Salvaged, salvage
    from vqcodec.damage.verify import verify
    from vqcodec.format.info import FileInfo
    from vqcodec.indices.arrays import Indices, from_indices, to_indices
    from vqcodec.model.info import info
    from vqcodec.model.limits import Limits

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "DamageWarning",
    "ExactnessError",
    "FileInfo",
    "FormatError",
    "ImageError",
    "Indices",
    "Limits",
    "ModelError",
    "OutOfMemoryError",
    "Salvaged",
    "UnexpectedError",
    "VqcodecError",
    "__version__",
    "decode",
    "encode",
    "from_indices",
    "info",
    "load_model",
    "salvage",
    "to_indices",
    "verify",
]

_LAZY = {
    "Codec": "codec",
    "decode": "batch",
    "encode": "batch",
    "load_model": "codec",
    "FileInfo": "format.info",
    "info": "model.info",
    "Indices": "indices",
    "Limits": "model.limits",
    "from_indices": "indices",
    "to_indices": "indices",
    "verify": "damage.verify",
    "Salvaged": "damage.salvage",
    "salvage": "damage.salvage",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
