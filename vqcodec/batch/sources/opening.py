# SPDX-License-Identifier: Apache-2.0
"""What a SOURCE means: a folder, a pattern, a list, shards."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Protocol

from vqcodec.batch import storage
from vqcodec.batch.items import Item
from vqcodec.batch.sources.folder import FolderSource
from vqcodec.batch.sources.listed import ListSource
from vqcodec.batch.sources.shards import SHARDS, ShardSource
from vqcodec.errors import VqcodecError

LISTS = (".txt", ".lst", ".list")


class SourceError(VqcodecError):
    """A SOURCE that means nothing."""


class Source(Protocol):
    """A collection. Sources are cheap to send to another process, and list nothing before they are asked."""

    def items(self) -> Iterator[Item]:
        """Yield the items, each with a key of its own, in an order that does not change."""


def source(
    named: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    suffixes: Collection[str],
    pattern: str = "",
    column: str = "",
) -> Source:
    """Make the source that a user named.

    Args:
        named: a folder, a file with a path or URL on every line (.txt, .lst), a tar or Parquet file, a pattern of such
            names, or several paths.
        suffixes: of the files that are taken of folders and tar files, in small letters with their dots.
        pattern: of names, which those taken of folders and tar files must match, as `**/*.jpg`; the suffixes are then
            not asked.
        column: of Parquet files, that holds the pictures; by default one that is called so.

    Raises SourceError where there is nothing of that name.
    """
    if not isinstance(named, (str, os.PathLike)):
        return ListSource(tuple(os.fspath(path) for path in named))
    text = os.fspath(named)
    location = storage.absolute(text)
    suffix = PurePosixPath(location).suffix.lower()
    if storage.is_folder(location):
        shards = storage.matching(_escaped(location) + "/*.tar") + storage.matching(_escaped(location) + "/*.parquet")
        return FolderSource(location, tuple(sorted(suffixes)), pattern, tuple(shards), column)
    if storage.size_of(location) is not None:
        if suffix in SHARDS:
            return ShardSource((location,), tuple(sorted(suffixes)), pattern, column)
        if suffix in LISTS:
            return ListSource((), location)
        return ListSource((location,))
    if any(letter in location for letter in "*?["):
        matching = storage.matching(location)
        if matching and all(PurePosixPath(name).suffix.lower() in SHARDS for name in matching):
            return ShardSource(tuple(matching), tuple(sorted(suffixes)), pattern, column)
        base = location[: min(location.index(letter) for letter in "*?[" if letter in location)].rsplit("/", 1)[0]
        kept = [name for name in matching if not storage.is_folder(name)]
        if kept:
            return ListSource(tuple(kept), base=base)
    raise SourceError(f"there is no folder, file or pattern of files {text}")


def _escaped(location: str) -> str:
    """A location as a pattern that stands for itself."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in location)
