# SPDX-License-Identifier: Apache-2.0
"""One look for each curve, in plots and on the page: colours that differ in lightness too, and markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vqcodec.evaluation.curves import Curve


class Style(NamedTuple):
    """key: in CSS; light, dark: colour on a light and on a dark ground; marker: as matplotlib names it."""

    key: str
    light: str
    dark: str
    marker: str


_RIVALS = {
    "JPEG": Style("jpeg", "#6b7280", "#a3abb8", "s"),
    "WebP": Style("webp", "#1d6fb8", "#63b0f4", "D"),
    "AVIF 4:2:0": Style("avif420", "#b45309", "#f0a63c", "^"),
    "AVIF 4:4:4": Style("avif444", "#15803d", "#56c77f", "v"),
    "AVIF psnr": Style("avifpsnr", "#92400e", "#d9903d", "<"),
    "AVIF ssim": Style("avifssim", "#a16207", "#e3c04a", ">"),
    "JPEG XL": Style("jxl", "#6d28d9", "#b197fc", "P"),
}
_OURS = (
    Style("ours", "#c2185b", "#ff6fa5", "o"),
    Style("ours2", "#0e7490", "#3fc9dd", "o"),
    Style("ours3", "#7c2d12", "#f2906b", "o"),
)
_PUBLISHED = Style("published", "#8a93a1", "#7d8694", "")

ALL = (*_OURS, *_RIVALS.values(), _PUBLISHED)


def styles_of(curves: Sequence[Curve]) -> list[Style]:
    """Choose the style of every curve; several curves of ours get different ones."""
    styles, ours = [], 0
    for curve in curves:
        if curve.kind == "ours":
            styles.append(_OURS[ours % len(_OURS)])
            ours += 1
        else:
            styles.append(_RIVALS[curve.name] if curve.kind == "rival" else _PUBLISHED)
    return styles
