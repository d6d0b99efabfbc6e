# SPDX-License-Identifier: Apache-2.0
"""Input and output as people type them, and every way a command can end: folders, devices, signals, full disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import vqcodec
from vqcodec.cli import main
from vqcodec.errors import ModelError
from vqcodec.images import files
from vqcodec.images.plan import plan
from vqcodec.model import registry

ROOT = Path(vqcodec.__file__).resolve().parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="devices and signals of POSIX")
RUN = "from vqcodec.cli import main; main()"


def picture(width: int = 40, height: int = 24) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([6 * x, 10 * y, 3 * (x + y)], axis=2).astype(np.uint8))


def vq(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a.png, and a tree with two pictures and a text; the tiny model encodes."""
    monkeypatch.setenv(registry.ENVIRONMENT, str(tiny_models))
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)
    picture().save("a.png")
    Path("tree/deep").mkdir(parents=True)
    picture(9, 9).save("tree/b.png")
    picture(8, 9).save("tree/deep/c.JPG", "JPEG")
    Path("tree/text.txt").write_text("no image")
    return tmp_path


def names_in(top: str) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in Path(top).rglob("*") if path.is_file())


def test_trees_are_mirrored_and_what_exists_is_skipped(folder: Path) -> None:
    assert vq("encode", "tree", "-O", "flat").exit_code == 0
    assert names_in("flat") == ["b.vq2"]
    result = vq("encode", "-r", "tree", "-O", "out")
    assert result.exit_code == 0
    assert names_in("out") == ["b.vq2", "deep/c.vq2"]
    assert result.stderr.splitlines()[-1].startswith("2 of 2 files: ")
    again = vq("encode", "-r", "tree", "a.png", "-O", "out", "--skip-existing")
    assert again.exit_code == 0
    assert "tree/b.png: skipped, out/b.vq2 exists" in again.stderr
    assert again.stderr.splitlines()[-1].startswith("1 of 3 files, 2 skipped: ")
    assert vq("decode", "-r", "out", "back/").exit_code == 0
    assert names_in("back") == ["a.png", "b.png", "deep/c.png"]


def test_the_last_name_may_be_a_folder(folder: Path) -> None:
    assert vq("encode", "a.png", "new/").exit_code == 0
    assert vq("encode", "a.png", "tree/b.png", "new", "-f").exit_code == 0
    assert names_in("new") == ["a.vq2", "b.vq2"]
    assert vq("decode", "new", "pictures").exit_code == 0
    assert names_in("pictures") == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["encode", "a.png", "b.jpg"], 2, "which b.jpg is not"),
        (["encode", "tree", "out.vq2"], 2, "its results go to a folder"),
        (["encode", "tree/b.png", "tree", "-O", "x"], 2, "would both be written to"),
        (["encode", "a.png", "missing/a.vq2"], 1, "there is no folder missing"),
        (["encode", "a.png", "a.png/x.vq2"], 1, "there is no folder a.png"),
        (["encode", "empty", "-O", "x"], 1, "empty: there is nothing to do in this folder"),
        (["encode", "none.png"], 1, "none.png: the file is empty"),
        (["encode", "coded.vq2", "again.vq2"], 1, "coded.vq2: is a .vq2 file already: decode it first"),
        (["encode", "photo.heic"], 1, "HEIF needs a plugin: pip install pillow-heif"),
        (["decode", "coded.vq2", "x.png", "-q", "80"], 1, "PNG has no quality"),
    ],
)
def test_one_right_line(folder: Path, arguments: list[str], status: int, message: str) -> None:
    Path("empty").mkdir()
    Path("none.png").write_bytes(b"")
    Path("photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    vq("encode", "a.png", "coded.vq2")
    before = names_in(".")
    result = vq(*arguments)
    assert (result.exit_code, message in result.stderr) == (status, True), result.stderr
    assert status == 2 or result.stderr.count("\n") == 1
    assert names_in(".") == before


def test_output_takes_a_quality(folder: Path) -> None:
    picture(200, 150).save("big.png")
    vq("encode", "big.png")
    for suffix in ("jpg", "webp", "avif"):
        sizes = []
        for quality in ([], ["-q", "30"]):
            assert vq("decode", "big.vq2", f"big.{suffix}", "-f", *quality).exit_code == 0
            sizes.append(Path(f"big.{suffix}").stat().st_size)
        assert sizes[1] < 0.7 * sizes[0], suffix


def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and real(path, mode, **more))
    monkeypatch.setattr("vqcodec.codec.load_model", lambda *_: pytest.fail("the model was loaded"))
    result = vq("encode", "a.png", "tree/x.vq2")
    assert result.stderr == "vqcodec: error: tree/x.vq2: the folder tree cannot be written to\n"


def test_plan_reads_devices_as_streams() -> None:
    assert plan(["/dev/stdin", "/dev/stdout"], None, ".vq2") == [files.Job("-", "-")]


# Ends, in processes of their own


def process(*arguments: str, code: str = RUN, **options: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE, **options
    )


@posix
@pytest.mark.parametrize(
    ("arguments", "redirection", "message"),
    [
        ("info coded.vq2", ">/dev/full", b"stdout: No space left on device"),
        ("--help", ">/dev/full", b"stdout: No space left on device"),
        ("decode coded.vq2 -", ">/dev/full", b"stdout: No space left on device"),
        ("decode coded.vq2 /dev/full --format png", "", b"/dev/full: No space left on device"),
        ("info coded.vq2", ">&-", b"stdout: is closed"),
        ("decode coded.vq2 -", ">&-", b"stdout: is closed"),
        ("info -", "<&-", b"stdin: is closed"),
    ],
)
def test_closed_and_full_streams(folder: Path, arguments: str, redirection: str, message: bytes) -> None:
    if "/dev/full" in arguments + redirection and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    vq("encode", "a.png", "coded.vq2")
    command = f"exec {sys.executable} -m vqcodec {arguments} {redirection}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False, timeout=120)
    assert (result.returncode, result.stderr) == (1, b"vqcodec: error: " + message + b"\n")


SLOW = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its jobs in the background ignore it
from vqcodec.batch import overlap
from vqcodec.cli import main
from vqcodec.images import files
real = files.write
def write(*arguments):
    real(*arguments)
    print("written", file=sys.stderr, flush=True)
    if arguments[0].endswith("b.vq2"):
        time.sleep(600)
files.write = write
from vqcodec import codec
def encode(self, image, **options):
    if image.width == 40:
        os.write(2, b"coding\\n")  # in one piece, as another thread writes, too
        time.sleep(600)
    return b"coded"
codec.Codec.encode = encode
codec.load_model = lambda *_: codec.Codec.__new__(codec.Codec)
main()
"""


@posix
@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "vqcodec: interrupted"),
        (signal.SIGTERM, 143, "vqcodec: terminated"),
        (signal.SIGKILL, -signal.SIGKILL, None),
    ],
)
def test_signals(folder: Path, number: int, status: int, line: str | None) -> None:
    """A failure before is said, a result is whole or not there, and the end is one line."""
    running = process("encode", "gone.png", "a.png", "tree/b.png", "-O", "out", "--model", "tiny", code=SLOW)
    assert running.stderr is not None
    said: list[str] = []
    missing = "vqcodec: error: gone.png: No such file or directory"
    while not {missing, "coding"} <= set(said):  # in any order: the first file is read while the second is coded
        said.append(running.stderr.readline().decode().strip())
        assert said[-1], said
    running.send_signal(number)
    started = time.monotonic()
    said += running.stderr.read().decode().splitlines()
    assert running.wait(timeout=120) == status
    assert time.monotonic() - started < 120  # not the ten minutes of the work, however busy the machine is
    assert said.count(missing) == 1
    if line is not None:
        assert said[-1] == line
        assert said[-2].startswith("0 of 3 files, 1 failed, 2 not begun")
    assert names_in("out") == [] if Path("out").exists() else True


@posix
def test_a_killed_write_leaves_nothing(folder: Path) -> None:
    """SIGKILL in the middle of writing: neither the name nor a partial file is there."""
    code = """
import os, signal, sys
from vqcodec.images import files
class Data(bytes):
    pass
real = files._opened
def opened(*arguments):
    file = real(*arguments)
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
files._opened = opened
files.write("x.vq2", b"whole", False)
"""
    before = names_in(".")
    running = process(code=code)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL
    assert [name for name in names_in(".") if not name.endswith(".tmp")] == before
    if hasattr(os, "O_TMPFILE"):
        assert not Path("x.vq2").exists()


def test_write_is_whole_and_keeps_what_it_must(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x"
    files.write(str(target), b"one", False, make_folders=True)
    with pytest.raises(FileExistsError):
        files.write(str(target), b"two", False)
    files.write(str(target), b"three", True)
    assert target.read_bytes() == b"three"
    assert [path.name for path in target.parent.iterdir()] == ["x"]
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert target.stat().st_mode & 0o777 == 0o666 & ~mask


@posix
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_several_files_at_a_time_are_the_same_files(folder: Path, command: str) -> None:
    for i in range(3):
        shutil.copy("a.png", f"c{i}.png")
    Path("broken.png").write_bytes(b"no picture")
    assert vq("encode", "-e", "1", "--no-fallback", *Path().glob("[ac]*.png"), "-O", "one").exit_code == 0
    inputs = sorted(map(str, Path("one").glob("*.vq2"))) if command == "decode" else [*Path().glob("[ac]*.png")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = f"from vqcodec.model import registry; registry.DEFAULT_MODEL = 'tiny'; {RUN}"
    effort = ["-e", "1", "--no-fallback"] if command == "encode" else []
    arguments = [sys.executable, "-c", run, command, "-j", "2", *effort, *map(str, inputs), "broken.png", "-O", "two"]
    done = subprocess.run(arguments, capture_output=True, env=environment, timeout=120, check=False)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert sum("error: broken.png" in line for line in lines) == 1
    assert lines[-1].startswith("4 of 5 files, 1 failed")
    if command == "encode":
        for path in Path("one").glob("*.vq2"):
            assert Path("two", path.name).read_bytes() == path.read_bytes()
    assert len(list(Path("two").iterdir())) == 4


@posix
def test_a_process_that_dies_fails_its_file_alone() -> None:
    from vqcodec.batch import Outcome, Steps, forked
    from vqcodec.images.files import Job

    def code(job: Job, _: object) -> str:
        if job.source == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        return job.source

    jobs = [Job(name, name) for name in ("a", "killer", "b", "c")]
    outcomes: list[Outcome] = []
    steps = Steps(lambda job: None, lambda: None, code, lambda job, coded: coded)
    forked.run(jobs, steps, outcomes.append, 2)
    assert {outcome.job.source: outcome.failed for outcome in outcomes} == {"a": 0, "killer": 1, "b": 0, "c": 0}
    assert "died" in next(outcome.talk[0] for outcome in outcomes if outcome.failed)

    def prepare() -> None:
        raise ModelError("is not there")

    with pytest.raises(ModelError, match="is not there"):
        forked.run(jobs, steps._replace(prepare=prepare), outcomes.append, 2)
