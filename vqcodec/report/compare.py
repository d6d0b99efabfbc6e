# SPDX-License-Identifier: Apache-2.0
"""A page for two files: the pictures beside each other, their measures, and where the bits of a .vq2 file go."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

import vqcodec
from vqcodec.codec import decode, load_identity
from vqcodec.errors import ImageError
from vqcodec.evaluation import metrics
from vqcodec.evaluation.equal_bytes import Shown
from vqcodec.evaluation.measuring import compare
from vqcodec.format import container
from vqcodec.images.opening import open_bytes
from vqcodec.report import page
from vqcodec.report.bits import BitsMap, bits_map
from vqcodec.report.pictures import Case, facts, lossless

_STRIDE = 8  # pixels, of the even map of a file without indices


def case(original: Path, other: Path) -> Case:
    """Gather what the page shows of two files, of which the second is measured against the first.

    Args:
        original: picture or .vq2 file.
        other: picture or .vq2 file of the same size.

    Raises:
        ImageError: one cannot be read, or they have different sizes.
        FormatError: a .vq2 file is damaged.
        ModelError: its model is not installed.
        OSError: one is not there.
    """
    data = [path.read_bytes() for path in (original, other)]
    first, second = (_picture(one) for one in data)
    if first.size != second.size:
        sides = " and ".join("x".join(map(str, image.size)) for image in (first, second))
        raise ImageError(f"the pictures have different sizes: {sides}")
    measured = compare(first, second, len(data[1]), other.name)
    shown = (Shown(original.name, "", first), Shown(other.name, f"{len(data[1])} bytes", second, measured))
    bits, streams = _bits(data[1], second.size)
    sources = tuple(lossless(image) for image in (first, second))
    return Case(other.name, tuple(map(facts, shown)), sources, *first.size, bits, streams)


def html(shown: Case) -> str:
    """Write the page of a case: one file that needs nothing else."""
    measured = shown.shown[1]
    names = " and ".join(escape(str(picture["name"])) for picture in shown.shown)
    parts = {
        "head": page.head(f"vqcodec: {names}"),
        "summary": f"vqcodec {escape(vqcodec.__version__)}. {names}: {measured['bpp']:.4f} bits per pixel.",
        "viewer": page.viewer([shown], "Beside each other", "The pictures are embedded without loss."),
        "scripts": page.file("viewer.js"),
        "metrics": escape(metrics.version()),
    }
    return page.fill(page.file("compare.html"), parts)


def _picture(data: bytes) -> Image.Image:
    image = decode(data) if data.startswith(container.MAGIC) else open_bytes(data)
    return image.convert("RGB")


def _bits(data: bytes, size: tuple[int, int]) -> tuple[BitsMap, int]:
    """Where the bits of a file go, and the bytes of its index streams; spread evenly where it has none."""
    if data.startswith(container.MAGIC):
        file = container.unpack(data)
        if not file.header.lossless:
            codec = load_identity(file.header.model)
            return bits_map(codec, codec.read_indices(file), file.header.rate), sum(map(len, file.streams))
    columns, rows = (-(-side // _STRIDE) for side in size)
    bits = 8.0 * len(data)
    return BitsMap(np.full((rows, columns), bits / (rows * columns)), _STRIDE, (bits,), (1.0,)), len(data)
