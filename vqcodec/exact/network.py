# SPDX-License-Identifier: Apache-2.0
"""The integer prior of one level: its tensors, their proof of exactness, and what is computed of single positions.

Index maps are int64; everything else is float32 holding integers (see `ops`). `engine` walks over the positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vqcodec.config import LevelConfig, PriorConfig
from vqcodec.errors import ModelError
from vqcodec.exact import ops, orders
from vqcodec.exact.attention import Attention
from vqcodec.exact.condition import Condition, Conditioning
from vqcodec.exact.tensors import Reader


class IntegerPrior:
    """Gated residual PixelCNN (van den Oord et al. 2016; Razavi et al. 2019) over the index maps of one level.

    Step after step of an order (see `orders`), and at each position stage after stage, as in the RQ-Transformer (Lee
    et al. 2022): the masked convolutions see all indices of positions of earlier steps and the maps of coarser levels;
    for stage s, the indices that stages 0..s-1 have at the position itself are then added ahead of the output stack.

    Making one from tensors checks names, shapes and the bound of every product; ModelError or ExactnessError otherwise.
    """

    def __init__(
        self,
        config: PriorConfig,
        level: LevelConfig,
        coarser: Sequence[LevelConfig],
        tensors: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.level, self.coarser = config, level, tuple(coarser)
        self.device = torch.device(device)
        if config.order not in orders.KINDS:
            raise ModelError(f"there is no order called {config.order!r}")
        self.kind = orders.KINDS[config.order]
        reader = Reader(tensors, self.device)
        c, outputs = config.channels, config.out_channels or config.channels
        first = level.stage_maps(level.stages - 1).start  # map of the last stage, which tells no other
        self.offsets = ops.offsets(level.alphabets).to(self.device)
        self.embed = reader.get("embed", (sum(level.alphabets), c))
        self.conditioning = Conditioning(config, level, coarser, reader)
        self.step = reader.get("step", (self.kind.steps, c)) if self.kind.steps else None
        self.exp_table = reader.get("exp_table", (256,), limit=ops.BOUND)
        taps = [len(reach) for reach in self.kind.reaches]
        self.products = [reader.gated(f"layer.{i}", [n + (i > 0) for n in taps], c) for i in range(config.layers)]
        self.projections = [reader.linear(f"layer.{i}.project", c, c, ops.SHIFT_PROJECT) for i in range(config.layers)]
        self.attentions = {
            i: Attention(f"attention.{i}", c, config.heads, self.exp_table, reader)
            for i in range(config.layers)
            if config.attention_every and (i + 1) % config.attention_every == 0
        }
        self.enter = reader.linear("enter", c, outputs) if config.out_channels else None
        self.stage = reader.get("stage", (level.stages - 1, outputs)) if level.stages > 1 else None
        self.earlier_table = reader.get("told", (sum(level.alphabets[:first]), outputs)) if first else None
        self.out_blocks = [
            (reader.linear(f"out.{b}.inner", outputs, outputs), reader.linear(f"out.{b}.outer", outputs, outputs))
            for b in range(config.out_blocks)
        ]
        self.heads = [
            reader.linear(f"head.{s}", outputs, sum(level.alphabets[level.stage_maps(s)]), ops.SHIFT_LOGIT)
            for s in range(level.stages)
        ]
        self.table = reader.get("table", (256,), limit=ops.BOUND)
        if self.table.min() < 1 or float(self.table.max()) * max(level.alphabets) >= ops.BOUND:
            raise ModelError("the prior's frequency table does not fit its number of codes")
        if self.exp_table.min() < 0 or self.exp_table[0] < 1:
            raise ModelError("the prior's exponential table is negative, or nothing at its start")
        if any(bool((table.diff() > 0).any()) for table in (self.table, self.exp_table)):
            raise ModelError("the prior's tables do not fall")

    def condition(
        self,
        coarse: Sequence[Tensor],
        shape: tuple[int, int, int],
        valid: Tensor | None = None,
        tradeoff: int = 0,
    ) -> Condition:
        """Compute what is known of every position ahead of its level: the coarser levels' maps and the trade-off.

        Args:
            coarse: int64 [N, maps, H_i, W_i], one per coarser level.
            shape: (N, H, W).
            valid: bool [N, H, W], False outside the image; None: all inside.
            tradeoff: 0..255.
        """
        return self.conditioning(coarse, shape, valid, tradeoff)

    # What follows looks at one position at a time.

    def embedded(self, indices: Tensor) -> Tensor:
        """Embed what a position tells those after it. indices: int64 [n, maps] -> [n, C]."""
        return ops.clamped(ops.embedded(self.embed, indices + self.offsets))

    def entered(self, h: Tensor) -> Tensor:
        """Go from the stream to the output stack: [n, C] -> [n, O]."""
        return h if self.enter is None else ops.clamped(ops.rounded(h, self.enter))

    def groups(self, stage: int) -> int:
        """Indices that a position has of a stage."""
        return 1 if stage < self.level.codebooks else self.level.groups

    def codes(self, stage: int) -> int:
        """Entries of the codebooks of a stage."""
        return self.level.codes if stage < self.level.codebooks else self.level.group_codes

    def handed_on(self, stage: int, indices: Tensor) -> Tensor:
        """Compute what the indices of a stage add for all later ones of its position.

        Args:
            stage: number of the stage, from 0.
            indices: int64 [..., groups], one group for a residual stage.

        Returns: float32 integers [..., O].

        Raises: ValueError if the level has a single stage.
        """
        if self.earlier_table is None:
            raise ValueError("a single stage tells no other")
        return ops.embedded(self.earlier_table, indices + self.offsets[self.level.stage_maps(stage)])

    def logits(self, stage: int, h: Tensor, earlier: Tensor | None) -> Tensor:
        """Output stack.

        Args:
            stage: whose indices are asked for.
            h: float32 [n, O], from `entered`.
            earlier: float32 [..., n, O], the sum of `handed_on` over the stages before; None for the first.

        Returns: integers [..., n, groups * K] in units of 2^-LOGIT_BITS nats, group after group.
        """
        if earlier is not None:
            assert self.stage is not None
            h = ops.clamped((h + earlier).add_(self.stage[stage - 1]))
        for inner, outer in self.out_blocks:
            update = ops.rectified(ops.rounded(h, inner))
            h = ops.clamped(ops.clamped(ops.rounded(update, outer)).add_(h))
        return ops.rounded(h, self.heads[stage])

    def frequencies(self, stage: int, h: Tensor, earlier: Tensor | None) -> Tensor:
        """Compute the frequencies of a stage's codes; arguments as of `logits`, two-dimensional.

        Args:
            stage: number of the stage, from 0.
            h: float32 integers [n, O].
            earlier: sum of `handed_on` over the earlier stages, [n, O]; None at the first.

        Returns: float32 integers from 1, [n * groups, K].
        """
        return ops.frequencies(self.logits(stage, h, earlier).view(-1, self.codes(stage)), self.table)
