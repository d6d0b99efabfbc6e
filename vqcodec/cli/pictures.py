# SPDX-License-Identifier: Apache-2.0
"""Images of the command line: opened from bytes, written as bytes. Pillow is imported on first use."""

from __future__ import annotations

import io
from typing import Any

from vqcodec.errors import ImageError


def open_image(data: bytes) -> Any:
    """A Pillow image whose header has been read."""
    from PIL import Image, UnidentifiedImageError

    from vqcodec.images.imaging import IMAGE_ERRORS

    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError("not an image of a known format") from error
    except IMAGE_ERRORS as error:
        raise ImageError(f"the image cannot be read: {error}") from error


def load(image: Any) -> None:
    """Read the pixels of an image. Raises ImageError if they cannot be read."""
    from vqcodec.images import imaging

    imaging.load(image)


def image_format(target: str, wanted: str | None) -> str:
    from vqcodec.images.imaging import format_of

    if wanted is not None:
        return wanted
    return "png" if target == "-" else format_of(target)


def image_bytes(image: Any, format: str) -> bytes:
    from vqcodec.images.imaging import save

    file = io.BytesIO()
    save(image, file, format)
    return file.getvalue()
