# SPDX-License-Identifier: Apache-2.0
"""Global settings of PyTorch that reach the probability path: set as the contract needs them, and put back.

A caller may compute in TF32 or bfloat16, in double precision, or on another default device. What has to be otherwise is
changed when the first thread comes in, and changed back when the last one has left. A forked child computes with one
thread.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

# Reduced precision per backend and operation, of PyTorch 2.9 and newer; those before have the first two settings alone.
_PRECISIONS = ("mkldnn.matmul", "mkldnn.conv", "cuda.matmul")
_NOT_REDUCED = ("none", "ieee")
_FLAGS = (
    "mkldnn.enabled",
    "mkldnn.deterministic",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
)


def key() -> tuple[Any, ...]:
    """Return all settings that could change a product, to be compared with another time's."""
    return (
        torch.get_default_dtype(),
        _default_device(),
        _matmul_precision(),
        *(_backend(f"{name}.fp32_precision") for name in _PRECISIONS),
        *map(_backend, _FLAGS),
        torch.are_deterministic_algorithms_enabled(),
    )


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Run a block, and what it calls, with the settings that the contract needs. For any number of threads."""
    elsewhere = _default_device() != "cpu"  # of this thread alone; the context costs time in every call
    _held.take()
    try:
        with torch.device("cpu") if elsewhere else contextlib.nullcontext():
            yield
    finally:
        _held.give_back()


def _default_device() -> str:
    """Where new tensors of this thread go. PyTorch 2.4 cannot be asked: it fails after a None, and overlooks blocks."""
    try:
        return str(torch.empty(0).device)
    except (AssertionError, RuntimeError):  # a device that this machine, or this PyTorch, has not
        return "missing"


def _backend(name: str) -> Any:
    """A flag below torch.backends; None where this PyTorch has none of that name."""
    try:
        return operator.attrgetter(name)(torch.backends)
    except (AttributeError, RuntimeError):
        return None


def _matmul_precision() -> str:
    """Of products in float32; `mixed` where PyTorch was set in two ways and refuses to say."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "mixed"


class _Held:
    """The settings that were changed, while at least one thread needs them so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo: list[Callable[[], object]] = []
        self._forked = False

    def take(self) -> None:
        with self._lock:
            self._users += 1
            if self._forked:  # threads do not survive a fork, and PyTorch would wait for its own for ever
                torch.set_num_threads(1)
                self._forked = False
            if self._users == 1:
                self._change()

    def give_back(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._put_back()

    def forget(self) -> None:
        """In a forked child, which has none of the other threads: as if all of them had left."""
        self._lock = threading.Lock()
        self._users = 0
        self._forked = True
        self._put_back()

    def _change(self) -> None:
        dtype, matmul = torch.get_default_dtype(), _matmul_precision()
        precisions = {name: _backend(f"{name}.fp32_precision") for name in _PRECISIONS}
        if dtype != torch.float32:
            self._undo.append(functools.partial(torch.set_default_dtype, dtype))
            torch.set_default_dtype(torch.float32)
        if matmul != "highest":  # it changes the precision of backends too, which are therefore put back after it
            self._undo.append(functools.partial(torch.set_float32_matmul_precision, matmul.replace("mixed", "highest")))
            torch.set_float32_matmul_precision("highest")
        for name, precision in precisions.items():
            if precision is not None and (precision not in _NOT_REDUCED or matmul != "highest"):
                backend = _backend(name)
                self._undo.append(functools.partial(setattr, backend, "fp32_precision", precision))
                backend.fp32_precision = "ieee"
        self._convolve_in_float32()

    def _convolve_in_float32(self) -> None:
        """On CUDA convolutions are in TF32 by default, which pixels are not to depend on (indices have none)."""
        convolutions, precision = _backend("cudnn.conv"), _backend("cudnn.conv.fp32_precision")
        if _backend("cudnn.allow_tf32"):
            self._undo.append(functools.partial(setattr, torch.backends.cudnn, "allow_tf32", True))
            torch.backends.cudnn.allow_tf32 = False
        elif precision == "tf32":  # PyTorch refuses to read the flag above where a caller has used the newer one
            self._undo.append(functools.partial(setattr, convolutions, "fp32_precision", precision))
            convolutions.fp32_precision = "ieee"

    def _put_back(self) -> None:
        for undo in self._undo:
            undo()
        self._undo.clear()


_held = _Held()

if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_held.forget)
