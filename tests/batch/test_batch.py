# SPDX-License-Identifier: Apache-2.0
"""Many images: steps overlap, order and failures are kept, warnings find their image; and lists in Python."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vqcodec
from vqcodec import codec
from vqcodec.batch import Outcome, Steps, attempt, run
from vqcodec.errors import FormatError, ImageError, ModelError
from vqcodec.images.files import Job
from vqcodec.model import registry

JOBS = [Job(f"{i}.png", f"{i}.vq2") for i in range(6)]


def done(read: Any = None, code: Any = None, write: Any = None, prepare: Any = None, jobs: Any = JOBS) -> list[Outcome]:
    """The outcomes of a run; a step that is not given passes on the names of what was done."""
    outcomes: list[Outcome] = []
    steps = Steps(
        read or (lambda job: f"read {job.source}"),
        prepare or (lambda: None),
        code or (lambda job, value: f"{value}, code"),
        write or (lambda job, value: f"{value}, write {job.target}"),
    )
    run(jobs, steps, outcomes.append)
    return outcomes


def fail_at(number: int, error: type[BaseException]) -> Callable[..., str]:
    def step(job: Job, *value: str) -> str:
        if job is JOBS[number]:
            raise error("broken\nin two")
        return " ".join(value)

    return step


def test_jobs_go_through_all_steps_in_order() -> None:
    for number in (1, 2, 6):
        outcomes = done(jobs=JOBS[:number])
        assert [outcome.job for outcome in outcomes] == JOBS[:number]
        for outcome, job in zip(outcomes, JOBS, strict=False):
            start, seconds = outcome.summary.rsplit(", ", 1)
            assert start == f"read {job.source}, code, write {job.target}"
            assert seconds.endswith(" s")
            assert (outcome.talk, outcome.failed) == ([], False)


def test_one_is_coded_while_the_next_is_read_and_the_one_before_is_written() -> None:
    """Each step of three neighbours waits for the other two: without overlap this would never end."""
    barriers = [threading.Barrier(3, timeout=20) for _ in range(len(JOBS) - 2)]

    def meet(job: Job, at: int) -> str:
        """In round r, job r + 2 is read, r + 1 coded and r written."""
        number = JOBS.index(job) - at
        if 0 <= number < len(barriers):
            barriers[number].wait()
        return "met"

    outcomes = done(lambda job: meet(job, 2), lambda job, _: meet(job, 1), lambda job, _: meet(job, 0))
    assert [outcome.failed for outcome in outcomes] == [False] * len(JOBS)


def test_no_more_than_three_are_held() -> None:
    held, most, lock = 0, 0, threading.Lock()

    def change(by: int) -> None:
        nonlocal held, most
        with lock:
            held += by
            most = max(most, held)

    def write(job: Job, _: object) -> str:
        time.sleep(0.01)
        change(-1)
        return "written"

    done(read=lambda job: change(1), code=lambda *_: time.sleep(0.002), write=write)
    assert (held, most) == (0, 3)


@pytest.mark.parametrize("step", ["read", "code", "write"])
@pytest.mark.parametrize("error", [FormatError, OSError, MemoryError, ZeroDivisionError])
def test_a_failure_is_the_matter_of_its_job(step: str, error: type[Exception]) -> None:
    outcomes = done(**{step: fail_at(2, error)})
    assert [outcome.job for outcome in outcomes] == JOBS
    assert [outcome.failed for outcome in outcomes] == [i == 2 for i in range(6)]
    said = "out of memory" if error is MemoryError else "broken in two"
    if error is ZeroDivisionError:
        said = "unexpected ZeroDivisionError: broken in two (VQCODEC_DEBUG=1 shows where)"
    assert outcomes[2].lines == [f"vqcodec: error: 2.png: {said}"]
    assert not any(outcome.talk for outcome in outcomes if outcome is not outcomes[2])


@pytest.mark.parametrize("step", ["read", "code", "write"])
@pytest.mark.parametrize("error", [BrokenPipeError, KeyboardInterrupt])
def test_other_errors_end_the_run_after_what_was_coded_is_written(step: str, error: type[BaseException]) -> None:
    outcomes: list[Outcome] = []
    passing = {"read": lambda job: "", "code": lambda *_: "", "write": lambda *_: "written"}
    steps = Steps(prepare=lambda: None, **(passing | {step: fail_at(2, error)}))
    with pytest.raises(error):
        run(JOBS, steps, outcomes.append)
    assert [outcome.job for outcome in outcomes] == JOBS[:2]
    if step != "write":
        assert all("written" in outcome.summary for outcome in outcomes)
    assert threading.active_count() == 1


def test_preparation_comes_once_before_the_first_that_could_be_read() -> None:
    events: list[str] = []

    def read(job: Job) -> None:
        if job in JOBS[:2]:
            raise OSError("missing")

    done(read, lambda job, _: events.append(job.source), prepare=lambda: events.append("prepare"))
    assert events == ["prepare", "2.png", "3.png", "4.png", "5.png"]

    def missing(job: Job) -> None:
        raise OSError("missing")

    assert all(outcome.failed for outcome in done(missing, prepare=lambda: pytest.fail("nothing to prepare for")))


def test_a_failed_preparation_ends_the_run_and_failures_before_are_told() -> None:
    def refuse() -> None:
        raise ModelError("no model")

    outcomes: list[Outcome] = []
    steps = Steps(fail_at(0, OSError), refuse, lambda *_: "", lambda *_: "")
    with pytest.raises(ModelError):
        run(JOBS, steps, outcomes.append)
    assert [(outcome.job, outcome.failed) for outcome in outcomes] == [(JOBS[0], True)]


def test_warnings_find_their_job() -> None:
    def warn(step: str) -> Callable[..., str]:
        def warned(job: Job, *_: object) -> str:
            time.sleep(0.002)
            warnings.warn(f"{step}\n{job.source}", stacklevel=1)
            warnings.warn("twice", stacklevel=1)
            return "done"

        return warned

    with warnings.catch_warnings(record=True) as outside:
        warnings.simplefilter("always")
        outcomes = done(warn("read"), warn("code"), warn("write"))
        warnings.warn("after", stacklevel=1)
    assert [str(warning.message) for warning in outside] == ["after"]
    for outcome in outcomes:
        name = outcome.job.source
        expected = [f"read {name}", "twice", f"code {name}", f"write {name}"]
        assert outcome.talk == [f"vqcodec: warning: {name}: {text}" for text in expected]
        assert not outcome.failed


def test_a_single_step() -> None:
    def work(job: Job) -> str:
        warnings.warn("a warning", stacklevel=1)
        if job is JOBS[1]:
            raise OSError(2, "not there", "elsewhere")
        return "worked"

    assert attempt(JOBS[0], work).lines == ["vqcodec: warning: 0.png: a warning", "worked, 0.00 s"]
    failed = attempt(JOBS[1], work)
    assert (failed.summary, failed.failed) == ("", True)
    assert failed.lines == ["vqcodec: warning: 1.png: a warning", "vqcodec: error: elsewhere: not there"]


# Lists in Python


@pytest.fixture
def images(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """Four pictures; the tiny model is installed and the default."""
    monkeypatch.setenv(registry.ENVIRONMENT, str(tiny_models))
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "tiny")
    y, x = np.mgrid[:24, :40]
    ramps = [np.stack([6 * x, 10 * y, i * 30 + 0 * x], axis=2).astype(np.uint8) for i in range(4)]
    return [Image.fromarray(ramp[: 24 - i]) for i, ramp in enumerate(ramps)]


def test_lists_give_lists(images: list[Image.Image]) -> None:
    files = vqcodec.encode(images, quality=30)
    assert files == [codec.encode(image, quality=30) for image in images]
    assert files == vqcodec.encode(iter(images), quality=30)
    assert vqcodec.encode(images[0], quality=30) == files[0]
    decoded = vqcodec.decode(files, device="cpu")
    assert [image.tobytes() for image in decoded] == [codec.decode(data).tobytes() for data in files]
    assert vqcodec.decode(files[1]).size == images[1].size
    assert (vqcodec.encode([]), vqcodec.decode([])) == ([], [])


def test_the_next_image_is_read_while_one_is_encoded(
    images: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    opened = [Image.open(tmp_path / f"{i}.png") for i in range(4)]
    true, seen = codec.encode, []

    def watched(image: Image.Image, **options: Any) -> bytes:
        number = opened.index(image)
        stop = time.monotonic() + 20
        while number < 3 and opened[number + 1].fp is not None and time.monotonic() < stop:
            time.sleep(0.001)
        seen.append((number, [one.fp is None for one in opened]))
        return true(image, **options)

    monkeypatch.setattr(codec, "encode", watched)
    assert vqcodec.encode(opened) == [true(image) for image in images]
    assert seen == [(i, [j <= i + 1 for j in range(4)]) for i in range(4)]


def test_the_first_error_of_a_list_is_raised(images: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"")
    images[0].save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    with pytest.raises(ImageError, match="cannot be read"):
        vqcodec.encode([images[0], Image.open(tmp_path / "cut.png"), Image.new("F", (3, 3))])
    files = vqcodec.encode(images[:2])
    with pytest.raises(FormatError, match="truncated"):
        vqcodec.decode([files[0], files[1][:-1], b"no file"])
    with pytest.raises(TypeError):
        vqcodec.encode(images, no_such_option=1)  # type: ignore[call-overload]


def test_an_iterator_is_asked_one_ahead(images: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def each() -> Iterator[Image.Image]:
        for i, image in enumerate(images):
            asked.append(i)
            yield image

    true, most = codec.encode, []
    monkeypatch.setattr(codec, "encode", lambda image, **options: most.append(len(asked)) or true(image, **options))
    vqcodec.encode(each())
    assert most == [2, 3, 4, 4]
