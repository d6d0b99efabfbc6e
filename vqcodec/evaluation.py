# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion evaluation of the codec beside JPEG, WebP and AVIF, from the bytes of real files.

``evaluate`` turns images and codecs into rows, ``summarise`` rows into means, ``markdown`` means into the
tables of a report. Every codec gets the same 8-bit RGB pixels without metadata, and its quality is measured
on what its own decoder returns.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import PIL
from PIL import Image, features

from vqcodec import metrics

CurveReader = Callable[[Sequence[float], Sequence[float], float], float | None]  # rates, qualities, where

OURS = "vqcodec"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm")

# codec: Pillow's format, lowest quality, save options. Speed 6 is AVIF's default; one tile compresses best.
_AVIF = {"speed": 6, "autotiling": False}
_RIVALS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "JPEG": ("JPEG", 1, {"optimize": True, "progressive": True}),
    "WebP": ("WEBP", 0, {"method": 6}),
    "AVIF 4:2:0": ("AVIF", 0, {**_AVIF, "subsampling": "4:2:0"}),
    "AVIF 4:4:4": ("AVIF", 0, {**_AVIF, "subsampling": "4:4:4"}),
}
RIVAL_GRIDS: dict[str, tuple[int, ...]] = {
    "JPEG": (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "WebP": (0, 5, 15, 30, 45, 60, 75, 90),
    "AVIF 4:2:0": (10, 20, 30, 40, 50, 60, 70, 80),
    "AVIF 4:4:4": (10, 20, 30, 40, 50, 60, 70, 80),
}


class Codec(Protocol):
    """One point of a rate-distortion curve: a codec at one setting."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str: ...

    @property
    def cache_key(self) -> str | None:
        """All that the bytes depend on besides the pixels; None when results must not be cached."""

    def encode(self, image: Image.Image) -> bytes: ...

    def decode(self, data: bytes) -> Image.Image: ...


@dataclass(frozen=True)
class Rival:
    """A codec of Pillow's at one quality; ``name`` is a key of ``RIVAL_GRIDS``, ``quality`` up to 100.

    Raises:
        ValueError: unknown name, or quality out of range.
        OSError: this Pillow was built without the format.
    """

    name: str
    quality: int

    def __post_init__(self) -> None:
        if self.name not in _RIVALS:
            raise ValueError(f"unknown codec {self.name!r}: choose from {', '.join(_RIVALS)}")
        format_, lowest, _ = _RIVALS[self.name]
        if not lowest <= self.quality <= 100:
            raise ValueError(f"{self.name} takes qualities of {lowest} to 100, not {self.quality}")
        if not features.check({"JPEG": "jpg"}.get(format_, format_.lower())):
            raise OSError(f"this Pillow ({PIL.__version__}) cannot write {format_}; AVIF needs 11.3 or newer")

    @property
    def setting(self) -> str:
        return str(self.quality)

    @property
    def cache_key(self) -> str:
        format_, _, options = _RIVALS[self.name]
        return f"{format_} {self.quality} {json.dumps(options, sort_keys=True)} Pillow {PIL.__version__}"

    def encode(self, image: Image.Image) -> bytes:
        format_, _, options = _RIVALS[self.name]
        buffer = io.BytesIO()
        image.save(buffer, format_, quality=self.quality, **options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")


class Ours:
    """This package's codec with one model (a name or a path), loaded once; ``name`` is that of its curve."""

    cache_key = None

    def __init__(self, model: str, name: str = OURS) -> None:
        import vqcodec  # here, so that evaluating the rivals alone needs no torch

        self.name = name
        self.setting = Path(model).stem
        self._codec = vqcodec.load_model(model)

    def encode(self, image: Image.Image) -> bytes:
        return bytes(self._codec.encode(image))

    def decode(self, data: bytes) -> Image.Image:
        decoded: Image.Image = self._codec.decode(data)
        return decoded.convert("RGB")


@dataclass(frozen=True)
class Measurement:
    """One image through one codec: size in bytes, PSNR in dB, MS-SSIM (None below 161 pixels), seconds."""

    size: int
    psnr: float
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Row(Measurement):
    """A measurement with its image (sides in pixels), codec and rates."""

    dataset: str
    image: str
    codec: str
    setting: str
    width: int
    height: int
    bpp: float
    bits_per_dim: float


@dataclass(frozen=True)
class Point:
    """Means over the images of a dataset for one codec and setting.

    ``ms_ssim_db`` is the mean MS-SSIM in dB, not the mean of dB values; both are None if any image was too
    small for MS-SSIM. Seconds are per image, of one run each: for orientation, no benchmark.
    """

    dataset: str
    codec: str
    setting: str
    images: int
    bpp: float
    bits_per_dim: float
    psnr: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    encode_seconds: float
    decode_seconds: float


@dataclass
class Cache:
    """Measurements kept in a JSON file, by hash of the pixels and ``Codec.cache_key``; in memory without a path.

    Cached seconds are those of the run that filled the cache.
    """

    path: Path | None = None
    _entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            self._entries = json.loads(self.path.read_text(encoding="utf-8"))

    def measure(self, codec: Codec, image: Image.Image, pixels_hash: str) -> Measurement:
        if codec.cache_key is None:
            return measure(codec, image)
        key = f"{pixels_hash} {codec.cache_key}"
        if key not in self._entries:
            self._entries[key] = asdict(measure(codec, image))
        return Measurement(**self._entries[key])

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is not None:
            beside = self.path.with_name(self.path.name + ".tmp")
            beside.write_text(json.dumps(self._entries, indent=0), encoding="utf-8")
            os.replace(beside, self.path)


def rivals(grids: Mapping[str, Sequence[int]] = RIVAL_GRIDS) -> list[Codec]:
    """The rivals at every quality of ``grids``."""
    return [Rival(name, quality) for name, grid in grids.items() for quality in grid]


def load_rgb(path: Path) -> Image.Image:
    """Pixels of an image file as 8-bit RGB, without metadata that an encoder would copy into its file."""
    with Image.open(path) as image:
        return Image.fromarray(np.asarray(image.convert("RGB")))


def measure(codec: Codec, image: Image.Image) -> Measurement:
    """Encode and decode an RGB image once, in this process, and compare the pixels.

    Raises:
        ValueError: the decoded image has another size.
    """
    start = time.perf_counter()
    data = codec.encode(image)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    decoded.load()
    end = time.perf_counter()
    if decoded.size != image.size:
        raise ValueError(f"{codec.name} {codec.setting} turned {image.size} pixels into {decoded.size}")
    a, b = np.asarray(image), np.asarray(decoded)
    similarity = metrics.ms_ssim(a, b) if min(image.size) >= metrics.MS_SSIM_MIN_SIDE else None
    return Measurement(len(data), metrics.psnr(a, b), similarity, encoded - start, end - encoded)


def evaluate(
    folder: Path, codecs: Sequence[Codec], cache: Cache, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Measure every codec on every image of a folder, in order of file name; ``progress`` gets each name.

    Raises:
        FileNotFoundError: the folder holds no image.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"no images in {folder}")
    dataset = folder.resolve().name
    rows = []
    for path in paths:
        progress(path.name)
        image = load_rgb(path)
        pixels_hash = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        for codec in codecs:
            result = cache.measure(codec, image, pixels_hash)
            bpp = metrics.bits_per_pixel(result.size, *image.size)
            row = asdict(result) | {"width": image.width, "height": image.height, "bpp": bpp, "bits_per_dim": bpp / 3}
            row.update(dataset=dataset, image=path.name, codec=codec.name, setting=codec.setting)
            rows.append(Row(**row))
        cache.save()
    return rows


def summarise(rows: Iterable[Row]) -> list[Point]:
    """Means by dataset, codec and setting, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.codec, row.setting), []).append(row)
    points = []
    for key, group in groups.items():
        values = [row.ms_ssim for row in group if row.ms_ssim is not None]
        similarity = fmean(values) if len(values) == len(group) else None
        means: dict[str, Any] = {
            name: fmean(getattr(row, name) for row in group)
            for name in ("bpp", "bits_per_dim", "psnr", "encode_seconds", "decode_seconds")
        }
        decibels = None if similarity is None else metrics.ms_ssim_db(similarity)
        points.append(Point(*key, images=len(group), ms_ssim=similarity, ms_ssim_db=decibels, **means))
    return points


def curves(points: Iterable[Point], dataset: str) -> dict[str, list[Point]]:
    """Points of one dataset by codec, by rising rate."""
    by_codec: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: p.bpp):
        if point.dataset == dataset:
            by_codec.setdefault(point.codec, []).append(point)
    return by_codec


def largest_within(name: str, image: Image.Image, limit: int) -> tuple[Rival, bytes]:
    """The rival's file of the highest quality that has at most ``limit`` bytes.

    When even its lowest quality needs more, that file: the caller must compare its length with ``limit``.
    Found by bisection; as sizes are not quite monotone in the quality, the next few qualities are tried too.
    """

    files: dict[int, bytes] = {}

    def fits(quality: int) -> bool:
        files[quality] = Rival(name, quality).encode(image)
        return len(files[quality]) <= limit

    low, high = _RIVALS[name][1], 100
    if fits(low):
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        low = next((quality for quality in range(min(low + 4, 100), low + 1, -1) if fits(quality)), low)
    return Rival(name, low), files[low]


def markdown(points: Sequence[Point]) -> str:
    """Tables, one set a dataset: each of our points beside the rivals at its rate and at its quality.

    The rivals' figures are read off their curves of means (pchip, logarithm of the rate), never beyond
    their ends: a dash stands there. The columns "ours" say by how much our rate differs from the rival's at
    equal quality. With two models or more the BD-rate against each rival follows. Without a point of ours,
    the means themselves.
    """
    parts = []
    for dataset in dict.fromkeys(point.dataset for point in points):
        by_codec = curves(points, dataset)
        others = {name: by_codec[name] for name in RIVAL_GRIDS if name in by_codec}
        ours = [point for name, curve in by_codec.items() if name not in RIVAL_GRIDS for point in curve]
        parts += [_comparison(point, others) for point in ours]
        several = {name: curve for name, curve in by_codec.items() if name not in RIVAL_GRIDS and len(curve) > 1}
        parts += [_bd_rates(name, curve, others) for name, curve in several.items() if others]
        if not ours:
            parts.append(_means(dataset, by_codec))
    return "\n\n".join(parts)


def _comparison(point: Point, others: dict[str, list[Point]]) -> str:
    bpp, psnr, similarity = f"{point.bpp:.3f}", f"{point.psnr:.2f}", _number(point.ms_ssim, ".4f")
    lines = [
        f"{point.dataset}, {point.images} images: {point.codec} {point.setting} at {bpp} bpp\n",
        f"| codec | PSNR, dB | MS-SSIM | bpp for {psnr} dB | ours | bpp for MS-SSIM {similarity} | ours |",
        "|---|---|---|---|---|---|---|",
        f"| **{point.codec} {point.setting}** | {psnr} | {similarity} | {bpp} | | {bpp} | |",
    ]
    for name, curve in others.items():
        level = _read(metrics.quality_at_rate, curve, "psnr", point.bpp)
        decibels = _read(metrics.quality_at_rate, curve, "ms_ssim_db", point.bpp)
        cells = [name, _number(level, ".2f"), _number(None if decibels is None else 1 - 10 ** (-decibels / 10), ".4f")]
        for quality in ("psnr", "ms_ssim_db"):
            rate = _read(metrics.rate_at_quality, curve, quality, getattr(point, quality))
            change = None if rate is None else 100 * (point.bpp / rate - 1)
            cells += [_number(rate, ".3f"), _number(change, "+.1f", " %")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _bd_rates(name: str, ours: list[Point], others: dict[str, list[Point]]) -> str:
    lines = [
        f"{ours[0].dataset}: BD-rate of {name} ({len(ours)} models), negative where it needs fewer bits\n",
        "| against | PSNR | over, dB | MS-SSIM | over, dB |",
        "|---|---|---|---|---|",
    ]
    for rival, curve in others.items():
        cells = [rival]
        for quality in ("psnr", "ms_ssim_db"):
            anchor, test = _monotone(curve, quality), _monotone(ours, quality)
            try:
                result = metrics.bd_rate(*anchor, *test)
                cells += [f"{result.percent:+.1f} %", f"{result.low:.2f} to {result.high:.2f}"]
            except ValueError:  # no quality in common, or too few points
                cells += ["-", "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _means(dataset: str, by_codec: dict[str, list[Point]]) -> str:
    lines = [f"{dataset}\n", "| codec | setting | bpp | PSNR, dB | MS-SSIM |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {point.setting} | {point.bpp:.3f} | {point.psnr:.2f} | {_number(point.ms_ssim, '.4f')} |"
        for name, curve in by_codec.items()
        for point in curve
    ]
    return "\n".join(lines)


def _number(value: float | None, spec: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{spec}}{unit}"


def _monotone(curve: Sequence[Point], quality: str) -> tuple[list[float], list[float]]:
    """Rates and qualities of a curve, without points that cost more than another and are no better."""
    rates: list[float] = []
    values: list[float] = []
    for point in sorted(curve, key=lambda p: p.bpp):
        value = getattr(point, quality)
        if value is None or not math.isfinite(value):
            continue
        if not rates or (point.bpp > rates[-1] and value > values[-1]):
            rates.append(point.bpp)
            values.append(value)
    return rates, values


def _read(function: CurveReader, curve: Sequence[Point], quality: str, at: float | None) -> float | None:
    rates, values = _monotone(curve, quality)
    return None if at is None or len(rates) < 2 else function(rates, values, at)
