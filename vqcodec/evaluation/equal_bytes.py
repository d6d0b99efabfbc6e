# SPDX-License-Identifier: Apache-2.0
"""One image through every codec, at as many bytes as ours needs for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vqcodec.evaluation.measuring import Measurement, compare, load_rgb
from vqcodec.evaluation.rivals import AVIF, FORMATS, Rival, Setting

GROUPS = (("JPEG",), ("WebP",), AVIF, ("JPEG XL",))
"""Rivals that are shown; of a group the one with the best PSNR."""

_BEYOND = 4  # steps of quality that bisection looks further, as sizes are not quite monotone in it


@dataclass(frozen=True)
class Shown:
    """One picture of a comparison: RGB pixels, who made them at what setting, and what was measured.

    Args:
        result: None for the original.
        fits: False for a rival whose smallest file is larger than ours.
    """

    name: str
    setting: str
    image: Image.Image
    result: Measurement | None = None
    fits: bool = True


@dataclass(frozen=True)
class Comparison:
    """The original, ours and the rivals, in this order, and our file."""

    image: str
    shown: tuple[Shown, ...]
    data: bytes


def compare_file(path: Path, ours: Setting, groups: Sequence[Sequence[str]] = GROUPS) -> Comparison:
    """As `compare_image` for the image of a file: a task of `Workers`.

    Args:
        path: of the image.
        ours: our codec at a setting.
        groups: rivals to compare with.
    """
    return compare_image(path.name, load_rgb(path), ours, groups)


def compare_image(name: str, image: Image.Image, ours: Setting, groups: Sequence[Sequence[str]] = GROUPS) -> Comparison:
    """Encode an RGB image with ours, then with every rival at the best quality that needs no more bytes.

    Args:
        name: of the image.
        image: its pixels.
        ours: our codec at a setting.
        groups: rivals; of each group the best one is shown.
    """
    data = ours.encode(image)
    shown = [Shown("original", "", image), _shown(ours, image, data, len(data))]
    for group in groups:
        candidates = []
        for rival_name in group:
            rival, file = largest_within(rival_name, image, len(data))
            candidates.append(_shown(rival, image, file, len(data)))
        shown.append(max(candidates, key=lambda s: (s.fits, s.result.psnr if s.result else 0.0)))
    return Comparison(name, tuple(shown), data)


def _shown(codec: Setting, image: Image.Image, data: bytes, limit: int) -> Shown:
    decoded = codec.decode(data)
    result = compare(image, decoded, len(data), f"{codec.name} {codec.setting}")
    return Shown(codec.name, codec.setting, decoded, result, fits=len(data) <= limit)


def largest_within(name: str, image: Image.Image, limit: int) -> tuple[Rival, bytes]:
    """Encode with a rival at the highest quality whose file fits.

    By bisection; as sizes are not quite monotone in the quality, the next few qualities are tried too.

    Args:
        name: of the rival.
        image: the picture to encode.
        limit: bytes of the file, at most.

    Returns: the rival and its file; when even its lowest quality needs more bytes, that file: the caller must compare
        its length with `limit`.
    """
    lowest, step = FORMATS[name].lowest, FORMATS[name].step
    files: dict[int, bytes] = {}

    def at(number: int) -> Rival:
        return Rival(name, lowest + step * number)

    def fits(number: int) -> bool:
        if number not in files:
            files[number] = at(number).encode(image)
        return len(files[number]) <= limit

    low, last = 0, round((100 - lowest) / step)
    if fits(low):
        high = last
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        low = next((number for number in range(min(low + _BEYOND, last), low, -1) if fits(number)), low)
    return at(low), files[low]
