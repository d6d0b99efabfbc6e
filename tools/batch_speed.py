# SPDX-License-Identifier: Apache-2.0
"""Speed of `vqcodec batch` on drawn pictures of 0.4 megapixels, by one thread a process; nothing else should run.

    python tools/batch_speed.py processes     two processes against one: under three minutes, needs two cores
    python tools/batch_speed.py overhead      the engine against a plain loop, in processor time

What starting takes is left out: every run is made with few pictures and with more, and the difference counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image

from vqcodec.benchmark import timings

MEGAPIXELS = 0.4
LOOP = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from PIL import Image
from vqcodec.codec import load_model
codec = load_model(sys.argv[3] or None, "cpu")
for path in sorted(Path(sys.argv[1]).iterdir()):
    Path(sys.argv[2], path.name + ".vq2").write_bytes(codec.encode(Image.open(path), effort=int(sys.argv[4])))
"""


@click.group()
@click.option("--few", default=16, show_default=True, help="Pictures of the shorter runs: 8 a process at least.")
@click.option("--many", default=64, show_default=True, help="Pictures of the longer ones.")
@click.option("--runs", default=2, show_default=True, help="Take the median of N runs.")
@click.option("-e", "--effort", default=1, show_default=True)
@click.option("--model", default="", help="Use this model; the default one if none.")
@click.pass_context
def main(context: click.Context, few: int, many: int, runs: int, effort: int, model: str) -> None:
    """Measure, and print JSON."""
    context.obj = few, many, runs, effort, model


@main.command()
@click.pass_obj
def processes(settings: tuple[int, int, int, int, str]) -> None:
    """Compare the pictures a second of two processes and of one."""
    few, many, runs, effort, model = settings
    alone = [measured(few, many, lambda a, b: batch(a, b, 1, effort, model)[0]) for _ in range(runs)]
    together = [measured(few, many, lambda a, b: batch(a, b, 2, effort, model)[0]) for _ in range(runs)]
    one, two = statistics.median(alone), statistics.median(together)
    report = {"pictures a second, one process": 1 / one, "two processes": 1 / two, "times": one / two, "target": 1.6}
    click.echo(json.dumps(report | {"runs, seconds a picture": [alone, together]}, indent=1))


@main.command()
@click.pass_obj
def overhead(settings: tuple[int, int, int, int, str]) -> None:
    """Compare the processor time of a job with that of a loop over `Codec.encode`."""
    few, many, runs, effort, model = settings
    loops, jobs = [], []
    for _ in range(runs):
        loops.append(measured(few, many, lambda a, b: loop(a, b, effort, model)))
        jobs.append(measured(few, many, lambda a, b: batch(a, b, 1, effort, model)[1]))
    plain, job = statistics.median(loops), statistics.median(jobs)
    report = {"processor seconds a picture, loop": plain, "job": job, "overhead, %": 100 * (job / plain - 1)}
    click.echo(json.dumps(report | {"runs": [loops, jobs]}, indent=1))


def measured(few: int, many: int, run: Callable[[Path, Path], float]) -> float:
    """Measure the seconds that a picture takes, start left out.

    Args:
        few: pictures of one run.
        many: pictures of the other.
        run: folder of pictures, folder of results -> seconds.
    """
    seconds = []
    for number in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            source, dest = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            pixels = np.asarray(timings.picture(timings.drawn(), MEGAPIXELS))
            for i in range(number):
                Image.fromarray(np.roll(pixels, 5 * i, 1)).save(source / f"{i:03}.png")
            seconds.append(run(source, dest))
    return (seconds[1] - seconds[0]) / (many - few)


def batch(source: Path, dest: Path, jobs: int, effort: int, model: str) -> tuple[float, float]:
    """Run a job.

    Args:
        source: folder of pictures.
        dest: folder of results.
        jobs: processes.
        effort: 1 to 9.
        model: name or path; empty for the default one.

    Returns: seconds on the clock, and of processors.
    """
    options = ["-j", str(jobs), "--threads", "1", "-e", str(effort), *(["--model", model] if model else [])]
    return clocked([sys.executable, "-m", "vqcodec", "batch", "encode", str(source), str(dest), *options])


def loop(source: Path, dest: Path, effort: int, model: str) -> float:
    """Encode the pictures in a plain loop. Returns: processor seconds.

    Args:
        source: folder of pictures.
        dest: folder of results.
        effort: 1 to 9.
        model: name or path; empty for the default one.
    """
    dest.mkdir()
    return clocked([sys.executable, "-c", LOOP, str(source), str(dest), model, str(effort)])[1]


def clocked(command: list[str]) -> tuple[float, float]:
    """Run a command. Returns: seconds on the clock, and of processors, with all processes that it waited for."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
