# SPDX-License-Identifier: Apache-2.0
"""Whole pictures without loss, for what a model does badly: screenshots, drawings, flat colours. Knows no torch.

A picture is stored as the bitstream of a lossless WebP file (VP8L, RFC 9649, section 3), without the 20 bytes around
it, or as a PNG file, whichever is smaller.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image, PngImagePlugin, features

from vqcodec.errors import FormatError, ImageError
from vqcodec.format.container import Container, Header, pack
from vqcodec.images.errors import IMAGE_ERRORS
from vqcodec.images.imaging import Picture, to_pil
from vqcodec.images.types import Pixels
from vqcodec.timing import timed

VP8L_SIDE = 16383
"""Largest width and height that VP8L can have, in pixels."""

_FRAME = 20  # bytes of a WebP file before its bitstream
_SIGNATURE = b"\x2f"
_SAMPLES = 4  # a side, of the parts of a large picture that an estimate looks at
_SAMPLE = 256  # pixels, the side of each


def file(picture: Picture) -> bytes:
    """Make the `.vq2` file that holds a picture without loss, with its metadata."""
    height, width = picture.pixels.shape[:2]
    header = Header(width, height, picture.mode, b"", lossless=True)
    return pack(Container(header, (), None, picture.icc, picture.exif, picture.xmp, encode(picture)))


def image(file: Container) -> Image.Image:
    """Decode the picture of a lossless file, with its metadata. Raises what `decode` does."""
    assert file.lossless is not None
    picture = decode(file.lossless, file.header)
    return to_pil(replace(picture, icc=file.icc, exif=file.exif, xmp=file.xmp))


@timed("input and output")
def encode(picture: Picture) -> bytes:
    """Make the payload of the chunk of a lossless file."""
    coded = [_png(picture)]
    if max(picture.pixels.shape[:2]) <= VP8L_SIDE and features.check("webp"):
        coded.append(_vp8l(picture, 80, 4))
    return min(filter(None, coded), key=len)


@timed("input and output")
def decode(payload: bytes, header: Header) -> Picture:
    """Read the pixels and the alpha channel that `encode` stored, as a picture without metadata.

    Args:
        payload: of the chunk.
        header: of the file.

    Raises: FormatError if the payload is damaged or not of the size and mode of the header, which are compared before
        any pixel is read, and ImageError if it is WebP and this Pillow has none.
    """
    size, mode = (header.width, header.height), header.mode
    try:
        opened = _opened_vp8l(payload, size) if payload.startswith(_SIGNATURE) else _opened_png(payload, size, mode)
        with opened:
            opened.load()
            alpha = np.asarray(opened.convert("RGBA"))[:, :, 3] if header.has_alpha else None
            return Picture(np.asarray(opened.convert("RGB")), alpha, mode)
    except IMAGE_ERRORS as error:
        raise FormatError(f"the picture cannot be read: {error}") from error


def estimate(picture: Picture) -> float:
    """About how many bytes `encode` would give, in a twentieth of its time; 10 to 20 % more for a photograph, up to
    three times as much for a screenshot. Of a picture above a megapixel it looks at parts."""
    parts = sample(picture)
    size = len(_vp8l(parts, 50, 0) if features.check("webp") else _png(parts))
    return size * picture.pixels.size / parts.pixels.size


def dims(picture: Picture) -> int:
    """Count the samples of a picture that are stored: a grey one in RGB has one a pixel, as one of mode L."""
    height, width = picture.pixels.shape[:2]
    first = picture.pixels[:, :, :1]
    grey = picture.mode.startswith("L") or bool((picture.pixels == first).all())
    return height * width * ((1 if grey else 3) + (picture.alpha is not None))


def sample(picture: Picture) -> Picture:
    """Put evenly spaced parts of a picture above a megapixel together; a smaller one is its sample itself."""
    height, width = picture.pixels.shape[:2]
    side = _SAMPLES * _SAMPLE
    if width * height <= side * side:
        return picture
    rows, columns = (_starts(length) for length in (height, width))
    pixels, alpha = (
        None if plane is None else np.concatenate([_row(plane, top, columns) for top in rows])
        for plane in (picture.pixels, picture.alpha)
    )
    assert pixels is not None
    return Picture(pixels, alpha, picture.mode)


def _starts(length: int) -> list[int]:
    """Where the samples begin along a side, evenly spaced."""
    last = max(0, length - _SAMPLE)
    return sorted({last * i // (_SAMPLES - 1) for i in range(_SAMPLES)})


def _row(plane: Pixels, top: int, columns: list[int]) -> Pixels:
    return np.concatenate([plane[top : top + _SAMPLE, left : left + _SAMPLE] for left in columns], axis=1)


def _image(picture: Picture, mode: str) -> Image.Image:
    """As a Pillow image of that mode, without metadata."""
    planes = picture.pixels if mode.startswith("RGB") else picture.pixels[:, :, :1]
    if mode.endswith("A") and picture.alpha is not None:
        planes = np.concatenate([planes, picture.alpha[:, :, None]], axis=2)
    return Image.fromarray(np.ascontiguousarray(planes.squeeze(2) if planes.shape[2] == 1 else planes))


def _png(picture: Picture) -> bytes:
    file = io.BytesIO()
    _image(picture, picture.mode).save(file, "PNG", optimize=True)
    return file.getvalue()


def _vp8l(picture: Picture, quality: int, method: int) -> bytes:
    """The bitstream of a lossless WebP file; nothing if the library wrote another kind of file."""
    file = io.BytesIO()
    image = _image(picture, "RGB" if picture.alpha is None else "RGBA")
    image.save(file, "WEBP", lossless=True, quality=quality, method=method, exact=True)
    data = file.getvalue()
    size = int.from_bytes(data[16:20], "little")
    simple = data[8:16] == b"WEBPVP8L" and len(data) == _FRAME + size + size % 2
    return data[_FRAME : _FRAME + size] if simple else b""


def _opened_png(payload: bytes, size: tuple[int, int], mode: str) -> Image.Image:
    image = PngImagePlugin.PngImageFile(io.BytesIO(payload))
    if image.size != size or image.mode != mode:
        raise FormatError(f"the picture is {image.mode} {image.size}, not {mode} {size}")
    return image


def _opened_vp8l(payload: bytes, size: tuple[int, int]) -> Image.Image:
    """Put the frame back; the library allocates as soon as it is opened, so the size is compared before."""
    bits = int.from_bytes(payload[1:5], "little")
    claimed = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(payload) < 5 or claimed != size:
        raise FormatError(f"the picture is {claimed}, not {size}")
    if not features.check("webp"):
        raise ImageError("the picture is stored as WebP, which this Pillow cannot read")
    from PIL import WebPImagePlugin

    body = b"WEBPVP8L" + len(payload).to_bytes(4, "little") + payload + bytes(len(payload) % 2)
    return WebPImagePlugin.WebPImageFile(io.BytesIO(b"RIFF" + len(body).to_bytes(4, "little") + body))
