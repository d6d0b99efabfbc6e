# SPDX-License-Identifier: Apache-2.0
"""The manifest of a job: a line of JSON for all that was done, in the destination, so that a second run goes on.

A local manifest is one file, `vqcodec-manifest.jsonl`, to which lines are appended, and which is locked meanwhile.
Object stores cannot append: there, every run writes files of its own, `vqcodec-manifest-TIME-NUMBER.jsonl`. Of several
lines on one key the last one counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vqcodec.batch import storage
from vqcodec.batch.items import Item, Record
from vqcodec.errors import VqcodecError

PREFIX = "vqcodec-manifest"
NAME = f"{PREFIX}.jsonl"
_HEAD = {"vqcodec manifest": 1}
_SYNC_SECONDS = 5.0
_PART_RECORDS = 500
_PART_SECONDS = 15.0


class Known(NamedTuple):
    """What is remembered of an item, a few hundred bytes: what it was and what was asked, and the file of its result.

    among: how many items that file holds, 0 if it is theirs alone. failure: its kind, empty if all went well.
    """

    identity: bytes
    output: str
    output_size: int
    among: int
    failure: str


class Manifest:
    """The manifest of a destination, read, and open to be added to.

    stale: files of results which have been done again, into other files.
    """

    def __init__(self, folder: str) -> None:
        """Open the manifest of a folder, which is made. Raises VqcodecError if another job is at work there."""
        self._folder = folder
        self._known: dict[bytes, Known] = {}
        self.stale: set[str] = set()
        self._file = -1
        self._waiting: list[str] = []
        self._since = time.monotonic()
        self._part = 0
        if storage.is_url(folder):
            names = sorted(name for name in storage.sizes(folder) if name.startswith(PREFIX))
            self.fresh = not names
            runs = [int(digits) for name in names if (digits := name.removeprefix(f"{PREFIX}-")[:20]).isdigit()]
            self._run = max([time.time_ns(), *(run + 1 for run in runs)])
            for name in names:
                self._read(storage.read(storage.join(folder, name)).splitlines())
        else:
            os.makedirs(folder, exist_ok=True)
            path = storage.join(folder, NAME)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._lock()
            with open(path, "rb") as file:
                self.fresh = not self._read(file)
            size = os.fstat(self._file).st_size
            if self.fresh:
                os.ftruncate(self._file, 0)
                self._append([json.dumps(_HEAD)])
            elif size and not self._ends():  # the last line is torn
                os.write(self._file, b"\n")

    def __len__(self) -> int:
        return len(self._known)

    def known(self, key: str) -> Known | None:
        """Return what was recorded last of a key."""
        return self._known.get(_digest(key))

    def add(self, records: Iterable[Record]) -> None:
        """Record what became of items."""
        lines = []
        for record in records:
            self._remember(record)
            lines.append(json.dumps(record.to_dict()))
        if self._file >= 0:
            self._append(lines)
            return
        self._waiting += lines
        if len(self._waiting) >= _PART_RECORDS or time.monotonic() > self._since + _PART_SECONDS:
            self._write_part()

    def outputs(self) -> Counter[str]:
        """Return the files that hold results, and how many."""
        return Counter(known.output for known in self._known.values() if known.output)

    def torn(self) -> set[str]:
        """Return the shards that hold items which are elsewhere by now, or of which there is no record."""
        held = {known.output: known.among for known in self._known.values() if known.among}
        counts = self.outputs()
        return {name for name, among in held.items() if counts[name] < among}

    def records(self) -> Iterator[Record]:
        """Yield the last record of every key, read again, in order of the lines."""
        self.flush()
        names = [name for name in storage.sizes(self._folder) if name.startswith(PREFIX)]
        last: dict[bytes, tuple[int, int]] = {}
        for final in (False, True):
            for part, name in enumerate(sorted(names)):
                with storage.opened(storage.join(self._folder, name)) as file:
                    for number, line in enumerate(file):
                        record = _parsed(line)
                        if record is None:
                            continue
                        if not final:
                            last[_digest(record.key)] = part, number
                        elif last[_digest(record.key)] == (part, number):
                            yield record

    def flush(self) -> None:
        """Let all that was added reach the disk, or the store."""
        if self._file >= 0:
            os.fsync(self._file)
        elif self._waiting:
            self._write_part()

    def close(self) -> None:
        """Write what is left, and give up the lock."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, lines: Iterable[bytes]) -> int:
        """Remember the records of lines; how many lines there were that this class wrote."""
        number = 0
        for line in lines:
            record = _parsed(line)
            if record is not None:
                self._remember(record)
            number += record is not None or line.startswith(b'{"vqcodec manifest"')
        return number

    def _remember(self, record: Record) -> None:
        identity = identity_of(record.size, record.stamp, record.job)
        digest = _digest(record.key)
        before = self._known.get(digest)
        if before is not None and before.output not in ("", record.output):
            self.stale.add(before.output)
        self._known[digest] = Known(identity, record.output, record.output_size, record.among, record.failure)

    def _append(self, lines: list[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        while data:
            data = data[os.write(self._file, data) :]
        if time.monotonic() > self._since + _SYNC_SECONDS:
            os.fsync(self._file)
            self._since = time.monotonic()

    def _write_part(self) -> None:
        name = f"{PREFIX}-{self._run:020}-{self._part:06}.jsonl"
        storage.write(storage.join(self._folder, name), "".join(f"{line}\n" for line in self._waiting).encode("ascii"))
        self._waiting, self._since = [], time.monotonic()
        self._part += 1

    def _ends(self) -> bool:
        """Whether the file ends in a line break."""
        return os.pread(self._file, 1, os.fstat(self._file).st_size - 1) == b"\n"

    def _lock(self) -> None:
        """Until the file is closed, or this process is gone, however it ended."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            self._file = -1
            raise VqcodecError(f"another job is at work in {self._folder}") from error


def identity_of(size: int, stamp: str, job: str) -> bytes:
    """Name what an item was and what was asked, in eight bytes.

    Args:
        size: of the item, bytes.
        stamp: of its last change.
        job: what was asked.
    """
    return hashlib.blake2b(f"{size}\0{stamp}\0{job}".encode(errors="surrogatepass"), digest_size=8).digest()


def is_same(known: Known, item: Item, job: str) -> bool:
    """Say whether an item has not changed since, and the same was asked.

    Args:
        known: from the manifest.
        item: as it is now.
        job: what is asked now.
    """
    return known.identity == identity_of(item.size, item.stamp, job)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()


def _parsed(line: bytes) -> Record | None:
    """The record of a line; None of a torn one, and of the first."""
    with contextlib.suppress(ValueError, TypeError):
        values = json.loads(line)
        if isinstance(values, dict) and "key" in values:
            return Record.from_dict(values)
    return None
