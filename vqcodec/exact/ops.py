# SPDX-License-Identifier: Apache-2.0
"""The operations of the probability path, and their contract.

Encoder and decoder must compute identical integer frequencies on any device, batch size, thread count, instruction
set and library version. Everything here is integer arithmetic carried in floating-point tensors:

- activations are integers in -127..127, weights integers in -127..127, both held in float32;
- a product is only taken where, for every output column, sum|w| * 127 + |bias| + 2^(shift-1) < 2^24 (`linear`, called
  when a model is made and again when it is loaded): every partial sum, in any order, is then an exact float32;
- rescaling is a division by 2^shift and floor(x + 1/2), exact under the same bound; weights and biases are divided
  beforehand, which moves exponents and leaves every mantissa as it is;
- non-linear functions are clamps, products of two small integers, and integer look-up tables;
- attention sums its weighted values in float64 (below 2^53), then makes one IEEE division and a floor.

Not to be used here: float exp/tanh/softmax, convolution calls (libraries pick Winograd or FFT), reduced precision,
fused or compiled kernels that reorder non-exact operations. Every tensor that enters a product is float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqcodec.errors import ExactnessError

ACT_MAX = 127  # activations and weights are clamped to this magnitude
ACT_BITS = 5  # an activation a stands for a / 2^5 in the network as trained
WEIGHT_BITS = 7  # a weight w stands for w / 2^7
GATE_BITS = 7  # the gated product y stands for y / 2^7
LOGIT_BITS = 4  # a logit l stands for l / 2^4 nats
BOUND = 2**24  # float32 holds every integer below this magnitude

SHIFT = WEIGHT_BITS  # of a product whose result is an activation again
SHIFT_TANH = ACT_BITS + WEIGHT_BITS - GATE_BITS
SHIFT_PROJECT = GATE_BITS + WEIGHT_BITS - ACT_BITS  # of the product after the gate
SHIFT_LOGIT = ACT_BITS + WEIGHT_BITS - LOGIT_BITS
SIGMOID_HALF = 64  # clamp-sigmoid: 2^7 * (u / 4 + 1 / 2)


class Linear(NamedTuple):
    """An integer product with its rescaling folded in: weight [I, O] and bias [O], float32, both divided by 2^shift, a
    power of two, so that every bit stays; the bias has 1/2 added, for rounding half up."""

    weight: Tensor
    bias: Tensor


def linear(weight: Tensor, bias: Tensor, shift: int | Tensor) -> Linear:
    """Prove that a product stays exact for all activations, and fold its shift in.

    Args:
        weight: integers in -127..127, [I, O].
        bias: integers, [O].
        shift: bits to drop, one number or int64 [O].

    Returns: the product for `rounded`.

    Raises: ExactnessError if a weight is no integer or exceeds 127, or if sum|w| * 127 + |bias| + 2^(shift-1) reaches
        2^24 in a column.
    """
    w, b = weight.double(), bias.double()
    if not (torch.equal(w, w.round()) and torch.equal(b, b.round())) or w.abs().max() > ACT_MAX:
        raise ExactnessError("weights must be integers in -127..127 and biases integers")
    step = 2.0 ** torch.as_tensor(shift, dtype=torch.float64, device=w.device)
    worst = float((w.abs().sum(0) * ACT_MAX + b.abs() + step / 2).max())
    if not worst < BOUND:
        raise ExactnessError(f"a product of this model can reach {worst:.0f}, float32 is exact below {BOUND}")
    return Linear((w / step).float(), (b / step + 0.5).float())


def rounded(x: Tensor, parameters: Linear) -> Tensor:
    """Compute floor((x W + b) / 2^shift + 1/2).

    Args:
        x: float32 integers in -127..127, [..., I].
        parameters: W, b and the shift, from `linear`.

    Returns: float32 integers [..., O].
    """
    flat = torch.addmm(parameters.bias, x.reshape(-1, x.shape[-1]), parameters.weight).floor_()
    return flat.view(*x.shape[:-1], flat.shape[1])


def offsets(alphabets: Sequence[int]) -> Tensor:
    """Say where the rows of every index map begin in a flat table, which has those of all maps one below the other;
    int64 [maps]."""
    return torch.tensor([0, *alphabets[:-1]]).cumsum(0)


def embedded(table: Tensor, index: Tensor) -> Tensor:
    """Sum rows of a table of integers.

    Args:
        table: float32 integers [rows, C].
        index: rows to be summed over the last axis, int64 [..., maps].

    Returns: float32 integers [..., C].
    """
    flat = index.reshape(-1, index.shape[-1])
    if flat.shape[1] == 1 or not len(flat):
        total = table.index_select(0, flat[:, :1].flatten())
    else:
        total = torch.nn.functional.embedding_bag(flat, table, mode="sum")  # in any order: exact
    return total.view(*index.shape[:-1], table.shape[1])


def clamped(x: Tensor) -> Tensor:
    """Clamp to an activation, -127..127, in place."""
    return x.clamp_(-ACT_MAX, ACT_MAX)


def rectified(x: Tensor) -> Tensor:
    """Clamp to 0..127, in place."""
    return x.clamp_(0, ACT_MAX)


def rescale(x: Tensor, shift: int) -> Tensor:
    """Divide by 2^shift and round half up.

    Args:
        x: float32 integers below 2^24.
        shift: bits to drop.

    Returns: float32 integers of the shape of x.
    """
    return torch.floor(x * 2.0**-shift + 0.5)


def gate(x: Tensor) -> Tensor:
    """Gated unit (van den Oord et al. 2016, eq. 2) with clamps in place of tanh and sigmoid.

    x: float32 integers [..., 2C], the first half in units of 2^-GATE_BITS, the second that of the sigmoid's slope plus
    SIGMOID_HALF; overwritten. Returns integers in -127..127, [..., C], in units of 2^-GATE_BITS.
    """
    tanh, sigmoid = x.chunk(2, -1)
    tanh.clamp_(-ACT_MAX, ACT_MAX)
    sigmoid.clamp_(0, ACT_MAX)
    half = torch.full((), 0.5, dtype=x.dtype, device=x.device)
    return torch.addcmul(half, tanh, sigmoid, value=2.0**-GATE_BITS).floor_()  # below 2^14: exact in any order


def exp_table(top: int, floor: int) -> Tensor:
    """Make table[d] = max(floor, round(top * exp(-d / 2^LOGIT_BITS))) for d = 0..255.

    Made with Python's float exp rounded to an integer; models carry their table, so that no machine recomputes it.

    Args:
        top: the value at d = 0.
        floor: the least value.

    Returns: int64 [256].
    """
    return torch.tensor([max(floor, round(top * math.exp(-d / 2**LOGIT_BITS))) for d in range(256)])


def frequency_top(codes: int) -> int:
    """Frequency of the most likely of K codes: the largest power of two, at most 2^15, with K * top <= 2^23."""
    return int(min(2**15, 2 ** (23 - math.ceil(math.log2(codes)))))


def frequencies(logits: Tensor, table: Tensor) -> Tensor:
    """Turn logits into the frequencies that the range coder gets.

    Args:
        logits: float32 integers [..., K].
        table: float32 integers [256], by the distance to the greatest logit.

    Returns: float32 integers from 1, [..., K], whose sum is below 2^24.
    """
    distance = logits.amax(-1, keepdim=True) - logits
    index = distance.clamp_(max=255).to(torch.int32)  # half the bytes of int64
    return table.index_select(0, index.flatten()).view(logits.shape)


def score_shift(dim: int) -> int:
    """Bits to drop from a product of query and key of this dimension: the units of a logit, divided by sqrt(dim)."""
    return 2 * ACT_BITS - LOGIT_BITS + round(math.log2(dim) / 2)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, table: Tensor) -> Tensor:
    """Integer attention with one zero key and value that are always visible ("nothing to look at").

    Scores are below 127^2 * D, exact for D up to 1024; sums are float64 below 2^53.

    Args:
        query: float32 integers [N, A, Q, D] (A heads).
        key: float32 integers [N, A, M, D].
        value: float32 integers [N, A, M, D].
        visible: bool, broadcastable to [N, A, Q, M].
        table: float32 [256], the exponential.

    Returns: float32 integers in -127..127, [N, A, Q, D].
    """
    if not key.shape[2]:
        return torch.zeros_like(query)
    scores = rescale(query @ key.transpose(-1, -2), score_shift(query.shape[-1]))
    scores = torch.where(visible, scores, -float(BOUND))
    peak = scores.amax(-1, keepdim=True).clamp_(min=0)
    weights = table[(peak - scores).clamp_(max=255).long()].double() * visible
    null = table[peak.clamp(max=255).long()].double()
    total = weights.sum(-1, keepdim=True) + null
    mean = torch.floor(weights @ value.double() / total + 0.5)
    return mean.to(query.dtype)
