# SPDX-License-Identifier: Apache-2.0
"""Pictures of a folder and of all folders below it, those in shards too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from vqcodec.batch import storage
from vqcodec.batch.items import Item
from vqcodec.batch.sources.shards import ShardSource, is_wanted


@dataclass(frozen=True)
class FolderSource:
    """A tree of folders.

    Args:
        folder: its location.
        suffixes: of the files that are taken.
        pattern: of names below the folder, in place of the suffixes; empty for none.
        shards: tar and Parquet files in the folder itself, whose pictures come last.
        column: of Parquet files.
    """

    folder: str
    suffixes: tuple[str, ...]
    pattern: str = ""
    shards: tuple[str, ...] = ()
    column: str = ""

    def items(self) -> Iterator[Item]:
        """Yield the files, folder by folder; then the pictures of the shards."""
        start = len(self.folder.rstrip("/")) + 1
        for entries in storage.walk(self.folder):
            for location, size, stamp in entries:
                key = location[start:].replace(os.sep, "/")
                if is_wanted(key, self.suffixes, self.pattern) or (size < 0 and not PurePosixPath(key).suffix):
                    yield Item(key or ".", location, size, stamp)
        yield from ShardSource(self.shards, self.suffixes, self.pattern, self.column, True).items()
