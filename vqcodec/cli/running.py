# SPDX-License-Identifier: Apache-2.0
"""Doing the jobs of a command and saying how they went."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vqcodec.images.files import Job

if TYPE_CHECKING:
    from vqcodec.batch import Outcome, Steps


def run_jobs(jobs: list[Job], work: Callable[[Job], str], quiet: bool) -> None:
    """Do all jobs, whatever happens to each; exit with status 1 if one failed."""
    from vqcodec.batch import attempt

    failed = False
    for job in jobs:
        outcome = attempt(job, work)
        say(outcome, quiet)
        failed |= outcome.failed
    if failed:
        raise click.exceptions.Exit(1)


def run_steps(jobs: list[Job], steps: Steps, quiet: bool) -> None:
    """The same for jobs of three steps, which overlap; with a progress bar on a terminal, if there are several."""
    from vqcodec.batch import run

    outcomes: list[Outcome] = []
    if len(jobs) > 1 and not quiet and sys.stderr.isatty():
        bar: Any = click.progressbar(jobs, file=sys.stderr, item_show_func=lambda job: job and job.source)
        with bar:

            def advance(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.update(1, outcome.job)

            run(jobs, steps, advance)
        for outcome in outcomes:
            say(outcome, quiet)
    else:

        def tell(outcome: Outcome) -> None:
            outcomes.append(outcome)
            say(outcome, quiet)

        run(jobs, steps, tell)
    if any(outcome.failed for outcome in outcomes):
        raise click.exceptions.Exit(1)


def say(outcome: Outcome, quiet: bool) -> None:
    for line in outcome.talk if quiet else outcome.lines:
        click.echo(line, err=True)


def summary(job: Job, before: int, after: int, bpp: float) -> str:
    return f"{job.source} -> {job.target}: {before} -> {after} bytes, {bpp:.4f} bpp"
