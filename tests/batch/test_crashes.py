# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed: workers, and the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from batch.collections import lines
from batch.slow import Slow
from conftest import ROOT

from vqcodec.batch.engines.local import LocalEngine
from vqcodec.batch.items import Record
from vqcodec.batch.manifest import NAME
from vqcodec.batch.running import run
from vqcodec.batch.sinks import FolderSink
from vqcodec.batch.sources import source
from vqcodec.batch.worker import Job

DRIVER = """
import sys
from batch.slow import Slow
from vqcodec.batch.engines.local import LocalEngine
from vqcodec.batch.running import run
from vqcodec.batch.sinks import FolderSink
from vqcodec.batch.sources import source
from vqcodec.batch.worker import Job

if __name__ == "__main__":
    base = sys.argv[1]
    run(source(base + "/in", [".bin"]), Job(Slow(base + "/pids"), FolderSink(base + "/out"), 0), LocalEngine(2))
"""


def filled(folder: Path, number: int, killing: int = -1) -> None:
    for name in ("in", "pids"):
        (folder / name).mkdir()
    for i in range(number):
        (folder / "in" / f"{i:02}.bin").write_bytes(b"kill" if i == killing else b"fine")


def first_at_work(folder: Path) -> int:
    while not (working := os.listdir(folder / "pids")):
        time.sleep(0.02)
    return int(working[0])


def test_a_process_is_killed_and_a_picture_kills_its_own(tmp_path: Path) -> None:
    filled(tmp_path, 30, killing=20)
    killer = threading.Thread(target=lambda: os.kill(first_at_work(tmp_path), signal.SIGKILL), daemon=True)
    killer.start()
    records: list[Record] = []
    job = Job(Slow(str(tmp_path / "pids")), FolderSink(str(tmp_path / "out")), 0)
    summary = run(source(tmp_path / "in", [".bin"]), job, LocalEngine(2), report=records.append)
    assert (summary.done, summary.failures) == (29, {"crash": 1})
    assert sorted(record.key for record in records) == [f"{i:02}.bin" for i in range(30)]
    assert [record.key for record in records if record.failure] == ["20.bin"]


def test_the_driver_is_killed_and_takes_its_processes_along(tmp_path: Path) -> None:
    filled(tmp_path, 40)
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    driver = subprocess.Popen([sys.executable, tmp_path / "driver.py", tmp_path], env=environment)
    first_at_work(tmp_path)
    while not (tmp_path / "out" / NAME).is_file() or not lines(tmp_path / "out"):
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    for name in os.listdir(tmp_path / "pids"):
        for _ in range(500):
            if not alive(int(name)):
                break
            time.sleep(0.02)
        assert not alive(int(name))
    done = len(lines(tmp_path / "out"))
    assert 0 < done < 40
    job = Job(Slow(str(tmp_path / "pids")), FolderSink(str(tmp_path / "out")), 0)
    summary = run(source(tmp_path / "in", [".bin"]), job, LocalEngine(0))
    assert (summary.done, summary.unchanged) == (40 - done, done)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
