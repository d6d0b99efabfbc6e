# SPDX-License-Identifier: Apache-2.0
"""Pillow images to the 8-bit arrays and metadata that the codec stores, and back. Knows no torch."""

from __future__ import annotations

import io
import os
import struct
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

from vqcodec.errors import FormatError, ImageError
from vqcodec.format.container import MAX_PIXELS, MAX_SIDE
from vqcodec.images import metadata, profiles
from vqcodec.images.errors import IMAGE_ERRORS
from vqcodec.images.types import Pixels
from vqcodec.timing import timed

_DIRECT = {"1": "L", "L": "L", "RGB": "RGB", "LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA",
           "P": "RGB", "PA": "RGBA", "RGBX": "RGB"}  # fmt: skip
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}
_CONVERTED = ("CMYK", "YCbCr", "HSV", "LAB")

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {"quality": 90}
}  # fmt: skip
_WITH_QUALITY = ("JPEG", "WEBP", "AVIF", "JXL", "HEIF")


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as the codec takes it.

    `pixels` is uint8 [H, W, 3], grey replicated to three channels; `alpha` is uint8 [H, W], None unless `mode`
    ends in A; `mode` is L, RGB, LA or RGBA. The metadata blocks are bytes as Pillow keeps them, or None.
    """

    pixels: Pixels
    alpha: Pixels | None
    mode: str
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


@timed("input and output")
def from_pil(image: Image.Image, strip: bool = False) -> Picture:
    """Take a Pillow image apart.

    Modes with up to 8 bits are converted as Pillow does; CMYK (by its profile, where it has one), YCbCr, HSV, LAB and
    16 bits a channel with a warning. gAMA and cHRM of PNG become an ICC profile. Of several frames the current one is
    taken, with a warning. The pixels are not turned: the orientation stays in EXIF.

    Args:
        image: any Pillow image.
        strip: leave out EXIF and XMP, and turn the pixels as they say.

    Raises:
        ImageError: the image cannot be read, is too large, or has a mode that does not fit.
    """
    frames = load(image)  # some metadata stand after the pixels
    if frames > 1:
        warnings.warn(f"only one of {frames} frames is kept", stacklevel=2)
    if strip:
        image = metadata.stripped(image)
    converted = _convert(image)
    channels = np.asarray(converted)
    if converted.mode in ("L", "LA"):
        grey = channels.reshape(*channels.shape[:2], -1)[:, :, :1]
        pixels = np.repeat(grey, 3, axis=2)
    else:
        pixels = np.ascontiguousarray(channels[:, :, :3])
    alpha = np.ascontiguousarray(channels[:, :, -1]) if converted.mode.endswith("A") else None
    icc = metadata.profile(image, converted.mode)
    return Picture(pixels, alpha, converted.mode, icc, metadata.exif(image), metadata.xmp(image))


def load(image: Image.Image) -> int:
    """Read the pixels of an image, if that has not been done yet, and count its frames.

    Raises `ImageError` where it is too large, before its pixels are read, or cannot be read.
    """
    _check_size(image)
    try:
        frames = int(getattr(image, "n_frames", 1))
        deep = _is_deep(image)
        image.load()
    except IMAGE_ERRORS as error:
        raise ImageError(f"the image cannot be read: {error}") from error
    if deep:
        warnings.warn("16 bits a channel are reduced to 8", stacklevel=3)
        clear = image.info.get("transparency")
        if isinstance(clear, tuple):  # a colour of 16 bits, as Pillow leaves it
            image.info["transparency"] = tuple(value >> 8 for value in clear)
    return frames


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits a channel, of which its mode keeps 8."""
    if image.mode.startswith(("I", "F")):
        return False
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    flat = [part for one in arguments for part in (one if isinstance(one, tuple) else (one,))]
    return any(";16" in part if isinstance(part, str) else isinstance(part, int) and part == 0xFFFF for part in flat)


@timed("input and output")
def to_pil(picture: Picture) -> Image.Image:
    """Put a Pillow image together, its metadata in `info` where Pillow's own plugins put them."""
    pixels = picture.pixels if picture.mode.startswith("RGB") else picture.pixels[:, :, :1]
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[:, :, None]], axis=2)
    image = Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))
    blocks = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp}
    image.info.update({name: block for name, block in blocks.items() if block is not None})
    if (dpi := metadata.dpi(picture.exif)) is not None:
        image.info["dpi"] = dpi
    return image


@timed("input and output")
def encode_alpha(alpha: Pixels) -> bytes:
    """Encode an alpha channel, uint8 [H, W], as a PNG file of mode L."""
    file = io.BytesIO()
    Image.fromarray(alpha).save(file, "PNG", optimize=True)
    return file.getvalue()


@timed("input and output")
def decode_alpha(data: bytes, width: int, height: int) -> Pixels:
    """Read the alpha channel that `encode_alpha` wrote.

    Args:
        data: a PNG file.
        width: in pixels.
        height: in pixels.

    Returns: uint8 [height, width].

    Raises: FormatError if it is damaged or not of that size and mode; the size is compared before any pixel is read.
    """
    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
            if image.size != (width, height) or image.mode != "L":
                raise FormatError(f"the alpha channel is {image.mode} {image.size}, not L {(width, height)}")
            image.load()
            return np.array(image)
    except IMAGE_ERRORS as error:
        raise FormatError(f"the alpha channel cannot be read: {error}") from error


def save(
    image: Image.Image,
    target: str | os.PathLike[str] | IO[bytes],
    format: str | None = None,
    quality: int | None = None,
) -> None:
    """Write an image with its metadata, as far as the format takes them.

    Args:
        image: what to write.
        target: path or file.
        format: a name of Pillow's; by default what the name of the file says.
        quality: 1 to 100, of JPEG (95 if None), AVIF (90), WebP (without loss) and JPEG XL.

    Raises `ImageError` if Pillow cannot write that, and `OSError` if the file cannot be written.
    """
    if format is None and isinstance(target, (str, os.PathLike)):
        format = format_of(target)
    if format is None:
        raise ImageError("no format is given for the image to be written")
    format = format.upper()
    check_quality(format, quality)
    asked = _SAVE_OPTIONS.get(format, {}) if quality is None else {"quality": quality}
    options = asked | metadata.save_options(image, format)
    try:
        image.save(target, format, **options)
    except (ValueError, KeyError, SyntaxError, struct.error, TypeError) as error:
        raise ImageError(f"cannot write the image as {format}: {error}") from error


def check_quality(format: str, quality: int | None) -> None:
    """Check that a format has the quality that is asked for.

    Args:
        format: as Pillow names it.
        quality: 1 to 100; None: none is asked for.

    Raises: ImageError if it has none.
    """
    if quality is not None and format.upper() not in _WITH_QUALITY:
        raise ImageError(f"{format} has no quality: {', '.join(_WITH_QUALITY)} have one")


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format, as Pillow names it, that the extension of a path stands for.

    Raises `ImageError` for an extension that Pillow does not write.
    """
    extension = os.path.splitext(os.fspath(path))[1].lower()
    format_name = Image.registered_extensions().get(extension)
    if format_name is None or format_name not in Image.SAVE:
        raise ImageError(f"no image format to write is known for the extension '{extension}'")
    return format_name


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageError(f"{width}x{height} pixels cannot be encoded: each side must be 1 to {MAX_SIDE}")
    limit = min(Image.MAX_IMAGE_PIXELS or MAX_PIXELS, MAX_PIXELS)
    if width * height > limit:
        raise ImageError(f"{width}x{height} is over the limit of {limit} pixels (see PIL.Image.MAX_IMAGE_PIXELS)")


def _convert(image: Image.Image) -> Image.Image:
    """The same image in mode L, RGB, LA or RGBA."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        warnings.warn("16-bit grey is reduced to 8 bits", stacklevel=3)
        grey = np.asarray(image)
        reduced, clear = (grey >> 8).astype(np.uint8), image.info.get("transparency")
        if isinstance(clear, int):
            reduced = np.stack([reduced, np.where(grey == clear, 0, 255).astype(np.uint8)], axis=2)
        return Image.fromarray(reduced)
    if mode == "CMYK" and isinstance(profile := image.info.get("icc_profile"), bytes):
        seen = profiles.cmyk_to_rgb(image, profile)
        if seen is not None:
            warnings.warn("CMYK is converted to sRGB by its profile", stacklevel=3)
            return seen
    if mode in _CONVERTED:
        warnings.warn(f"{mode} is converted to RGB", stacklevel=3)
        target = "RGB"
    elif mode in _DIRECT:
        target = _DIRECT[mode]
        if image.has_transparency_data:
            target = _WITH_ALPHA.get(target, target)
    else:
        raise ImageError(f"an image of mode {mode} cannot be encoded: convert it to RGB or L first")
    try:
        return image if target == mode else image.convert(target)
    except IMAGE_ERRORS as error:
        raise ImageError(f"an image of mode {mode} cannot be converted to {target}: {error}") from error
