# SPDX-License-Identifier: Apache-2.0
"""A job from end to end: what is missing is planned, an engine does it, the manifest remembers it. Free of click."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from vqcodec.batch import storage
from vqcodec.batch.failures import LASTING
from vqcodec.batch.items import Chunk, Planned, Record, chunks
from vqcodec.batch.manifest import PREFIX, Known, Manifest, is_same
from vqcodec.batch.sources import Source
from vqcodec.batch.summary import Summary
from vqcodec.batch.worker import Job
from vqcodec.errors import VqcodecError

CHUNK = 8
"""Items that a worker is given at a time, where every one has a file."""
CHUNK_BYTES = 32 << 20


class Engine(Protocol):
    """What runs workers: `engines.local.LocalEngine`, `engines.cluster.RayEngine`."""

    def run(self, job: Job, chunks: Iterator[Chunk]) -> Iterator[list[Record]]:
        """Do all chunks.

        Args:
            job: what is done to every picture.
            chunks: of pictures.

        Yields: the records of a chunk, in whatever order.
        """


@dataclass(frozen=True)
class Asked:
    """What a run does beside its job.

    Args:
        retry_failed: try again what is damaged, too.
        force: use a destination that holds other things.
        per_shard: items in a shard.
    """

    retry_failed: bool = False
    force: bool = False
    per_shard: int = 256


def run(
    source: Source,
    job: Job,
    engine: Engine,
    asked: Asked = Asked(),  # noqa: B008
    report: Callable[[Record], object] = lambda record: None,
    summary: Summary | None = None,
) -> Summary:
    """Do what is missing, has changed or may go well now.

    Args:
        source: the collection.
        job: what is done, and where results go.
        engine: that does it.
        asked: see there.
        report: called with every record.
        summary: to add to; by default a new one.

    Returns: the summary. Raises VqcodecError if the destination is not one, or another job is at work there; ModelError
    if the model cannot be loaded; OSError if nothing can be written. What was done until then is recorded.
    """
    summary = Summary() if summary is None else summary
    folder = job.sink.folder
    if not asked.force:
        _check_destination(folder)
    with Manifest(folder) as manifest:
        plan = _Plan(source, job, manifest, asked, summary)
        size = asked.per_shard if job.sink.sharded else CHUNK
        for records in engine.run(job, chunks(plan.todo(), size, CHUNK_BYTES)):
            manifest.add(records)
            for record in records:
                summary.add(record)
                report(record)
        _remove(folder, plan.superseded, manifest)
    summary.clock()
    return summary


@dataclass
class _Plan:
    """What of a source is to be done.

    Args:
        superseded: results of items whose results have other names now.
    """

    source: Source
    job: Job
    manifest: Manifest
    asked: Asked
    summary: Summary
    superseded: list[str] = field(default_factory=list)
    _folder: str = ""
    _sizes: dict[str, int] = field(default_factory=dict)

    def todo(self) -> Iterator[Planned]:
        """The items that are to be done; those that are not are counted."""
        names = Names(self.job.task.suffix)
        for item in self.source.items():
            output = "" if self.job.sink.sharded or not self.job.task.suffix else names.of(item.key)
            known = self.manifest.known(item.key)
            if known is None or not is_same(known, item, self.job.task.job):
                self._supersede(known, output)
            elif known.failure:
                if known.failure in LASTING and not self.asked.retry_failed:
                    self.summary.add_failure(item.key, known.failure, "failed before (--retry-failed tries again)")
                    continue
            elif self._is_there(known, output):
                self.summary.unchanged += 1
                continue
            else:
                self._supersede(known, output)
            yield Planned(item, output)

    def _is_there(self, known: Known, output: str) -> bool:
        """Whether the file of a result is where it should be, as large as it was."""
        if not known.output:
            return not self.job.task.suffix
        if not self.job.sink.sharded and known.output != output:
            return False
        folder, _, name = known.output.rpartition("/")
        if folder != self._folder or not self._sizes:
            self._folder = folder
            location = storage.join(self.job.sink.folder, folder) if folder else self.job.sink.folder
            self._sizes = storage.sizes(location)
        return self._sizes.get(name) == known.output_size

    def _supersede(self, known: Known | None, output: str) -> None:
        if known is not None and known.output and known.output != output and not self.job.sink.sharded:
            self.superseded.append(known.output)


class Names:
    """Names of results: that of the item with another suffix; where another item has that, added to the whole name."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._taken: set[bytes] = set()

    def of(self, key: str) -> str:
        """The name of the result of the next item."""
        path = PurePosixPath(safe(key))
        stem = path.with_suffix("") if path.suffix else path
        numbered = (f"{path}~{number}{self._suffix}" for number in itertools.count(2))
        for name in itertools.chain([f"{stem}{self._suffix}", f"{path}{self._suffix}"], numbered):
            digest = hashlib.blake2b(name.casefold().encode(errors="surrogatepass"), digest_size=8).digest()
            if digest not in self._taken:
                self._taken.add(digest)
                return name
        raise AssertionError("numbers do not end")


def safe(key: str) -> str:
    """A key as a path that stays below a folder."""
    parts = [part for part in key.split("/") if part not in ("", ".")]
    return "/".join("_" if part == ".." else part for part in parts) or "_"


def _check_destination(folder: str) -> None:
    """Raise VqcodecError if a destination holds things, and no manifest says that they are results."""
    if not storage.is_url(folder) and storage.size_of(folder) is not None and not storage.is_folder(folder):
        raise VqcodecError(f"{folder} is a file: results go to a folder")
    if not storage.is_folder(folder):
        return
    names = storage.sizes(folder)
    if any(name.startswith(PREFIX) for name in names):
        return
    if names or any(entries for entries in storage.walk(folder)):
        raise VqcodecError(f"{folder} holds other things and no manifest of a job; --force uses it all the same")


def _remove(folder: str, superseded: list[str], manifest: Manifest) -> None:
    """Remove results that have other names now, unless they are those of other items by now."""
    if superseded:
        kept = manifest.outputs()
        for name in superseded:
            if name not in kept:
                storage.remove(storage.join(folder, name))
