# SPDX-License-Identifier: Apache-2.0
"""PSNR and MS-SSIM of tensors, where they are; `evaluation.metrics` measures pictures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.nets.similarity import MS_SSIM_WEIGHTS

WINDOW, SIGMA = 7, 1.5  # of the Gaussian window: shorter than the measure's, so that five scales fit into a small crop
C1, C2 = 0.01**2, 0.03**2  # of SSIM (Wang et al. 2004), for values in 0..1
LOW = 1e-3  # least value of a scale's term: the gradient of its power has no bound at 0
MS_SSIM_MIN_CROP = (WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1


def psnr(decoded: Tensor, image: Tensor) -> float:
    """Measure the PSNR of a network's output, rounded to 8-bit pixels.

    Args:
        decoded: float, 0..255.
        image: the original of the same shape, 0..255.

    Returns: dB; 138 for equal images.
    """
    error = (decoded.float().round().clamp(0, 255) - image).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-9))


def blur(x: Tensor) -> Tensor:
    """Average under the Gaussian window.

    Args:
        x: float [N, C, H, W].

    Returns: float [N, C, H - WINDOW + 1, W - WINDOW + 1].
    """
    channels = x.shape[1]
    steps = torch.arange(WINDOW, device=x.device) - WINDOW // 2
    taps = torch.exp(-(steps**2) / (2 * SIGMA**2))
    rows = (taps / taps.sum()).view(1, 1, WINDOW, 1).repeat(channels, 1, 1, 1)
    return F.conv2d(F.conv2d(x, rows, groups=channels), rows.mT, groups=channels)


def ms_ssim(decoded: Tensor, image: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) to train with: five scales under a window of
    WINDOW.

    Args:
        decoded: float [N, C, H, W] in 0..1, sides a multiple of 16, at least MS_SSIM_MIN_CROP.
        image: the original, of the same shape.

    Returns: float [N].
    """
    product = torch.ones_like(image[:, :, 0, 0])
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            decoded, image = F.avg_pool2d(decoded, 2), F.avg_pool2d(image, 2)
        means = blur(decoded), blur(image)
        squares = means[0].square() + means[1].square()
        variances = blur(decoded.square() + image.square()) - squares
        covariance = blur(decoded * image) - means[0] * means[1]
        term = (2 * covariance + C2) / (variances + C2)
        if scale == len(MS_SSIM_WEIGHTS) - 1:
            term = term * (2 * means[0] * means[1] + C1) / (squares + C1)
        product = product * term.mean((2, 3)).clamp(min=LOW) ** weight
    return product.mean(1)
