# SPDX-License-Identifier: Apache-2.0
"""What codes cost under an integer prior: an encoder chooses by it. No part of the contract of the probability path."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vqcodec.exact import engine, ops
from vqcodec.exact.condition import Condition
from vqcodec.exact.network import IntegerPrior

NATS = 2.0**-ops.LOGIT_BITS  # of a unit of the logits


class PriorLengths:
    """`CodeLengths` of a prior at the positions of a batch of tiles, if the maps around them are given ones.

    The logits are those of the prior but for their last rounding, and so are the probabilities.
    """

    def __init__(self, prior: IntegerPrior, indices: Tensor, condition: Condition, valid: Tensor | None = None) -> None:
        """
        Args:
            prior: of the level.
            indices: int64 [N, maps, H, W].
            condition: from `IntegerPrior.condition`.
            valid: bool [N, H, W], False outside the image; None: all inside.

        Positions are those inside the image: tile by tile, row by row.
        """
        self._prior = prior
        self._outputs = torch.cat(engine.outputs(prior, indices, condition, valid))  # [M, O]
        self._heads = [(head.weight * NATS, (head.bias - 0.5) * NATS) for head in prior.heads]
        self._least = -math.log(float(prior.table[0])) - math.log(2)  # no frequency is below 1

    def logs(self, stage: int, earlier: Tensor | None, rows: Tensor) -> Tensor:
        """As `CodeLengths.logs`.

        Args:
            stage: number of the stage, from 0.
            earlier: sum of `handed_on` over the earlier stages; None at the first.
            rows: int64 [M'], the positions asked for.
        """
        prior = self._prior
        x = self._outputs.index_select(0, rows)[:, None]  # [M, 1, O]
        if earlier is not None:
            assert prior.stage is not None
            x = ops.clamped(earlier + (x + prior.stage[stage - 1]))
        shape = x.shape[:2]
        x = x.flatten(0, 1)
        for inner, outer in prior.out_blocks:
            update = ops.rectified(ops.rounded(x, inner))
            x = ops.clamped(ops.clamped(ops.rounded(update, outer)).add_(x))
        weight, bias = self._heads[stage]
        logits = torch.addmm(bias, x, weight).view(*shape, -1)
        if stage >= prior.level.codebooks:
            logits = logits.unflatten(-1, (prior.groups(stage), prior.codes(stage)))
        return F.log_softmax(logits, -1).clamp_(min=self._least)

    def handed_on(self, stage: int, index: Tensor) -> Tensor | None:
        """As `CodeLengths.handed_on`.

        Args:
            stage: number of the stage, from 0.
            index: int64 [M', B], of a product stage [M', B, G].
        """
        prior = self._prior
        return prior.handed_on(stage, index if stage >= prior.level.codebooks else index[..., None])
