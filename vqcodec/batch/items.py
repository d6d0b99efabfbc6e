# SPDX-License-Identifier: Apache-2.0
"""What jobs are about: pictures of a collection, those that one worker does at a time, and what became of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple


class Item(NamedTuple):
    """A picture, or a file, of a collection.

    Args:
        key: its name in the collection, with slashes.
        location: path or URL of the file that it is, or is in.
        size: bytes; -1 of what cannot be read, 0 where nobody has counted.
        stamp: changes with the contents.
        start: of a tar file: where its bytes begin; of a Parquet file: its row in the group. -1: it is the file.
        group: of a Parquet file: its row group.
    """

    key: str
    location: str
    size: int
    stamp: str
    start: int = -1
    group: int = -1


class Planned(NamedTuple):
    """An item that is to be done. output: the name of its result, with slashes, where every item has a file."""

    item: Item
    output: str


class Chunk(NamedTuple):
    """Items that one worker does, one after the other; the contents of one shard where results are shards."""

    planned: tuple[Planned, ...]

    @property
    def name(self) -> str:
        """Sixteen digits that depend on what the items are: of the same shard in every run."""
        digest = hashlib.sha256()
        for item, _ in self.planned:
            digest.update(f"{item.key}\0{item.size}\0{item.stamp}\0".encode(errors="surrogatepass"))
        return digest.hexdigest()[:16]


@dataclass
class Record:
    """What became of an item: a line of the manifest.

    Args:
        key, size, stamp: of the item.
        job: what was asked, as sixteen digits.
        output: name of the file that holds the result, below the destination; empty if there is none.
        output_size: bytes of that file.
        among: of a shard, how many items it holds; 0 where the result is a file.
        sha256: of the result.
        width, height: of the picture, in pixels.
        coded: bytes of the `.vq2` file, or of the indices.
        bpp: bits per pixel of that.
        quality: that was asked for, None where another thing was.
        seconds: of work, reading and writing included.
        failure: its kind, empty if all went well.
        error: one line.
        warnings: one line each.
        stages: of indices, how many stages of each level are used, coarsest level first.
    """

    key: str
    size: int
    stamp: str
    job: str
    output: str = ""
    output_size: int = 0
    among: int = 0
    sha256: str = ""
    width: int = 0
    height: int = 0
    coded: int = 0
    bpp: float = 0.0
    quality: float | None = None
    seconds: float = 0.0
    failure: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()

    @classmethod
    def of(cls, item: Item, job: str) -> Record:
        """Make the record of an item, nothing done yet.

        Args:
            item: that it is about.
            job: what was asked.
        """
        return cls(item.key, item.size, item.stamp, job)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, without what says nothing."""
        needed = ("key", "size", "stamp", "job")
        return {name: value for name, value in asdict(self).items() if name in needed or value not in ("", 0, (), None)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """Make a record of what `to_dict` gave; unknown names are left out. Raises TypeError if one that it needs is
        missing."""
        known = {field.name for field in fields(cls)}
        record = cls(**{name: value for name, value in values.items() if name in known})
        record.warnings, record.stages = tuple(record.warnings), tuple(record.stages)
        return record


def chunks(planned: Iterable[Planned], number: int, limit: int) -> Iterator[Chunk]:
    """Cut what is to be done into chunks.

    Args:
        planned: in order.
        number: of items in a chunk, at most.
        limit: bytes of their files together, at most, but for a chunk of one.
    """
    waiting: list[Planned] = []
    size = 0
    for one in planned:
        more = max(0, one.item.size)
        if waiting and (len(waiting) >= number or size + more > limit):
            yield Chunk(tuple(waiting))
            waiting, size = [], 0
        waiting.append(one)
        size += more
    if waiting:
        yield Chunk(tuple(waiting))


def halves(chunk: Chunk) -> list[Chunk]:
    """Return a chunk of at least two items in two, the second half first."""
    middle = len(chunk.planned) // 2
    return [Chunk(chunk.planned[middle:]), Chunk(chunk.planned[:middle])]
