# SPDX-License-Identifier: Apache-2.0
"""What a process keeps: small caches; free memory is given back, after enough work, wherever the C library can."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from conftest import load_tool

from vqcodec.model import memory
from vqcodec.model.precision import exactly

# Bytes: below what glibc asks the system for one by one, above the pieces that lie free in a process that has run.
SMALL, LARGE, NUMBER = 50_000, 100_000, 600
glibc = pytest.mark.skipif(memory._trim() is None, reason="needs malloc_trim of glibc")


class Model:
    """Has all that `exactly` asks for."""

    device = torch.device("cpu")

    @exactly
    def work(self) -> None:
        self.nested()

    @exactly
    def nested(self) -> None:
        pass


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The calls of malloc_trim, which is not called."""
    calls: list[int] = []
    monkeypatch.setattr(memory, "_work", memory._Work())
    monkeypatch.setattr(memory, "_trim", lambda: lambda pad: calls.append(pad) or 1)
    return calls


@glibc
def test_a_model_gives_free_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, resident = Model(), load_tool("check_memory").resident
    model.work()  # tests the device
    kept, large = [], []
    for _ in range(NUMBER):
        large.append(b"x" * LARGE)
        kept.append(b"x" * SMALL)  # lies between two of the others, which cannot become one
    large.clear()
    before = resident()
    monkeypatch.setattr(memory, "SECONDS", 0.0)
    model.work()
    assert before - resident() > NUMBER * LARGE / 2
    assert len(kept) == NUMBER


def test_not_before_there_was_enough_work(given: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "thread_time", lambda: float(next(clock)))
    for calls in (0, 0, 0, 0, 1, 1, 1, 1, 1, 2):  # two seconds each: blocks inside others are not counted again
        Model().work()
        assert len(given) == calls
    assert set(given) == {0}


def test_the_work_of_all_threads_counts_and_of_what_fails(given: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "thread_time", iter(range(0, 1000, 3)).__next__)

    def fail() -> None:
        with pytest.raises(ZeroDivisionError), memory.given_back():
            1 / 0  # noqa: B018

    for _ in range(4):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert given == [0]


def test_caches_by_shape_are_bounded_ahead_of_the_first_convolution() -> None:
    """In a process of its own, by what oneDNN prepares again for shapes that it saw 200 shapes ago."""
    script = """
import torch
from vqcodec import load_model
load_model()
with torch.inference_mode():
    for width in [*range(64, 264), *range(64, 84)]:
        torch.nn.functional.conv2d(torch.zeros(1, 16, 64, width), torch.zeros(16, 16, 3, 3))
"""
    environment = {name: value for name, value in os.environ.items() if name not in memory.CACHES}
    environment["ONEDNN_VERBOSE"] = "2"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    prepared = [line for line in run.stdout.splitlines() if "create:cache_miss" in line and ",convolution," in line]
    if not prepared:
        pytest.skip("this PyTorch does not convolve with oneDNN, or does not say so")
    assert len(prepared) == 220  # 200 where the caches have 1,024 entries


def test_the_user_says_how_large_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (*memory.CACHES, "DNNL_PRIMITIVE_CACHE_CAPACITY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.setenv("DNNL_PRIMITIVE_CACHE_CAPACITY", "8")
    memory.bound_caches()
    assert [os.environ.get(name) for name in names] == ["7", None, "8"]


def test_other_c_libraries_have_no_such_function(monkeypatch: pytest.MonkeyPatch) -> None:
    memory._trim.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory._trim() is None
    memory._trim.cache_clear()
