# SPDX-License-Identifier: Apache-2.0
"""What all sinks have in common."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from vqcodec.batch.items import Record

FATAL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
"""Errors of writing that no other result would escape."""


class Result(NamedTuple):
    """What became of an item, and the bytes to write, if there are any. output: the name that was planned for them."""

    record: Record
    data: bytes | None
    output: str


class Sink(Protocol):
    """A destination. Sinks are cheap to send to another process."""

    @property
    def folder(self) -> str:
        """Location of the destination."""

    @property
    def sharded(self) -> bool:
        """Whether the results of a chunk are one file."""

    def write(self, chunk: str, results: Sequence[Result]) -> None:
        """Write the results of a chunk, each whole or not at all, and say in the records where they are.

        Args:
            chunk: its name.
            results: in order.

        Raises OSError on what no other result would escape.
        """
