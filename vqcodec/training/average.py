# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a module's weights (Polyak and Juditsky 1992), for evaluation and export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """The averaged state of a module: parameters and buffers, those that are no floats as they last were.

    The decay grows with the number of updates n as min(decay, (1 + n) / (10 + n)), so that short runs are not dominated
    by their start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.reset(module)

    def reset(self, module: nn.Module) -> None:
        """Start again from the module as it is."""
        self.updates = 0
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages: list[Tensor] = []
        new: list[Tensor] = []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averages.append(self.state[name])
                new.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averages, new, 1 - decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module hold the average inside, and its own weights again afterwards."""
        before = {k: v.detach().clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self.state)
        try:
            yield
        finally:
            module.load_state_dict(before)
