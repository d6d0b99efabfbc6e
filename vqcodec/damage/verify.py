# SPDX-License-Identifier: Apache-2.0
"""Whether a file can be decoded, to the last index."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqcodec.errors import boundary
from vqcodec.format import container
from vqcodec.format.source import Source, contents
from vqcodec.model.info import info
from vqcodec.model.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from vqcodec.format.info import FileInfo


@boundary()
def verify(source: Source, *, device: str = "auto", limits: Limits = DEFAULT_LIMITS) -> FileInfo:
    """Check all that can be checked of a file: checksums, metadata, every index, the alpha channel, and the picture of
    a lossless file. Only the pixels of a model are not made: they follow from the indices.

    Args:
        source: a .vq2 file: its path, its bytes, or an open binary file.
        device: auto (a GPU if there is one), cpu or cuda.
        limits: what it may cost.

    Returns: what `vqcodec.info` says of it, with `deep` set.

    Raises:
        FormatError: it is no undamaged `.vq2` file.
        ModelError: its model is not installed.
        ImageError: it would cost more than the limits.
        OSError: it cannot be read.
    """
    data = contents(source)
    measured = info(data)
    file = container.unpack(data)
    limits.check_pixels(file.header.width, file.header.height)
    from vqcodec.images import imaging, whole

    if file.lossless is not None:
        whole.decode(file.lossless, file.header)
    else:
        from vqcodec import codec

        if file.alpha is not None:
            imaging.decode_alpha(file.alpha, file.header.width, file.header.height)
        codec.load_identity(file.header.model, device).read_indices(file, limits)
    return replace(measured, deep=True)
