# SPDX-License-Identifier: Apache-2.0
"""The prior of one level as a trainable module; the mirror of `vqcodec.exact.network.IntegerPrior`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.config import LevelConfig, PriorConfig
from vqcodec.exact import ops
from vqcodec.exact.network import AROUND, TAPS, upsampled
from vqcodec.exact.waveorder import wave_of
from vqcodec.nets.quantizer import CodeLengths
from vqcodec.prior.rounding import gate, integers, rescale

BIAS_BITS = ops.ACT_BITS + ops.WEIGHT_BITS  # a bias is in units of the product
BIAS_MAX = 2**18


class IntegerConv(nn.Module):
    """A convolution whose weight and bias are rounded to integers: [N, I, H, W] to a product [N, O, H, W]; with one tap
    also [M, I] to [M, O].

    taps: offsets (dy, dx) that have a weight; the others of the enclosing kernel are zero ("masked"). One tap (0, 0)
    is a linear map. Weights are kept as [taps, I, O], in real units (integer / 2^7).
    """

    def __init__(self, inputs: int, outputs: int, taps: Sequence[tuple[int, int]] = ((0, 0),), gain: float = 1.0):
        super().__init__()
        self.taps = tuple(taps)
        self.weight = nn.Parameter(torch.randn(len(taps), inputs, outputs) * gain / math.sqrt(inputs * len(taps)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.bias_bits = BIAS_BITS

    def forward(self, x: Tensor, exact: bool) -> Tensor:
        weight = integers(self.weight, ops.WEIGHT_BITS, exact).to(x.dtype)
        bias = integers(self.bias, self.bias_bits, exact, BIAS_MAX).to(x.dtype)
        if x.dim() == 2:  # positions [M, I]
            return x @ weight[0] + bias
        if self.taps == ((0, 0),):
            return F.conv2d(x, weight[0].t()[:, :, None, None], bias)
        top = min(dy for dy, _ in self.taps)
        bottom = max(dy for dy, _ in self.taps)
        kernel = x.new_zeros(weight.shape[2], weight.shape[1], bottom - top + 1, 3)
        for i, (dy, dx) in enumerate(self.taps):
            kernel[:, :, dy - top, dx + 1] = weight[i].t()
        return F.conv2d(F.pad(x, (1, 1, -top, bottom)), kernel, bias)


class OutputBlock(nn.Module):
    """Residual block x + W2 relu(W1 x) on integers; the conditioning stack has 3x3 taps in W1, the output stack 1x1."""

    def __init__(self, channels: int, taps: Sequence[tuple[int, int]] = ((0, 0),)) -> None:
        super().__init__()
        self.inner = IntegerConv(channels, channels, taps, gain=math.sqrt(2))
        self.outer = IntegerConv(channels, channels, gain=0.3)

    def forward(self, x: Tensor, exact: bool) -> Tensor:
        update = rescale(self.inner(x, exact), ops.SHIFT, exact, low=0)
        return clamp_activation(x + rescale(self.outer(update, exact), ops.SHIFT, exact))


class CausalAttention(nn.Module):
    """Multi-head attention over the positions of earlier waves, and a zero key that is always visible."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query = IntegerConv(channels, channels)
        self.key_value = IntegerConv(2 * channels, 2 * channels)
        self.out = IntegerConv(channels, channels, gain=0.3)
        self.heads, self.dropout = heads, dropout

    def forward(self, h: Tensor, embedded: Tensor, exact: bool) -> Tensor:
        """h, embedded: [N, C, H, W] -> h plus the update."""
        n, c, height, width = h.shape
        query = rescale(self.query(h, exact), ops.SHIFT, exact).flatten(2)
        both = rescale(self.key_value(torch.cat([h, embedded], 1), exact), ops.SHIFT, exact).flatten(2)
        q = query.view(n, self.heads, c // self.heads, -1).transpose(2, 3).float()
        k, v = both.view(n, 2, self.heads, c // self.heads, -1).transpose(3, 4).float().unbind(1)
        scores = rescale(q @ k.transpose(-1, -2), ops.score_shift(c // self.heads), exact, -ops.BOUND, ops.BOUND)
        wave = wave_of(height, width).flatten().to(h.device)
        scores = scores.masked_fill(wave[None, :] >= wave[:, None], -math.inf) * 2.0**-ops.LOGIT_BITS
        weights = F.softmax(F.pad(scores, (0, 1)), -1)[..., :-1]  # the last key is the zero key
        mean = rescale(F.dropout(weights, self.dropout, self.training) @ v, 0, exact)
        mean = mean.transpose(2, 3).reshape(n, c, height, width).to(h.dtype)
        return clamp_activation(h + rescale(self.out(mean, exact), ops.SHIFT, exact))


class LevelPrior(nn.Module):
    """The prior of a level, all of whose stages are trained together; see `IntegerPrior` for what it computes."""

    def __init__(self, config: PriorConfig, level: LevelConfig, coarser: Sequence[LevelConfig]) -> None:
        super().__init__()
        self.config, self.level, self.coarser = config, level, tuple(coarser)
        c, k, s = config.channels, level.codes, level.codebooks
        self.embed = nn.Parameter(torch.randn(s, k, c) * (0.7 if s == 1 else 1.2 / math.sqrt(s)))
        self.stage = nn.Parameter(torch.randn(s, c) * 0.3)
        self.cond_own = nn.Parameter(torch.randn(s - 1, k, c) / math.sqrt(s)) if s > 1 else None
        self.cond_coarse = nn.ParameterList(
            nn.Parameter(torch.randn(o.codebooks, (o.stride // level.stride) ** 2 * o.codes, c) * 0.5)
            for o in self.coarser
        )
        self.cond = nn.ModuleList(OutputBlock(c, AROUND) for _ in range(config.cond_blocks))
        self.convs = nn.ModuleList(
            IntegerConv(c, 2 * c, TAPS[:4] if i == 0 else TAPS, gain=0.5) for i in range(config.layers)
        )
        self.conds = nn.ModuleList(IntegerConv(c, 2 * c, gain=0.5) for _ in range(config.layers))
        self.projections = nn.ModuleList(IntegerConv(c, c, gain=1.0) for _ in range(config.layers))
        for projection in self.projections:
            projection.bias_bits = ops.GATE_BITS + ops.WEIGHT_BITS  # type: ignore[assignment]
        self.attentions = nn.ModuleDict(
            {
                str(i): CausalAttention(c, config.heads, config.dropout)
                for i in range(config.layers)
                if config.attention_every and (i + 1) % config.attention_every == 0
            }
        )
        self.out = nn.ModuleList(OutputBlock(c) for _ in range(config.out_blocks))
        self.head_weight = nn.Parameter(torch.randn(s, c, k) * 0.02)
        self.head_bias = nn.Parameter(torch.zeros(s, k))

    def forward(self, own: Tensor, coarse: Sequence[Tensor], exact: bool = True) -> Tensor:
        """Nats per index, float32 [N, S, H, W], under the frequencies as they will be.

        own: int64 [N, S, H, W], the level's maps; coarse: int64 [N, S_i, H_i, W_i] for each coarser level.
        """
        nats = index_nll(self.logits(own, coarse, exact), own.permute(1, 0, 2, 3).flatten(1))
        return nats.view(own.shape[1], len(own), *own.shape[2:]).transpose(0, 1)

    def logits(self, own: Tensor, coarse: Sequence[Tensor], exact: bool = True) -> Tensor:
        """Logits in nats, float32 [S, N * H * W, K]; arguments as of `forward`."""
        n, stages, height, width = own.shape
        h = self.trunk(own, coarse, exact)
        parts = [h[:, None]]
        if self.cond_own is not None:
            tables = integers(self.cond_own, ops.ACT_BITS, exact)
            add = torch.stack([F.embedding(own[:, s], tables[s]) for s in range(stages - 1)], 1)  # [N, S-1, H, W, C]
            told = add.cumsum(1) + integers(self.stage, ops.ACT_BITS, exact)[1:, None, None]
            parts.append(clamp_activation(h[:, None] + told.permute(0, 1, 4, 2, 3).to(h.dtype)))
        x = torch.cat(parts, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)  # [N * S, C, H, W]
        for block in self.out:
            x = block(x, exact)
        x = x.view(n, stages, -1, height, width).permute(1, 0, 3, 4, 2).reshape(stages, n * height * width, -1)
        weight = integers(self.head_weight, ops.WEIGHT_BITS, exact).to(x.dtype)
        bias = integers(self.head_bias, BIAS_BITS, exact, BIAS_MAX)
        return _logits(torch.bmm(x, weight).float() + bias[:, None], exact)

    def trunk(self, own: Tensor, coarse: Sequence[Tensor], exact: bool) -> Tensor:
        """What is known of every position before its own indices, [N, C, H, W]; arguments as of `forward`."""
        dtype = torch.get_autocast_dtype(own.device.type) if torch.is_autocast_enabled(own.device.type) else None
        dtype = dtype or torch.float32
        tables = integers(self.embed, ops.ACT_BITS, exact)
        embedded = F.embedding(own[:, 0], tables[0])
        for s in range(1, own.shape[1]):
            embedded = embedded + F.embedding(own[:, s], tables[s])
        embedded = clamp_activation(embedded).permute(0, 3, 1, 2).to(dtype)
        condition = self._condition(own, coarse, exact).to(dtype)
        for block in self.cond:
            condition = block(condition, exact)
        h: Tensor | None = None
        x = embedded
        for i in range(self.config.layers):
            product = self.convs[i](x, exact) + self.conds[i](condition, exact)
            update = rescale(self.projections[i](gate(product, exact), exact), ops.SHIFT_PROJECT, exact)
            update = F.dropout(update, self.config.dropout, self.training)
            h = update if h is None else clamp_activation(h + update)
            if str(i) in self.attentions:
                h = self.attentions[str(i)](h, embedded, exact)
            x = h
        assert h is not None
        return h

    def _condition(self, own: Tensor, coarse: Sequence[Tensor], exact: bool) -> Tensor:
        """The sum of embeddings of all coarser maps, [N, C, H, W]."""
        x = integers(self.stage, ops.ACT_BITS, exact)[0]
        for table, maps, other in zip(self.cond_coarse, coarse, self.coarser, strict=True):
            ratio = other.stride // self.level.stride
            for j in range(other.codebooks):
                flat = integers(table[j], ops.ACT_BITS, exact)
                x = x + F.embedding(upsampled(maps[:, j], ratio, other.codes), flat)
        x = x.expand(own.shape[0], *own.shape[2:], -1)
        return clamp_activation(x).permute(0, 3, 1, 2)

    @torch.no_grad()
    def code_lengths(self, own: Tensor, coarse: Sequence[Tensor]) -> CodeLengths:
        """Bits of every code at every position, if the maps around it are `own`: what an encoder chooses by. Arguments
        as of `forward`."""
        return _Lengths(self, self.trunk(own, coarse, True).permute(0, 2, 3, 1).flatten(0, 2))


class _Lengths:
    """`CodeLengths` of a prior, from the output of its trunk, [M, C]."""

    def __init__(self, prior: LevelPrior, h: Tensor) -> None:
        self.prior, self.h = prior, h

    @torch.no_grad()
    def bits(self, stage: int, told: Tensor | None) -> Tensor:
        x = self.h
        if told is not None:
            offset = integers(self.prior.stage[stage], ops.ACT_BITS, True)
            x = clamp_activation(x + (told + offset).to(x.dtype))
        for block in self.prior.out:
            x = block(x, True)
        weight = integers(self.prior.head_weight[stage], ops.WEIGHT_BITS, True).to(x.dtype)
        bias = integers(self.prior.head_bias[stage], BIAS_BITS, True, BIAS_MAX)
        logits = _logits((x @ weight).float() + bias, True)
        least = logits.new_full((), -math.log(ops.frequency_top(logits.shape[-1])))
        floored = torch.logaddexp(logits - logits.amax(-1, keepdim=True), least)
        return floored.log_softmax(-1) * (-1 / math.log(2))

    @torch.no_grad()
    def told(self, stage: int, index: Tensor) -> Tensor:
        assert self.prior.cond_own is not None
        return integers(self.prior.cond_own[stage], ops.ACT_BITS, True)[index]


def _logits(product: Tensor, exact: bool) -> Tensor:
    """A product of the head to nats."""
    return rescale(product, ops.SHIFT_LOGIT, exact, -ops.BOUND, ops.BOUND) * 2.0**-ops.LOGIT_BITS


def clamp_activation(x: Tensor) -> Tensor:
    """Keep a sum of activations in -127..127."""
    return x.clamp(-ops.ACT_MAX, ops.ACT_MAX)


def index_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Nats per index, [...], under the frequencies as they will be: no code less likely than the table's floor.

    logits: float32 [..., K] in nats; target: int64 [...].
    """
    codes = logits.shape[-1]
    least = -math.log(ops.frequency_top(codes))
    peak = logits.detach().amax(-1)
    total = torch.logaddexp(torch.logsumexp(logits, -1) - peak, peak.new_full((), least + math.log(codes)))
    own = logits.gather(-1, target[..., None])[..., 0] - peak
    return total - torch.logaddexp(own, own.new_full((), least))
