# SPDX-License-Identifier: Apache-2.0
"""Pixels of index maps: the float half of decoding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vqcodec.errors import ModelError
from vqcodec.model.lambdas import HIGHEST_TRADEOFF
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.nets import strips

Pixels = npt.NDArray[np.uint8]


@exactly
def make(model: Model, maps: IndexMaps, tradeoff: int = 0) -> Pixels:
    """Make pixels, uint8 [height, width, 3], of index maps. Floating point: may differ by 1 between
    devices. Raises ModelError if they are not finite."""
    levels = [m[None].to(model.device) for m in maps.levels]
    fraction = tradeoff / HIGHEST_TRADEOFF if model.config.autoencoder.gains else None
    image = strips.decode(model.autoencoder, levels, fraction)[0]
    if not bool(image.isfinite().all()):
        raise ModelError(f"model {model.name} decodes these indices to no finite picture")
    pixels = (image.permute(1, 2, 0) * 255).round().clamp(0, 255).byte()
    return np.ascontiguousarray(pixels[: maps.height, : maps.width].cpu().numpy())
