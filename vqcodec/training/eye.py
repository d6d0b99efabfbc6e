# SPDX-License-Identifier: Apache-2.0
"""SSIMULACRA2 (Sneyers 2023) to train with: the measure of the package `ssimulacra2`, on tensors, with gradients.

Both pictures go into a positive XYB space at six scales, each half the one before (averaged in linear light). Maps of
structural error, of ringing (edges that the original has not) and of blur (edges that were lost) are averaged by two
norms, weighted and summed. The weights were fitted to human opinions by the measure's author and are the package's.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES, LEAST_SIDE = 6, 8
C2 = 0.0009  # of the structural term
SIGMA, RADIUS = 1.5, 5  # of the Gaussian window
LOW = 1e-12  # beneath roots, whose gradient has no bound at 0
OPSIN = ((0.30, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342268924547819, 0.20476744424496821, 0.5518098665095536))
BIAS = 0.0037930732552754493  # of the opsin absorbance, as in JPEG XL
FACTOR, POWER = 0.9562382616834844, 0.6276336467831387  # of the curve from errors to opinions
CUBIC = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)


def score(decoded: Tensor, image: Tensor) -> Tensor:
    """SSIMULACRA2 of decoded pictures.

    A picture too small for six scales is measured at those that it has, each with its own weights (the package, whose
    order of weights then shifts, gives another figure there).

    Args:
        decoded: float [N, 3, H, W], sRGB in 0..1, sides of at least 8 pixels; an odd last row or column counts for
            whole in the next scale, as in the package.
        image: the originals, the same shape.

    Returns: float [N]: 100 for equal pictures, 90 for what is hardly seen, below 0 for the worst.
    """
    linear = [_linear(x.float().clamp(0, 1)) for x in (decoded, image)]
    total = torch.zeros(len(image), device=image.device)
    for scale, weights in enumerate(_weights(image.device)):
        if min(linear[0].shape[2:]) < LEAST_SIDE:
            break
        total = total + (_averages(*(_positive_xyb(x) for x in linear)) * weights).sum((1, 2))
        if scale + 1 < SCALES:
            linear = [F.avg_pool2d(x, 2, ceil_mode=True) for x in linear]
    total = FACTOR * total
    curve = CUBIC[0] * total + CUBIC[1] * total**2 + CUBIC[2] * total**3
    return 100 - 10 * curve.clamp(min=1e-4) ** POWER


def distance(decoded: Tensor, image: Tensor) -> Tensor:
    """Compute what is missing to a score of 100, in units of 100: a loss of the size of 1 - MS-SSIM.

    Args:
        decoded: as of `score`.
        image: as of `score`.
    """
    return (100 - score(decoded, image)) / 100


@functools.cache
def _weights(device: torch.device) -> Tensor:
    """Of the averages, float32 [scales, 3 channels, 6]. Raises ImportError without the package `ssimulacra2`."""
    weights: Any = importlib.import_module("ssimulacra2.ssimulacra2").weights
    # there: channel, scale, norm; then structure, ringing, blur
    table = torch.tensor(weights, dtype=torch.float32, device=device).view(3, SCALES, 2, 3)
    return table.permute(1, 0, 3, 2).reshape(SCALES, 3, 6)


def _linear(x: Tensor) -> Tensor:
    """Linear light of sRGB."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _positive_xyb(linear: Tensor) -> Tensor:
    """X, Y and B - Y of linear light, scaled and shifted to be positive, [N, 3, H, W]."""
    matrix = torch.tensor(OPSIN, device=linear.device)
    mixed = torch.einsum("dc,nchw->ndhw", matrix, linear) + BIAS
    long, medium, short = (mixed.clamp(min=1e-6) ** (1 / 3) - BIAS ** (1 / 3)).unbind(1)
    x, y = (long - medium) / 2, (long + medium) / 2
    return torch.stack([14 * x + 0.42, y + 0.01, short - y + 0.55], 1)


def _blur(x: Tensor) -> Tensor:
    """Under the Gaussian window; beyond the edges the mirrored picture above and below, zeros at the sides."""
    steps = torch.arange(-RADIUS, RADIUS + 1, device=x.device)
    taps = torch.exp(-(steps**2) / (2 * SIGMA**2))
    rows = (taps / taps.sum()).view(1, 1, -1, 1).repeat(x.shape[1], 1, 1, 1)
    high = torch.cat([x[:, :, :RADIUS].flip(2), x, x[:, :, -RADIUS:].flip(2)], 2)
    return F.conv2d(F.conv2d(high, rows, groups=x.shape[1]), rows.mT, padding=(0, RADIUS), groups=x.shape[1])


def _averages(decoded: Tensor, image: Tensor) -> Tensor:
    """Of the maps of structural error, ringing and blur, each by its mean and its norm of order 4: [N, 3, 6]."""
    n, channels = image.shape[:2]
    parts = torch.cat([image, decoded, image.square(), decoded.square(), image * decoded], 1)
    mean, other_mean, square, other_square, product = _blur(parts).split(channels, 1)
    structure = (2 * (product - mean * other_mean) + C2) / (
        (square - mean.square()) + (other_square - other_mean.square()) + C2
    )
    error = (1 - (1 - (mean - other_mean).square()) * structure).clamp(min=0)
    ratio = (1 + (decoded - other_mean).abs()) / (1 + (image - mean).abs()) - 1
    maps = torch.stack([error, ratio.clamp(min=0), (-ratio).clamp(min=0)], 2).flatten(3)  # [N, 3, 3, H * W]
    fourth = (maps.square().square().mean(3) + LOW**2) ** 0.25
    return torch.stack([maps.mean(3), fourth], 3).view(n, channels, 6)
