# SPDX-License-Identifier: Apache-2.0
"""PSNR of tensors, where they are; `vqcodec.metrics` measures pictures."""

from __future__ import annotations

import math

from torch import Tensor


def psnr(decoded: Tensor, image: Tensor) -> float:
    """dB of a network's output, rounded to 8-bit pixels, against an image, both in 0..255; 138 for equal ones."""
    error = (decoded.float().round().clamp(0, 255) - image).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-9))
