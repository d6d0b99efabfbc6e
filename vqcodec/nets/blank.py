# SPDX-License-Identifier: Apache-2.0
"""Networks without initial values: for those that read theirs from a file, or are built for their shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class blank(TorchFunctionMode):  # noqa: N801  # a context manager
    """Build networks in a block whose parameters and buffers are whatever their memory holds.

    Saves the time that random values take, leaves PyTorch's random numbers to the caller, and keeps PyTorch from
    importing its compiler, which drawing on the device `meta` does: seconds of every process.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
