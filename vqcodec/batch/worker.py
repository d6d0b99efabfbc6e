# SPDX-License-Identifier: Apache-2.0
"""A worker: keeps the model, does chunks. Knows no engine: a process, an actor or a plain call may hold it."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vqcodec.batch import storage
from vqcodec.batch.failures import CRASH, fail
from vqcodec.batch.items import Chunk, Item, Planned, Record, chunks
from vqcodec.batch.sinks.writing import Result, Sink
from vqcodec.batch.sources.shards import read_row
from vqcodec.batch.tasks import Coded, Task
from vqcodec.images.files import one_line

READ_NUMBER = 16
READ_BYTES = 64 << 20
"""How much a worker reads before it does it: so many items, of so many bytes together."""


@dataclass
class Job:
    """All that a worker needs to know.

    Args:
        task: what is done.
        sink: where results go.
        threads: of PyTorch; 0 leaves them as they are.
        column: of Parquet files, that holds the pictures; empty for the usual ones.
    """

    task: Task
    sink: Sink
    threads: int = 1
    column: str = ""


class Worker:
    """Does chunks of items. The model is loaded with the first."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._code: Callable[[bytes], Coded] | None = None
        self._rows: dict[Any, Any] = {}

    def __call__(self, chunk: Chunk) -> list[Record]:
        """Do a chunk.

        Returns: what became of its items, in order; a failure of one is no matter of the others. Raises ModelError if
        the model cannot be loaded, OSError if nothing can be written any more.
        """
        if self._code is None:
            self._prepare()
        results: list[Result] = []
        for part in chunks(chunk.planned, READ_NUMBER, READ_BYTES):
            results += self._part(part)
        self._job.sink.write(chunk.name, results)
        return [result.record for result in results]

    def _prepare(self) -> None:
        if self._job.threads:
            import torch

            torch.set_num_threads(self._job.threads)
        self._code = self._job.task.prepare()

    def _part(self, part: Chunk) -> list[Result]:
        """Read some items, and do those of one size one after the other: what the networks prepared for it is used
        again. They still see one picture at a time, since sums of several would differ in their last bits, and with
        them the files."""
        read = [self._read(planned) for planned in part.planned]
        results: dict[int, Result] = {}
        for i in sorted(range(len(read)), key=lambda i: (read[i][2], i)):
            record, data, _ = read[i]
            results[i] = Result(record, self._coded(record, data), part.planned[i].output)
            read[i] = record, None, (0, 0)
        return [results[i] for i in range(len(read))]

    def _read(self, planned: Planned) -> tuple[Record, bytes | None, tuple[int, int]]:
        """The record of an item, its bytes, and its width and height; no bytes if that failed."""
        record = Record.of(planned.item, self._job.task.job)
        started = time.perf_counter()
        try:
            data = bytes_of(planned.item, self._job.column, self._rows)
            size = self._job.task.size(data)
        except Exception as error:
            fail(record, error)
            return record, None, (0, 0)
        finally:
            record.seconds += time.perf_counter() - started
        return record, data, size

    def _coded(self, record: Record, data: bytes | None) -> bytes | None:
        """The result for an item that was read, and its figures in the record."""
        if data is None:
            return None
        assert self._code is not None
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", UserWarning)
            try:
                coded = self._code(data)
            except Exception as error:
                fail(record, error)
                return None
            finally:
                record.seconds = round(record.seconds + time.perf_counter() - started, 4)
                record.warnings = tuple(dict.fromkeys(_texts(heard)))
        record.width, record.height, record.coded = coded.width, coded.height, coded.coded
        record.bpp = round(8 * coded.coded / (coded.width * coded.height), 6)
        record.quality, record.stages = coded.quality, coded.stages
        record.sha256 = hashlib.sha256(coded.data).hexdigest() if coded.data is not None else ""
        return coded.data


def _texts(heard: list[warnings.WarningMessage]) -> Iterator[str]:
    return (one_line(str(one.message)) for one in heard if issubclass(one.category, UserWarning))


def bytes_of(item: Item, column: str, rows: dict[Any, Any]) -> bytes:
    """Return the bytes of an item.

    Args:
        item: which one.
        column: of Parquet files, that holds the pictures; empty for the usual ones.
        rows: of the caller, where the last row group is kept.

    Raises OSError, or VqcodecError where a row has none.
    """
    if item.start < 0:
        return storage.read(item.location)
    if item.group < 0:
        return storage.read(item.location, item.start, item.size)
    return read_row(item.location, item.group, item.start, column, rows)


def crashed(job: Job, chunk: Chunk) -> Record:
    """Make the record of the only item of a chunk, which took its worker down.

    Args:
        job: what was done.
        chunk: of one item.
    """
    record = Record.of(chunk.planned[0].item, job.task.job)
    record.failure, record.error = CRASH, "the process that did it died"
    return record
