# SPDX-License-Identifier: Apache-2.0
"""Many images: collections (`vqcodec batch`, `encode_many`), steps that overlap, lists in Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vqcodec.batch.lists import Options, decode, encode
from vqcodec.batch.overlap import Outcome, Steps, attempt, run

if TYPE_CHECKING:
    from vqcodec.batch.collection import encode_many
    from vqcodec.batch.mapping import Encoder
    from vqcodec.batch.summary import Summary

__all__ = ["Encoder", "Options", "Outcome", "Steps", "Summary", "attempt", "decode", "encode", "encode_many", "run"]

_LAZY = {"Encoder": "mapping", "encode_many": "collection", "Summary": "summary"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
