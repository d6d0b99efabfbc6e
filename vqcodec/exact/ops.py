# SPDX-License-Identifier: Apache-2.0
"""The operations of the probability path, and their contract.

Encoder and decoder must compute identical integer frequencies on any device, batch size, thread count, instruction
set and library version. Everything here is integer arithmetic carried in floating-point tensors:

- activations are integers in -127..127, weights integers in -127..127, both held in float32;
- a product is only taken where, for every output column, sum|w| * 127 + |bias| + 2^(shift-1) < 2^24 (`check_bound`,
  called when a model is made and again when it is loaded): every partial sum, in any order, is then an exact float32;
- rescaling is a multiplication by a power of two followed by floor(x + 0.5), exact under the same bound;
- non-linear functions are clamps, products of two small integers, and integer look-up tables;
- attention sums its weighted values in float64 (below 2^53), then makes one IEEE division and a floor.

Not to be used here: float exp/tanh/softmax, convolution calls (libraries pick Winograd or FFT), reduced precision,
fused or compiled kernels that reorder non-exact operations. Every tensor that enters a product is float32.
"""

from __future__ import annotations

import math

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


def check_bound(weight: Tensor, bias: Tensor, shift: int) -> None:
    """Prove that weight [I, O] and bias [O] (any dtype, integer values) stay exact for all activations.

    Raises ExactnessError if a weight exceeds 127 or sum|w| * 127 + |bias| + 2^(shift-1) reaches 2^24 in a column.
    """
    w, b = weight.double(), bias.double()
    if not (torch.equal(w, w.round()) and torch.equal(b, b.round())) or w.abs().max() > ACT_MAX:
        raise ExactnessError("weights must be integers in -127..127 and biases integers")
    worst = float((w.abs().sum(0) * ACT_MAX + b.abs()).max()) + 2 ** (shift - 1)
    if not worst < BOUND:
        raise ExactnessError(f"a product of this model can reach {worst:.0f}, float32 is exact below {BOUND}")


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Exact matrix product: x float32 [..., I] (integers), weight [I, O], bias [O] -> float32 [..., O] (integers)."""
    flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
    return flat.view(*x.shape[:-1], weight.shape[1])


def rescale(x: Tensor, shift: int) -> Tensor:
    """Division by 2^shift, rounded half up; integers in, integers out, any magnitude that `check_bound` admits."""
    return torch.floor(x * 2.0**-shift + 0.5)


def activation(x: Tensor, shift: int) -> Tensor:
    """Rescale a product to an activation in -127..127."""
    return rescale(x, shift).clamp_(-ACT_MAX, ACT_MAX)


def relu_activation(x: Tensor, shift: int) -> Tensor:
    """Rescale a product to an activation in 0..127."""
    return rescale(x, shift).clamp_(0, ACT_MAX)


def gate(x: Tensor) -> Tensor:
    """Gated unit (van den Oord et al. 2016, eq. 2) with clamps in place of tanh and sigmoid.

    x: a product, float32 [..., 2C] -> integers in -127..127, [..., C], in units of 2^-GATE_BITS.
    """
    a, b = x.chunk(2, -1)
    tanh = activation(a, SHIFT_TANH)
    sigmoid = (rescale(b, SHIFT) + SIGMOID_HALF).clamp_(0, ACT_MAX)
    return rescale(tanh * sigmoid, GATE_BITS)


def exp_table(top: int, floor: int) -> Tensor:
    """table[d] = max(floor, round(top * exp(-d / 2^LOGIT_BITS))) for d = 0..255, int64 [256].

    Made with Python's float exp rounded to an integer; models carry their table, so that no machine recomputes it.
    """
    return torch.tensor([max(floor, round(top * math.exp(-d / 2**LOGIT_BITS))) for d in range(256)])


def frequency_top(codes: int) -> int:
    """Frequency of the most likely of K codes: the largest power of two, at most 2^15, with K * top <= 2^23."""
    return int(min(2**15, 2 ** (23 - math.ceil(math.log2(codes)))))


def frequencies(logits: Tensor, table: Tensor) -> Tensor:
    """logits: float32 integers [..., K]; table: float32 [256] -> float32 integers from 1, [..., K], sum below 2^24."""
    distance = logits.amax(-1, keepdim=True) - logits
    return table[distance.clamp_(max=255).long()]


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, table: Tensor) -> Tensor:
    """Integer attention with one zero key and value that are always visible ("nothing to look at").

    query: float32 integers [N, A, Q, D] (A heads); key, value: [N, A, M, D]; visible: bool, broadcastable to
    [N, A, Q, M]; table: float32 [256], the exponential. Returns float32 integers in -127..127, [N, A, Q, D].
    Scores are below 127^2 * D, exact for D up to 1024; sums are float64 below 2^53.
    """
    if not key.shape[2]:
        return torch.zeros_like(query)
    shift = 2 * ACT_BITS - LOGIT_BITS + round(math.log2(query.shape[-1]) / 2)
    scores = rescale(query @ key.transpose(-1, -2), shift)
    scores = torch.where(visible, scores, -float(BOUND))
    peak = scores.amax(-1, keepdim=True).clamp_(min=0)
    weights = table[(peak - scores).clamp_(max=255).long()].double() * visible
    null = table[peak.clamp(max=255).long()].double()
    total = weights.sum(-1, keepdim=True) + null
    mean = torch.floor(weights @ value.double() / total + 0.5)
    return mean.float()
