# SPDX-License-Identifier: Apache-2.0
"""What decoding a file may cost. Knows no torch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from vqcodec.errors import ImageError


@dataclass(frozen=True)
class Limits:
    """What decoding a file may cost; a file that would cost more is refused with ImageError.

    Args:
        pixels: width times height at most. None: Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS`.
        memory: bytes at most, by an estimate from the sizes in the file and the model. None: no limit.
        seconds: for the indices of a file, looked at after every step of an order. None: no limit.
    """

    pixels: int | None = None
    memory: int | None = 8 << 30
    seconds: float | None = None

    def check_pixels(self, width: int, height: int) -> None:
        """Check the size of an image.

        Args:
            width: in pixels.
            height: in pixels.

        Raises: ImageError if it has too many pixels.
        """
        limit, name = self.pixels, "the limit of pixels"
        if limit is None:
            from PIL import Image  # late: `vqcodec info` does without

            limit, name = Image.MAX_IMAGE_PIXELS, "Pillow's limit (Image.MAX_IMAGE_PIXELS)"
        if limit is not None and width * height > limit:
            raise ImageError(f"{width}x{height} is over {name}, {limit}")

    def check_memory(self, estimate: int) -> None:
        """Raise ImageError if so many bytes are too many."""
        if self.memory is not None and estimate > self.memory:
            raise ImageError(f"decoding takes about {estimate >> 20} MiB, over the limit of {self.memory >> 20} MiB")

    def deadline(self) -> Deadline:
        """Start the clock."""
        return Deadline(math.inf if self.seconds is None else self.seconds)


class Deadline:
    """A clock that runs out."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raise ImageError if the time is over."""
        if time.monotonic() > self._end:
            raise ImageError(f"decoding takes longer than the limit of {self._seconds:g} s")


DEFAULT_LIMITS = Limits()
