# SPDX-License-Identifier: Apache-2.0
"""Doing the jobs of a command and saying how they went, as it happens."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from vqcodec.images.files import Job

if TYPE_CHECKING:
    from vqcodec.batch import Outcome, Steps

DAMAGED = 3  # exit status where parts were lost and all else went well
PATIENCE = 1.0  # seconds until the bar of a picture is shown


class Done(str):
    """The summary of a job that is done, and the bytes of its input and output."""

    before: int
    after: int
    damaged = False


@dataclass
class Total:
    """What became of all jobs, and the bytes of inputs and outputs of those that are done."""

    jobs: int
    started: float = field(default_factory=time.perf_counter)
    done: int = 0
    failed: int = 0
    skipped: int = 0
    damaged: int = 0
    before: int = 0
    after: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count a job that is over."""
        result = outcome.result
        self.failed += outcome.failed
        self.skipped += not outcome.failed and result is None
        self.done += result is not None
        if isinstance(result, Done):
            self.before, self.after = self.before + result.before, self.after + result.after
            self.damaged += result.damaged

    def __str__(self) -> str:
        left = self.jobs - self.done - self.failed - self.skipped
        counts = ((self.damaged, "damaged"), (self.skipped, "skipped"), (self.failed, "failed"), (left, "not begun"))
        text = f"{self.done} of {self.jobs} files" + "".join(f", {number} {what}" for number, what in counts if number)
        if self.done:
            text += f": {self.before} -> {self.after} bytes"
        return f"{text}, {time.perf_counter() - self.started:.2f} s"


def run_jobs(jobs: list[Job], work: Callable[[Job], object], quiet: bool) -> None:
    """Do all jobs, whatever happens to each; exit with status 1 if one failed.

    Args:
        jobs: inputs and where results go.
        work: does one.
        quiet: print warnings and errors only.
    """
    from vqcodec.batch import attempt

    failed = False
    for job in jobs:
        outcome = attempt(job, work)
        for line in lines_of(outcome, quiet):
            say(line)
        failed |= outcome.failed
    if failed:
        raise click.exceptions.Exit(1)


def run_steps(jobs: list[Job], steps: Steps, quiet: bool, processes: int = 1) -> None:
    """Do all jobs of three steps, which overlap or are done in several processes; with bars on a terminal.

    Exits with status 1 if one failed, else with 3 if results are what was left of damaged files.

    Args:
        jobs: inputs and where results go.
        steps: what is done for each.
        quiet: print warnings and errors only.
        processes: files that are done at a time.
    """
    from vqcodec.batch import overlap

    total = Total(len(jobs))
    with _Screen(jobs, quiet) as screen:

        def report(outcome: Outcome) -> None:
            total.add(outcome)
            for line in lines_of(outcome, quiet):
                screen.say(line)
            screen.advance()

        try:
            if processes > 1 and len(jobs) > 1 and _forks():
                from vqcodec.batch import forked

                forked.run(jobs, steps, report, processes)
            else:
                overlap.run(jobs, steps, report)
        finally:
            if len(jobs) > 1 and not quiet:
                screen.say(str(total))
    if total.failed or total.damaged:
        raise click.exceptions.Exit(1 if total.failed else DAMAGED)


def _forks() -> bool:
    """Whether processes can be forked: not where PyTorch's threads are there already, which would not survive it."""
    return hasattr(os, "fork") and "torch" not in sys.modules


def summary(job: Job, before: int, after: int, bpp: float) -> Done:
    """Write the summary of a job.

    Args:
        job: that was done.
        before: bytes of the input.
        after: bytes of the output.
        bpp: of the file of the codec.
    """
    done = Done(f"{job.source} -> {job.target}: {before} -> {after} bytes, {bpp:.4f} bpp")
    done.before, done.after = before, after
    return done


def lines_of(outcome: Outcome, quiet: bool) -> list[str]:
    """List what there is to say of a job.

    Args:
        outcome: how it went.
        quiet: warnings and errors only.
    """
    return outcome.talk if quiet else outcome.lines


def say(line: str) -> None:
    """Print a line on stderr; where nobody can hear it, the work goes on all the same."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)


class _Screen:
    """Stderr: lines, and on a terminal below them a bar over the jobs, and one inside a picture that takes long."""

    def __init__(self, jobs: list[Job], quiet: bool) -> None:
        self._jobs, self._shown = jobs, not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._bars = contextlib.ExitStack()
        self._files: Any = None
        self._inside: Any = None

    def __enter__(self) -> _Screen:
        if self._shown:
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # no thread that watches the bars

            from vqcodec import timing

            if len(self._jobs) > 1:
                self._files = self._bars.enter_context(
                    tqdm(total=len(self._jobs), unit="file", file=sys.stderr, dynamic_ncols=True)
                )
            self._inside = self._bars.enter_context(
                tqdm(
                    total=1,
                    file=sys.stderr,
                    leave=False,
                    delay=PATIENCE,
                    position=int(len(self._jobs) > 1),
                    dynamic_ncols=True,
                    bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}",
                )
            )
            self._bars.enter_context(timing.listened(self._progress))
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.close()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if not self._shown:
            say(line)
            return
        with contextlib.suppress(OSError, ValueError):
            self._inside.write(line, file=sys.stderr)

    def advance(self) -> None:
        """Count one more job that is over."""
        if self._files is not None:
            self._files.update(1)

    def _progress(self, name: str, done: int, total: int) -> None:
        """The steps of a part of the codec."""
        if not done:
            self._inside.reset(total)
            self._inside.set_description_str(name, refresh=False)
        self._inside.update(done - self._inside.n)
