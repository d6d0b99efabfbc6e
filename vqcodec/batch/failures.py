# SPDX-License-Identifier: Apache-2.0
"""Kinds of failures. Those of a picture itself stay; the others may pass, so that a second run tries again."""

from __future__ import annotations

from vqcodec.batch.items import Record
from vqcodec.errors import FormatError, ImageError, ModelError, is_out_of_memory
from vqcodec.images import files

LASTING = frozenset(["image", "file", "no indices"])
"""Kinds that a second run does not try again by itself: the picture, or the file, is to blame."""

CRASH = "crash"
"""The kind of what took its worker down, twice, once on its own."""


class NoIndices(FormatError):
    """A `.vq2` file that holds its picture without loss."""


def kind_of(error: BaseException) -> str:
    """Return the kind of an error: image, file, no indices, model, input or output, memory, unexpected."""
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (NoIndices, "no indices"),
        (ImageError, "image"),
        (FormatError, "file"),
        (ModelError, "model"),
        (OSError, "input or output"),
    )
    if is_out_of_memory(error):
        return "memory"
    return next((kind for type_, kind in kinds if isinstance(error, type_)), "unexpected")


def fail(record: Record, error: BaseException) -> None:
    """Record that an item failed, and why; take back what was recorded of a result.

    Args:
        record: of the item, is changed.
        error: why it failed.
    """
    record.failure, record.error = kind_of(error), files.describe(error)
    record.output, record.output_size, record.among, record.sha256 = "", 0, 0, ""
