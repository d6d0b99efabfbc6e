# SPDX-License-Identifier: Apache-2.0
"""Graphics, recognised by the outcome: where a picture is smaller without loss than what the model made of it, or the
model does not reach the quality that was asked for, the file holds the picture itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vqcodec.encoder.request import DEFAULT_QUALITY, Request, quality_of
from vqcodec.errors import ImageError
from vqcodec.images import metrics, whole
from vqcodec.images.imaging import Picture
from vqcodec.images.types import Pixels

LOOSE = 3.0  # an estimate may be so many times too high
GRAPHICS = 2.5  # bits per dim, of an estimate: photographs take more, but for very smooth ones
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
    target = asked.target(width * height)
    limit = len(data) if target is None else target
    estimate = whole.estimate(picture)
    graphics = 8 * estimate < GRAPHICS * width * height * len(picture.mode)
    if estimate > LOOSE * limit and not graphics:
        return data
    file = whole.file(picture)
    if len(file) <= limit:
        return file
    if asked.sized or asked.aimed or not graphics:
        return data
    return data if metrics.psnr(picture.pixels, as_seen(decoded(), picture.mode)) >= floor(asked, lmbdas) else file


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
