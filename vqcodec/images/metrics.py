# SPDX-License-Identifier: Apache-2.0
"""How much two pictures are alike: what an encoder can be asked for, and the evaluation measures. Knows no torch."""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from vqcodec.images.types import Pixels

PEAK = 255.0

SSIMULACRA2_MIN_SIDE = 8
"""Shortest image side, in pixels, that SSIMULACRA2 takes."""


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio of two images, in dB, over all channels together.

    Args:
        a: uint8 RGB image [H, W, 3].
        b: the other image, same shape.

    Returns:
        10 log10(255^2 / MSE); infinity when the images are equal.

    Raises:
        ValueError: wrong shape or dtype, or the shapes differ.
    """
    check_pair(a, b)
    mse = float(np.mean(np.square(a.astype(np.float64) - b)))
    return math.inf if mse == 0.0 else 10.0 * math.log10(PEAK**2 / mse)


def ssimulacra2(a: Pixels, b: Pixels) -> float:
    """SSIMULACRA2 (Sneyers, Cloudinary 2023), a perceptual measure fitted to people's opinions of coded images.

    As the package ``ssimulacra2`` computes it. The first image is the original: the measure is not symmetric.

    Args:
        a: uint8 RGB image [H, W, 3], sRGB, both sides at least ``SSIMULACRA2_MIN_SIDE`` pixels.
        b: what became of it, same shape.

    Returns:
        100 for equal images, 90 where no difference can be seen, 70 for high, 50 for medium, 30 for low quality;
        below 0 for the worst.

    Raises:
        ValueError: wrong shape or dtype, the shapes differ, or an image too small.
        ModuleNotFoundError: the package is not installed.
    """
    check_pair(a, b)
    if min(a.shape[:2]) < SSIMULACRA2_MIN_SIDE:
        raise ValueError(f"SSIMULACRA2 needs sides of at least {SSIMULACRA2_MIN_SIDE} pixels")
    compute: Any = importlib.import_module("ssimulacra2").compute_ssimulacra2
    files = io.BytesIO(), io.BytesIO()  # the package reads files
    for image, file in zip((a, b), files, strict=True):
        Image.fromarray(image).save(file, "PPM")
    return float(compute(*files))


def has_ssimulacra2() -> bool:
    """Return whether the package that ``ssimulacra2`` needs is installed."""
    return importlib.util.find_spec("ssimulacra2") is not None


def check_pair(a: Pixels, b: Pixels) -> None:
    """Check that two pictures can be compared.

    Args:
        a: uint8 [H, W, 3].
        b: of the same shape.

    Raises: ValueError.
    """
    for image in (a, b):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"expected a uint8 RGB image [H, W, 3], got {image.dtype} {list(image.shape)}")
    if a.shape != b.shape:
        raise ValueError(f"the images differ in shape: {list(a.shape)} and {list(b.shape)}")
