# SPDX-License-Identifier: Apache-2.0
"""Image files as Pillow images, also of formats whose plugins are installed."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vqcodec.errors import ImageError
from vqcodec.format.container import MAGIC
from vqcodec.images.imaging import IMAGE_ERRORS

_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def open_bytes(data: bytes) -> Image.Image:
    """The image of a file's bytes, its header read. Raises `ImageError` where there is none."""
    if data.startswith(MAGIC):
        raise ImageError("is a .vq2 file already: decode it first")
    try:
        try:
            return Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            if not _register(data):
                raise
            return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError("not an image of a known format" if data else "the file is empty") from error
    except IMAGE_ERRORS as error:
        raise ImageError(f"the image cannot be read: {error}") from error


def register_for(path: str) -> bool:
    """Load the plugin that writes files of this extension; whether there is one for it. Raises `ImageError` if it is
    not installed."""
    suffix = Path(path).suffix.lower()
    if suffix == ".jxl":
        _load("JPEG XL", "pillow-jxl-plugin", _jxl)
    elif suffix in (".heic", ".heif"):
        _load("HEIF", "pillow-heif", _heif)
    else:
        return False
    return True


def _register(data: bytes) -> bool:
    """Load the plugin that reads such a file; whether there is one for it."""
    if data.startswith(_JXL):
        _load("JPEG XL", "pillow-jxl-plugin", _jxl)
    elif data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        _load("HEIF", "pillow-heif", _heif)
    else:
        return False
    return True


def _load(format: str, package: str, register: Callable[[], None]) -> None:
    try:
        register()
    except ImportError as error:
        raise ImageError(f"{format} needs a plugin: pip install {package}") from error


def _jxl() -> None:
    importlib.import_module("pillow_jxl")


def _heif() -> None:
    importlib.import_module("pillow_heif").register_heif_opener()
