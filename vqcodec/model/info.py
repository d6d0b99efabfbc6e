# SPDX-License-Identifier: Apache-2.0
"""What a `.vq2` file holds, with the name of its model where that is installed. Knows neither torch nor numpy."""

from __future__ import annotations

from vqcodec.errors import ModelError, boundary
from vqcodec.format.info import FileInfo, measured
from vqcodec.format.source import Source, contents
from vqcodec.model import registry


@boundary()
def info(source: Source) -> FileInfo:
    """Describe a file without decoding it; every checksum is checked. Needs no PyTorch.

    Args:
        source: a .vq2 file: its path, its bytes (bytes, bytearray, memoryview), or an open binary file.

    Returns: size, mode, model and where the bytes went, see `FileInfo`.

    Raises:
        FormatError: it is no undamaged `.vq2` file.
        OSError: it cannot be read.
        TypeError: it is nothing of the kind.
    """
    return measured(contents(source), _model_name)


def _model_name(identity: bytes) -> str | None:
    try:
        return registry.find_identity(identity).name
    except ModelError:
        return None
