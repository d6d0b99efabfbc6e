# SPDX-License-Identifier: Apache-2.0
"""Many images: while one is coded, the next is read and the one before is written.

A job has three steps, each in a thread of its own, one job ahead and one behind. Results and messages come in the order
of the jobs, and what is held at once are at most three images.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vqcodec.images.files import Job, Skipped, UsageError, describe, one_line

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

A = TypeVar("A")
B = TypeVar("B")


class Outcome(NamedTuple):
    """How a job went.

    talk: warnings and errors. summary: a line, empty when it failed. result: what its last step gave, None when it
    failed or was skipped.
    """

    job: Job
    talk: list[str]
    summary: str
    failed: bool
    result: Any = None

    @property
    def lines(self) -> list[str]:
        """All that there is to say, a line each."""
        return [*self.talk, *([self.summary] if self.summary else [])]


class Steps(NamedTuple):
    """What is done to every job.

    read: job -> what its source holds. prepare: called once, before the first job that could be read is coded; what it
    raises ends the run. code: job, what was read -> what is to be written. write: job, that -> the result, whose text
    is the summary, to which the seconds that the steps took are added.
    """

    read: Callable[[Job], Any]
    prepare: Callable[[], object]
    code: Callable[[Job, Any], Any]
    write: Callable[[Job, Any], object]


def run(jobs: Sequence[Job], steps: Steps, report: Callable[[Outcome], None]) -> None:
    """Do all jobs, whatever happens to each, and report each, in order.

    Errors and warnings become lines that name the input. What ends the run, when jobs before are written and reported
    all the same: an interruption, a reader of stdout that has gone, a failure to prepare.

    Args:
        jobs: inputs and where results go.
        steps: what is done for each.
        report: gets what became of each.
    """
    from concurrent.futures import ThreadPoolExecutor

    if len(jobs) == 1:  # without threads: nothing would be waited for if it is interrupted while it reads
        report(attempt_steps(jobs[0], steps))
        return

    def read(job: Job) -> tuple[_Task, Any]:
        task = _Task(job)
        return task, task.step(lambda job, _: steps.read(job), None)

    def finish(task: _Task, coded: Any) -> None:
        report(task.last(steps.write, coded))

    prepared = False
    behind: Future[None] | None = None
    with _heard(), ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            for task, source in one_ahead(jobs, read, reader):
                if not (task.over or prepared):
                    steps.prepare()
                    prepared = True
                coded = task.step(steps.code, source)
                if behind is not None:
                    behind.result()
                behind = writer.submit(finish, task, coded)
        finally:
            if behind is not None:
                behind.result()


def attempt(job: Job, work: Callable[[Job], object]) -> Outcome:
    """Do one job of a single step, as `run` does many.

    Args:
        job: an input and where its result goes.
        work: does it.
    """
    with _heard():
        return _Task(job).last(lambda job, _: work(job), None)


def attempt_steps(job: Job, steps: Steps) -> Outcome:
    """Do one job, step after step; prepare for it if it could be read.

    Args:
        job: an input and where its result goes.
        steps: what is done for it.
    """
    with _heard():
        task = _Task(job)
        source = task.step(lambda job, _: steps.read(job), None)
        if not task.over:
            steps.prepare()
        return task.last(steps.write, task.step(steps.code, source))


def one_ahead(items: Iterable[A], do: Callable[[A], B], pool: ThreadPoolExecutor) -> Iterator[B]:
    """Apply a function to all items; the pool computes the next result meanwhile.

    Args:
        items: in the order of the results.
        do: the function.
        pool: of threads.
    """
    waiting: Future[B] | None = None
    for item in items:
        ready, waiting = waiting, pool.submit(do, item)
        if ready is not None:
            yield ready.result()
    if waiting is not None:
        yield waiting.result()


class _Task:
    """A job under way: its steps are called one after the other, from whatever thread, until one fails or skips it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.failed = False
        self._skipped = ""
        self._heard: list[str] = []  # warnings
        self._errors: list[str] = []
        self._seconds = 0.0

    @property
    def over(self) -> bool:
        """Whether no further step is to be done."""
        return self.failed or bool(self._skipped)

    def step(self, do: Callable[[Job, Any], B], value: Any) -> B | None:
        """Return what the step gives, None if it or one before has failed."""
        if self.over:
            return None
        started = time.perf_counter()
        _here.heard = self._heard
        try:
            return do(self.job, value)
        except BrokenPipeError:
            raise  # the reader of stdout has gone, and with it the sense of all that follows
        except Skipped as skipped:
            self._skipped = f"{self.job.source}: skipped, {skipped} exists"
        except UsageError:
            raise  # wrong usage, which is not about this job
        except Exception as error:
            self.failed = True
            self._errors.append(f"vqcodec: error: {describe(error, self.job.source)}")
        finally:
            _here.heard = None
            self._seconds += time.perf_counter() - started
        return None

    def last(self, do: Callable[[Job, Any], object], value: Any) -> Outcome:
        """Return the last step, and how the job went."""
        result = self.step(do, value)
        warned = [f"vqcodec: warning: {self.job.source}: {text}" for text in dict.fromkeys(self._heard)]
        timed = f"{result}, {self._seconds:.2f} s" if result else self._skipped
        return Outcome(self.job, warned + self._errors, timed, self.failed, result)


_here = threading.local()  # .heard: the warnings of the task whose step this thread is in, or None


@contextmanager
def _heard() -> Iterator[None]:
    """Give every warning to the task that is at work in the thread where it arises.

    `warnings.catch_warnings(record=True)` knows no threads: it would give all to whoever asked last.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        shown = warnings.showwarning

        def hear(message: Warning | str, *more: Any, **named: Any) -> None:
            heard: list[str] | None = getattr(_here, "heard", None)
            if heard is None:
                shown(message, *more, **named)
            else:
                heard.append(one_line(str(message)))

        warnings.showwarning = hear
        yield
