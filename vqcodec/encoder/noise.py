# SPDX-License-Identifier: Apache-2.0
"""Graphics under the noise of a scanner, which makes them large without loss: recognised, and stored in few tones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vqcodec.images import metrics, whole
from vqcodec.images.imaging import Picture
from vqcodec.images.tones import in_tones
from vqcodec.images.types import Pixels

SHARP = 3000.0  # variance within blocks of 8x8 pixels that a bit per dim of the upper three bits buys, at least
STEPS = 8, 16, 32, 64  # between the tones
LOOSE = 1.2  # an estimate of a picture in few tones may be so many times too high


def variance_in_blocks(pixels: Pixels, side: int = 8) -> float:
    """Compute the mean variance of a channel within the whole blocks of a picture; 0 of one that has none.

    Args:
        pixels: uint8 [H, W, C].
        side: of a block.
    """
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    if not rows * columns:
        return 0.0
    inside = pixels[: rows * side, : columns * side]
    means = inside.reshape(rows, side, -1).sum(axis=1, dtype=np.float32).reshape(rows, columns, side, -1).mean(axis=2)
    values = inside.astype(np.float32).ravel()
    return float(values @ values) / values.size - float(np.mean(np.square(means / side)))


def sharp(parts: Picture, variance: float, least: float) -> bool:
    """Look for drawings with sharp edges under noise, which alone makes them large without loss.

    Letters have a high contrast for few bits, once the lower bits, where the noise is, are left out: measured on 185
    photographs a bit per dim buys a variance of at most 2,200, on drawings with noise of sigma 2 of 2,800 to 17,000.

    Args:
        parts: the image, or its sample.
        variance: within its blocks.
        least: dB that a model's picture of it must have. That has hardly more error than what varies within blocks.
    """
    if variance < _error(least):
        return False
    coarse = whole.estimate(replace(parts, pixels=np.right_shift(parts.pixels, 5, dtype=np.uint8)))
    return variance > SHARP * 8 * coarse / whole.dims(parts)


def tones_pay(parts: Picture, variance: float, least: float, size: float) -> bool:
    """Look by an estimate whether a picture in few tones could take the place of a model's.

    Photographs take 2 to 9 times as much as the model at quality 50 (20 of them were measured).

    Args:
        parts: the image, or its sample.
        variance: within its blocks.
        least: dB that it must have.
        size: bytes of the model's file, of the share that the sample is.
    """
    if variance < _error(least):
        return False
    return any(whole.estimate(toned) <= LOOSE * size for toned in list(_toned(parts, least))[-2:])


def in_few_tones(picture: Picture, least: float, size: int) -> bytes:
    """Make the file of a picture in the most tones that take no more than a model's file; empty where there is none.

    Args:
        picture: noisy graphics.
        least: dB that it must have.
        size: bytes of the model's file.
    """
    for toned in _toned(picture, least):
        file = whole.file(toned)
        if len(file) <= size:
            return file
    return b""


def _toned(picture: Picture, least: float) -> Iterator[Picture]:
    """The picture in fewer and fewer tones, as long as it has so many dB."""
    for step in STEPS:
        toned = replace(picture, pixels=in_tones(picture.pixels, step))
        if metrics.psnr(picture.pixels, toned.pixels) < least:
            break
        yield toned


def _error(psnr: float) -> float:
    """The mean squared error of a picture with that many dB."""
    return metrics.PEAK**2 / 10 ** (psnr / 10)
