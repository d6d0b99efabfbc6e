# SPDX-License-Identifier: Apache-2.0
"""A job from end to end: what is missing is planned, an engine does it, the manifest remembers it. Free of click."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from vqcodec.batch import storage
from vqcodec.batch.failures import LASTING
from vqcodec.batch.items import Chunk, Planned, Record, chunks
from vqcodec.batch.manifest import PREFIX, Known, Manifest, is_same
from vqcodec.batch.names import Names
from vqcodec.batch.sinks import FolderSink, ParquetSink, TarSink, shards
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
        _clean(job, manifest)
        plan = _Plan(source, job, manifest, asked, summary)
        size = asked.per_shard if job.sink.sharded else CHUNK
        for records in engine.run(job, chunks(plan.todo(), size, CHUNK_BYTES)):
            manifest.add(records)
            for record in records:
                summary.add(record)
                report(record)
        _clean(job, manifest)
    summary.clock()
    return summary


@dataclass
class _Plan:
    """What of a source is to be done."""

    source: Source
    job: Job
    manifest: Manifest
    asked: Asked
    summary: Summary
    _folder: str = ""
    _sizes: dict[str, int] = field(default_factory=dict)

    def todo(self) -> Iterator[Planned]:
        """Yield the items that are to be done; those that are not are counted."""
        names = Names(self.job.task.suffix)
        for item in self.source.items():
            output = "" if self.job.sink.sharded or not self.job.task.suffix else names.of(item.key)
            known = self.manifest.known(item.key)
            if known is not None and is_same(known, item, self.job.task.job):
                if known.failure in LASTING and not self.asked.retry_failed:
                    self.summary.add_failure(item.key, known.failure, "failed before (--retry-failed tries again)")
                    continue
                if not known.failure and self._is_there(known, output):
                    self.summary.unchanged += 1
                    continue
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


def _clean(job: Job, manifest: Manifest) -> None:
    """Remove results that are elsewhere now, unless another item has that name by now."""
    if isinstance(job.sink, FolderSink):
        for name in manifest.stale - set(manifest.outputs()):
            storage.remove(storage.join(job.sink.folder, name))
    elif isinstance(job.sink, (TarSink, ParquetSink)):
        shards.clean(job.sink, manifest)
    manifest.stale.clear()
