# SPDX-License-Identifier: Apache-2.0
"""The bytes of a file, however it is given. Knows neither torch nor numpy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, TypeAlias

Source: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]"
"""What a file may be given as: its bytes, its path (a str is one, too), or an open file in binary mode."""


def is_source(value: Any) -> bool:
    """Return whether something is a `Source`, and not several of them."""
    return isinstance(value, (bytes, bytearray, memoryview, str, os.PathLike)) or hasattr(value, "read")


def contents(source: Source, wanted: str = "a .vq2 file: its bytes, its path or an open file") -> bytes:
    """Read the bytes of a file.

    Args:
        source: see `Source`; an open file is read from where it is to its end.
        wanted: for the message of an error.

    Raises:
        OSError: it cannot be read.
        TypeError: it is none of these.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    read = getattr(source, "read", None)
    data = read() if callable(read) else None
    if isinstance(data, str):
        raise TypeError("the file is open as text: open it in binary mode, 'rb'")
    if not isinstance(data, bytes):
        raise TypeError(f"this must be {wanted}, not {type(source).__name__}")
    return data
