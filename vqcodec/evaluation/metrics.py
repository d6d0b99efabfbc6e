# SPDX-License-Identifier: Apache-2.0
"""Measures of rate and distortion, as the image-compression literature reports them.

Everything here is float64 numpy on 8-bit RGB images; nothing imports torch. Only SSIMULACRA2 and the functions on
rate-distortion curves need packages of the ``eval`` extra.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqcodec.images.metrics import PEAK, SSIMULACRA2_MIN_SIDE, check_pair, has_ssimulacra2, psnr, ssimulacra2
from vqcodec.images.types import Pixels
from vqcodec.nets.similarity import MS_SSIM_WEIGHTS

__all__ = [
    "MS_SSIM_MIN_SIDE",
    "SSIMULACRA2_MIN_SIDE",
    "BDRate",
    "bd_rate",
    "bits_per_pixel",
    "has_ssimulacra2",
    "ms_ssim",
    "ms_ssim_db",
    "ms_ssim_of_db",
    "psnr",
    "quality_at_rate",
    "rate_at_quality",
    "ssimulacra2",
    "version",
]

Floats = NDArray[np.float64]

_WINDOW = 11  # taps of the Gaussian window
_SIGMA = 1.5  # its standard deviation, pixels
_C1 = (0.01 * PEAK) ** 2
_C2 = (0.03 * PEAK) ** 2

MS_SSIM_MIN_SIDE = (_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1
"""Shortest image side, in pixels, for which the window still fits at the coarsest scale (161)."""

_VERSION = 1  # to be raised whenever a function here gives another value than before


def ms_ssim(a: Pixels, b: Pixels) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) of two images.

    Five scales; at each the contrast-structure term, at the coarsest the luminance term as well, raised
    to the weights of the paper and multiplied. Statistics are taken under an 11-tap Gaussian window
    (sigma 1.5) where it fits entirely; a scale is the mean of 2x2 blocks of the one before. Computed for
    each of R, G and B and then averaged, with negative terms set to zero, which is what
    ``pytorch-msssim`` does and what published learned-codec figures therefore mean.

    Args:
        a: uint8 RGB image [H, W, 3], both sides at least ``MS_SSIM_MIN_SIDE`` pixels.
        b: the other image, same shape.

    Returns:
        The similarity, in [0, 1]; 1 when the images are equal.

    Raises:
        ValueError: wrong shape or dtype, the shapes differ, or an image too small for five scales.
    """
    check_pair(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        raise ValueError(f"MS-SSIM needs sides of at least {MS_SSIM_MIN_SIDE} pixels, not {a.shape[1]}x{a.shape[0]}")
    x = np.moveaxis(a, 2, 0).astype(np.float64)  # [3, H, W]
    y = np.moveaxis(b, 2, 0).astype(np.float64)
    last = len(MS_SSIM_WEIGHTS) - 1
    product = np.ones(3)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale > 0:
            x, y = _halve(x), _halve(y)
        term = _ssim_term(x, y, luminance=scale == last)
        product *= np.maximum(term, 0.0) ** weight
    return min(1.0, float(product.mean()))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM on a decibel scale, -10 log10(1 - value), where differences near 1 can be seen.

    Args:
        value: MS-SSIM, at most 1.

    Returns:
        dB; infinity for 1.

    Raises:
        ValueError: ``value`` is over 1.
    """
    if value > 1.0:
        raise ValueError(f"MS-SSIM cannot be over 1, got {value}")
    return math.inf if value == 1.0 else -10.0 * math.log10(1.0 - value)


def ms_ssim_of_db(decibels: float) -> float:
    """Inverse of ``ms_ssim_db``: MS-SSIM, at most 1."""
    return 1 - 10 ** (-decibels / 10)


@functools.cache
def version() -> str:
    """Changes whenever a metric may give another value than before: results kept in a file carry it."""
    package = importlib.metadata.version("ssimulacra2") if has_ssimulacra2() else "none"
    return f"{_VERSION}, ssimulacra2 {package}"


def bits_per_pixel(size: int, width: int, height: int) -> float:
    """Rate of a file in bits per pixel (a third of it is the rate in bits per RGB dimension).

    Args:
        size: size of the whole file, bytes.
        width: width of the image, pixels.
        height: height of the image, pixels.

    Raises:
        ValueError: negative size, or an image without pixels.
    """
    if size < 0 or width <= 0 or height <= 0:
        raise ValueError(f"no rate for {size} bytes on {width}x{height} pixels")
    return 8.0 * size / (width * height)


@dataclass(frozen=True)
class BDRate:
    """Bjontegaard delta rate of a test curve against an anchor.

    Attributes:
        percent: mean change of the rate at equal quality; negative means the test curve needs fewer bits.
        low: lower end of the quality range both curves cover, in the unit of the quality given.
        high: upper end of that range.
    """

    percent: float
    low: float
    high: float


def bd_rate(
    anchor_rates: Sequence[float],
    anchor_quality: Sequence[float],
    test_rates: Sequence[float],
    test_quality: Sequence[float],
) -> BDRate:
    """Mean difference in rate between two curves at equal quality (Bjontegaard 2001).

    The logarithm of the rate is interpolated over quality with a monotone piecewise-cubic polynomial
    (pchip), integrated exactly over the qualities both curves cover, and the mean difference turned back
    into a ratio. The figure says nothing outside that range, so read it together with ``low`` and ``high``.

    Args:
        anchor_rates: rates of the anchor, any positive unit, at least two points in any order.
        anchor_quality: their qualities, larger is better (PSNR in dB, or MS-SSIM in dB).
        test_rates: rates of the curve under test, same unit.
        test_quality: their qualities.

    Raises:
        ValueError: fewer than two points, lengths that differ, a rate that is not positive, a value that
            is not finite, two points of equal quality, or curves whose qualities do not overlap.
        ModuleNotFoundError: scipy is not installed.
    """
    anchor = _log_rate_over_quality(anchor_rates, anchor_quality)
    test = _log_rate_over_quality(test_rates, test_quality)
    low = max(min(anchor_quality), min(test_quality))
    high = min(max(anchor_quality), max(test_quality))
    if low >= high:
        raise ValueError("the two curves have no range of quality in common")
    difference = (test.integrate(low, high) - anchor.integrate(low, high)) / (high - low)
    return BDRate(percent=100.0 * math.expm1(float(difference)), low=float(low), high=float(high))


def rate_at_quality(rates: Sequence[float], quality: Sequence[float], at: float) -> float | None:
    """Rate that a curve needs for one quality, interpolated as in `bd_rate`.

    Args:
        rates: of the curve's points, bits per pixel.
        quality: of the same points.
        at: the quality.

    Returns: bits per pixel, None outside the curve.
    """
    curve = _log_rate_over_quality(rates, quality)
    if not min(quality) <= at <= max(quality):
        return None
    return math.exp(float(curve(at)))


def quality_at_rate(rates: Sequence[float], quality: Sequence[float], at: float) -> float | None:
    """Quality that a curve reaches at one rate, by pchip over the logarithm of the rate.

    Args:
        rates: of the curve's points, bits per pixel.
        quality: of the same points.
        at: the rate.

    Returns: the quality, None outside the curve.
    """
    if not min(rates) <= at <= max(rates):
        return None
    curve = _pchip(_log(rates), np.asarray(quality, dtype=np.float64), "rate")
    return float(curve(math.log(at)))


def _gaussian() -> Floats:
    taps = np.exp(-np.square(np.arange(_WINDOW) - _WINDOW // 2) / (2.0 * _SIGMA**2))
    return np.asarray(taps / taps.sum(), dtype=np.float64)


def _blur(x: Floats) -> Floats:
    """Gaussian window over the last two axes, only where it fits: [C, H, W] -> [C, H - 10, W - 10]."""
    taps = _gaussian()
    height, width = x.shape[1] - _WINDOW + 1, x.shape[2] - _WINDOW + 1
    rows = sum(tap * x[:, i : i + height] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * rows[:, :, i : i + width] for i, tap in enumerate(taps)))


def _ssim_term(x: Floats, y: Floats, *, luminance: bool) -> Floats:
    """Mean contrast-structure term of each channel, times the luminance term if asked: [C, H, W] -> [C]."""
    mean_x, mean_y = _blur(x), _blur(y)
    product = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    covariance = _blur(x * y) - product
    variances = _blur(x * x + y * y) - squares  # of x and of y, added
    term = (2.0 * covariance + _C2) / (variances + _C2)
    if luminance:
        term = term * (2.0 * product + _C1) / (squares + _C1)
    return np.asarray(term.mean(axis=(1, 2)))


def _halve(x: Floats) -> Floats:
    """Means of 2x2 blocks; an odd side is first padded with a zero in front, as pytorch-msssim's pooling does."""
    x = np.pad(x, ((0, 0), (x.shape[1] % 2, 0), (x.shape[2] % 2, 0)))
    return np.asarray((x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4.0)


def _log(rates: Sequence[float]) -> Floats:
    values = np.asarray(rates, dtype=np.float64)
    if not np.all(values > 0.0):
        raise ValueError("rates must be positive")
    return np.log(values)


def _log_rate_over_quality(rates: Sequence[float], quality: Sequence[float]) -> Any:
    return _pchip(np.asarray(quality, dtype=np.float64), _log(rates), "quality")


def _pchip(x: Floats, y: Floats, name: str) -> Any:
    """Interpolator of y over x, in any order; ``name`` says in errors what x is."""
    # only the eval extra has scipy
    from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped,unused-ignore]

    if x.ndim != 1 or x.shape != y.shape or x.size < 2:
        raise ValueError("a curve needs at least two points, each with a rate and a quality")
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("rates and qualities must be finite")
    order = np.argsort(x)
    if not np.all(np.diff(x[order]) > 0.0):
        raise ValueError(f"two points of a curve have the same {name}")
    return PchipInterpolator(x[order], y[order])
