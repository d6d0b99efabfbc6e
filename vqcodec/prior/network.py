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
from vqcodec.prior.rounding import gate, integers, rescale

BIAS_BITS = ops.ACT_BITS + ops.WEIGHT_BITS  # a bias is in units of the product
BIAS_MAX = 2**18


class IntegerConv(nn.Module):
    """A convolution whose weight and bias are rounded to integers: [N, I, H, W] to a product [N, O, H, W].

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
    """One network for all stages of a level; see `IntegerPrior` for what it computes.

    `forward` takes a batch of tiles and one stage number per tile, so that a batch trains all stages together.
    """

    def __init__(self, config: PriorConfig, level: LevelConfig, coarser: Sequence[LevelConfig]) -> None:
        super().__init__()
        self.config, self.level, self.coarser = config, level, tuple(coarser)
        c, k, s = config.channels, level.codes, level.codebooks
        self.embed = nn.Parameter(torch.randn(s, k, c) * 0.7)
        self.stage = nn.Parameter(torch.randn(s, c) * 0.3)
        self.cond_own = nn.Parameter(torch.randn(s - 1, k, c) * 0.5) if s > 1 else None
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

    def forward(self, stages: Tensor, own: Tensor, coarse: Sequence[Tensor], exact: bool = True) -> Tensor:
        """Logits in nats, float32 [N, K, H, W].

        stages: int64 [N], the stage each tile is asked for; own: int64 [N, S, H, W], the level's maps (stages from the
        asked one on are not looked at, but for the causal part of the asked one); coarse: int64 [N, S_i, H_i, W_i].
        """
        dtype = torch.get_autocast_dtype(own.device.type) if torch.is_autocast_enabled(own.device.type) else None
        dtype = dtype or torch.float32
        n = own.shape[0]
        chosen = own[torch.arange(n, device=own.device), stages]
        embed = integers(self.embed, ops.ACT_BITS, exact)
        k = self.level.codes
        embedded = F.embedding(chosen + stages[:, None, None] * k, embed.flatten(0, 1))
        embedded = embedded.permute(0, 3, 1, 2).to(dtype)
        condition = self._condition(stages, own, coarse, exact).to(dtype)
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
        for block in self.out:
            h = block(h, exact)
        return self._logits(stages, h, exact)

    def _condition(self, stages: Tensor, own: Tensor, coarse: Sequence[Tensor], exact: bool) -> Tensor:
        """The sum of embeddings of all maps known before, [N, C, H, W]."""
        x = integers(self.stage, ops.ACT_BITS, exact)[stages][:, None, None, :]
        for table, maps, other in zip(self.cond_coarse, coarse, self.coarser, strict=True):
            ratio = other.stride // self.level.stride
            for j in range(other.codebooks):
                flat = integers(table[j], ops.ACT_BITS, exact)
                x = x + F.embedding(upsampled(maps[:, j], ratio, other.codes), flat)
        if self.cond_own is not None:
            tables = integers(self.cond_own, ops.ACT_BITS, exact)
            for j in range(self.level.codebooks - 1):
                later = torch.nonzero(stages > j).flatten()
                if len(later):
                    x = x.expand(own.shape[0], *own.shape[2:], -1)
                    x = x.index_add(0, later, F.embedding(own[later, j], tables[j]))
        x = x.expand(own.shape[0], *own.shape[2:], -1)
        return clamp_activation(x).permute(0, 3, 1, 2)

    def _logits(self, stages: Tensor, h: Tensor, exact: bool) -> Tensor:
        weight = integers(self.head_weight, ops.WEIGHT_BITS, exact)
        bias = integers(self.head_bias, BIAS_BITS, exact, BIAS_MAX)
        out = h.new_empty(h.shape[0], self.level.codes, *h.shape[2:], dtype=torch.float32)
        parts = []
        places = []
        for stage in stages.unique().tolist():
            rows = torch.nonzero(stages == stage).flatten()
            product = F.conv2d(h[rows], weight[stage].t()[:, :, None, None].to(h.dtype), bias[stage].to(h.dtype))
            parts.append(rescale(product.float(), ops.SHIFT_LOGIT, exact, -ops.BOUND, ops.BOUND))
            places.append(rows)
        out = torch.cat(parts)[torch.argsort(torch.cat(places))]
        return out * 2.0**-ops.LOGIT_BITS


def clamp_activation(x: Tensor) -> Tensor:
    """Keep a sum of activations in -127..127."""
    return x.clamp(-ops.ACT_MAX, ops.ACT_MAX)


def index_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Nats per index, [N, H, W], under the frequencies as they will be: no code less likely than the table's floor.

    logits: float32 [N, K, H, W] in nats; target: int64 [N, H, W].
    """
    codes = logits.shape[1]
    top = ops.frequency_top(codes)
    peak = logits.amax(1, keepdim=True).detach()
    floor = torch.logaddexp(logits - peak, logits.new_full((), -math.log(top)))
    return torch.logsumexp(floor, 1) - floor.gather(1, target[:, None])[:, 0]
