# SPDX-License-Identifier: Apache-2.0
"""What an error of a latent does to the picture: the decoder's mean squared Jacobian, level by level, as a metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqcodec.nets.autoencoder import Autoencoder

POWER = 0.75  # of the squared Jacobian, its trace kept: the mean over positions exaggerates what some of them show
LEAST = 0.01  # eigenvalue, in units of the mean of all
PIXEL_VARIANCE = 0.07  # of photographs in 0..1: distortions are measured in units of it


def squared_jacobians(
    model: Autoencoder, indices: Sequence[Tensor], tradeoffs: Tensor, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Work out the mean over positions of J^T J, by level, [D, D]: squared error of the picture, summed over its values
    in units of PIXEL_VARIANCE, for an error of the latent at one position. One random probe (Hutchinson 1989).

    Args:
        model: the autoencoder, whose gradients stay as they are.
        indices: per level int64 [N, maps, h, w].
        tradeoffs: float [N].
        generator: of the probe.
    """
    with torch.enable_grad():
        pairs = zip(model.level_quantizers(), indices, strict=True)
        latents = [q.lookup(m).permute(0, 3, 1, 2).detach().requires_grad_(True) for q, m in pairs]
        image = model.assemble(latents, tradeoffs)
        probe = torch.randn(image.shape, generator=generator).to(image)
        gradients = torch.autograd.grad((image * probe).sum(), latents)
    squares = []
    for gradient in gradients:
        rows = gradient.float().permute(0, 2, 3, 1).flatten(0, 2)
        squares.append(rows.t() @ rows / (len(rows) * PIXEL_VARIANCE))
    return squares


def root(square: Tensor, power: float = POWER) -> Tensor:
    """Compute the symmetric R for which R^T R has a matrix's eigenvectors and trace, and its eigenvalues to a power.

    Args:
        square: symmetric and not negative, [D, D].
        power: of the eigenvalues.
    """
    values, vectors = torch.linalg.eigh(square.double())
    mean = values.mean()
    values = (values / mean).clamp(min=LEAST) ** power
    values = values / values.mean() * mean
    return (vectors * values.sqrt() @ vectors.t()).to(square)


def followed(metric: Tensor, square: Tensor, weight: float, power: float = POWER) -> Tensor:
    """Return a metric that has moved towards what was measured.

    Args:
        metric: of a quantiser, from `root` with the same power or a multiple of the identity.
        square: from `squared_jacobians`, the same on all ranks.
        weight: 0 (as it was) to 1 (as measured).
        power: as of `root`.
    """
    if weight == 1:
        return root(square, power)
    before = root(metric.t() @ metric, 1 / power)
    old = before.t() @ before
    return root(old + weight * (square - old), power)
