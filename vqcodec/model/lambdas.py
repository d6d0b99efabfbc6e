# SPDX-License-Identifier: Apache-2.0
"""Weights of a bit (lmbda), where they lie in a model's range (tradeoff), and what a bit weighs at each level.

Training draws trade-offs from 0 to 1; a file holds one as a byte. An encoder and training weigh bits alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqcodec.config import ModelConfig

HIGHEST_TRADEOFF = 255


def tradeoff(config: ModelConfig, lmbda: float) -> int:
    """Say where a weight of a bit lies in the model's range, on a logarithmic scale.

    Args:
        config: of the model.
        lmbda: from 0; cut to the range.

    Returns: 0 (the lowest) to 255; 0 for all of them if the model has no range.
    """
    low, high = config.lmbdas
    if not 0 < low < high:
        return 0
    fraction = math.log(min(max(lmbda, low), high) / low) / math.log(high / low)
    return round(HIGHEST_TRADEOFF * fraction)


def factors(config: ModelConfig, tradeoffs: Tensor) -> Tensor:
    """Say what the weight of a bit is multiplied by at every level: 0 at the coarsest of several levels if it may not
    stop.

    Args:
        config: of the model.
        tradeoffs: float [N] in 0..1.

    Returns: float [levels, N].
    """
    levels = config.autoencoder.levels
    ends = config.factors or ((1.0, 1.0),) * len(levels)
    # log-linear; a factor of 0 at the lower end is none at all
    rows = [(first or 1.0) * (last / first if first else 1.0) ** tradeoffs for first, last in ends]
    by_level = torch.stack(rows)
    if len(levels) > 1 and not levels[0].stop:
        by_level[0] = 0
    return by_level


def at(config: ModelConfig, tradeoffs: Tensor) -> Tensor:
    """Weights of a bit at tradeoffs.

    Args:
        config: of the model.
        tradeoffs: float [N] in 0..1 of its range.

    Returns: float [levels, N].
    """
    low, high = config.lmbdas
    return low * (high / low if low else 1.0) ** tradeoffs * factors(config, tradeoffs)
