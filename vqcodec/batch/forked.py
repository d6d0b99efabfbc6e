# SPDX-License-Identifier: Apache-2.0
"""Jobs of a command in several processes, forked before PyTorch is loaded: nothing has to be pickled but outcomes.

Every process takes the next job when it is done with one. What ends a run of `overlap` ends this, too; a process that
is killed fails the job that it was doing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from vqcodec.batch.overlap import Outcome, Steps, attempt_steps

if TYPE_CHECKING:
    from vqcodec.images.files import Job

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run(jobs: Sequence[Job], steps: Steps, report: Callable[[Outcome], None], processes: int) -> None:
    """Do all jobs, whatever happens to each, and report each as it is over.

    Args:
        jobs: what is to be done.
        steps: as of `overlap.run`.
        report: called here, once for every job.
        processes: at most so many, which share the cores.

    Raises what ends a run: an interruption, a failure to prepare, a reader of stdout that has gone.
    """
    context = multiprocessing.get_context("fork")
    following = context.Value("q", 0)
    under_way: dict[connection.Connection, Job | None] = {}
    children = []
    count = min(processes, len(jobs))
    try:
        for _ in range(count):
            here, there = context.Pipe(duplex=False)
            child = context.Process(target=_work, args=(jobs, steps, following, there, count), daemon=True)
            child.start()
            there.close()
            children.append(child)
            under_way[here] = None
        while under_way:
            for ready in connection.wait(list(under_way)):
                assert isinstance(ready, connection.Connection)
                try:
                    message: Any = ready.recv()
                except EOFError:
                    job = under_way.pop(ready)
                    if job is not None:
                        line = f"vqcodec: error: {job.source}: the process that was doing it has died"
                        report(Outcome(job, [line], "", failed=True))
                    continue
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, int):
                    under_way[ready] = jobs[message]
                else:
                    under_way[ready] = None
                    report(message)
    finally:
        for child in children:
            if child.is_alive():
                child.terminate()
        for child in children:
            child.join()
    for job in jobs[following.value :]:  # all processes have died
        report(Outcome(job, [f"vqcodec: error: {job.source}: not done, all processes have died"], "", failed=True))


def _work(jobs: Sequence[Job], steps: Steps, following: Any, pipe: connection.Connection, count: int) -> None:
    """A child: say which job is begun, then how it went, until none is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to end
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in _THREADS:
        os.environ.setdefault(name, str(max(1, cores // count)))
    with contextlib.suppress(BaseException):  # a termination, or a parent that has gone
        while True:
            with following.get_lock():
                number = following.value
                following.value += number < len(jobs)
            if number >= len(jobs):
                return
            pipe.send(number)
            try:
                outcome: object = attempt_steps(jobs[number], steps)
            except Exception as error:
                outcome = error
            pipe.send(outcome)
