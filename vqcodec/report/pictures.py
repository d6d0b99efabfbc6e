# SPDX-License-Identifier: Apache-2.0
"""What the page's viewer shows of an image: the pictures at equal bytes and the map of the bits, as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqcodec.evaluation import metrics
from vqcodec.evaluation.equal_bytes import GROUPS, Shown, compare_image
from vqcodec.evaluation.measuring import load_rgb
from vqcodec.evaluation.rivals import FORMATS, Ours
from vqcodec.format import container
from vqcodec.report.bits import BitsMap, bits_map

# Dark to bright with rising lightness, so that it can be read without colour as well.
HEAT = ("#0b0a24", "#3b1065", "#7d1d6f", "#bb3754", "#e8612f", "#f9a11f", "#fbe67a", "#fcfdd0")
_WEBP_EFFORT = 4


@dataclass(frozen=True)
class Case:
    """One image of the viewer, its sides in pixels.

    Args:
        shown: names and figures of the pictures.
        sources: the pictures as lossless WebP.
        bits: where our bits go.
        stream_bytes: of the index streams in our file.
    """

    image: str
    shown: tuple[dict[str, Any], ...]
    sources: tuple[bytes, ...]
    width: int
    height: int
    bits: BitsMap
    stream_bytes: int


def case(path: Path, ours: Ours, groups: Sequence[Sequence[str]] = GROUPS) -> Case:
    """Gather everything about the image of a file: a task of `Workers`.

    Args:
        path: of the image.
        ours: our codec at a setting.
        groups: rivals to compare with.
    """
    from vqcodec.codec import load_model

    image = load_rgb(path)
    comparison = compare_image(path.name, image, ours, groups)
    codec = load_model(ours.model, ours.device)
    file = container.unpack(comparison.data)
    bits = bits_map(codec, codec.read_indices(file), file.header.rate)
    shown, sources = zip(*((facts(s), lossless(s.image)) for s in comparison.shown), strict=True)
    return Case(path.name, shown, sources, *image.size, bits, sum(map(len, file.streams)))


def facts(shown: Shown) -> dict[str, Any]:
    """Names and figures of a picture, for the page."""
    known: dict[str, Any] = {"name": shown.name, "setting": shown.setting, "fits": shown.fits}
    if shown.name in FORMATS:
        known["setting"] = f"quality {shown.setting}"
    if shown.result is None:
        known["setting"] = f"{shown.image.width} × {shown.image.height} pixels"
    else:
        bpp = metrics.bits_per_pixel(shown.result.size, *shown.image.size)
        result = shown.result
        known |= {"bytes": result.size, "bpp": bpp, "psnr": result.psnr if np.isfinite(result.psnr) else None}
        known |= {"ms_ssim": result.ms_ssim, "ssimulacra2": result.ssimulacra2}
    return known


def lossless(image: Image.Image) -> bytes:
    """Make the bytes of a WebP file with exactly these pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=_WEBP_EFFORT)
    return buffer.getvalue()


def as_json(shown: Case, peak: float) -> dict[str, Any]:
    """Turn a case into the viewer's data.

    Args:
        shown: the case.
        peak: bits per pixel at the bright end of the map's colours.
    """
    data: dict[str, Any] = {"image": shown.image, "width": shown.width, "height": shown.height}
    data["pictures"] = [
        facts | {"src": uri(source, "image/webp")} for facts, source in zip(shown.shown, shown.sources, strict=True)
    ]
    rows, columns = shown.bits.bits.shape
    data["bits"] = {
        "src": uri(heat_png(shown.bits.per_pixel, peak), "image/png"),
        "width": columns * shown.bits.stride,
        "height": rows * shown.bits.stride,
        "levels": [round(bits, 1) for bits in shown.bits.levels],
        "stages": [round(number, 2) for number in shown.bits.stages],
        "streamBytes": shown.stream_bytes,
        "most": float(shown.bits.per_pixel.max()),
    }
    return data


def heat_png(density: NDArray[np.float64], peak: float) -> bytes:
    """Paint a map in the colours of `HEAT`, one pixel a value.

    Args:
        density: float64 [H, W].
        peak: value of the last colour, which greater ones have too.

    Returns: a PNG file.
    """
    levels = np.clip(np.rint(density * (255 / peak)), 0, 255).astype(np.uint8)
    image = Image.fromarray(levels, "L")
    image.putpalette(_palette())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _palette() -> bytes:
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in HEAT])
    at = np.linspace(0, len(HEAT) - 1, 256)
    channels = [np.interp(at, np.arange(len(HEAT)), anchors[:, i]) for i in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8).tobytes()


def peak_of(cases: Sequence[Case]) -> float:
    """Choose one bright end for all maps, so that they can be compared: bits per pixel that 0.5 % of all places
    exceed."""
    values = np.concatenate([shown.bits.per_pixel.ravel() for shown in cases])
    return max(1e-6, float(np.quantile(values, 0.995)))


def uri(data: bytes, media: str) -> str:
    """Write data as an address that needs no network.

    Args:
        data: the bytes.
        media: their type.
    """
    return f"data:{media};base64,{base64.b64encode(data).decode()}"
