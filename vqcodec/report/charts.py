# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion curves as SVG inside the page. Without its script they are still whole drawings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from vqcodec.evaluation.curves import Curve, Quality
from vqcodec.evaluation.measuring import Point
from vqcodec.evaluation.rivals import FORMATS
from vqcodec.report.styles import Style, styles_of

WIDTH, HEIGHT = 400, 320  # of a panel, in units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 40  # margins

# Shapes of the points by matplotlib's marker, around the origin, of about the same area.
_MARKERS = {
    "s": "M-3.2-3.2h6.4v6.4h-6.4z",
    "D": "M0-4.4 4.4 0 0 4.4-4.4 0z",
    "^": "M0-4.6 4.3 3.2h-8.6z",
    "v": "M0 4.6 4.3-3.2h-8.6z",
    "P": "M-1.6-4.4h3.2v2.8h2.8v3.2h-2.8v2.8h-3.2v-2.8h-2.8v-3.2h2.8z",
    "o": "M-5.2 0a5.2 5.2 0 1 0 10.4 0a5.2 5.2 0 1 0-10.4 0z",
    "": "",
}


class Scale(NamedTuple):
    """Values from low to high onto units of the SVG from start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def chart(curves: Sequence[Curve], quality: Quality, max_bpp: float, title: str) -> str:
    """Draw one panel as a figure; empty where no curve has this quality.

    Args:
        curves: to draw.
        quality: the metric.
        max_bpp: right end, bits per pixel.
        title: said to screen readers.
    """
    pairs = [(c, s) for c, s in zip(curves, styles_of(curves), strict=True) if _shown(c, quality, max_bpp)]
    if not pairs:
        return ""
    x = Scale(0.0, max_bpp, LEFT, WIDTH - RIGHT)
    y = _quality_scale([curve for curve, _ in pairs], quality, max_bpp)
    # ours is drawn last, over the others, and is first for the keyboard
    order = sorted(range(len(pairs)), key=lambda i: ("published", "rival", "ours").index(pairs[i][0].kind))
    drawn = "".join(_curve(*pairs[i], quality, x, y, i) for i in order)
    published = [curve for curve, _ in pairs if curve.kind == "published"]
    return (
        f'<figure class="chart"><figcaption>{escape(quality.label)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" tabindex="0" role="application" aria-roledescription="chart" '
        f'aria-label="{escape(title)}. Left and right arrows read a curve, up and down change it.">'
        f"{_axes(x, y)}{drawn}{_names(published, quality, x, y)}"
        '<circle class="ring" r="8" hidden></circle></svg>'
        '<div class="tip" role="status" hidden></div></figure>'
    )


def legend(curves: Sequence[Curve]) -> str:
    """Write a button for every curve, which hides and shows it."""
    items = []
    for curve, style in zip(curves, styles_of(curves), strict=True):
        dash = ' stroke-dasharray="4 3"' if curve.kind == "published" else ""
        mark = f'<path class="mark" transform="translate(13 7)" d="{_MARKERS[style.marker]}"/>'
        swatch = (
            f'<svg viewBox="0 0 26 14" width="26" height="14" aria-hidden="true"><path d="M0 7h26"{dash}/>{mark}</svg>'
        )
        note = '<span class="muted">, published</span>' if curve.kind == "published" else ""
        items.append(
            f'<button type="button" class="key c-{style.key}" aria-pressed="true" data-curve="{escape(curve.name)}">'
            f"{swatch}<span>{escape(curve.name)}{note}</span></button>"
        )
    return f'<div class="legend" role="group" aria-label="Curves that are shown">{"".join(items)}</div>'


def describe(curve: Curve, point: Point) -> str:
    """Say in words which point of a curve this is.

    Args:
        curve: that it is on.
        point: of the curve.
    """
    if curve.kind == "published":
        return f"{curve.name}, published"
    return f"{curve.name}, {'quality ' if curve.name in FORMATS else ''}{point.setting}"


def _shown(curve: Curve, quality: Quality, max_bpp: float) -> bool:
    rates, _ = curve.monotone(quality)
    return bool(rates) and rates[0] <= max_bpp


def _quality_scale(curves: Sequence[Curve], quality: Quality, max_bpp: float) -> Scale:
    """From the lowest value that is shown to the highest, with some room."""
    values: list[float] = []
    for curve in curves:
        rates, qualities = curve.monotone(quality)
        values += [qualities[0], float(np.interp(min(max_bpp, rates[-1]), rates, qualities))]
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 1.0
    return Scale(low - room, high + room, HEIGHT - BOTTOM, TOP)


def ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Choose round values from low to high: steps of 1, 2 or 5 times a power of ten.

    Args:
        low: end of the axis.
        high: other end of the axis.
        most: number of values allowed.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def _axes(x: Scale, y: Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{right}"/>')
        parts.append(_text(LEFT - 7, y(value) + 4, "end", value))
    parts += [_text(x(value), bottom + 17, "middle", value) for value in ticks(x.low, x.high)]
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">bits per pixel</text>')
    return f'<g aria-hidden="true">{"".join(parts)}</g>'


def _text(x: float, y: float, anchor: str, value: float) -> str:
    number = f"{value:g}".replace("-", "−")
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{number}</text>'


def _curve(curve: Curve, style: Style, quality: Quality, x: Scale, y: Scale, number: int) -> str:
    """A line cut at the right edge of the panel, with a mark at each measured point."""
    rates, values = curve.monotone(quality)
    end = min(x.high, rates[-1])
    inside = [(r, v) for r, v in zip(rates, values, strict=True) if r < end]
    inside.append((end, float(np.interp(end, rates, values))))
    line = "L".join(f"{x(r):.1f} {y(v):.1f}" for r, v in inside)
    marks = []
    for point, value in curve.values(quality):
        if point.bpp > x.high or not y.low <= value <= y.high:
            continue
        unit = f" {quality.unit}" if quality.unit else ""
        value_text = f"{value:.{quality.digits}f}{unit}".replace("-", "−")
        data = [describe(curve, point), f"{point.bpp:.3f} bpp", value_text]
        if quality.field == "ms_ssim_db" and point.ms_ssim is not None:
            data[-1] += f" ({point.ms_ssim:.4f})"
        at = f'transform="translate({x(point.bpp):.1f} {y(value):.1f})"'
        shape = f'<path class="mark" d="{_MARKERS[style.marker]}"/>' if style.marker else ""
        marks.append(f'<g class="point" {at} data-value="{escape(json.dumps(data))}">{shape}</g>')
    return (
        f'<g class="curve {curve.kind} c-{style.key}" data-curve="{escape(curve.name)}" data-order="{number}">'
        f'<path class="line" d="M{line}"/>{"".join(marks)}</g>'
    )


def _names(curves: Sequence[Curve], quality: Quality, x: Scale, y: Scale) -> str:
    """Names at the right ends of curves that look the same, moved apart downwards where they would overlap."""
    ends = []
    for curve in curves:
        rates, values = curve.monotone(quality)
        end = min(x.high, rates[-1])
        ends.append((y(float(np.interp(end, rates, values))), x(end), curve.name))
    parts, above = [], -math.inf
    for at, end, name in sorted(ends):
        above = max(at - 4, above + 12, TOP + 8)
        anchor = "end" if end > WIDTH / 2 else "start"
        parts.append(
            f'<text class="name" data-curve="{escape(name)}" x="{end:.1f}" y="{above:.1f}" text-anchor="{anchor}">'
            f"{escape(name)}</text>"
        )
    return "".join(parts)
