# SPDX-License-Identifier: Apache-2.0
"""Files of other formats as image-rs tests them, written by Pillow, and what is left of them after an accident."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, features

FAULTS = 5


def picture(mode: str, width: int = 21, height: int = 13) -> Image.Image:
    """Ramps in a mode."""
    y, x = np.mgrid[:height, :width]
    image = Image.fromarray(np.stack([x * 12, y * 19, (x + y) * 7], 2).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((x * 3000 + y).astype(np.uint16))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray((x * 12).astype(np.uint8)))
    return image.convert(mode)


def written(mode: str, format: str, size: tuple[int, int] = (21, 13), **options: Any) -> bytes:
    """A file."""
    file = io.BytesIO()
    picture(mode, *size).save(file, format, **options)
    return file.getvalue()


def valid() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of valid files."""
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            for quality in (10, 75, 95):
                name = f"jpg/{mode.lower()}-{'progressive' if progressive else 'baseline'}-{quality}.jpg"
                yield name, written(mode, "JPEG", progressive=progressive, quality=quality)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        name = f"jpg/{sampling.replace(':', '')}.jpg"
        yield name, written("RGB", "JPEG", subsampling=sampling, restart_marker_rows=1)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        for side in (1, 2, 3, 8, 33):
            yield f"bmp/{mode.lower()}-{side}.bmp", written(mode, "BMP", (side, 5))
    for mode in ("1", "L", "P"):
        for laced in (0, 1):
            yield f"gif/{mode.lower()}-{laced}.gif", written(mode, "GIF", interlace=laced)
    yield "gif/transparent.gif", written("P", "GIF", transparency=3)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            name = f"tiff/{mode.lower().replace(';', '')}-{compression}.tiff"
            yield name, written(mode, "TIFF", compression=compression)
    for compression in ("group3", "group4"):
        yield f"tiff/1-{compression}.tiff", written("1", "TIFF", compression=compression)
    yield "tiff/jpeg.tiff", written("RGB", "TIFF", compression="jpeg")
    for mode in ("1", "L", "RGB", "I;16"):
        yield f"pnm/{mode.lower().replace(';', '')}.pnm", written(mode, "PPM")
    yield "pnm/ascii.ppm", b"P3\n# a comment\n2 1\n255\n1 2 3 250 251 252\n"
    yield "pnm/16.ppm", b"P6 1 1 65535\n" + bytes(range(6))
    for mode in ("L", "LA", "P", "RGB", "RGBA"):
        for rle in (None, "tga_rle"):
            yield f"tga/{mode.lower()}-{rle or 'raw'}.tga", written(mode, "TGA", compression=rle)
    yield "ico/one.ico", written("RGBA", "ICO", (16, 16))
    yield "dds/rgba.dds", written("RGBA", "DDS")
    yield "sgi/rgb.sgi", written("RGB", "SGI")
    yield "pcx/rgb.pcx", written("RGB", "PCX")
    if features.check("webp"):
        for mode in ("L", "RGB", "RGBA"):
            for lossless in (False, True):
                name = f"webp/{mode.lower()}-{'lossless' if lossless else 'lossy'}.webp"
                yield name, written(mode, "WEBP", lossless=lossless)
    if features.check("avif"):
        for mode in ("RGB", "RGBA"):
            yield f"avif/{mode.lower()}.avif", written(mode, "AVIF", speed=10)
    if features.check("jpg_2000"):
        for mode in ("L", "RGB", "RGBA"):
            yield f"jp2/{mode.lower()}.jp2", written(mode, "JPEG2000")
    for format in ("PNG", "GIF", "TIFF", *(["WEBP"] if features.check("webp") else [])):
        frames = [picture("RGB").rotate(90 * i) for i in range(1, 3)]
        yield f"animated/{format.lower()}", written("RGB", format, save_all=True, append_images=frames)


def damaged() -> Iterator[tuple[str, bytes]]:
    """Files after an accident: cut, with zeros or noise in them. Some readers make something even of these."""
    random = np.random.default_rng(0)
    chosen = ("jpg/rgb-baseline-75.jpg", "bmp/rgb-33.bmp", "gif/p-0.gif", "tiff/rgb-raw.tiff", "tiff/rgb-tiff_lzw.tiff",
              "webp/rgb-lossy.webp", "avif/rgb.avif", "jp2/rgb.jp2", "tga/rgb-raw.tga", "pnm/rgb.pnm")  # fmt: skip
    known = dict(valid())
    for name in chosen:
        data = known.get(name, b"")
        yield f"{name}.head", data[:12]
        yield f"{name}.half", data[: len(data) // 2]
        yield f"{name}.tail", data[: max(0, len(data) - 9)]
        yield f"{name}.zeros", data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * len(data) // 3 :]
        noise = random.integers(0, 256, max(1, len(data) // 4), dtype=np.uint8).tobytes()
        yield f"{name}.noise", data[: len(data) // 2] + noise


def refused() -> Iterator[tuple[str, bytes]]:
    """What is no image at all."""
    yield "nothing", b""
    yield "text.png", b"This is no picture.\n" * 9
    yield "page.jpg", b"<!doctype html><title>404</title>"
    yield "zeros", bytes(1000)
    yield "large.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0"
