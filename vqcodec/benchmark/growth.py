# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow with the number of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vqcodec.benchmark.timings import Timing

QUANTITIES = ("seconds", "process_seconds", "peak_bytes", "gpu_peak_bytes")
MIN_POINTS = 3


@dataclass(frozen=True)
class Fit:
    """value = constant + slope * megapixels, by least squares.

    Args:
        r2: its coefficient of determination.
        exponent: of the power law that fits best, the slope of log(value) over log(megapixels): 1 is in proportion.
    """

    constant: float
    slope: float
    r2: float
    exponent: float
    points: int


@dataclass(frozen=True)
class Growth:
    """The fit of one quantity of `Direction`, in seconds or bytes, of one codec in one direction."""

    codec: str
    setting: str
    device: str
    threads: int
    direction: str
    quantity: str
    fit: Fit


def fit(megapixels: Sequence[float], values: Sequence[float]) -> Fit | None:
    """Fit a power law to positive values.

    Args:
        megapixels: sizes.
        values: seconds or bytes, one a size.

    Returns: None for fewer than three different sizes, through which anything would pass.
    """
    if len(set(megapixels)) < MIN_POINTS:
        return None
    x, y = np.asarray(megapixels, np.float64), np.asarray(values, np.float64)
    slope, constant = np.polyfit(x, y, 1)
    spread = float(np.square(y - y.mean()).sum())
    left = float(np.square(y - constant - slope * x).sum())
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    return Fit(float(constant), float(slope), 1 - left / spread if spread else 1.0, float(exponent), len(x))


def growths(measurements: Sequence[Timing]) -> list[Growth]:
    """Fit all that can be fitted, by codec, setting, device, threads, direction and quantity."""
    series: dict[tuple[str, str, str, int], list[Timing]] = {}
    for m in measurements:
        series.setdefault((m.codec, m.setting, m.device, m.threads), []).append(m)
    fits = []
    for key, points in series.items():
        for direction in ("encode", "decode"):
            for quantity in QUANTITIES:
                pairs = [(m.megapixels, getattr(getattr(m, direction), quantity)) for m in points]
                known = [(x, float(y)) for x, y in pairs if y]
                fitted = fit([x for x, _ in known], [y for _, y in known])
                if fitted is not None:
                    fits.append(Growth(*key, direction, quantity, fitted))
    return fits
