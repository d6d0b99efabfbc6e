# SPDX-License-Identifier: Apache-2.0
"""Weights of a bit (lambda): places in a model's range of them, and what a bit weighs at each of its levels.

Training draws places from 0 to 1; a file holds one as a byte. An encoder and training weigh bits alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqcodec.config import ModelConfig

HIGHEST_PLACE = 255


def place(config: ModelConfig, lmbda: float) -> int:
    """The place of a weight of a bit in the model's range on a logarithmic scale, 0 (the lowest) to 255; 0 for all of
    them if the model has no range."""
    low, high = config.rates
    if not 0 < low < high:
        return 0
    share = math.log(min(max(lmbda, low), high) / low) / math.log(high / low)
    return round(HIGHEST_PLACE * share)


def factors(config: ModelConfig, places: Tensor) -> Tensor:
    """What the weight of a bit is multiplied by at every level, float [levels, N]: 0 at the coarsest of several levels
    if it may not stop.

    places: float [N] in 0..1.
    """
    levels = config.autoencoder.levels
    ends = config.factors or ((1.0, 1.0),) * len(levels)
    # log-linear; a factor of 0 at the lower end is none at all
    rows = [(first or 1.0) * (last / first if first else 1.0) ** places for first, last in ends]
    found = torch.stack(rows)
    if len(levels) > 1 and not levels[0].stop:
        found[0] = 0
    return found


def rate_weights(config: ModelConfig, places: Tensor) -> Tensor:
    """Weights of a bit at places float [N] in 0..1 of the model's range, [levels, N]."""
    low, high = config.rates
    return low * (high / low if low else 1.0) ** places * factors(config, places)
