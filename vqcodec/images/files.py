# SPDX-License-Identifier: Apache-2.0
"""Files of the command line: which input goes where, reading, writing without half-written results, and errors.

A path `-` is stdin or stdout.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class UsageError(ValueError):
    """Paths that mean nothing together."""


class Job(NamedTuple):
    """One input and where its result goes, as paths."""

    source: str
    target: str


def plan(paths: Sequence[str], directory: str | None, extension: str) -> list[Job]:
    """The jobs that the positional arguments of a command ask for.

    Two paths without a directory are input and output; otherwise all are inputs, and a result gets its input's name
    with `extension` (a dot included), in `directory` or beside the input. Makes the directory. Raises
    `UsageError` where two results would have one name or stdin has no place.
    """
    if directory is None and len(paths) == 2:
        jobs = [Job(*paths)]
    elif directory is None and list(paths) == ["-"]:
        jobs = [Job("-", "-")]
    else:
        if "-" in paths:
            raise UsageError("stdin is an input on its own: vqcodec ... - OUTPUT")
        jobs = [Job(path, _beside(Path(path), directory, extension)) for path in paths]
    targets = [job.target for job in jobs]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two inputs would both be written to {target}")
    if jobs[0].target == "-" and sys.stdout.isatty():
        raise UsageError("the result is not for a terminal: name a file or redirect stdout")
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
    return jobs


def numbered(target: str, number: int) -> str:
    """The name of one of several results: out-3.png for out.png and 3."""
    path = Path(target)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def read(source: str) -> bytes:
    """All bytes of an input."""
    return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()


def check_target(target: str, force: bool) -> None:
    """Raise `OSError` if a result must not be written there: it exists and `force` is off, or is a directory."""
    if target == "-":
        return
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "is a directory", target)
    if os.path.isfile(target) and not force:
        raise FileExistsError(errno.EEXIST, "exists already (-f overwrites it)", target)


def write(target: str, data: bytes, force: bool) -> None:
    """Write a result; a file appears under its name only when it is complete.

    Raises `OSError` as `check_target` does, or if it cannot be written.
    """
    if target == "-":
        stream = sys.stdout.buffer
        stream.write(data)
        stream.flush()
        return
    check_target(target, force)
    path = Path(os.path.realpath(target))  # a link stays a link
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a device or a pipe cannot be replaced
        return
    beside = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def describe(error: BaseException, name: str = "") -> str:
    """An error in one line, with the file it is about: its own where it has one, else `name`."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        name = str(error.filename) if error.filename is not None else name
    elif isinstance(error, MemoryError):
        text = "out of memory"
    return one_line(f"{name}: {text}" if name else text)


def _beside(path: Path, directory: str | None, extension: str) -> str:
    named = path.with_suffix(extension)
    return str(named if directory is None else Path(directory) / named.name)


def one_line(text: str) -> str:
    """The same words without line breaks."""
    return " ".join(text.split())
