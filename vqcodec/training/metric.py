# SPDX-License-Identifier: Apache-2.0
"""What an error of a latent does to the picture: the decoder's mean squared Jacobian, level by level, as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.quality import C2, WINDOW, blur
from vqcodec.nets.similarity import MS_SSIM_WEIGHTS

POWER = 0.75  # of the squared Jacobian, its trace kept: the mean over positions exaggerates what some of them show
LEAST = 0.01  # eigenvalue, in units of the mean of all
PIXEL_VARIANCE = 0.07  # of photographs in 0..1: distortions are measured in units of it
HALF = WINDOW // 2  # pixels that a blur takes off at every side


class Similarity(NamedTuple):
    """What 1 - MS-SSIM weighs in the metric beside the square error, and the pictures, float [N, 3, H, W] in 0..1.

    To second order an error e costs, at every scale, its variance in the window over 2 * variance of the picture + C2
    there (SSIM's contrast and structure, Wang et al. 2004, for errors that do not depend on the picture)."""

    image: Tensor
    weight: float

    def probe(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random number, linear in the decoded pictures, whose squared gradient has what an error costs as its mean:
        weight * (1 - MS-SSIM) of a picture, times its number of values.

        Args:
            decoded: float [N, 3, H, W].
            generator: of the draw.
        """
        image, error = self.image.float(), decoded.float()
        total = error.new_zeros(())
        for scale, weight in enumerate(MS_SSIM_WEIGHTS):
            if scale:
                image, error = F.avg_pool2d(image, 2), F.avg_pool2d(error, 2)
            if min(image.shape[2:]) < WINDOW:
                break
            variance = (blur(image.square()) - blur(image).square()).clamp(min=0)
            inner = error[:, :, HALF:-HALF, HALF:-HALF] - blur(error)
            cost = self.weight * 4**scale * weight / (2 * variance + C2)
            total = total + (cost.sqrt() * inner * torch.randn(inner.shape, generator=generator).to(inner)).sum()
        return total


def squared_jacobians(
    model: Autoencoder,
    indices: Sequence[Tensor],
    tradeoffs: Tensor,
    generator: torch.Generator | None = None,
    similarity: Similarity | None = None,
) -> list[Tensor]:
    """Work out the mean over positions of J^T J, by level, [D, D]: squared error of the picture, summed over its values
    in units of PIXEL_VARIANCE, for an error of the latent at one position. One random probe (Hutchinson 1989).

    Args:
        model: the autoencoder, whose gradients stay as they are.
        indices: per level int64 [N, maps, h, w].
        tradeoffs: float [N].
        generator: of the probe.
        similarity: counts too; the trace of the finest level stays that of the squared error, so that a bit weighs the
            same.
    """
    with torch.enable_grad():
        pairs = zip(model.level_quantizers(), indices, strict=True)
        latents = [q.lookup(m).permute(0, 3, 1, 2).detach().requires_grad_(True) for q, m in pairs]
        image = model.assemble(latents, tradeoffs)
        probe = (image * torch.randn(image.shape, generator=generator).to(image)).sum() / PIXEL_VARIANCE**0.5
        if similarity is None:
            return _squares(torch.autograd.grad(probe, latents))
        gradients = torch.autograd.grad(probe, latents, retain_graph=True)
        more = torch.autograd.grad(similarity.probe(image, generator), latents)
    plain = _squares(gradients)
    both = [a + b for a, b in zip(plain, _squares(more), strict=True)]
    return [square * (plain[-1].trace() / both[-1].trace()) for square in both]


def _squares(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The mean over positions of g g^T of gradients [N, D, h, w], [D, D]."""
    rows = [gradient.float().permute(0, 2, 3, 1).flatten(0, 2) for gradient in gradients]
    return [row.t() @ row / len(row) for row in rows]


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
