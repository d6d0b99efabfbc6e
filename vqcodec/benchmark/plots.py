# SPDX-License-Identifier: Apache-2.0
"""Time and memory over the size of the image, with fitted lines, and where the time goes; needs the eval extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqcodec.benchmark.growth import Fit, Growth
from vqcodec.benchmark.parts import PARTS
from vqcodec.benchmark.timings import Direction, Timing

COLOURS = {"vqcodec": "#c2185b", "JPEG": "#6b7280", "WebP": "#1d6fb8", "AVIF": "#d97706"}
PART_COLOURS = ("#c2185b", "#7c3aed", "#60a5fa", "#d97706", "#15803d", "#9ca3af")
STYLES = ("-", "--", ":", "-.")
ROWS = (("seconds", 1, "time in process, s"), ("peak_bytes", 1 << 20, "peak memory of a process, MiB"))
SETTINGS: Any = {"font.size": 10, "svg.hashsalt": "vqcodec", "axes.spines.top": False, "axes.spines.right": False}

Key = tuple[str, str, str, int]  # codec, setting, device, threads


def plot(path: Path, measurements: Sequence[Timing], growths: Sequence[Growth]) -> None:
    """Draw three rows of panels, for encoding and decoding.

    Args:
        path: of the picture; its suffix chooses the format.
        measurements: to draw.
        growths: lines fitted to them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    bars = sum(m.encode.parts is not None for m in measurements)
    plt.rcParams.update(SETTINGS)
    figure, panels = plt.subplots(
        3, 2, figsize=(11, 9 + 0.35 * bars), layout="constrained", height_ratios=(4, 4, 1 + 0.35 * bars)
    )
    for column, direction in enumerate(("encode", "decode")):
        for row, (quantity, scale, label) in enumerate(ROWS):
            axes = panels[row, column]
            axes.set(title=f"{direction}: {label}", xlabel="megapixels")
            if not _draw_series(axes, measurements, growths, direction, quantity, scale):
                continue  # nothing was measured, and nothing has no logarithm
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if row else (1,)))
            axes.set_xticks(sorted({round(m.megapixels, 2) for m in measurements}), minor=False)
            axes.minorticks_off()
            axes.grid(color="#e5e7eb", lw=0.8)
        _draw_parts(panels[2, column], measurements, direction)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncol=2, frameon=False)
    figure.legend(*panels[2, 0].get_legend_handles_labels(), loc="outside lower center", ncol=5, frameon=False)
    figure.savefig(path, dpi=150, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _draw_series(
    axes: Any, measurements: Sequence[Timing], growths: Sequence[Growth], direction: str, quantity: str, scale: int
) -> bool:
    """One quantity of all codecs: points, and the line that was fitted to them, or one through them. False if none."""
    series: dict[Key, list[tuple[float, float]]] = {}
    for m in measurements:
        points = series.setdefault((m.codec, m.setting, m.device, m.threads), [])
        if (value := getattr(getattr(m, direction), quantity)) is not None:
            points.append((m.megapixels, value / scale))
    fits: dict[Key, Fit] = {
        (g.codec, g.setting, g.device, g.threads): g.fit
        for g in growths
        if (g.direction, g.quantity) == (direction, quantity)
    }
    number: dict[str, int] = {}  # of the series of a codec so far
    for (codec, setting, device, threads), points in series.items():
        number[codec] = number.get(codec, -1) + 1
        colour, style = COLOURS.get(codec, "black"), STYLES[number[codec] % len(STYLES)]
        x, y = np.array(points).reshape(-1, 2).T
        axes.plot(x, y, "o", color=colour, ms=4)
        if (fit := fits.get((codec, setting, device, threads))) is not None:
            x = np.geomspace(x.min(), x.max(), 50)
            line = (fit.constant + fit.slope * x) / scale
            y = np.where(line > y.min() / 2, line, np.nan)  # a line may pass through zero, a logarithm may not
        label = f"{codec} {setting}, {device}, {threads} thread{'s' * (threads > 1)}"
        axes.plot(x, y, style, color=colour, lw=1.5, label=label)
    return any(series.values())


def _draw_parts(axes: Any, measurements: Sequence[Timing], direction: str) -> None:
    """Shares of the parts as bars, one a model, size, device and number of threads."""
    names: list[str] = []
    shares: list[list[float]] = []
    models = {m.setting for m in measurements if m.encode.parts is not None}
    for m in measurements:
        d: Direction = getattr(m, direction)
        if d.parts is not None:
            where = f"{m.threads} thread{'s' * (m.threads > 1)}" if m.device == "cpu" else m.device
            names.append(f"{m.setting}, " * (len(models) > 1) + f"{m.megapixels:.2g} MP, {where}")
            whole = sum(d.parts.values())
            shares.append([100 * d.parts[part] / whole for part in PARTS])
    left = np.zeros(len(names))
    for part, colour, widths in zip(PARTS, PART_COLOURS, np.array(shares).reshape(-1, len(PARTS)).T, strict=True):
        axes.barh(range(len(names)), widths, left=left, color=colour, label=part)
        left = left + widths
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title=f"{direction}: where the time goes", xlabel="percent", xlim=(0, 100))
