# SPDX-License-Identifier: Apache-2.0
"""What an error of a latent does to the picture: the decoder's mean squared Jacobian, level by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqcodec.nets.autoencoder import Autoencoder

PIXEL_VARIANCE = 0.07  # of photographs in 0..1: distortions are measured in units of it


def squared_jacobians(
    model: Autoencoder, indices: Sequence[Tensor], places: Tensor, generator: torch.Generator | None = None
) -> list[Tensor]:
    """The mean over positions of J^T J, by level, [D, D]: squared error of the picture, summed over its values in units
    of PIXEL_VARIANCE, for an error of the latent at one position. One random probe (Hutchinson 1989).

    Args:
        model: the autoencoder, whose gradients stay as they are.
        indices: per level int64 [N, maps, h, w].
        places: float [N], in the range of rates.
        generator: of the probe.
    """
    with torch.enable_grad():
        pairs = zip(model.level_quantizers(), indices, strict=True)
        latents = [q.lookup(m).permute(0, 3, 1, 2).detach().requires_grad_(True) for q, m in pairs]
        image = model.assemble(latents, places)
        probe = torch.randn(image.shape, generator=generator).to(image)
        gradients = torch.autograd.grad((image * probe).sum(), latents)
    found = []
    for gradient in gradients:
        rows = gradient.float().permute(0, 2, 3, 1).flatten(0, 2)
        found.append(rows.t() @ rows / (len(rows) * PIXEL_VARIANCE))
    return found
