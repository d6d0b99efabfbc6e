# SPDX-License-Identifier: Apache-2.0
"""Thousands of drawn pictures, some damaged, huge or oddly named, through `vqcodec batch`, whose processes are killed.

    python tools/stress_batch.py make FOLDER
    python tools/stress_batch.py run FOLDER DEST --kills 20 -- -e 1 -j 2
    python tools/stress_batch.py same DEST OTHER

`run` kills one of the processes, then the driver, at random moments in the middle of their work, as often as asked;
after each, every result must be a whole file. It lets a last run complete, and checks that every picture is recorded,
every damaged one reported, every result whole and there once. It prints time and memory as JSON.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from vqcodec.format import container

ODD = ("ü{}.png", "two words {}.png", "dots.in.{}.png", "line\n{}.png", "-{}.png", "#%20{}.png", "{}.PNG", "日本{}.png")
WORKER_BYTES = 100e6  # which has PyTorch in its memory; helpers of multiprocessing do not
DAMAGES = ("empty", "text", "cut", "header")


@click.group()
def main() -> None:
    """Make a collection, run jobs on it, compare their results."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--number", default=2000, show_default=True, help="Of pictures.")
@click.option("--damaged", default=40, show_default=True, help="Of these.")
@click.option("--huge", default=4, show_default=True, help="Of these, with a side of 3,000 pixels.")
@click.option("--smallest", default=64, show_default=True, help="Side, in pixels.")
@click.option("--largest", default=1200, show_default=True, help="Side, in pixels.")
@click.option("--seed", default=0, show_default=True)
def make(folder: Path, number: int, damaged: int, huge: int, smallest: int, largest: int, seed: int) -> None:
    """Draw pictures into a tree of folders."""
    rng = np.random.default_rng(seed)
    for i in range(number):
        width, height = (int(math.exp(rng.uniform(math.log(smallest), math.log(largest)))) for _ in range(2))
        if damaged <= i < damaged + huge:
            width = 3000
        name = ODD[i // 9 % len(ODD)].format(i) if i % 9 == 0 else f"{i}.{'jpg' if i % 2 else 'png'}"
        path = folder / f"{i % 7}" / ("deep" if i % 5 == 0 else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(rng, width, height).save(path, "JPEG" if name.endswith("jpg") else "PNG")
        if i < damaged:
            damage(path, DAMAGES[i % len(DAMAGES)])
    (folder / "damaged.json").write_text(json.dumps(damaged))


def drawn(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw waves of colour with some noise.

    Args:
        rng: source of what is drawn.
        width: in pixels.
        height: in pixels.
    """
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform([-0.1, -0.1, 0], [0.1, 0.1, 6], (3, 3))]
    noise = rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(np.clip(127 + 100 * np.stack(waves, 2) + noise, 0, 255).astype(np.uint8))


def damage(path: Path, how: str) -> None:
    """Make a picture one that cannot be read.

    Args:
        path: of the file.
        how: kind of damage.
    """
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no picture", "cut": data[: len(data) // 2], "header": data[:20]}[how])


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--kills", default=0, show_default=True, help="Of processes and of the driver, in turn.")
@click.option("--seed", default=0, show_default=True)
@click.option("--patience", default=4.0, show_default=True, help="Longest time from new records to a kill, in seconds.")
def run(folder: Path, dest: Path, options: tuple[str, ...], kills: int, seed: int, patience: float) -> None:
    """Encode the collection, check the results, print figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the driver is ended, too
    draw = random.Random(seed)
    command = [sys.executable, "-m", "vqcodec", "batch", "encode", str(folder), str(dest), "--json", *options]
    killed: list[dict[str, Any]] = []
    while len(killed) < kills:
        driver = started(command)
        for victim in ("worker", "driver")[: kills - len(killed)]:
            if not grown(driver, dest):
                break
            time.sleep(draw.uniform(0, patience))
            working = [pid for pid, size in processes(driver.pid)[1:] if size > WORKER_BYTES]
            if driver.poll() is not None or (victim == "worker" and not working):
                break
            os.kill(draw.choice(working) if victim == "worker" else driver.pid, signal.SIGKILL)
            killed.append({"victim": victim, "records": len(recorded(dest))})
            click.echo(f"killed a {victim} at {killed[-1]['records']} records", err=True)
        else:
            driver.kill()
            driver.wait()
            killed[-1]["whole results"] = whole(dest)
            continue
        driver.wait()  # it was over before it could be killed
        break
    begun, memory = time.perf_counter(), []
    driver = started(command)
    while driver.poll() is None:
        memory.append(sum(size for _, size in processes(driver.pid)) / 1e6)
        time.sleep(0.5)
    assert driver.stdout is not None
    summary = json.loads(driver.stdout.read())
    del summary["errors"]
    quarter = max(1, len(memory) // 4)
    figures = [max(memory[first : first + quarter], default=0) for first in range(0, 4 * quarter, quarter)]
    click.echo(
        json.dumps(
            {
                "killed": killed,
                "status": driver.returncode,
                "seconds": round(time.perf_counter() - begun, 1),
                "peak MB by quarter": [round(size) for size in figures],
                **check(folder, dest),
                "last run": summary,
            },
            indent=1,
        )
    )


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a driver in a session of its own, which ends with this process."""
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    atexit.register(driver.kill)
    return driver


def recorded(dest: Path) -> dict[str, Any]:
    """The last record of every picture in the manifest."""
    records = {}
    path = dest / "vqcodec-manifest.jsonl"
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        if "key" in record:
            records[record["key"]] = record
    return records


def grown(driver: subprocess.Popen[bytes], dest: Path) -> bool:
    """Wait for two more records, so that the driver is in the middle of its work.

    Args:
        driver: that writes them.
        dest: of the results.

    Returns: whether there are more; False where the driver is over.
    """
    before = len(recorded(dest))
    while len(recorded(dest)) < before + 2:
        if driver.poll() is not None:
            return False
        time.sleep(0.1)
    return True


def whole(dest: Path) -> int:
    """Count the results, each of which must be a whole file, at whatever moment. Raises FormatError on another."""
    return len([container.unpack(path.read_bytes()) for path in dest.rglob("*.vq2")])


def check(folder: Path, dest: Path) -> dict[str, Any]:
    """Compare the files of a folder, the manifest and the results.

    Args:
        folder: of the pictures.
        dest: of the results.

    Raises: AssertionError where they do not agree.
    """
    pictures = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "damaged.json"
    }
    records = recorded(dest)
    failed = {key for key, record in records.items() if "failure" in record}
    done = records.keys() - failed
    files = {path.relative_to(dest).as_posix() for path in dest.rglob("*") if path.is_file()}
    results = {name for name in files if name.endswith(".vq2")}
    assert records.keys() == pictures, "pictures were lost"
    assert len(failed) == json.loads((folder / "damaged.json").read_text()), "damaged ones were not reported"
    assert {records[key]["output"] for key in done} == results, "results are there twice, or are missing"
    for key in done:
        data = (dest / records[key]["output"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == records[key]["sha256"], f"{key} is not whole"
    return {"pictures": len(pictures), "results": len(results), "damaged, reported": len(failed)}


@main.command()
@click.argument("dest", type=click.Path(exists=True, path_type=Path))
@click.argument("other", type=click.Path(exists=True, path_type=Path))
def same(dest: Path, other: Path) -> None:
    """Compare the results of two jobs, byte by byte."""
    here, there = (
        {path.relative_to(base): path.read_bytes() for path in base.rglob("*.vq2")} for base in (dest, other)
    )
    assert here == there, f"{sum(here.get(name) != there.get(name) for name in here | there)} results differ"
    click.echo(f"{len(here)} results are the same")


def processes(driver: int) -> list[tuple[int, int]]:
    """A process and all below it, with their resident bytes. Linux only."""
    parents, sizes = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, text = int(status.parent.name), status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[pid], sizes[pid] = int(text[1]), int(text[21]) * os.sysconf("SC_PAGE_SIZE")
    family = [driver]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return [(pid, sizes[pid]) for pid in family if pid in sizes]


if __name__ == "__main__":
    main()
