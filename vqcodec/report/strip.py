# SPDX-License-Identifier: Apache-2.0
"""Pictures side by side, each over what made it and what it costs."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from vqcodec.evaluation import metrics
from vqcodec.evaluation.equal_bytes import Comparison, Shown
from vqcodec.evaluation.rivals import FORMATS


def label(shown: Shown) -> tuple[str, ...]:
    """Up to three lines of text."""
    if shown.result is None:
        return shown.name, f"{shown.image.width} x {shown.image.height} pixels"
    setting = f"quality {shown.setting}" if shown.name in FORMATS else shown.setting
    bpp = metrics.bits_per_pixel(shown.result.size, *shown.image.size)
    note = f"{bpp:.3f} bits per pixel" if shown.fits else "its smallest file is larger"
    third = () if shown.fits and shown.name in FORMATS else (note,)
    return f"{shown.name}, {setting}", f"{shown.result.size:,} bytes, {shown.result.psnr:.2f} dB", *third


def strip(comparison: Comparison, crop: tuple[int, int, int, int] | None = None, scale: int = 1) -> Image.Image:
    """Put crops side by side, magnified, each over its label.

    Args:
        comparison: pictures of one image.
        crop: x, y, width and height in pixels of the image; all of it by default.
        scale: pixels a pixel of the image, along each axis.

    Raises: ValueError if the crop does not lie within the image.
    """
    right, bottom = comparison.shown[0].image.size
    x, y, width, height = crop or (0, 0, right, bottom)
    if not (0 <= x < x + width <= right and 0 <= y < y + height <= bottom):
        raise ValueError(f"the crop {x},{y},{width},{height} does not lie within {right}x{bottom} pixels")
    wide, high = width * scale, height * scale
    size = max(12, wide // 15)  # of the letters: three lines fit the width
    gap, line = 8, round(1.35 * size)
    labels = [label(shown) for shown in comparison.shown]
    below = gap + line * max(map(len, labels))
    canvas = Image.new("RGB", (len(labels) * (wide + gap) - gap, high + below), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    for i, shown in enumerate(comparison.shown):
        part = shown.image.crop((x, y, x + width, y + height)).resize((wide, high), Image.Resampling.NEAREST)
        left = i * (wide + gap)
        canvas.paste(part, (left, 0))
        for j, text in enumerate(labels[i]):
            draw.text((left, high + gap + j * line), text, fill="#111827", font=font)
    return canvas
