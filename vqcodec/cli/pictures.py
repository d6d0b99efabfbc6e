# SPDX-License-Identifier: Apache-2.0
"""Images of the command line: opened from bytes, written as bytes. Pillow is imported on first use."""

from __future__ import annotations

import io
from typing import Any


def open_image(data: bytes) -> Any:
    """A Pillow image whose header has been read. Raises ImageError."""
    from vqcodec.images.opening import open_bytes

    return open_bytes(data)


def load(image: Any) -> None:
    """Read the pixels of an image. Raises ImageError if they cannot be read."""
    from vqcodec.images import imaging

    imaging.load(image)


def image_format(target: str, wanted: str | None, quality: int | None = None) -> str:
    """The format of a result, by what was asked for or its name. Raises ImageError if it cannot be written so."""
    from vqcodec.images import imaging, opening

    named = f"x.{wanted}" if wanted is not None else "x.png" if target == "-" else target
    opening.register_for(named)
    format = imaging.format_of(named)
    imaging.check_quality(format, quality)
    return format


def image_bytes(image: Any, format: str, quality: int | None = None) -> bytes:
    """The file of an image. quality: 1 to 100, of formats that have one; None: see `imaging.save`."""
    from vqcodec.images.imaging import save

    file = io.BytesIO()
    save(image, file, format, quality)
    return file.getvalue()
