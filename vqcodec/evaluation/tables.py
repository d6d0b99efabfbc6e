# SPDX-License-Identifier: Apache-2.0
"""Rows and means as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from vqcodec.evaluation import metrics
from vqcodec.evaluation.curves import BD_RANGE, QUALITIES, Curve, at_equal_quality, bd_rate, curves, datasets
from vqcodec.evaluation.markdown import table
from vqcodec.evaluation.measuring import Measurement, Point, Row


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a line an image, codec and setting: which image first, then what was measured on it.

    Args:
        path: of the file.
        rows: measurements.
    """
    names = [f.name for f in fields(Row)]
    measured = [f.name for f in fields(Measurement)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names[len(measured) :] + measured)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def write_json(path: Path, points: Sequence[Point]) -> None:
    """Write means as a list of objects; infinity (a lossless codec) becomes null, as JSON has none.

    Args:
        path: of the file.
        points: means.
    """
    means = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in item.items()}
        for item in (asdict(point) for point in points)
    ]
    path.write_text(json.dumps(means, indent=2) + "\n", encoding="utf-8")


def markdown(points: Sequence[Point]) -> str:
    """Write tables, one set a dataset: each of our points beside the rivals, and beside our other curves (an effort, a
    tune), at its rate and at its quality.

    Figures of the others are read off their curves of means (pchip, logarithm of the rate), never beyond their ends: a
    dash stands there. Per cents say by how much our rate differs from theirs at equal quality; theirs, in bits per
    pixel, is beside them. With two points of ours or more the BD-rate against each of them follows. Without one, the
    means themselves.
    """
    parts = []
    for dataset in datasets(points):
        drawn = curves(points, dataset)
        ours, rivals = ([curve for curve in drawn if curve.kind == kind] for kind in ("ours", "rival"))
        against = [(curve, [other for other in ours if other is not curve] + rivals) for curve in ours]
        parts += [_comparison(point, others) for curve, others in against for point in curve.points]
        parts += [_bd_rates(curve, others) for curve, others in against if len(curve.points) > 1 and others]
        if not ours:
            parts.append(_means(dataset, rivals))
    return "\n\n".join(parts)


def _comparison(point: Point, others: Sequence[Curve]) -> str:
    similarity, ssimulacra2 = number(point.ms_ssim, ".4f"), number(point.ssimulacra2, ".1f")
    who = f"{point.dataset}, {point.images} images: {point.codec} {point.setting} at {point.bpp:.3f} bpp"
    head = ["codec", "PSNR, dB", "MS-SSIM", "SSIMULACRA2"]
    head += ["ours at equal PSNR", "at equal MS-SSIM", "at equal SSIMULACRA2"]
    rows = [[f"**{point.codec} {point.setting}**", f"{point.psnr:.2f}", similarity, ssimulacra2, "", "", ""]]
    for other in others:
        psnr, decibels, third = (other.read(metrics.quality_at_rate, quality, point.bpp) for quality in QUALITIES)
        similarity = number(None if decibels is None else metrics.ms_ssim_of_db(decibels), ".4f")
        cells = [other.name, number(psnr, ".2f"), similarity, number(third, ".1f")]
        for quality in QUALITIES:
            equal = at_equal_quality(point, other, quality)
            cells.append("-" if equal is None else f"{equal.percent:+.1f} % ({equal.rate:.3f})")
        rows.append(cells)
    return f"{who}\n\n{table(head, rows)}"


def _bd_rates(ours: Curve, others: Sequence[Curve]) -> str:
    head = ["against"]
    for quality in QUALITIES:
        head += [quality.name, f"over, {quality.unit}" if quality.unit else "over"]
    who = f"{ours.points[0].dataset}: BD-rate of {ours.name} ({len(ours.points)} points)"
    who += f" between {BD_RANGE[0]:g} and {BD_RANGE[1]:g} bpp"
    rows = []
    for other in others:
        cells = [other.name]
        for quality in QUALITIES:
            delta, digits = bd_rate(ours, other, quality), quality.digits
            over = None if delta is None else f"{delta.low:.{digits}f} to {delta.high:.{digits}f}"
            cells += ["-", "-"] if delta is None or over is None else [f"{delta.percent:+.1f} %", over]
        rows.append(cells)
    return f"{who}, negative where it needs fewer bits\n\n{table(head, rows)}"


def _means(dataset: str, rivals: Sequence[Curve]) -> str:
    rows = []
    for curve in rivals:
        for point in curve.points:
            similarity, ssimulacra2 = number(point.ms_ssim, ".4f"), number(point.ssimulacra2, ".1f")
            rows.append([curve.name, point.setting, f"{point.bpp:.3f}", f"{point.psnr:.2f}", similarity, ssimulacra2])
    head = ["codec", "setting", "bpp", "PSNR, dB", "MS-SSIM", "SSIMULACRA2"]
    return f"{dataset}\n\n{table(head, rows)}"


def number(value: float | None, spec: str) -> str:
    """Write a value as text, a dash for None.

    Args:
        value: a number.
        spec: of Python's `format`.
    """
    return "-" if value is None else f"{value:{spec}}"
