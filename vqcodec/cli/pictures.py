# SPDX-License-Identifier: Apache-2.0
"""Images of the command line: opened from bytes, written as bytes. Pillow is imported on first use."""

from __future__ import annotations

import io
from typing import Any


def open_image(data: bytes) -> Any:
    """Open an image, and read its header. Raises ImageError."""
    from vqcodec.images.opening import open_bytes

    return open_bytes(data)


def load(image: Any) -> None:
    """Read the pixels of an image. Raises ImageError if they cannot be read."""
    from vqcodec.images import imaging

    imaging.load(image)


def image_format(target: str, wanted: str | None, quality: int | None = None) -> str:
    """Choose the format of a result.

    Args:
        target: name of the file, or `-`.
        wanted: format that was asked for; None: by the name.
        quality: that was asked for.

    Raises: ImageError if it cannot be written so.
    """
    from vqcodec.images import imaging, opening

    named = f"x.{wanted}" if wanted is not None else "x.png" if target == "-" else target
    opening.register_for(named)
    format = imaging.format_of(named)
    imaging.check_quality(format, quality)
    return format


def image_bytes(image: Any, format: str, quality: int | None = None) -> bytes:
    """Write an image to the bytes of a file.

    Args:
        image: of Pillow.
        format: of Pillow.
        quality: 1 to 100, of formats that have one; None: see `imaging.save`.
    """
    from vqcodec.images.imaging import save

    file = io.BytesIO()
    save(image, file, format, quality)
    return file.getvalue()
