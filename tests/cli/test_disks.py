# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, or cannot be written to: real ones, in memory, where this user may mount them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vqcodec.cli import main

SIZE = 64 << 10  # bytes of a disk


def vq(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def mounted(*arguments: str) -> bool:
    """Whether a mount was made."""
    try:
        return not subprocess.run(["mount", *arguments], capture_output=True, check=False, timeout=30).returncode
    except OSError:
        return False


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 kB in the working directory, empty."""
    path = folder / "disk"
    path.mkdir()
    if not mounted("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)):
        pytest.skip("this user may not mount a disk")
    yield path
    subprocess.run(["umount", str(path)], check=True, timeout=30)


def fill(disk: Path) -> None:
    """Write until no byte is left."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1024)):
            pass
    assert not os.statvfs(disk).f_bavail


@pytest.fixture
def full(disk: Path) -> Path:
    """The same with no byte left."""
    fill(disk)
    return disk


@pytest.fixture
def sealed(disk: Path) -> Path:
    """The same, mounted to be read only."""
    assert mounted("-o", "remount,ro", str(disk))
    return disk


def names(disk: Path) -> set[str]:
    """All that is on a disk."""
    return {str(path.relative_to(disk)) for path in disk.rglob("*")}


COMMANDS: list[tuple[str, ...]] = [
    ("encode", "a.png", "disk/a.vq2"),
    ("encode", "--lossless", "a.png", "disk/a.vq2"),
    ("decode", "coded.vq2", "disk/a.png"),
    ("decode", "--preview", "2", "coded.vq2", "disk/a.jpg"),
    ("indices", "a.png", "disk/a.npz"),
    ("indices", "codes.npz", "disk/a.vq2"),
    ("sample", "--tiles", "1x1", "disk/s.png"),
    ("man", "-O", "disk"),
]


@pytest.fixture
def sources(folder: Path) -> None:
    assert vq("encode", "a.png", "coded.vq2").exit_code == 0
    assert vq("indices", "a.png", "codes.npz").exit_code == 0


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_a_full_disk(full: Path, sources: None, arguments: tuple[str, ...]) -> None:
    result = vq(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("vqcodec: error: disk/")
    assert result.stderr.endswith(": No space left on device\n")
    assert names(full) == {"filler"}


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_a_disk_that_is_read_only(sealed: Path, sources: None, arguments: tuple[str, ...]) -> None:
    result = vq(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    assert "disk" in result.stderr
    assert "Read-only file system" in result.stderr or "cannot be written to" in result.stderr
    assert names(sealed) == set()


def test_what_fits_is_written_whole_and_the_rest_fails(disk: Path) -> None:
    """Many files on a disk that fills up meanwhile: those that are there are whole, each other one is a line."""
    for number in range(12):
        Image.effect_noise((120, 120), 90 + number).save(f"n{number}.png")
    result = vq("encode", "--lossless", *(f"n{number}.png" for number in range(12)), "-O", "disk")
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    written = {path.stem: path.read_bytes() for path in disk.iterdir()}
    assert 0 < len(written) < 12
    failed = [line for line in lines if line.endswith(": No space left on device")]
    assert len(failed) == 12 - len(written)
    assert lines[-1].startswith(f"{len(written)} of 12 files, {len(failed)} failed")
    for name, data in written.items():
        Path("copy.vq2").write_bytes(data)
        assert vq("decode", "copy.vq2", "copy.png", "-f").exit_code == 0
        assert Image.open("copy.png").tobytes() == Image.open(f"{name}.png").tobytes()


def test_an_overwritten_file_survives_a_full_disk(disk: Path) -> None:
    """With --force, what was there before stays where the new one does not fit."""
    (disk / "a.vq2").write_bytes(b"what was there before")
    fill(disk)
    assert vq("encode", "a.png", "disk/a.vq2", "--force").exit_code == 1
    assert (disk / "a.vq2").read_bytes() == b"what was there before"
    assert names(disk) == {"a.vq2", "filler"}


@pytest.mark.parametrize("state", ["full", "sealed"])
def test_a_collection(state: str, request: pytest.FixtureRequest, folder: Path) -> None:
    """A collection ends in an error, too, and leaves no result that is not whole."""
    disk: Path = request.getfixturevalue(state)
    result = vq("batch", "encode", "*.png", "disk")
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.stderr
    assert not [name for name in names(disk) if name.endswith(".vq2")]
