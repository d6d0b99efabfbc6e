# SPDX-License-Identifier: Apache-2.0
"""The layers of the trainable prior: products of integers, output blocks, masked convolutions, causal attention.

Layout is that of `prior.network`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.exact import ops
from vqcodec.exact.orders import Order
from vqcodec.prior.rounding import gate, integers, rescale

BIAS_BITS = ops.ACT_BITS + ops.WEIGHT_BITS  # a bias is in units of the product
BIAS_MAX = 2**18
ROWS = 64
AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


class IntegerLinear(nn.Module):
    """A product whose weight and bias are rounded to integers: [..., I] to [..., O].

    Weights are kept as [1, I, O] (a matrix to every optimiser), in real units (integer / 2^7).
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, inputs, outputs) * gain / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.bias_bits = BIAS_BITS

    def forward(self, x: Tensor, exact: bool) -> Tensor:
        """Multiply by the weight and add the bias, both rounded to integers.

        Args:
            x: [..., I].
            exact: round parameters, as the integer prior has them; False: leave them real.

        Returns: [..., O], not rescaled.
        """
        weight = integers(self.weight, ops.WEIGHT_BITS, exact, dtype=x.dtype)[0]
        if self.bias is None:
            return x @ weight
        return x @ weight + integers(self.bias, self.bias_bits, exact, BIAS_MAX, x.dtype)


class OutputBlock(nn.Module):
    """Residual block x + W2 relu(W1 x) on integers; the conditioning stack has 3x3 taps in W1, the output stack 1x1."""

    def __init__(self, channels: int, around: bool = False) -> None:
        super().__init__()
        self.around = around
        self.inner = IntegerLinear(channels * (len(AROUND) if around else 1), channels, gain=math.sqrt(2))
        self.outer = IntegerLinear(channels, channels, gain=0.3)

    def forward(self, x: Tensor, exact: bool) -> Tensor:
        """Add the block's update.

        Args:
            x: [..., C], or [N, H, W, C] with taps around.
            exact: round, as the integer prior does.
        """
        seen = _shifted(x) if self.around else x
        update = rescale(self.inner(seen, exact), ops.SHIFT, exact, low=0)
        return clamp_activation(x + rescale(self.outer(update, exact), ops.SHIFT, exact))


def _shifted(x: Tensor) -> Tensor:
    """The 3x3 neighbourhood of every position side by side, zero outside: [N, H, W, C] -> [N, H, W, 9C]."""
    h, w = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in AROUND], -1)


class MaskedLayer(nn.Module):
    """A gated residual layer: the product over the neighbours of earlier steps, and the condition."""

    def __init__(self, channels: int, taps: Sequence[int], first: bool) -> None:
        """taps: neighbours by reach (see `exact.orders`). first: a position does not see itself."""
        super().__init__()
        c, inner = channels, not first
        self.first = first
        self.convs = nn.ModuleList(IntegerLinear((t + inner) * c, 2 * c, gain=0.5, bias=False) for t in taps)
        self.cond = IntegerLinear(c, 2 * c, gain=0.5)
        self.project = IntegerLinear(c, c)
        self.project.bias_bits = ops.GATE_BITS + ops.WEIGHT_BITS

    def forward(self, x: Tensor, condition: Tensor, order: Order, exact: bool) -> Tensor:
        """Compute the gated update of a layer from the positions of earlier steps.

        Args:
            x: [N, P, C].
            condition: [N, P, C].
            order: which neighbours each position sees.
            exact: round, as the integer prior does.

        Returns: [N, P, C].
        """
        n, p, c = x.shape
        padded = torch.cat([x, x.new_zeros(n, 1, c)], 1)
        parts = []
        for conv, neighbours, positions in zip(self.convs, order.neighbours, order.positions, strict=True):
            seen = padded[:, neighbours.to(x.device)].flatten(2)  # [N, P_r, taps * C]
            if not self.first:
                seen = torch.cat([seen, x[:, positions.to(x.device)]], -1)
            parts.append(conv(seen, exact))
        where = torch.cat(order.positions).argsort().to(x.device)
        product = torch.cat(parts, 1)[:, where] + self.cond(condition, exact)
        return rescale(self.project(gate(product, exact), exact), ops.SHIFT_PROJECT, exact)


class CausalAttention(nn.Module):
    """Multi-head attention over the positions of earlier steps, and a zero key that is always visible."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query = IntegerLinear(channels, channels)
        self.key_value = IntegerLinear(2 * channels, 2 * channels)
        self.out = IntegerLinear(channels, channels, gain=0.3)
        self.heads, self.dropout = heads, dropout

    def forward(self, h: Tensor, embedded: Tensor, step: Tensor, exact: bool) -> Tensor:
        """Let every position look at those of earlier steps.

        Args:
            h: [N, P, C].
            embedded: the indices of the positions as vectors, [N, P, C].
            step: of every position, int64 [P].
            exact: round, as the integer prior does.

        Returns: h plus the update, [N, P, C].
        """
        n, p, c = h.shape
        query = rescale(self.query(h, exact), ops.SHIFT, exact)
        both = rescale(self.key_value(torch.cat([h, embedded], -1), exact), ops.SHIFT, exact)
        q = query.view(n, p, self.heads, -1).transpose(1, 2).float()
        k, v = both.view(n, p, 2, self.heads, -1).permute(2, 0, 3, 1, 4).float().unbind(0)
        scores = rescale(q @ k.transpose(-1, -2), ops.score_shift(c // self.heads), exact, -ops.BOUND, ops.BOUND)
        hidden = (step[None, :] >= step[:, None]).to(h.device)
        scores = scores.masked_fill(hidden, -math.inf) * 2.0**-ops.LOGIT_BITS
        weights = F.softmax(F.pad(scores, (0, 1)), -1)[..., :-1]  # the last key is the zero key
        mean = rescale(F.dropout(weights, self.dropout, self.training) @ v, 0, exact)
        mean = mean.transpose(1, 2).reshape(n, p, c).to(h.dtype)
        return clamp_activation(h + rescale(self.out(mean, exact), ops.SHIFT, exact))


def padded_rows(x: Tensor) -> Tensor:
    """Add rows of zeros up to a multiple of `ROWS`, where as many products follow as there are numbers of rows: for
    bfloat16 on a CPU a kernel is compiled for each shape that has not been met, which takes longer than the product.

    Args:
        x: [M, ...].

    Returns: [M' >= M, ...].
    """
    missing = -len(x) % ROWS if x.dtype == torch.bfloat16 and x.device.type == "cpu" else 0
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def clamp_activation(x: Tensor) -> Tensor:
    """Keep a sum of activations in -127..127."""
    return x.clamp(-ops.ACT_MAX, ops.ACT_MAX)
