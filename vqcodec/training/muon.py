# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan et al. 2024) for the convolutions, AdamW for the rest, as one optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec.model.precision import fast_bf16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; singular values end between about 0.7 and 1.2
ITERATIONS = 4
MOMENTUM = 0.95
# An orthogonal matrix of [n, m] has entries of root mean square 1 / sqrt(max(n, m)); AdamW's updates have about 0.2 to
# 0.4: with this factor one learning rate serves both (Liu et al. 2025, section 2.2).
MATCH_ADAM = 0.2
OUTER = {"stem", "head", "head_weight"}  # first and last layers are left to AdamW


def orthogonalized(matrix: Tensor) -> Tensor:
    """Find the nearest semi-orthogonal matrix, roughly: U V^T of the singular value decomposition. [n, m] to the
    same."""
    a, b, c = COEFFICIENTS
    x = matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    if fast_bf16(x.device.type):
        x = x.bfloat16()
    for _ in range(ITERATIONS):
        gram = x @ x.t()
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.t() if matrix.shape[0] > matrix.shape[1] else x
    return x.to(matrix.dtype)


def parameter_groups(module: nn.Module, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """Group all parameters: `muon` for the weights of inner convolutions and products, and the others.

    Args:
        module: what is trained.
        scales: parameters whose name begins with a key are of the others, at that multiple of the learning rate.
    """
    groups: list[dict[str, Any]] = [{"params": [], "muon": muon, "scale": 1.0} for muon in (True, False)]
    groups += [{"params": [], "muon": False, "scale": scale} for scale in scales.values()]
    for name, parameter in module.named_parameters():
        inner = name.endswith("weight") and parameter.dim() >= 3 and not OUTER & set(name.split("."))
        scale = next((i for i, prefix in enumerate(scales) if name.startswith(prefix)), None)
        groups[not inner if scale is None else scale + 2]["params"].append(parameter)
    return [group for group in groups if group["params"]]


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised for matrices; AdamW for everything else, in the same parameter list.

    A convolution [O, I, h, w] counts as a matrix [O, I * h * w], a prior's product [taps, I, O] as [taps * I, O]. On
    this project's autoencoder it needs several times fewer steps than AdamW: the long linear path is badly conditioned,
    and here every direction gets the same step.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float = 0.0) -> None:
        """groups: from `parameter_groups`."""
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.98), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Do one update from the gradients in place; closures are not supported."""
        if closure is not None:
            raise ValueError("Muon.step takes no closure")
        for group in self.param_groups:
            update = self._matrix if group["muon"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update(parameter, parameter.grad, group), alpha=group["lr"])

    def _matrix(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(grad)
        momentum = state["momentum"].mul_(MOMENTUM).add_(grad)
        nesterov = grad.add(momentum, alpha=MOMENTUM)
        matrix = nesterov.flatten(0, 1) if grad.dim() == 3 else nesterov.reshape(grad.shape[0], -1)
        scale = MATCH_ADAM * math.sqrt(max(matrix.shape))
        return orthogonalized(matrix).mul_(scale).view(grad.shape)

    def _adam(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(grad), exp_avg_sq=torch.zeros_like(grad))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        first = state["exp_avg"].lerp_(grad, 1 - beta1) / (1 - beta1 ** state["step"].item())
        second = state["exp_avg_sq"].lerp_(grad.square(), 1 - beta2) / (1 - beta2 ** state["step"].item())
        return first / (second.sqrt() + group["eps"])
