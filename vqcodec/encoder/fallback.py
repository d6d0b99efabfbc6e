# SPDX-License-Identifier: Apache-2.0
"""Graphics, recognised by the outcome: where a picture is smaller without loss than what the model made of it, or the
model does not reach the quality that was asked for, the file holds the picture itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vqcodec.encoder.request import DEFAULT_QUALITY, Request, quality_of
from vqcodec.errors import ImageError
from vqcodec.images import metrics, whole
from vqcodec.images.imaging import Picture
from vqcodec.images.types import Pixels

LOOSE = 3.0  # an estimate may be so many times too high
GRAPHICS = 2.5  # bits per dim, of an estimate: photographs take more, but for very smooth ones
SHARP = 3000.0  # variance within blocks of 8x8 pixels that a bit per dim of the upper three bits buys, at least
FAIR = 4.0  # times the model's file: what graphics may cost without loss wherever the model misses the floor
FLOOR = 24.0, 36.0  # dB that graphics have at least, at quality 0 and 100


def chosen(
    picture: Picture, asked: Request, lmbdas: tuple[float, float], data: bytes, decoded: Callable[[], Pixels]
) -> bytes:
    """Choose the file that a picture gets.

    Args:
        picture: the original.
        asked: of the encoder.
        lmbdas: range of the model, (0, 0) for none.
        data: the file with indices.
        decoded: what it decodes to, uint8 [H, W, 3].
    """
    height, width = picture.pixels.shape[:2]
    dims = width * height * len(picture.mode)
    target = asked.target(width * height)
    limit = len(data) if target is None else target
    estimate = whole.estimate(picture)
    graphics = 8 * estimate < GRAPHICS * dims
    least = floor(asked, lmbdas)

    def allowed(size: float) -> float:
        if graphics or size <= FAIR * len(data):
            return least
        return least - allowance(8 * (size - len(data)) / dims)

    if estimate > LOOSE * limit and not graphics:
        if asked.sized or asked.aimed or not noisy_graphics(picture, allowed(estimate)):
            return data
    file = whole.file(picture)
    if len(file) <= limit:
        return file
    if asked.sized or asked.aimed:
        return data
    reached = metrics.psnr(picture.pixels, as_seen(decoded(), picture.mode))
    return data if reached >= allowed(len(file)) else file


def noisy_graphics(picture: Picture, least: float) -> bool:
    """Look for sharp drawings under the noise of a scanner, which alone makes them large without loss.

    Letters have a high contrast for few bits, once the lower bits, where the noise is, are left out: measured on 185
    photographs a bit per dim buys a variance of at most 2,200, on drawings with noise of sigma 2 of 2,800 to 17,000.

    Args:
        picture: the image.
        least: dB that a model's picture of it must have. That has hardly more error than what varies within blocks.
    """
    parts = whole.sample(picture)
    variance = _variance_in_blocks(parts.pixels)
    if variance < metrics.PEAK**2 / 10 ** (least / 10):
        return False
    coarse = whole.estimate(replace(parts, pixels=np.right_shift(parts.pixels, 5, dtype=np.uint8)))
    return variance > SHARP * 8 * coarse / (parts.pixels.shape[0] * parts.pixels.shape[1] * len(picture.mode))


def allowance(bits: float) -> float:
    """Compute by how many dB the model may miss the floor where the file without loss is that much larger.

    Both cost distortion + lmbda * bits. At high rates a bit per dim divides the distortion by four, so that lmbda is
    2 ln 2 of the distortion (Gish and Pierce 1968); here of that at the floor.

    Args:
        bits: per dim, that the file without loss takes more.
    """
    return 10 * math.log10(1 + 2 * math.log(2) * max(0.0, bits))


def _variance_in_blocks(pixels: Pixels, side: int = 8) -> float:
    """Mean variance of a channel within the whole blocks of a picture; 0 of one that has none."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    if not rows * columns:
        return 0.0
    inside = pixels[: rows * side, : columns * side]
    means = inside.reshape(rows, side, -1).sum(axis=1, dtype=np.float32).reshape(rows, columns, side, -1).mean(axis=2)
    values = inside.astype(np.float32).ravel()
    return float(values @ values) / values.size - float(np.mean(np.square(means / side)))


def rescued(picture: Picture, asked: Request, error: ImageError) -> bytes:
    """Make the file without loss of a picture for which the model could not do what was asked.

    Args:
        picture: the image.
        asked: what was asked.
        error: why the model could not; raised if a file without loss is no help.
    """
    target = asked.target(picture.pixels.shape[0] * picture.pixels.shape[1])
    file = whole.file(picture)
    if target is not None and len(file) > target:
        raise error
    return file


def floor(asked: Request, lmbdas: tuple[float, float]) -> float:
    """Compute the PSNR below which graphics are stored without loss: 30 dB at quality 50.

    Args:
        asked: what was asked.
        lmbdas: the model's range.
    """
    quality = DEFAULT_QUALITY if asked.quality is None else asked.quality
    if asked.lmbda is not None and lmbdas[0]:
        quality = quality_of(asked.lmbda, lmbdas)
    low, high = FLOOR
    return low + (high - low) * quality / 100


def as_seen(pixels: Pixels, mode: str) -> Pixels:
    """Turn pixels into what a decoder shows: grey pictures are the first channel.

    Args:
        pixels: uint8 [H, W, 3].
        mode: L, LA, RGB or RGBA.
    """
    return pixels if mode.startswith("RGB") else np.repeat(pixels[:, :, :1], 3, axis=2)
