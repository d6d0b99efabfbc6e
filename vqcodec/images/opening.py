# SPDX-License-Identifier: Apache-2.0
"""Images of any origin as Pillow images: paths, bytes, files, arrays; formats of plugins that are installed."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vqcodec.errors import ImageError
from vqcodec.format.container import MAGIC
from vqcodec.format.source import Source, contents
from vqcodec.images.errors import IMAGE_ERRORS

_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

ImageSource: TypeAlias = "Image.Image | np.ndarray[Any, Any] | Source"
"""What an image may be given as: a Pillow image, an array, or the bytes, the path or an open file of an image."""


def as_image(source: ImageSource) -> Image.Image:
    """Make a Pillow image of whatever can be one.

    Args:
        source: a Pillow image; an array, uint8 [height, width], or [height, width, channels] of 1 (grey), 2 (grey and
            alpha), 3 (RGB) or 4 (RGBA) channels; the path, the bytes or an open binary file of an image.

    Raises:
        ImageError: the bytes are no image, or the array is no picture.
        OSError: the file cannot be read.
        TypeError: it is anything else.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return _of_array(source)
    return open_bytes(contents(source, "an image: a Pillow image, a numpy array, a path, bytes or an open file"))


def open_bytes(data: bytes) -> Image.Image:
    """Open the image of a file's bytes, and read its header. Raises `ImageError` where there is none."""
    if data.startswith(MAGIC):
        raise ImageError("is a .vq2 file already: decode it first")
    try:
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            if not _register(data):
                raise
            return Image.open(io.BytesIO(data))
        if image.format == "PNG" and not ImageFile.LOAD_TRUNCATED_IMAGES:
            _check_sums(data)
        return image
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


def _check_sums(data: bytes) -> None:
    """Raise SyntaxError if a checksum of a PNG file is wrong; Pillow does not look at those of the pixels by itself."""
    with contextlib.suppress(OSError):  # a lost end is for `load` to judge
        Image.open(io.BytesIO(data)).verify()


def _of_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"an array must be uint8 with values 0 to 255, not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (2, 3, 4)) or not array.size:
        raise ImageError(f"an array of shape {array.shape} is no picture: [height, width, 1 to 4 channels] is one")
    return Image.fromarray(np.ascontiguousarray(array))


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
