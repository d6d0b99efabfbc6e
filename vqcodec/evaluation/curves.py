# SPDX-License-Identifier: Apache-2.0
"""Curves of means: whose they are, how they compare, and curves that others have published."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from vqcodec.evaluation import metrics
from vqcodec.evaluation.measuring import Point
from vqcodec.evaluation.rivals import FORMATS

Kind = Literal["ours", "rival", "published"]
CurveReader = Callable[[Sequence[float], Sequence[float], float], float | None]  # rates, qualities, where


class Quality(NamedTuple):
    """A measure of quality over which curves are drawn and compared: its field of `Point`, name, unit, digits."""

    field: str
    name: str
    unit: str
    digits: int

    @property
    def label(self) -> str:
        return f"{self.name}, {self.unit}" if self.unit else self.name


QUALITIES = (
    Quality("psnr", "PSNR", "dB", 2),
    Quality("ms_ssim_db", "MS-SSIM", "dB", 2),
    Quality("ssimulacra2", "SSIMULACRA2", "", 1),
)


BD_RANGE = (0.06, 1.0)  # bits per pixel that BD-rates speak of: beyond them photographs are hardly ever stored


@dataclass(frozen=True)
class Curve:
    """Points of one codec on one dataset, by rising rate."""

    name: str
    kind: Kind
    points: tuple[Point, ...]

    def values(self, quality: Quality) -> list[tuple[Point, float]]:
        """Return the points that have a finite value of this quality, with it."""
        pairs = [(point, getattr(point, quality.field)) for point in self.points]
        return [(point, value) for point, value in pairs if value is not None and math.isfinite(value)]

    def monotone(self, quality: Quality) -> tuple[list[float], list[float]]:
        """Rates and qualities, without points that cost more than another and are no better."""
        rates: list[float] = []
        values: list[float] = []
        for point, value in self.values(quality):
            if not rates or (point.bpp > rates[-1] and value > values[-1]):
                rates.append(point.bpp)
                values.append(value)
        return rates, values

    def read(self, reader: CurveReader, quality: Quality, at: float | None) -> float | None:
        """Interpolate the curve.

        Args:
            reader: `metrics.rate_at_quality` or `metrics.quality_at_rate`.
            quality: the metric.
            at: quality or bits per pixel to read at.

        Returns: None beyond the ends of the curve.
        """
        rates, values = self.monotone(quality)
        return None if at is None or len(rates) < 2 else reader(rates, values, at)


@dataclass(frozen=True)
class EqualQuality:
    """What a rival needs for the quality of one of our points: bits per pixel, and by how many per cent our rate
    differs from that (negative: we need fewer bits)."""

    rate: float
    percent: float


def curves(points: Sequence[Point], dataset: str) -> list[Curve]:
    """Make the curves of one dataset: ours first, then the rivals in the order of `FORMATS`.

    Args:
        points: of all datasets.
        dataset: its name.
    """
    by_codec: dict[str, list[Point]] = {}
    for point in points:
        if point.dataset == dataset:
            by_codec.setdefault(point.codec, []).append(point)
    names = [name for name in by_codec if name not in FORMATS] + [name for name in FORMATS if name in by_codec]
    return [
        Curve(name, "rival" if name in FORMATS else "ours", tuple(sorted(by_codec[name], key=lambda p: p.bpp)))
        for name in names
    ]


def datasets(points: Sequence[Point]) -> list[str]:
    """Names of the datasets, in order of appearance."""
    return list(dict.fromkeys(point.dataset for point in points))


def at_equal_quality(point: Point, rival: Curve, quality: Quality) -> EqualQuality | None:
    """Compare one of our points with a rival's curve.

    Args:
        point: of ours.
        rival: the curve.
        quality: the metric that is to be equal.

    Returns: None where the curve does not reach the point's quality.
    """
    rate = rival.read(metrics.rate_at_quality, quality, getattr(point, quality.field))
    return None if rate is None else EqualQuality(rate, 100 * (point.bpp / rate - 1))


def bd_rate(ours: Curve, rival: Curve, quality: Quality) -> metrics.BDRate | None:
    """Compute the BD-rate of our curve against a rival's, of what both have between the rates of BD_RANGE.

    Args:
        ours: our curve.
        rival: the other one.
        quality: the metric.

    Returns: None where they have no quality in common or one is a single point.
    """
    try:
        return metrics.bd_rate(*_within(*rival.monotone(quality)), *_within(*ours.monotone(quality)))
    except ValueError:
        return None


def _within(rates: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """The part of a curve between the rates of BD_RANGE, with its ends interpolated."""
    ends = [(rate, metrics.quality_at_rate(rates, values, rate)) for rate in BD_RANGE]
    inner = [point for point in zip(rates, values, strict=True) if BD_RANGE[0] < point[0] < BD_RANGE[1]]
    points = sorted([*inner, *((rate, value) for rate, value in ends if value is not None)])
    return [rate for rate, _ in points], [value for _, value in points]


def read_published(path: Path, dataset: str, wanted: Sequence[str] = ()) -> list[Curve]:
    """Read published curves from a CSV file.

    Its columns are codec, bpp, and where known psnr_rgb or psnr, ms_ssim (from 0 to 1), ssimulacra2, opt_metric (what a
    learned codec was trained for) and source.

    Where several sources give a curve, the first is taken.

    Args:
        path: of the file.
        dataset: that the curves are of.
        wanted: names of codecs, or "NAME METRIC" for one of a codec that is there by several metrics; all by default.

    Raises: ValueError if a wanted one is not there or the file is not such a table.
    """
    groups: dict[tuple[str, str], dict[str, list[Point]]] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for number, line in enumerate(csv.DictReader(stream), 2):
            point = _published_point(line, dataset, f"{path}, line {number}")
            sources = groups.setdefault((point.codec, line.get("opt_metric") or "n/a"), {})
            sources.setdefault(line.get("source") or "", []).append(point)
    published = []
    for (codec, metric), sources in groups.items():
        name = codec if metric == "n/a" else f"{codec} {metric}"
        if not wanted or codec in wanted or name in wanted:
            points = sorted(next(iter(sources.values())), key=lambda p: p.bpp)
            published.append(Curve(name, "published", tuple(points)))
    lost = [name for name in wanted if not any(c.name == name or c.name.startswith(f"{name} ") for c in published)]
    if lost:
        known = ", ".join(sorted({codec for codec, _ in groups}))
        raise ValueError(f"{path} has no curve of {', '.join(lost)}: choose from {known}")
    return published


def _published_point(line: dict[str, str], dataset: str, where: str) -> Point:
    try:
        bpp, psnr = float(line["bpp"]), float(line.get("psnr_rgb") or line.get("psnr") or "nan")
        similarity, ssimulacra2 = (float(line[name]) if line.get(name) else None for name in ("ms_ssim", "ssimulacra2"))
        decibels = None if similarity is None else metrics.ms_ssim_db(similarity)
        return Point(dataset, line["codec"], "", 0, bpp, bpp / 3, psnr, similarity, decibels, ssimulacra2)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: no point of a published curve ({error!r})") from error
