# SPDX-License-Identifier: Apache-2.0
"""A part of a picture, or a small one of all of it, for less than the whole costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image

from vqcodec.config import PREVIEW_SCALES
from vqcodec.format.container import Container
from vqcodec.images import imaging
from vqcodec.images.types import Pixels
from vqcodec.model import pixels, preview
from vqcodec.model.limits import Limits
from vqcodec.model.model import Model
from vqcodec.nets import windows
from vqcodec.nets.windows import Window
from vqcodec.stream import reader, region

Region = tuple[int, int, int, int]
"""x, y, width and height, in pixels."""


def _is_region(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 4 and all(isinstance(side, Integral) for side in value)


@dataclass(frozen=True)
class Part:
    """What is wanted of a picture of width x height pixels.

    region: x, y, width and height in pixels, None for all. scale: pixels along a side that become one, one of
    `config.PREVIEW_SCALES` or 1; more than 1 shows the coarse levels only. Raises ValueError on a region that is not
    inside the picture, on another scale, and if both are given; TypeError on what is no region.
    """

    width: int
    height: int
    region: Region | None = None
    scale: int = 1

    def __post_init__(self) -> None:
        if self.scale not in (1, *PREVIEW_SCALES):
            raise ValueError(f"the scale of a preview must be one of {PREVIEW_SCALES}, not {self.scale!r}")
        if self.region is not None and not _is_region(self.region):
            raise TypeError(f"a region is x, y, width and height, four whole numbers, not {self.region!r}")
        x, y, width, height = self.region or (0, 0, self.width, self.height)
        if self.region and self.scale > 1:
            raise ValueError("give a region or a preview, not both")
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > self.width or y + height > self.height:
            raise ValueError(f"the region {self.region} is not inside {self.width}x{self.height} pixels")

    @property
    def whole(self) -> bool:
        """Whether it is the picture itself."""
        return self.scale == 1 and self.region is None

    @property
    def window(self) -> Window:
        """The region."""
        x, y, width, height = self.region or (0, 0, self.width, self.height)
        return Window(x, y, x + width, y + height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        window = self.window
        return -(-(window.right - window.left) // self.scale), -(-(window.bottom - window.top) // self.scale)

    def check(self, limits: Limits, lossless: bool = False) -> None:
        """Check that the part has not too many pixels.

        Args:
            limits: what decoding may cost.
            lossless: of a lossless file all pixels are decoded first.

        Raises: ImageError; TypeError if the limits are none.
        """
        if not isinstance(limits, Limits):
            raise TypeError(f"the limits must be a vqcodec.Limits, not {limits!r}")
        limits.check_pixels(*((self.width, self.height) if lossless else self.size))

    def of(self, image: Image.Image) -> Image.Image:
        """Cut the part out of a picture that is decoded already."""
        if self.whole:
            return image
        part = image.reduce(self.scale) if self.scale > 1 else image.crop(self.window)
        part.info = image.info
        return part

    def of_alpha(self, alpha: bytes) -> Pixels:
        """Cut out the part of an alpha channel, as `images.imaging.encode_alpha` wrote it."""
        return np.asarray(self.of(Image.fromarray(imaging.decode_alpha(alpha, self.width, self.height))))

    def pixels(self, model: Model, file: Container, limits: Limits) -> Pixels:
        """Decode the part.

        Args:
            model: whose file it is.
            file: unpacked.
            limits: what decoding may cost.

        Returns: uint8 [height, width, 3].

        Raises: what `reader.read` does.
        """
        head, config = file.header, model.config.autoencoder
        level = preview.level_for(config, self.scale) if self.scale > 1 else None
        if self.whole or (level is None and self.scale > 1):
            return np.asarray(self.of(Image.fromarray(pixels.make(model, reader.read(model, file, limits), head.rate))))
        padded = [-(-side // config.coarsest) * config.coarsest for side in (self.width, self.height)]
        if level is not None:
            all_of_it = Window(0, 0, *padded)
            maps = region.read(model, file, [all_of_it] * (level + 1), limits)
            return preview.make(model, maps, self.scale, head.rate)
        maps = region.read(model, file, windows.needed(config, self.window, *padded), limits)
        return pixels.make(model, maps, head.rate, self.window)
