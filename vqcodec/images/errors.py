# SPDX-License-Identifier: Apache-2.0
"""What Pillow raises for a file or an image that it cannot read, write or convert."""

import struct
import zlib

from PIL import Image

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
