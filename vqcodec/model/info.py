# SPDX-License-Identifier: Apache-2.0
"""What a `.vq2` file holds, with the name of its model where that is installed. Knows neither torch nor numpy."""

from __future__ import annotations

import os
from pathlib import Path

from vqcodec.errors import ModelError
from vqcodec.format.info import FileInfo, measured
from vqcodec.model import registry


def info(source: bytes | str | os.PathLike[str]) -> FileInfo:
    """Describe a file, given as its bytes or its path; every checksum is checked.

    Raises `FormatError` if it is no undamaged `.vq2` file, and `OSError` if it cannot be read.
    """
    return measured(source if isinstance(source, bytes) else Path(source).read_bytes(), _model_name)


def _model_name(identity: bytes) -> str | None:
    try:
        return registry.find_identity(identity).name
    except ModelError:
        return None
