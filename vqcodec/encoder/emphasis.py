# SPDX-License-Identifier: Apache-2.0
"""Where in a picture bits weigh more or less: by its contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vqcodec.nets.quality import C2


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
