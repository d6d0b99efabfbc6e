# SPDX-License-Identifier: Apache-2.0
"""Simulated integer arithmetic with straight-through gradients (Bengio et al. 2013; Jacob et al. 2018).

Tensors carry the integers of `vqcodec.exact.ops`, so that the trained network is the shipped one. With `exact=False`
the same network is computed without any rounding: the float network that the integer one is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec.exact import ops

Rounded = dict[tuple[int, int, bool, torch.dtype | None], Tensor]
_rounded: ContextVar[Rounded | None] = ContextVar("rounded", default=None)


@contextmanager
def rounded_once(kept: Rounded | None = None) -> Iterator[None]:
    """Round a parameter only at its first use, while none of them changes: stages share most of theirs.

    Args:
        kept: what is rounded already, and what will be; None: nothing, to begin with.
    """
    token = _rounded.set({} if kept is None else kept)
    try:
        yield
    finally:
        _rounded.reset(token)


class _Integers(torch.autograd.Function):
    """clamp(round(x * scale)), the gradient passes where the clamp is not active or would be left."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, limit: int) -> Tensor:
        scaled = x * scale
        ctx.scale = scale
        ctx.save_for_backward(scaled.abs() > limit, scaled > 0)
        return scaled.round_().clamp_(-limit, limit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        outside, positive = ctx.saved_tensors
        (grad,) = grads
        outward = outside & ((grad < 0) == positive)  # a step against the gradient would go further out
        return (grad * ctx.scale).masked_fill_(outward, 0), None, None


class _Rescale(torch.autograd.Function):
    """clamp(floor(x * 2^-shift + 0.5), low, high)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: int, low: int, high: int) -> Tensor:
        y = (x * 2.0**-shift).add_(0.5).floor_()
        ctx.shift = shift
        ctx.save_for_backward((y < low) | (y > high))
        return y.clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (outside,) = ctx.saved_tensors
        return (grads[0] * 2.0**-ctx.shift).masked_fill_(outside, 0), None, None, None


class _Gate(torch.autograd.Function):
    """floor(tanh * sigmoid / 2^7 + 0.5) of a product's two halves along the last dim, see `ops.gate`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, exact: bool) -> Tensor:
        a, b = x.chunk(2, -1)
        tanh, sigmoid = a * 2.0**-ops.SHIFT_TANH, b * 2.0**-ops.SHIFT
        if exact:
            tanh, sigmoid = tanh.add_(0.5).floor_(), sigmoid.add_(0.5).floor_()
        sigmoid += ops.SIGMOID_HALF
        live = (tanh.abs() <= ops.ACT_MAX), (sigmoid >= 0) & (sigmoid <= ops.ACT_MAX)
        tanh.clamp_(-ops.ACT_MAX, ops.ACT_MAX)
        sigmoid.clamp_(0, ops.ACT_MAX)
        ctx.save_for_backward(tanh, sigmoid, *live)
        out = (tanh * sigmoid).mul_(2.0**-ops.GATE_BITS)
        return out.add_(0.5).floor_() if exact else out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        tanh, sigmoid, live_a, live_b = ctx.saved_tensors
        (grad,) = grads
        grad_a = (grad * sigmoid).mul_(2.0 ** -(ops.GATE_BITS + ops.SHIFT_TANH)).mul_(live_a)
        grad_b = (grad * tanh).mul_(2.0 ** -(ops.GATE_BITS + ops.SHIFT)).mul_(live_b)
        return torch.cat([grad_a, grad_b], -1), None


def integers(
    x: nn.Parameter, bits: int, exact: bool, limit: int = ops.ACT_MAX, dtype: torch.dtype | None = None
) -> Tensor:
    """Round a real-valued parameter to integers in units of 2^-bits; see `rounded_once`.

    Args:
        x: float, any shape; whole, since it is known again by its identity.
        bits: of the fraction.
        exact: round; False: scale and clamp only.
        limit: results are clamped to -limit..limit.
        dtype: of the result; None: of `x`.
    """
    kept, key = _rounded.get(), (id(x), bits, exact, dtype)
    if kept is not None and key in kept:
        return kept[key]
    result = _Integers.apply(x, 2.0**bits, limit) if exact else (x * 2.0**bits).clamp(-limit, limit)
    result = result if dtype is None else result.to(dtype)
    if kept is not None:
        kept[key] = result
    return result


def rescale(x: Tensor, shift: int, exact: bool, low: int = -ops.ACT_MAX, high: int = ops.ACT_MAX) -> Tensor:
    """Bring a product to an activation.

    Args:
        x: integers, any shape.
        shift: bits to drop.
        exact: round half up; False: divide and clamp only.
        low: least result.
        high: greatest result.
    """
    if exact:
        return _Rescale.apply(x, shift, low, high)
    return (x * 2.0**-shift).clamp(low, high)


def gate(x: Tensor, exact: bool) -> Tensor:
    """Gate a product's first half by its second (see `exact.ops.gate`).

    Args:
        x: [..., 2C].
        exact: round, as the integer prior does.

    Returns: [..., C].
    """
    return _Gate.apply(x, exact)
