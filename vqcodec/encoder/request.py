# SPDX-License-Identifier: Apache-2.0
"""What is asked of an encoder: a quality, a lmbda, a size or a likeness, and how hard it shall try."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

from vqcodec.errors import ModelError

DEFAULT_QUALITY = 50.0
DEFAULT_EFFORT = 5
DEFAULT_TUNE = "eye"
VERIFIED_FROM = 8
"""Effort from which verifying a file of a target costs under a twentieth of encoding it."""
TUNES = {"eye": 0.0, "psnr": 0.0, "ssim": 0.1}
"""Power of the local contrast that lambdas are multiplied by (`encoder.emphasis`). What sets psnr apart from eye is the
model, where none is named (`model.registry.find`)."""
MARGIN = 2.0
"""The scale goes beyond the range of lambdas that a model was trained for by this factor, at both ends."""


@dataclass(frozen=True)
class Request:
    """At most one of: quality 0 to 100; lmbda, the weight of a bit (from 0: nearest codes); size in bytes of the file;
    bpp, its bits per pixel; psnr in dB, or ssimulacra2, that the picture shall reach. None of them: the middle of the
    scale.

    Args:
        effort: 1 to 9, see `Effort`.
        tune: "eye" for what people see, "psnr" for the least squared error, "ssim" to move bits from where contrast
            hides errors to smooth places.

    Raises ValueError on anything else, TypeError on what is no number.
    """

    quality: float | None = None
    lmbda: float | None = None
    size: int | None = None
    bpp: float | None = None
    effort: int = DEFAULT_EFFORT
    tune: str = DEFAULT_TUNE
    psnr: float | None = None
    ssimulacra2: float | None = None

    def __post_init__(self) -> None:
        for name in ("quality", "lmbda", "size", "bpp", "psnr", "ssimulacra2"):
            _check_number(name, getattr(self, name))
        _check_number("effort", self.effort, numbers.Integral, optional=False)
        asked = (self.quality, self.lmbda, self.size, self.bpp, self.psnr, self.ssimulacra2)
        if sum(value is not None for value in asked) > 1:
            raise ValueError("give one of quality, lmbda, size, bpp, psnr and ssimulacra2")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise ValueError(f"the quality must be 0 to 100, not {self.quality:g}")
        if self.lmbda is not None and not (self.lmbda >= 0 and math.isfinite(self.lmbda)):
            raise ValueError(f"the weight of a bit must be 0 or more, not {self.lmbda:g}")
        for name, value in (("size", self.size), ("bpp", self.bpp), ("psnr", self.psnr)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"the {name} must be above 0, not {value:g}")
        if self.ssimulacra2 is not None and not 0 < self.ssimulacra2 <= 100:
            raise ValueError(f"the ssimulacra2 must be above 0, at most 100, not {self.ssimulacra2:g}")
        if self.effort not in EFFORTS:
            raise ValueError(f"the effort must be 1 to 9, not {self.effort}")
        if not isinstance(self.tune, str):
            raise TypeError(f"tune must be one of {', '.join(TUNES)}, not {self.tune!r}")
        if self.tune not in TUNES:
            raise ValueError(f"tune must be one of {', '.join(TUNES)}, not {self.tune!r}")

    @property
    def sized(self) -> bool:
        """Whether a size is asked for."""
        return self.size is not None or self.bpp is not None

    @property
    def aimed(self) -> bool:
        """Whether a likeness to the original is asked for."""
        return self.psnr is not None or self.ssimulacra2 is not None

    def target(self, pixels: int) -> float | None:
        """Bytes that the file of an image of so many pixels may have, None if it was not asked for a size."""
        if self.size is not None:
            return float(self.size)
        return None if self.bpp is None else self.bpp * pixels / 8


def _check_number(name: str, value: Any, kind: type = numbers.Real, optional: bool = True) -> None:
    if (value is None and optional) or (isinstance(value, kind) and not isinstance(value, bool)):
        return
    raise TypeError(f"the {name} must be a {'whole ' * (kind is numbers.Integral)}number, not {value!r}")


@dataclass(frozen=True)
class Effort:
    """context: choose codes by what they cost under the prior, in so many sweeps over the maps; 0: by order-0 code
    lengths. beam: partial choices that are kept from stage to stage."""

    context: int
    beam: int = 1


EFFORTS = {
    1: Effort(0),
    2: Effort(0, beam=8),
    3: Effort(1),
    4: Effort(1, beam=4),
    5: Effort(1, beam=8),
    6: Effort(1, beam=16),
    7: Effort(2, beam=16),
    8: Effort(2, beam=32),
    9: Effort(3, beam=32),
}


DEFAULT = Request()


def lmbda_of(quality: float, lmbdas: tuple[float, float]) -> float:
    """Compute the lambda at a quality.

    Log-linear, from MARGIN times the highest of a model's range at 0 to the lowest over MARGIN at 100.

    Args:
        quality: 0 to 100.
        lmbdas: the model's range.

    Raises: ModelError if the model has no range.
    """
    low, high = scale(lmbdas)
    return high * (low / high) ** (quality / 100)


def quality_of(lmbda: float, lmbdas: tuple[float, float]) -> float:
    """Invert `lmbda_of`.

    Args:
        lmbda: weight of a bit.
        lmbdas: the model's range.

    Returns: 0 or 100 beyond the ends of the scale.
    """
    low, high = scale(lmbdas)
    return 100 * math.log(high / min(high, max(low, lmbda))) / math.log(high / low)


def scale(lmbdas: tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest lambda of the quality scale. Raises ModelError if the model has no range."""
    low, high = lmbdas
    if not low:
        raise ModelError("this model has a single quality: it was not trained for a range of lambdas")
    return low / MARGIN, high * MARGIN


def lmbda_asked(asked: Request, lmbdas: tuple[float, float]) -> float:
    """Compute the weight of a bit that a request means (not one for a size); the middle of the scale by default.

    Args:
        asked: the request.
        lmbdas: the model's range.

    Raises: ModelError if the model has a single quality and another is asked for.
    """
    if asked.lmbda is not None:
        return asked.lmbda
    if asked.quality is None and not lmbdas[1]:
        return 0.0
    return lmbda_of(DEFAULT_QUALITY if asked.quality is None else asked.quality, lmbdas)
