# SPDX-License-Identifier: Apache-2.0
"""Graphics, recognised by the outcome: where a picture is smaller without loss than what the model made of it, or the
model does not reach the quality that was asked for, the file holds the picture itself; that of a scan in few tones,
where it would be large with all its noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vqcodec.encoder import noise
from vqcodec.encoder.request import DEFAULT_QUALITY, Request, quality_of
from vqcodec.errors import ImageError
from vqcodec.images import metrics, whole
from vqcodec.images.imaging import Picture
from vqcodec.images.types import Pixels

LOOSE = 3.0  # an estimate may be so many times too high
TRUSTED = 1.0  # bits per dim, of an estimate: a lower one, of a picture that repeats itself, may be off by more
GRAPHICS = 2.5  # bits per dim, of an estimate: photographs take more, but for very smooth ones
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
    dims = whole.dims(picture)
    target = asked.target(width * height)
    limit = len(data) if target is None else target
    estimate = whole.estimate(picture)
    graphics = 8 * estimate < GRAPHICS * dims
    least = floor(asked, lmbdas)

    def allowed(size: float) -> float:
        if graphics or size <= FAIR * len(data):
            return least
        return least - allowance(8 * (size - len(data)) / dims)

    free = not (asked.sized or asked.aimed)
    parts = whole.sample(picture)
    variance = noise.variance_in_blocks(parts.pixels) if free else 0.0

    def toned() -> bool:
        return noise.tones_pay(parts, variance, least, len(data) * parts.pixels.size / picture.pixels.size)

    far = estimate > LOOSE * limit and 8 * estimate > TRUSTED * dims
    dear = far and not graphics and not (free and noise.sharp(parts, variance, allowed(estimate)))
    file = b"" if far else whole.file(picture)
    if 0 < len(file) <= limit:
        return file
    if not free or (dear and not toned()):
        return data
    reached = metrics.psnr(picture.pixels, as_seen(decoded(), picture.mode))
    if reached >= least:  # `allowed` is never more
        return data
    if (dear or toned()) and (few := noise.in_few_tones(picture, least, len(data))):
        return few
    if dear:
        return data
    file = file or whole.file(picture)
    return data if len(file) > limit and reached >= allowed(len(file)) else file


def allowance(bits: float) -> float:
    """Compute by how many dB the model may miss the floor where the file without loss is that much larger.

    Both cost distortion + lmbda * bits. At high rates a bit per dim divides the distortion by four, so that lmbda is
    2 ln 2 of the distortion (Gish and Pierce 1968); here of that at the floor.

    Args:
        bits: per dim, that the file without loss takes more.
    """
    return 10 * math.log10(1 + 2 * math.log(2) * max(0.0, bits))


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
