# SPDX-License-Identifier: Apache-2.0
"""Shards: a file for every chunk, named by what the chunk is.

A shard that no record of the manifest names is none: it is left of a run that was killed before it could say so, or
all its results are elsewhere by now. `clean` removes such, and writes anew those that hold some that have been done
again, so that no picture is there twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Protocol

from vqcodec.batch import storage
from vqcodec.batch.items import Record
from vqcodec.batch.manifest import Manifest
from vqcodec.batch.sinks.writing import Result

PREFIX = "vq2-"


class ShardSink(Protocol):
    """A folder of shards."""

    @property
    def folder(self) -> str:
        """Location of the destination."""

    @property
    def suffix(self) -> str:
        """Of the shards, with its dot."""

    @property
    def sharded(self) -> bool:
        """True."""

    def write(self, chunk: str, results: Sequence[Result]) -> None:
        """Write the results of a chunk.

        Args:
            chunk: name of the shard.
            results: of a chunk.
        """

    def without(self, data: bytes, kept: set[str]) -> bytes:
        """Make a shard with the results of some keys only.

        Args:
            data: a shard.
            kept: the keys.
        """


def name_of(chunk: str, suffix: str) -> str:
    """Name the shard of a chunk.

    Args:
        chunk: its name.
        suffix: of shards.
    """
    return f"{PREFIX}{chunk}{suffix}"


def put(sink: ShardSink, chunk: str, data: bytes, records: Sequence[Record]) -> None:
    """Write a shard, and say so in the records of what it holds.

    Args:
        sink: of the shard.
        chunk: its name.
        data: the bytes.
        records: of what it holds, are changed.

    Raises: OSError.
    """
    name = name_of(chunk, sink.suffix)
    storage.write(storage.join(sink.folder, name), data)
    for record in records:
        record.output, record.output_size, record.among = name, len(data), len(records)


def clean(sink: ShardSink, manifest: Manifest) -> None:
    """Make the shards of a folder those that the manifest says: see above.

    Args:
        sink: of the shards.
        manifest: of the folder.
    """
    ours = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}" + re.escape(sink.suffix))
    there = {name for name in storage.sizes(sink.folder) if ours.fullmatch(name)}
    counted = manifest.outputs()
    for name in there - set(counted):
        storage.remove(storage.join(sink.folder, name))
    stale = there & manifest.torn()
    if not stale:
        return
    records: dict[str, list[Record]] = {name: [] for name in stale}
    for record in manifest.records():
        if record.output in stale:
            records[record.output].append(record)
    for name, kept in records.items():
        location = storage.join(sink.folder, name)
        keys = {record.key for record in kept}
        digest = hashlib.sha256("\0".join([name, *sorted(keys)]).encode(errors="surrogatepass")).hexdigest()[:16]
        put(sink, digest, sink.without(storage.read(location), keys), kept)
        manifest.add(kept)
        manifest.flush()
        storage.remove(location)
