# SPDX-License-Identifier: Apache-2.0
"""The prior of one level as a trainable module; the mirror of `vqcodec.exact.network.IntegerPrior`.

Layout is [N, P, C] with P = H * W positions, row by row; the conditioning stack has maps [N, H, W, C]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.config import LevelConfig, PriorConfig
from vqcodec.exact import ops
from vqcodec.exact.orders import KINDS, Order, order
from vqcodec.nets.choice import CodeLengths
from vqcodec.prior.layers import (
    CausalAttention,
    IntegerLinear,
    MaskedLayer,
    OutputBlock,
    clamp_activation,
    padded_rows,
)
from vqcodec.prior.rounding import Rounded, integers, rescale, rounded_once


def offsets(level: LevelConfig) -> list[int]:
    """First row of every index map in a flat table of the level's codes, and the number of rows."""
    return list(accumulate(level.alphabets, initial=0))


def live_stages(maps: Tensor, level: LevelConfig) -> Tensor:
    """Say which stages are coded: those that no earlier one ended.

    Args:
        maps: int64 [N, maps, P].
        level: whose maps they are.

    Returns: bool [N, stages, P].
    """
    live = [torch.ones_like(maps[:, 0], dtype=torch.bool)]
    for stage in range(level.stages - 1):
        going_on = (maps[:, level.stage_maps(stage)] != 0).any(1) if level.stop else live[-1]
        live.append(live[-1] & going_on)
    return torch.stack(live, 1)


class LevelPrior(nn.Module):
    """The prior of a level, all of whose stages are trained together; see `IntegerPrior` for what it computes."""

    def __init__(self, config: PriorConfig, level: LevelConfig, coarser: Sequence[LevelConfig]) -> None:
        super().__init__()
        self.config, self.level, self.coarser = config, level, tuple(coarser)
        c, o, stages = config.channels, config.out_channels or config.channels, level.stages
        kind = KINDS[config.order]
        self.offsets = offsets(level)
        rows, last = self.offsets[-1], level.stage_maps(stages - 1).start
        spread = 0.7 if level.maps == 1 else 1.2 / math.sqrt(level.maps)
        self.embed = nn.Parameter(torch.randn(rows, c) * spread)
        self.base = nn.Parameter(torch.randn(c) * 0.3)
        self.rate = nn.Parameter(torch.randn(config.tradeoffs, c) * 0.1) if config.tradeoffs else None
        self.stride = self.coarser[-1].stride if config.cond_above and self.coarser else level.stride
        self.cond_coarse = nn.ParameterList(
            nn.Parameter(torch.randn((v.stride // self.stride) ** 2 * offsets(v)[-1], c) * (0.5 / math.sqrt(v.maps)))
            for v in self.coarser
        )
        self.cond = nn.ModuleList(OutputBlock(c, around=True) for _ in range(config.cond_blocks))
        ratio = self.stride // level.stride
        self.expand = IntegerLinear(c, ratio**2 * c) if config.cond_above and self.coarser else None
        self.step = nn.Parameter(torch.randn(kind.steps, c) * 0.1) if kind.steps else None
        taps = [len(reach) for reach in kind.reaches]
        self.layers = nn.ModuleList(MaskedLayer(c, taps, i == 0) for i in range(config.layers))
        self.attentions = nn.ModuleDict(
            {
                str(i): CausalAttention(c, config.heads, config.dropout)
                for i in range(config.layers)
                if config.attention_every and (i + 1) % config.attention_every == 0
            }
        )
        self.enter = IntegerLinear(c, o) if config.out_channels else None
        self.stage = nn.Parameter(torch.randn(stages - 1, o) * 0.3) if stages > 1 else None
        self.told = nn.Parameter(torch.randn(self.offsets[last], o) / math.sqrt(level.maps)) if stages > 1 else None
        self.out = nn.ModuleList(OutputBlock(o) for _ in range(config.out_blocks))
        widths = [sum(level.alphabets[level.stage_maps(s)]) for s in range(stages)]
        self.heads = nn.ModuleList(IntegerLinear(o, width) for width in widths)
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.02)  # type: ignore[arg-type]

    @rounded_once()
    def forward(
        self, level_maps: Tensor, coarse: Sequence[Tensor], exact: bool = True, tradeoffs: Tensor | None = None
    ) -> Tensor:
        """Compute nats per index, under the frequencies as they will be.

        Args:
            level_maps: int64 [N, maps, H, W], the level's maps.
            coarse: int64 [N, maps_i, H_i, W_i] for each coarser level.
            exact: round, as the integer prior does; False: compute without any rounding.
            tradeoffs: float [N] in 0..1 (None: the lowest weight of a bit).

        Returns: float32 [N, maps, H, W]; 0 where no index is coded.
        """
        n, maps, height, width = level_maps.shape
        h = self.trunk(level_maps, coarse, exact, tradeoffs).flatten(0, 1)  # [N * P, C]
        flat = level_maps.flatten(2).transpose(1, 2).flatten(0, 1)  # [N * P, maps]
        live = live_stages(level_maps.flatten(2), self.level).transpose(1, 2).flatten(0, 1)  # [N * P, stages]
        nats = h.new_zeros(n * height * width, maps, dtype=torch.float32)
        earlier: Tensor | None = None
        top = ops.frequency_top(self.level.codes)
        for stage in range(self.level.stages):
            where = self.level.stage_maps(stage)
            rows = live[:, stage].nonzero()[:, 0]
            if not len(rows):
                break
            logits = self.logits(stage, h[rows], None if earlier is None else earlier[rows], exact)
            target = flat[rows, where]
            values = index_nll(logits, target if logits.dim() > 2 else target[:, 0], top).view(len(rows), -1)
            nats = nats.index_put((rows[:, None], torch.arange(maps, device=h.device)[where]), values)
            if stage + 1 < self.level.stages:
                add = self.tell(stage, target if logits.dim() > 2 else target[:, 0], exact).to(h.dtype)
                earlier = h.new_zeros(len(h), add.shape[-1]) if earlier is None else earlier
                earlier = earlier.index_add(0, rows, add)
        return nats.view(n, height, width, maps).permute(0, 3, 1, 2)

    def logits(self, stage: int, h: Tensor, earlier: Tensor | None, exact: bool) -> Tensor:
        """Compute the logits of a stage, in nats.

        Args:
            stage: number of the stage, from 0.
            h: from `trunk`, [M, O].
            earlier: sum of `tell` over the stages before; None at the first.
            exact: as of `forward`.

        Returns: float32 [M, K], of a product stage [M, G, K].
        """
        x = h
        if earlier is not None:
            assert self.stage is not None
            x = clamp_activation(h + (earlier + integers(self.stage, ops.ACT_BITS, exact)[stage - 1]).to(h.dtype))
        rows, x = len(x), padded_rows(x)
        for block in self.out:
            x = block(x, exact)
        logits = _logits(self.heads[stage](x, exact)[:rows].float(), exact)
        return logits if stage < self.level.codebooks else logits.unflatten(-1, (self.level.groups, -1))

    def tell(self, stage: int, index: Tensor, exact: bool) -> Tensor:
        """Compute what the indices of a stage tell the later ones.

        Args:
            stage: number of the stage, from 0.
            index: int64 [...], of a product stage [..., G].
            exact: as of `forward`.

        Returns: [..., O].
        """
        assert self.told is not None
        first = self.level.stage_maps(stage).start
        if stage < self.level.codebooks:
            return F.embedding(index + self.offsets[first], integers(self.told, ops.ACT_BITS, exact))
        rows = torch.tensor(self.offsets[first : first + self.level.groups], device=index.device)
        return F.embedding(index + rows, integers(self.told, ops.ACT_BITS, exact)).sum(-2)

    def trunk(
        self, level_maps: Tensor, coarse: Sequence[Tensor], exact: bool, tradeoffs: Tensor | None = None
    ) -> Tensor:
        """Compute what is known of every position before its indices.

        Args:
            level_maps: as of `forward`.
            coarse: as of `forward`.
            exact: as of `forward`.
            tradeoffs: as of `forward`.

        Returns: [N, P, O].
        """
        dtype = (
            torch.get_autocast_dtype(level_maps.device.type)
            if torch.is_autocast_enabled(level_maps.device.type)
            else None
        )
        dtype = dtype or torch.float32
        table = integers(self.embed, ops.ACT_BITS, exact)
        rows = level_maps.flatten(2) + torch.tensor(self.offsets[:-1], device=level_maps.device)[:, None]
        embedded = clamp_activation(_bags(rows.transpose(1, 2), table)).to(dtype)  # [N, P, C]
        positions = order(self.config.order, *level_maps.shape[2:])
        condition = self._condition(level_maps, coarse, exact, tradeoffs).to(dtype)
        for block in self.cond:
            condition = block(condition, exact)
        condition = self._at_own_stride(condition, positions, exact)
        h: Tensor | None = None
        x = embedded
        for i, layer in enumerate(self.layers):
            update = F.dropout(layer(x, condition, positions, exact), self.config.dropout, self.training)
            h = update if h is None else clamp_activation(h + update)
            if str(i) in self.attentions:
                h = self.attentions[str(i)](h, embedded, positions.step, exact)
            x = h
        assert h is not None
        return h if self.enter is None else rescale(self.enter(h, exact), ops.SHIFT, exact)

    def _condition(self, level_maps: Tensor, coarse: Sequence[Tensor], exact: bool, tradeoffs: Tensor | None) -> Tensor:
        """The sum of embeddings of all coarser maps and of the trade-off, at the stride of the conditioning stack,
        [N, H', W', C]."""
        ratio = self.stride // self.level.stride
        x = integers(self.base, ops.ACT_BITS, exact).expand(
            len(level_maps), level_maps.shape[2] // ratio, level_maps.shape[3] // ratio, -1
        )
        if self.rate is not None:
            byte = level_maps.new_zeros(len(level_maps)) if tradeoffs is None else (tradeoffs * 255).round().long()
            x = x + integers(self.rate, ops.ACT_BITS, exact)[byte * self.config.tradeoffs // 256][:, None, None]
        for parameter, maps, level in zip(self.cond_coarse, coarse, self.coarser, strict=True):
            rows = phased(maps, level, level.stride // self.stride)
            x = x + _bags(rows.permute(0, 2, 3, 1), integers(parameter, ops.ACT_BITS, exact))
        return clamp_activation(x)

    def _at_own_stride(self, x: Tensor, positions: Order, exact: bool) -> Tensor:
        """[N, H', W', C] -> [N, P, C], with the vectors of the steps added."""
        if self.expand is not None:
            r = self.stride // self.level.stride
            x = rescale(self.expand(x, exact), ops.SHIFT, exact)
            x = x.unflatten(-1, (r, r, -1)).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)  # [N, H, W, C]
        x = x.flatten(1, 2)
        if self.step is None:
            return x
        add = integers(self.step, ops.ACT_BITS, exact)[positions.step.to(x.device)]
        return clamp_activation(x + add.to(x.dtype))

    @torch.no_grad()
    def code_lengths(
        self, level_maps: Tensor, coarse: Sequence[Tensor], tradeoffs: Tensor | None = None
    ) -> CodeLengths:
        """Give the bits of every code at every position, if the maps around it are these: what an encoder chooses by.

        Args:
            level_maps: as of `forward`.
            coarse: as of `forward`.
            tradeoffs: as of `forward`.
        """
        return _Lengths(self, self.trunk(level_maps, coarse, True, tradeoffs).flatten(0, 1))


def phased(maps: Tensor, level: LevelConfig, ratio: int) -> Tensor:
    """Number the rows of a flat table by phase and code, for a finer stride.

    Args:
        maps: int64 [N, maps, h, w].
        level: whose maps they are.
        ratio: how many times finer the stride is.

    Returns: int64 [N, maps, ratio * h, ratio * w].
    """
    first = offsets(level)
    rows = maps + torch.tensor(first[:-1], device=maps.device)[:, None, None]
    fine = rows.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)
    y = torch.arange(fine.shape[2], device=maps.device) % ratio
    x = torch.arange(fine.shape[3], device=maps.device) % ratio
    return fine + (y[:, None] * ratio + x) * first[-1]


def _bags(rows: Tensor, table: Tensor) -> Tensor:
    """Sums of rows of a table: int64 [..., B] -> [..., C]."""
    flat = F.embedding_bag(rows.reshape(-1, rows.shape[-1]), table, mode="sum")
    return flat.view(*rows.shape[:-1], -1)


class _Lengths:
    """`CodeLengths` of a prior, from the output of its trunk, [M, O]."""

    def __init__(self, prior: LevelPrior, h: Tensor) -> None:
        self.prior, self.h = prior, h
        self.rounded: Rounded = {}

    @torch.no_grad()
    def logs(self, stage: int, earlier: Tensor | None, rows: Tensor) -> Tensor:
        h = self.h[rows][:, None]
        with rounded_once(self.rounded):
            logits = self.prior.logits(stage, h, earlier, True)
        least = logits.new_full((), -math.log(ops.frequency_top(self.prior.level.codes)))
        return torch.logaddexp(logits - logits.amax(-1, keepdim=True), least).log_softmax(-1)

    @torch.no_grad()
    def handed_on(self, stage: int, index: Tensor) -> Tensor | None:
        with rounded_once(self.rounded):
            return self.prior.tell(stage, index, True)


def _logits(product: Tensor, exact: bool) -> Tensor:
    """A product of the head to nats."""
    return rescale(product, ops.SHIFT_LOGIT, exact, -ops.BOUND, ops.BOUND) * 2.0**-ops.LOGIT_BITS


def index_nll(logits: Tensor, target: Tensor, top: int) -> Tensor:
    """Compute nats per index under the frequencies as they will be: no code less likely than the table's floor.

    Args:
        logits: float32 [..., K] in nats.
        target: int64 [...].
        top: frequency of the most likely code.

    Returns: float32 [...].
    """
    codes = logits.shape[-1]
    least = -math.log(top)
    peak = logits.detach().amax(-1)
    total = torch.logaddexp(torch.logsumexp(logits, -1) - peak, peak.new_full((), least + math.log(codes)))
    chosen = logits.gather(-1, target[..., None])[..., 0] - peak
    return total - torch.logaddexp(chosen, chosen.new_full((), least))
