# SPDX-License-Identifier: Apache-2.0
"""Pillow images to the 8-bit arrays and metadata that the codec stores, and back. Knows no torch."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from vqcodec.errors import FormatError, ImageError
from vqcodec.format.chunks import MAX_METADATA
from vqcodec.format.container import MAX_PIXELS, MAX_SIDE
from vqcodec.timing import timed

IMAGE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for a file or an image that it cannot read, write or convert."""

_DIRECT = {"1": "L", "L": "L", "RGB": "RGB", "LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA",
           "P": "RGB", "PA": "RGBA", "RGBX": "RGB"}  # fmt: skip
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}
_CONVERTED = ("CMYK", "YCbCr", "HSV", "LAB")

# Signatures of ICC profiles, by the colour space of the device, that say nothing about RGB or grey pixels.
_FOREIGN_PROFILES = (b"CMYK", b"CMY ", b"Lab ", b"Luv ", b"XYZ ", b"YCbr", b"Yxy ", b"HSV ", b"HLS ")

# The tags of a TIFF directory that describe the picture; the others describe how that file stores it.
_PICTURE_TAGS = (270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 33432)
_PICTURE_GROUPS = (34665, 34853)  # the EXIF and GPS directories
_TIFF_XMP = 700

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

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    mode: str
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


@timed("input and output")
def from_pil(image: Image.Image) -> Picture:
    """Take a Pillow image apart.

    Modes with up to 8 bits are converted as Pillow does; CMYK, YCbCr, HSV, LAB and 16-bit grey with a warning. Of
    several frames the current one is taken, with a warning. The pixels are never turned: the orientation stays in
    EXIF. Raises `ImageError` where the image cannot be read, is too large, or has a mode that does not fit.
    """
    frames = load(image)  # some metadata stand after the pixels
    if frames > 1:
        warnings.warn(f"only one of {frames} frames is kept", stacklevel=2)
    converted = _convert(image)
    channels = np.asarray(converted)
    if converted.mode in ("L", "LA"):
        grey = channels.reshape(*channels.shape[:2], -1)[:, :, :1]
        pixels = np.repeat(grey, 3, axis=2)
    else:
        pixels = np.ascontiguousarray(channels[:, :, :3])
    alpha = np.ascontiguousarray(channels[:, :, -1]) if converted.mode.endswith("A") else None
    icc = _checked_profile(image, converted.mode)
    return Picture(pixels, alpha, converted.mode, icc, _exif(image), _xmp(image))


def load(image: Image.Image) -> int:
    """Read the pixels of an image, if that has not been done yet, and count its frames.

    Raises `ImageError` where it is too large, before its pixels are read, or cannot be read.
    """
    _check_size(image)
    try:
        frames = int(getattr(image, "n_frames", 1))
        image.load()
    except IMAGE_ERRORS as error:
        raise ImageError(f"the image cannot be read: {error}") from error
    return frames


@timed("input and output")
def to_pil(picture: Picture) -> Image.Image:
    """Put a Pillow image together, its metadata in `info` where Pillow's own plugins put them."""
    pixels = picture.pixels if picture.mode.startswith("RGB") else picture.pixels[:, :, :1]
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[:, :, None]], axis=2)
    image = Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))
    blocks = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp}
    image.info.update({name: block for name, block in blocks.items() if block is not None})
    return image


@timed("input and output")
def encode_alpha(alpha: NDArray[np.uint8]) -> bytes:
    """An alpha channel, uint8 [H, W], as a PNG file of mode L."""
    file = io.BytesIO()
    Image.fromarray(alpha).save(file, "PNG", optimize=True)
    return file.getvalue()


@timed("input and output")
def decode_alpha(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """The alpha channel, uint8 [height, width], that `encode_alpha` wrote.

    Raises `FormatError` if it is damaged or not of that size and mode; the size is compared before any pixel is read.
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
    options = asked | _metadata_options(image, format)
    try:
        image.save(target, format, **options)
    except (ValueError, KeyError, SyntaxError, struct.error, TypeError) as error:
        raise ImageError(f"cannot write the image as {format}: {error}") from error


def check_quality(format: str, quality: int | None) -> None:
    """Raise `ImageError` if a quality is asked for that the format, as Pillow names it, does not have."""
    if quality is not None and format.upper() not in _WITH_QUALITY:
        raise ImageError(f"{format} has no quality: {', '.join(_WITH_QUALITY)} have one")


def format_of(path: str | os.PathLike[str]) -> str:
    """The format, as Pillow names it, that the extension of a path stands for.

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
    if mode.startswith("I;16"):
        warnings.warn("16-bit grey is reduced to 8 bits", stacklevel=3)
        grey = np.asarray(image)
        reduced, clear = (grey >> 8).astype(np.uint8), image.info.get("transparency")
        if isinstance(clear, int):
            reduced = np.stack([reduced, np.where(grey == clear, 0, 255).astype(np.uint8)], axis=2)
        return Image.fromarray(reduced)
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


def _checked_profile(image: Image.Image, mode: str) -> bytes | None:
    """The ICC profile, unless it speaks of other channels than those that are stored."""
    profile = _block(image, "icc_profile", "ICC profile")
    if profile is None:
        return None
    space = profile[16:20]
    if image.mode in ("CMYK", "LAB") or space in _FOREIGN_PROFILES or (space == b"GRAY" and mode.startswith("RGB")):
        warnings.warn(f"the ICC profile does not fit {mode} and is dropped", stacklevel=3)
        return None
    return profile


def _exif(image: Image.Image) -> bytes | None:
    """The EXIF block, as it is where the image has one; made from the directory of a TIFF file."""
    try:
        if "exif" not in image.info and (image.format == "TIFF" or "Raw profile type exif" in image.info):
            collected = _picture_tags(image.getexif())
            return collected.tobytes() if len(collected) else None
        block = _block(image, "exif", "EXIF")
        if block is not None:
            Image.Exif().load(block)
        return block
    except IMAGE_ERRORS as error:
        warnings.warn(f"the EXIF block is broken and dropped: {error}", stacklevel=3)
        return None


def _picture_tags(source: Image.Exif) -> Image.Exif:
    """The part of an EXIF directory that describes the picture and not the file that it was in."""
    kept = Image.Exif()
    for tag in _PICTURE_TAGS:
        if tag in source:
            kept[tag] = source[tag]
    for tag in _PICTURE_GROUPS:
        if group := source.get_ifd(tag):
            kept[tag] = dict(group)
    return kept


def _xmp(image: Image.Image) -> bytes | None:
    """The XMP packet: bytes in `info` from most plugins, text from some."""
    return _block(image, "xmp", "XMP") or _block(image, "XML:com.adobe.xmp", "XMP")


def _block(image: Image.Image, key: str, name: str) -> bytes | None:
    """A metadata block of `info`; None where it is missing, empty or no block, with a warning where it is lost."""
    value = image.info.get(key)
    if isinstance(value, str):
        value = value.encode("utf-8")
    if not value:
        return None
    if not isinstance(value, bytes) or len(value) > MAX_METADATA:
        warnings.warn(f"the {name} block cannot be kept and is dropped", stacklevel=4)
        return None
    return value


def _metadata_options(image: Image.Image, format: str) -> dict[str, Any]:
    """The arguments of `Image.save` that pass the metadata on to a file of this format."""
    icc, exif, xmp = (_block(image, key, key) for key in ("icc_profile", "exif", "xmp"))
    options: dict[str, Any] = {}
    if icc:
        options["icc_profile"] = icc
    if format == "TIFF":
        source, tags = Image.Exif(), Image.Exif()
        source.load(exif or b"")
        tags.load(_picture_tags(source).tobytes())  # the plugin looks its groups up in the bytes
        if xmp:
            tags[_TIFF_XMP] = xmp
        return options | {"exif": tags}
    if exif:
        # A JPEG marker needs the prefix that other formats leave out; their plugins remove it.
        options["exif"] = exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif
    if xmp and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp:
        options["xmp"] = xmp
    return options
