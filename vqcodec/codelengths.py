# SPDX-License-Identifier: Apache-2.0
"""What codes cost under an integer prior: an encoder chooses by it. No part of the contract of the probability path."""

from __future__ import annotations

import math

from torch import Tensor

from vqcodec.exact import engine, ops
from vqcodec.exact.condition import Condition
from vqcodec.exact.network import IntegerPrior


def code_lengths(
    prior: IntegerPrior, indices: Tensor, condition: Condition, valid: Tensor | None = None
) -> list[PriorLengths]:
    """Bits of every code at every position of each tile, if the maps around it are these.

    Args:
        prior: of the level.
        indices: int64 [N, maps, H, W].
        condition: from `IntegerPrior.condition`.
        valid: bool [N, H, W], False outside the image; None: all inside.

    Returns: for every tile, the lengths at its positions inside the image, row by row.
    """
    return [PriorLengths(prior, h) for h in engine.outputs(prior, indices, condition, valid)]


class PriorLengths:
    """`CodeLengths` of a prior at M positions."""

    def __init__(self, prior: IntegerPrior, h: Tensor) -> None:
        """h: float32 [M, O], from `engine.outputs`."""
        self.prior, self.h = prior, h
        self._least = math.log2(float(prior.table[0]))  # no frequency is below 1

    def bits(self, stage: int, told: Tensor | None, rows: Tensor | None = None) -> Tensor:
        """float [..., M, K] of a residual stage, [..., M, groups, K] of a product stage.

        told: float [..., M, O], the sum of `told` over the stages before, None for the first. rows: int64 [M'], the
        positions that are asked for; None: all.
        """
        h = self.h if rows is None or len(rows) == len(self.h) else self.h.index_select(0, rows)
        logits = self.prior.logits(stage, h, told)
        if stage >= self.prior.level.codebooks:
            logits = logits.view(*logits.shape[:-1], self.prior.groups(stage), self.prior.codes(stage))
        # the table's exponential, but for its rounding: in float this is faster than looking it up
        below = (logits - logits.amax(-1, keepdim=True)).mul_(1 / (2**ops.LOGIT_BITS * math.log(2)))
        below.clamp_(min=-self._least)
        return below.exp2().sum(-1, keepdim=True).log2_() - below

    def told(self, stage: int, index: Tensor) -> Tensor:
        """What indices tell the later stages, float [..., M, O]. index: int64 [..., M] of a residual stage, [..., M,
        groups] of a product stage."""
        groups = index if stage >= self.prior.level.codebooks else index[..., None]
        return self.prior.told(stage, groups)
