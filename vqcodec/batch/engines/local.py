# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine, each with a model of its own.

A worker that is killed, or dies of a picture, takes its pool with it: a new one is started, and what was under way is
done again, one chunk at a time, in halves if it dies again: a picture that takes a worker down alone is recorded as a
crash.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection

from vqcodec.batch.items import Chunk, Record, halves
from vqcodec.batch.worker import Job, Worker, crashed

AHEAD = 2
"""Chunks that are under way or wait, for every process."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class LocalEngine:
    """Processes.

    Args:
        processes: so many; 0: none, work is done where the engine is called.
    """

    processes: int

    def run(self, job: Job, chunks: Iterable[Chunk]) -> Iterator[list[Record]]:
        """Do all chunks, and end the processes.

        Args:
            job: what is done to every picture.
            chunks: of pictures.

        Yields: the records of a chunk, in whatever order.

        Raises: what a worker does.
        """
        if not self.processes:
            yield from map(Worker(job), chunks)
            return
        rest = iter(chunks)
        suspects: list[Chunk] = []  # that were under way when a process died: done again one by one
        pool = _Pool(job, self.processes)
        try:
            while True:
                alone = bool(suspects) and not len(pool)
                if alone:
                    pool.submit(suspects.pop())
                while not suspects and not alone and len(pool) < AHEAD * self.processes:
                    chunk = next(rest, None)
                    if chunk is None:
                        break
                    pool.submit(chunk)
                if not len(pool):
                    return
                done, broken = pool.wait()
                yield from done
                if broken:
                    pool.close()
                    pool = _Pool(job, self.processes)
                for chunk in broken:
                    if alone and len(chunk.planned) == 1:
                        yield [crashed(job, chunk)]
                    else:
                        suspects += halves(chunk) if alone else [chunk]
        finally:
            pool.close()


class _Pool:
    """Processes, and the chunks that were given to them."""

    def __init__(self, job: Job, processes: int) -> None:
        self._executor = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_start, initargs=(job,)
        )
        self._under_way: dict[Future[list[Record]], Chunk] = {}
        self._broken: list[Chunk] = []

    def __len__(self) -> int:
        return len(self._under_way) + len(self._broken)

    def submit(self, chunk: Chunk) -> None:
        """Give a chunk to the processes."""
        try:
            self._under_way[self._executor.submit(_work, chunk)] = chunk
        except BrokenProcessPool:
            self._broken.append(chunk)

    def wait(self) -> tuple[list[list[Record]], list[Chunk]]:
        """Wait for something to be done. Returns: records by chunk, and, if a process has died, all chunks that are not
        done. Raises what a worker did."""
        done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
        records = []
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done) or self._broken:
            done, _ = wait(self._under_way)
        for future in done:
            chunk = self._under_way.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                self._broken.append(chunk)
            else:
                records.append(future.result())
        broken, self._broken = self._broken, []
        return records, broken

    def close(self) -> None:
        """End the processes, whatever they do."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


_worker: Worker | None = None


def _start(job: Job) -> None:
    """In a new process: Ctrl-C is for the one that started it, without which this one ends."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _worker = Worker(job)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _work(chunk: Chunk) -> list[Record]:
    assert _worker is not None
    return _worker(chunk)
