# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises on purpose, and the one boundary that all errors pass on their way out.

Each says in one line what was wrong and, where something can be done, what to do. Mistakes of the
calling program (a wrong type, a negative size) stay `TypeError` and `ValueError`, files that cannot be read `OSError`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class VqcodecError(Exception):
    """Base of all errors of this package."""


class FormatError(VqcodecError):
    """The bytes are not a `.vq2` file, are damaged, or break a limit of the format."""


class ModelError(VqcodecError):
    """A model is not installed, cannot be read, or is not what its name says."""


class ImageError(VqcodecError):
    """The image cannot be encoded: unreadable, too large, or of a mode that does not fit."""


class ExactnessError(VqcodecError):
    """The device, or a global setting on it, does not compute the integer prior exactly."""


class OutOfMemoryError(VqcodecError, MemoryError):
    """The machine or the GPU has not enough memory for what was asked."""


class UnexpectedError(VqcodecError):
    """Something that nobody foresaw: a mistake in this package, or in one below it. `__cause__` is the error itself."""


class DamageWarning(UserWarning):
    """Part of a damaged file is lost, and the rest was decoded, as `best_effort` asks."""


_PASSED = (VqcodecError, OSError, TypeError, ValueError, ImportError, Warning)
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")  # of PyTorch


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is not enough memory: Python's, the system's, or PyTorch's, of any
    device."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def boundary() -> Iterator[None]:
    """Let nothing out but errors of this package, `OSError`, and `TypeError` and `ValueError` of the calling program.

    Every public entry stands inside; as a decorator, or around a block.

    Raises:
        OutOfMemoryError: in place of whatever says that there is not enough memory.
        UnexpectedError: in place of anything else.
    """
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of a library in Rust
        if isinstance(error, VqcodecError) or not (isinstance(error, Exception) or panic):
            raise
        if not isinstance(error, TypeError) and is_out_of_memory(error):
            raise OutOfMemoryError("out of memory: try a smaller image, a lower effort or fewer at once") from error
        if isinstance(error, _PASSED):
            raise
        raise UnexpectedError(f"unexpected {type(error).__name__}: {error}".replace("\n", " ")) from error
