# SPDX-License-Identifier: Apache-2.0
"""Where in a picture bits weigh more or less: by its contrast, and by what the decoder makes of an error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.quality import C2

GAIN_POWER = 0.7  # of the decoder's local gain, by which weights of a bit are divided
PROBES = 2  # random signs of the pixels, by which it is measured
MOST = 4.0  # that it changes a weight by, either way


def emphasis(image: Tensor, stride: int, power: float) -> Tensor:
    """Compute what a lambda is multiplied by at every position of a level.

    It is more where there is much contrast to hide errors in, less where there is none, 1 in the geometric mean.
    The contrast is the variance of grey values over 3x3 positions plus SSIM's constant C2, to a power.

    Args:
        image: float [1, 3, H, W] in 0..1.
        stride: pixels a position, along each axis.
        power: of the contrast; 0: 1 everywhere.

    Returns: float [H / stride, W / stride].
    """
    grey = image.mean(1, keepdim=True)
    moments = F.avg_pool2d(torch.cat([grey, grey.square()], 1), stride)
    mean, square = F.avg_pool2d(moments, 3, 1, 1, count_include_pad=False)[0]
    contrast = ((square - mean.square()).clamp(min=0) + C2).log()
    return (power * (contrast - contrast.mean())).exp()


def local_gains(model: Autoencoder, indices: Sequence[Tensor], tradeoff: float) -> list[Tensor]:
    """Work out what a lambda is multiplied by at every position of each level, float [h, w], 1 in the geometric mean:
    less where the decoder makes much of an error of the latent.

    The square of the decoder's gain, the trace of J^T J of a position, is measured by products of random signs of all
    pixels with the Jacobian, and smoothed over 3x3 positions.

    Args:
        model: the autoencoder.
        indices: int64 [1, maps, h, w] per level, coarsest first.
        tradeoff: of the lambda in the model's range, 0..1.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        books = zip(model.level_quantizers(), indices, strict=True)
        codes = [quantizer.lookup(maps.clone()).permute(0, 3, 1, 2) for quantizer, maps in books]
        codes = [c.detach().clone().requires_grad_(True) for c in codes]
        image = model.assemble(codes, codes[0].new_full((1,), tradeoff))
        energies = [torch.zeros_like(c[:, :1]) for c in codes]
        for probe in range(PROBES):
            signs = torch.randint(0, 2, image.shape, generator=generator).to(image) * 2 - 1
            gradients = torch.autograd.grad(image, codes, signs, retain_graph=probe + 1 < PROBES)
            energies = [e + g.square().sum(1, keepdim=True) for e, g in zip(energies, gradients, strict=True)]
    return [_weights(energy) for energy in energies]


def _weights(energy: Tensor) -> Tensor:
    smooth = F.avg_pool2d(energy, 3, 1, 1, count_include_pad=False)[0, 0]
    gain = smooth.clamp(min=1e-12).log()
    return (GAIN_POWER * (gain.mean() - gain)).exp().clamp(1 / MOST, MOST)
