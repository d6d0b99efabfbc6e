# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion plots as image files, by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqcodec.evaluation.curves import QUALITIES, Curve, Quality
from vqcodec.report.styles import Style, styles_of

_DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))  # published curves have one colour


def plot(path: Path, by_dataset: Mapping[str, Sequence[Curve]], max_bpp: float) -> None:
    """Draw a row of panels a dataset, one a quality that is known.

    Args:
        path: of the picture; its suffix chooses the format.
        by_dataset: curves.
        max_bpp: right end, bits per pixel.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    settings: Any = {"font.size": 11, "svg.hashsalt": "vqcodec", "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(settings):
        known = [q for q in QUALITIES if any(curve.values(q) for curves in by_dataset.values() for curve in curves)]
        shape = (len(by_dataset), len(known))
        size = (4.3 * shape[1], 3.7 * shape[0] + 0.5)
        figure, panels = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
        lines: dict[str, Any] = {}
        for (dataset, curves), row in zip(by_dataset.items(), panels, strict=True):
            for axes, quality in zip(row, known, strict=True):
                lines |= _draw(axes, curves, quality, max_bpp)
                axes.set(title=f"{dataset}: {quality.label}", xlabel="bits per pixel (whole file)", xlim=(0, max_bpp))
        columns = (2 if max(map(len, lines), default=0) < 16 else 1) * shape[1]  # long names need more room
        figure.legend(lines.values(), lines, loc="outside upper center", ncols=columns, frameon=False)
        figure.savefig(path, dpi=150, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _draw(axes: Any, curves: Sequence[Curve], quality: Quality, max_bpp: float) -> dict[str, Any]:
    """Curves of one panel up to `max_bpp`; returns their lines by name."""
    lines: dict[str, Any] = {}
    lowest, highest, published = math.inf, -math.inf, 0
    for curve, style in zip(curves, styles_of(curves), strict=True):
        published += curve.kind == "published"
        rates, values = (np.array(v) for v in curve.monotone(quality))
        if not len(rates) or rates[0] > max_bpp:
            continue
        name = f"{curve.name}, published" if curve.kind == "published" else curve.name
        (lines[name],) = axes.plot(rates, values, color=style.light, **_line(curve, style, published))
        lowest, highest = min(lowest, values[0]), max(highest, float(np.interp(min(max_bpp, rates[-1]), rates, values)))
    if lines:
        margin = 0.05 * (highest - lowest) or 1.0
        axes.set_ylim(lowest - margin, highest + margin)
    axes.grid(color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)
    return lines


def _line(curve: Curve, style: Style, published: int) -> dict[str, Any]:
    if curve.kind == "published":
        return {"ls": _DASHES[published % len(_DASHES)], "lw": 1.2, "zorder": 1}
    ours = curve.kind == "ours"
    look = {"marker": style.marker, "mec": "white", "mew": 0.6, "lw": 2.6 if ours else 1.6, "ms": 9 if ours else 6}
    return look | {"zorder": 3 if ours else 2}
