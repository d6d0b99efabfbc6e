# SPDX-License-Identifier: Apache-2.0
"""Images and codecs into rows, rows into means; results are kept, so that a run can go on where it was broken off.

A rate is that of the whole file. Quality is measured on what the codec's own decoder returns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from vqcodec.evaluation import metrics
from vqcodec.evaluation.rivals import Setting
from vqcodec.evaluation.workers import Workers
from vqcodec.images.listing import images_of


@dataclass(frozen=True)
class Measurement:
    """One image through one codec: size in bytes, PSNR in dB, MS-SSIM, SSIMULACRA2.

    Args:
        ms_ssim: None for an image below 161 pixels.
        ssimulacra2: None below 8, or without its package.
    """

    size: int
    psnr: float
    ms_ssim: float | None
    ssimulacra2: float | None


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

    `ms_ssim_db` is the mean MS-SSIM in dB, not the mean of dB values. A quality is None if that of any image is.
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
    ssimulacra2: float | None


class Cache:
    """Measurements kept in a file of JSON lines, each written as soon as it is known; in memory without a path.

    A key names the pixels, the codec with its version and setting, and the version of the metrics.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Reads the file if there is one; a last line that was broken off is taken away. Raises ValueError if it holds
        anything else."""
        self.path = path
        self._known: dict[str, Measurement] = {}
        if path is None or not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        whole, newline, rest = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            key, result = _entry(line, f"{path}, line {number}")
            self._known[key] = result
        if rest:
            path.write_text(whole + newline, encoding="utf-8")

    @staticmethod
    def key(pixels_hash: str, codec: Setting) -> str | None:
        """Name a result.

        Args:
            pixels_hash: of the image.
            codec: at its setting.

        Returns: None where results of the codec must not be kept.
        """
        made_by = codec.cache_key
        return None if made_by is None else f"{pixels_hash} {made_by} metrics {metrics.version()}"

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str | None) -> Measurement | None:
        return None if key is None else self._known.get(key)

    def add(self, key: str | None, result: Measurement) -> None:
        """Keep a result, here and in the file.

        Args:
            key: from `key`; None keeps nothing.
            result: what was measured.
        """
        if key is None:
            return
        self._known[key] = result
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, **asdict(result)}) + "\n")


def _entry(line: str, where: str) -> tuple[str, Measurement]:
    try:
        entry = json.loads(line)
        return entry.pop("key"), Measurement(**entry)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{where}: no result of a measurement; start a new file") from error


def load_rgb(path: Path) -> Image.Image:
    """Load the pixels of an image file as 8-bit RGB, without metadata that an encoder would copy into its file."""
    with Image.open(path) as image:
        return Image.fromarray(np.asarray(image.convert("RGB")))


def measure(codec: Setting, image: Image.Image) -> Measurement:
    """Encode and decode an image, and compare the pixels.

    Args:
        codec: at one setting.
        image: RGB.

    Raises ValueError if the decoded image is of another size.
    """
    data = codec.encode(image)
    return compare(image, codec.decode(data), len(data), f"{codec.name} {codec.setting}")


def compare(image: Image.Image, decoded: Image.Image, size: int, name: str) -> Measurement:
    """Compute all metrics of a decoded RGB image.

    Args:
        image: the original.
        decoded: what became of it.
        size: of its file, bytes.
        name: of the codec, for the error.

    Raises: ValueError if the sides differ.
    """
    if decoded.size != image.size:
        raise ValueError(f"{name} turned {image.size} pixels into {decoded.size}")
    a, b = np.asarray(image), np.asarray(decoded)
    short = min(image.size)
    return Measurement(
        size,
        metrics.psnr(a, b),
        metrics.ms_ssim(a, b) if short >= metrics.MS_SSIM_MIN_SIDE else None,
        metrics.ssimulacra2(a, b) if short >= metrics.SSIMULACRA2_MIN_SIDE and metrics.has_ssimulacra2() else None,
    )


def measure_file(codec: Setting, path: Path) -> Measurement:
    """As `measure` for the image of a file: a task of `Workers`.

    Args:
        codec: at its setting.
        path: of the image.
    """
    return measure(codec, load_rgb(path))


def evaluate(
    folder: Path,
    codecs: Sequence[Setting],
    cache: Cache,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Measure every codec on every image of a folder, in order of file name and then of `codecs`.

    Args:
        folder: of images.
        codecs: at their settings.
        cache: of results that are known.
        workers: to compute with; None: this process.
        progress: gets how many measurements are done and how many there are, cached ones included.

    Raises: FileNotFoundError if the folder holds no image, ValueError as `measure`.
    """
    paths, dataset = images_of(folder), folder.resolve().name
    sizes, keys = [], []
    for path in paths:
        image = load_rgb(path)
        sizes.append(image.size)
        pixels_hash = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        keys += [Cache.key(pixels_hash, codec) for codec in codecs]
    pairs = [(codec, path) for path in paths for codec in codecs]
    results = [cache.get(key) for key in keys]
    missing = [number for number, result in enumerate(results) if result is None]
    done = len(pairs) - len(missing)
    progress(done, len(pairs))
    for number, result in (workers or Workers()).run(measure_file, [pairs[i] for i in missing]):
        results[missing[number]] = result
        cache.add(keys[missing[number]], result)
        done += 1
        progress(done, len(pairs))
    return [
        _row(result, dataset, path.name, codec, sizes[number // len(codecs)])
        for number, ((codec, path), result) in enumerate(zip(pairs, results, strict=True))
        if result is not None
    ]


def _row(result: Measurement, dataset: str, image: str, codec: Setting, size: tuple[int, int]) -> Row:
    bpp = metrics.bits_per_pixel(result.size, *size)
    return Row(
        **asdict(result),
        dataset=dataset,
        image=image,
        codec=codec.name,
        setting=codec.setting,
        width=size[0],
        height=size[1],
        bpp=bpp,
        bits_per_dim=bpp / 3,
    )


def smoothest(rows: Sequence[Row], fraction: float) -> list[Row]:
    """Rows of the smoothest images, the ones whose JPEG files are smallest.

    Args:
        rows: of any datasets, with JPEG among the codecs.
        fraction: of each dataset's images, above 0, at most 1; one image at least.

    Returns: their rows, under the dataset's name with the number of images.

    Raises:
        ValueError: a dataset has no rows of JPEG.
    """
    chosen = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        sizes: dict[str, int] = {}
        for row in rows:
            if row.dataset == dataset and row.codec == "JPEG":
                sizes[row.image] = sizes.get(row.image, 0) + row.size
        if not sizes:
            raise ValueError(f"the smoothest images of {dataset} are those with the smallest JPEG files: measure JPEG")
        smooth = sorted(sizes, key=lambda image: sizes[image])[: max(1, round(fraction * len(sizes)))]
        name = f"{dataset}, smoothest {len(smooth)}"
        chosen += [replace(row, dataset=name) for row in rows if row.dataset == dataset and row.image in smooth]
    return chosen


def summarise(rows: Sequence[Row]) -> list[Point]:
    """Means over images for every dataset, codec and setting, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.codec, row.setting), []).append(row)
    return [_point(group) for group in groups.values()]


def _point(group: Sequence[Row]) -> Point:
    similarity, ssimulacra2 = (_mean([getattr(row, name) for row in group]) for name in ("ms_ssim", "ssimulacra2"))
    first, bpp = group[0], fmean(row.bpp for row in group)
    return Point(
        first.dataset,
        first.codec,
        first.setting,
        images=len(group),
        bpp=bpp,
        bits_per_dim=bpp / 3,
        psnr=fmean(row.psnr for row in group),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else metrics.ms_ssim_db(similarity),
        ssimulacra2=ssimulacra2,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
