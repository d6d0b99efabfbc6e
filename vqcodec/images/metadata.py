# SPDX-License-Identifier: Apache-2.0
"""Metadata of Pillow images: ICC profile, EXIF, XMP and dots per inch, from what plugins make of them, and back."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from PIL import Image, ImageOps, PngImagePlugin

from vqcodec.format.chunks import MAX_METADATA
from vqcodec.images import profiles
from vqcodec.images.errors import IMAGE_ERRORS

# Signatures of ICC profiles, by the colour space of the device, that say nothing about RGB or grey pixels.
_FOREIGN_PROFILES = (b"CMYK", b"CMY ", b"Lab ", b"Luv ", b"XYZ ", b"YCbr", b"Yxy ", b"HSV ", b"HLS ")

# The tags of a TIFF directory that describe the picture; the others describe how that file stores it.
_PICTURE_TAGS = (270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 33432)
_PICTURE_GROUPS = (34665, 34853)  # the EXIF and GPS directories
_TIFF_XMP = 700
_RESOLUTION = (282, 283)  # along x and y, in units that the next tag names: 2 for an inch, 3 for a centimetre
_UNIT = 296
_COMMON_DPI = 72.0
"""What readers assume where nothing is said: not worth an EXIF block."""


def profile(image: Image.Image, mode: str) -> bytes | None:
    """Take the ICC profile of an image, unless it speaks of other channels than those that are stored.

    Args:
        image: of Pillow.
        mode: that is stored.
    """
    icc = _block(image, "icc_profile", "ICC profile")
    if icc is None:
        return profiles.of_png(image.info, mode.startswith("L")) if image.format == "PNG" else None
    space = icc[16:20]
    if image.mode == "CMYK" and space == b"CMYK":
        return None  # the pixels have been converted by it
    if image.mode in ("CMYK", "LAB") or space in _FOREIGN_PROFILES or (space == b"GRAY" and mode.startswith("RGB")):
        warnings.warn(f"the ICC profile does not fit {mode} and is dropped", stacklevel=3)
        return None
    return icc


def exif(image: Image.Image) -> bytes | None:
    """Return the EXIF block, as it is where the image has one; made from the directory of a TIFF file."""
    try:
        if "exif" not in image.info and (image.format == "TIFF" or "Raw profile type exif" in image.info):
            collected = _picture_tags(image.getexif())
            return collected.tobytes() if len(collected) else None
        block = _block(image, "exif", "EXIF")
        if block is not None:
            Image.Exif().load(block)
            return block
        return _exif_of_dpi(profiles.finite(image.info.get("dpi")))
    except IMAGE_ERRORS as error:
        warnings.warn(f"the EXIF block is broken and dropped: {error}", stacklevel=3)
        return None


def _exif_of_dpi(dpi: tuple[float, float] | None) -> bytes | None:
    """An EXIF block that says no more than the dots per inch; None where these are as usual."""
    if dpi is None or all(abs(value - _COMMON_DPI) < 0.1 for value in dpi):
        return None
    made = Image.Exif()
    for tag, value in zip(_RESOLUTION, dpi, strict=True):
        made[tag] = round(value, 2)
    made[_UNIT] = 2
    return made.tobytes()


def dpi(block: bytes | None) -> tuple[float, float] | None:
    """Dots per inch, across and down, that an EXIF block says; None where it does not."""
    if block is None:
        return None
    try:
        read = Image.Exif()
        read.load(block)
        unit = {2: 1.0, 3: 2.54}.get(read.get(_UNIT, 2))
        values = profiles.finite([read.get(tag) for tag in _RESOLUTION])
    except IMAGE_ERRORS:
        return None
    return None if unit is None or values is None else (values[0] * unit, values[1] * unit)


def stripped(image: Image.Image) -> Image.Image:
    """Return the same image, turned as its EXIF block says, without that block, XMP and dots per inch. The ICC profile
    stays: colours are nothing without it."""
    turned = image
    with contextlib.suppress(*IMAGE_ERRORS):  # a broken block says nothing
        turned = ImageOps.exif_transpose(image)
    turned = image.copy() if turned is image else turned
    kept = ("icc_profile", "transparency", "gamma", "chromaticity", "srgb")
    turned.info = {key: value for key, value in image.info.items() if key in kept}
    turned.format = image.format if image.format in ("PNG", "PPM") else None  # TIFF has its EXIF elsewhere
    return turned


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


def xmp(image: Image.Image) -> bytes | None:
    """Return the XMP packet: bytes in `info` from most plugins, text from some."""
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


def save_options(image: Image.Image, format: str) -> dict[str, Any]:
    """Make the arguments of `Image.save` that pass the metadata on.

    Args:
        image: of Pillow.
        format: as Pillow names it.
    """
    icc, exif, xmp = (_block(image, key, key) for key in ("icc_profile", "exif", "xmp"))
    options: dict[str, Any] = {}
    if icc:
        options["icc_profile"] = icc
    resolution = profiles.finite(image.info.get("dpi"))
    if resolution is not None and format in ("PNG", "JPEG", "BMP"):
        options["dpi"] = resolution
    if format == "TIFF":
        return options | {"exif": _tiff_tags(exif, xmp)}
    if exif:
        # A JPEG marker needs the prefix that other formats leave out; their plugins remove it.
        options["exif"] = exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif
    if xmp and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp:
        options["xmp"] = xmp
    return options


def _tiff_tags(exif: bytes | None, xmp: bytes | None) -> Image.Exif:
    """What a TIFF file gets as tags; nothing of a broken EXIF block, with a warning."""
    source, tags = Image.Exif(), Image.Exif()
    try:
        source.load(exif or b"")
        tags.load(_picture_tags(source).tobytes())  # the plugin looks its groups up in the bytes
    except IMAGE_ERRORS as error:
        warnings.warn(f"the EXIF block is broken and not written: {error}", stacklevel=5)
        tags = Image.Exif()
    if xmp:
        tags[_TIFF_XMP] = xmp
    return tags
