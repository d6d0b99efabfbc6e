# SPDX-License-Identifier: Apache-2.0
"""Many images in several processes: each does whole jobs, with a model and some of the processor of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from vqcodec.batch.overlap import Outcome, Steps, attempt_steps
from vqcodec.images.files import Job

AHEAD = 2  # jobs that are under way or wait, for every process
_steps: list[Steps] = []  # of a process that works for another


def run(jobs: Sequence[Job], steps: Steps, report: Callable[[Outcome], None], processes: int) -> None:
    """Do all jobs, whatever happens to each, and report each when it is done.

    Args:
        jobs: what to do.
        steps: how; of functions that can be pickled, for the processes are new ones.
        report: called for every job in this process.
        processes: their number.

    The job of a process that is killed fails, the others go on. What ends a run of `batch.overlap` ends this one.
    """
    waiting = deque(jobs)
    try:
        while waiting:
            for suspect in _together(waiting, steps, report, processes):
                report(_alone(suspect, steps))
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise


def _together(
    waiting: deque[Job], steps: Steps, report: Callable[[Outcome], None], processes: int
) -> list[Job]:
    """Do the jobs that wait until there are none, or a process is killed: then, those that were under way."""
    pending: dict[Future[Outcome], Job] = {}
    with _pool(processes, steps) as pool:
        while waiting or pending:
            while waiting and len(pending) < AHEAD * processes:
                pending[pool.submit(_work, waiting[0])] = waiting[0]
                waiting.popleft()
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                if isinstance(future.exception(), BrokenProcessPool):
                    return list(pending.values())
                del pending[future]
                report(future.result())
    return []


def _alone(job: Job, steps: Steps) -> Outcome:
    """Do a job in a process that does no other."""
    with _pool(1, steps) as pool:
        try:
            return pool.submit(_work, job).result()
        except BrokenProcessPool:
            text = f"vqcodec: error: {job.source}: the process that worked on it was killed (out of memory?)"
            return Outcome(job, [text], "", failed=True)


def _pool(processes: int, steps: Steps) -> ProcessPoolExecutor:
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, processors // processes)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=_start, initargs=(steps, threads))


def _start(steps: Steps, threads: int) -> None:
    """In a new process: keep what is to be done, and go when the first one goes."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _steps[:] = [steps]
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _work(job: Job) -> Outcome:
    return attempt_steps(job, _steps[0])
