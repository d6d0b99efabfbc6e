# SPDX-License-Identifier: Apache-2.0
"""Networks without initial values: for those that read theirs from a file, or are built for their shapes alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_blank: ContextVar[bool] = ContextVar("blank", default=False)


@contextlib.contextmanager
def blank() -> Iterator[None]:
    """Build networks in a block whose parameters are whatever their memory holds.

    Saves the time that random values take, leaves PyTorch's random numbers to the caller, and keeps PyTorch from
    importing its compiler, which draws on the device `meta` do: seconds of every process.
    """
    token = _blank.set(True)
    try:
        with _NoDraws():
            yield
    finally:
        _blank.reset(token)


def is_blank() -> bool:
    """Whether the caller is inside of `blank`."""
    return _blank.get()


class _NoDraws(TorchFunctionMode):
    """Leaves tensors as they are where they would be filled by `torch.nn.init`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
