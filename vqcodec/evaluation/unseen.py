# SPDX-License-Identifier: Apache-2.0
"""VMAF, a measure that no loss of training knows: of ours, and of rivals at equal bytes. Needs the extra `vmaf`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image

from vqcodec.evaluation.equal_bytes import largest_within
from vqcodec.evaluation.measuring import load_rgb
from vqcodec.evaluation.rivals import Setting
from vqcodec.images.types import Pixels

LUMA = (0.2126, 0.7152, 0.0722)  # of R, G and B, ITU-R BT.709


@dataclass(frozen=True)
class AtEqualBytes:
    """Means over images of one codec.

    Args:
        name: of the codec.
        bpp: of its files.
        vmaf: 0 to 100.
        fitted: images for which it has a file that is small enough; the means are over those alone.
    """

    name: str
    bpp: float
    vmaf: float
    fitted: int


def vmaf(decoded: Pixels, image: Pixels) -> float:
    """VMAF (Netflix 2016, model v0.6.1) of a still picture, which has no motion: the luma of both in the studio range.

    Args:
        decoded: uint8 [H, W, 3], RGB.
        image: the original, the same shape.

    Returns: 0 to 100; about 97 for equal pictures.

    Raises:
        ImportError: vmaf-torch is not installed.
    """
    with torch.inference_mode():
        return float(_vmaf()(_luma(image), _luma(decoded))[0])


@functools.cache
def _vmaf() -> Any:
    return importlib.import_module("vmaf_torch").VMAF().eval()


def _luma(picture: Pixels) -> torch.Tensor:
    """float32 [1, 1, H, W] in 16 to 235."""
    y = picture.astype(np.float32) @ np.array(LUMA, np.float32)
    return torch.from_numpy(16 + y * (219 / 255))[None, None]


def at_equal_bytes(paths: Sequence[Path], ours: Setting, rivals: Sequence[str]) -> list[AtEqualBytes]:
    """Encode images with ours, then with every rival at its best quality that needs no more bytes.

    Args:
        paths: of images.
        ours: our codec at one setting.
        rivals: names of `rivals.FORMATS`.

    Returns: ours first, then the rivals that have at least one file small enough.
    """
    measured: dict[str, list[tuple[float, float]]] = {}
    for path in paths:
        image = load_rgb(path)
        data = ours.encode(image)
        files = {ours.name: (ours, data)} | {name: largest_within(name, image, len(data)) for name in rivals}
        for name, (codec, file) in files.items():
            if len(file) <= len(data):
                value = vmaf(_pixels(codec.decode(file)), _pixels(image))
                measured.setdefault(name, []).append((8 * len(file) / (image.width * image.height), value))
    return [
        AtEqualBytes(name, fmean(bpp for bpp, _ in pairs), fmean(value for _, value in pairs), len(pairs))
        for name, pairs in measured.items()
    ]


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))
