# SPDX-License-Identifier: Apache-2.0
"""Collections on a real Ray cluster, on this machine: the same bytes as without, and workers that are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.collections import DAMAGED, GOOD, contents, fill, lines
from batch.slow import Slow
from conftest import ROOT, drawn

from vqcodec.batch import encode_many, running
from vqcodec.batch.engines import cluster
from vqcodec.batch.engines.cluster import RayEngine
from vqcodec.batch.items import Record
from vqcodec.batch.running import run
from vqcodec.batch.sinks import FolderSink
from vqcodec.batch.sources import source
from vqcodec.batch.worker import Job

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """Ray on this machine, with two cores."""
    # Workers are nice by 15 where Ray is not told otherwise, and late beside other tests.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": paths}}  # where workers find this file
    here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": 2, "include_dashboard": False}
    for last in (False, False, True):  # where other work takes the cores, a daemon may be late for its start
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", runtime_env=environment, **here)
            break
        except Exception:
            ray.shutdown()
            if last:
                raise
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_cluster")
def test_a_cluster_gives_the_same_bytes(tmp_path: Path, tiny_models: Path) -> None:
    fill(tmp_path / "in", 12)
    options = {"model": tiny_models / "tiny.safetensors", "effort": 1, "fallback": False}
    alone = encode_many(tmp_path / "in", tmp_path / "alone", processes=0, **options)
    summary = encode_many(tmp_path / "in", tmp_path / "out", engine="ray", **options)
    assert (summary.done, summary.failed) == (alone.done, alone.failed) == (GOOD + 6, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert {line["key"] for line in lines(tmp_path / "out") if "failure" in line} == DAMAGED
    again = encode_many(tmp_path / "in", tmp_path / "out", engine="ray", **options)
    assert (again.done, again.unchanged) == (0, GOOD + 6)


@pytest.mark.usefixtures("_cluster")
def test_workers_die_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is killed from outside, one picture kills all that do it."""
    monkeypatch.setattr(cluster, "ATTEMPTS", 1)
    monkeypatch.setattr(running, "CHUNK", 1)
    for name in ("in", "pids"):
        (tmp_path / name).mkdir()
    for i in range(8):
        (tmp_path / "in" / f"{i:02}.bin").write_bytes(b"kill" if i == 6 else b"fine")

    def kill() -> None:
        while not (working := os.listdir(tmp_path / "pids")):
            time.sleep(0.05)
        os.kill(int(working[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    records: list[Record] = []
    job = Job(Slow(str(tmp_path / "pids")), FolderSink(str(tmp_path / "out")), 0)
    summary = run(source(tmp_path / "in", [".bin"]), job, RayEngine(actors=2), report=records.append)
    killer.join(10)
    assert (summary.done, summary.failures) == (7, {"crash": 1})
    assert sorted(record.key for record in records) == [f"{i:02}.bin" for i in range(8)]
    assert [record.key for record in records if record.failure] == ["06.bin"]


def test_without_the_extra_it_says_so(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from vqcodec.errors import VqcodecError

    (tmp_path / "in").mkdir()
    drawn().save(tmp_path / "in" / "a.png")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VqcodecError, match=r"pip install 'vqcodec\[ray\]'"):
        encode_many(tmp_path / "in", tmp_path / "out", engine="ray", model=tiny_models / "tiny.safetensors")
