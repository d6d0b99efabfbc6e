# SPDX-License-Identifier: Apache-2.0
"""Pixels of index maps: the float half of decoding. Large pictures are made window by window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqcodec import timing
from vqcodec.errors import ModelError
from vqcodec.images.types import Pixels
from vqcodec.model.lambdas import HIGHEST_TRADEOFF
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.nets import windows
from vqcodec.nets.windows import Window

SIDE = 2048
"""Of the windows that a picture is made in, in pixels: bounds the memory of large ones."""


@exactly
def make(model: Model, maps: IndexMaps, tradeoff: int = 0, region: Window | None = None) -> Pixels:
    """Make pixels of index maps. Floating point: may differ by 1 between devices, and between a region and the whole.

    Args:
        model: whose maps they are.
        maps: of an image; for a region, only what `nets.windows.needed` says is looked at.
        tradeoff: 0 to 255.
        region: inside the image; None: all of it.

    Returns: uint8 [height, width, 3]. Raises ModelError if they are not finite.
    """
    whole = region or Window(0, 0, *maps.size)
    fraction = tradeoff / HIGHEST_TRADEOFF if model.config.autoencoder.gains else None
    pixels = np.empty((whole.bottom - whole.top, whole.right - whole.left, 3), np.uint8)
    for part in timing.steps("making pixels", list(_parts(whole))):
        image = windows.decode(model.autoencoder, maps.levels, part, fraction)
        if not bool(image.isfinite().all()):
            raise ModelError(f"model {model.name} decodes these indices to no finite picture")
        rows, columns = (slice(part.top - whole.top, part.bottom - whole.top),
                         slice(part.left - whole.left, part.right - whole.left))  # fmt: skip
        pixels[rows, columns] = (image.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
    return pixels


def _parts(whole: Window) -> Iterator[Window]:
    """Windows of at most SIDE pixels a side."""
    for top in range(whole.top, whole.bottom, SIDE):
        for left in range(whole.left, whole.right, SIDE):
            yield Window(left, top, min(whole.right, left + SIDE), min(whole.bottom, top + SIDE))
