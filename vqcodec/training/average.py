# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a module's weights (Polyak and Juditsky 1992), for evaluation and export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def lerp(state: Mapping[str, Tensor], towards: Mapping[str, Tensor], weight: float) -> None:
    """Move the floats of a module's state towards those of another, in place.

    Args:
        state: is changed; tensors that are no floats stay.
        towards: tensors of the same names and shapes.
        weight: 0 (as it was) to 1 (as the other).
    """
    floats = [name for name, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([state[name] for name in floats], [towards[name] for name in floats], weight)


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
        new = module.state_dict()
        lerp(self.state, new, 1 - decay)
        for name, value in new.items():
            if not value.is_floating_point():
                self.state[name].copy_(value)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module hold the average inside, and its own weights again afterwards."""
        before = {k: v.detach().clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self.state)
        try:
            yield
        finally:
            module.load_state_dict(before)
