# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises on purpose.

Each says in one line what was wrong and, where something can be done, what to do. Mistakes of the
calling program (a wrong type, a negative size) stay `TypeError` and `ValueError`.
"""


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
