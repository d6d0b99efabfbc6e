# SPDX-License-Identifier: Apache-2.0
"""Pictures in few tones, so that the noise of scanned drawings does not have to be stored. Knows no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqcodec.images.types import Pixels

_LEVELS = 256
_NOISE = 8  # levels about the edge of a bin that should be as empty as can be


def in_tones(pixels: Pixels, step: int) -> Pixels:
    """Give samples that differ by less than a step one value, their mean: a uniform quantiser with centroids.

    See Gray and Neuhoff 1998, "Quantization", section II. The edges of a channel's bins lie where its histogram is
    lowest, so that noise about a frequent tone stays within one bin.

    Args:
        pixels: uint8 [H, W, C].
        step: width of a bin, from 1, which changes nothing, to 255.

    Returns: uint8 [H, W, C].
    """
    toned = np.empty_like(pixels)
    for channel in range(pixels.shape[2]):
        plane = pixels[:, :, channel]
        toned[:, :, channel] = _tones(np.bincount(plane.ravel(), minlength=_LEVELS), step)[plane]
    return toned


def _tones(counts: NDArray[np.int64], step: int) -> Pixels:
    """The tone of every level, uint8 [256].

    Args:
        counts: histogram, [256].
        step: width of a bin.
    """
    levels = np.arange(_LEVELS)
    crowd = np.convolve(counts, np.ones(min(step, _NOISE)), "same")  # at the level above an edge, and about it
    edge = min(range(step), key=lambda first: crowd[first::step].sum())
    bins = (levels + step - edge) // step
    members, sums = (np.bincount(bins, weights=weights) for weights in (counts, counts * levels))
    return np.rint(sums / np.maximum(members, 1)).astype(np.uint8)[bins]
