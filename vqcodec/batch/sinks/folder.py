# SPDX-License-Identifier: Apache-2.0
"""A folder that mirrors the collection: a file a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqcodec.batch import storage
from vqcodec.batch.failures import fail
from vqcodec.batch.sinks.writing import FATAL, Result


@dataclass(frozen=True)
class FolderSink:
    """A folder. folder: its location."""

    folder: str
    sharded = False

    def write(self, chunk: str, results: Sequence[Result]) -> None:
        """Write every result under its name. A name that the file system does not take fails its item only.

        Args:
            chunk: not used: every picture is a file.
            results: of a chunk.
        """
        for record, data, output in results:
            if data is None:
                continue
            try:
                storage.write(storage.join(self.folder, output), data)
            except OSError as error:
                if error.errno in FATAL:
                    raise
                fail(record, error)
            else:
                record.output, record.output_size = output, len(data)
