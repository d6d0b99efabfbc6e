# SPDX-License-Identifier: Apache-2.0
"""Files of the command line: reading, writing without half-written results, and errors in one line.

A path `-` is stdin or stdout.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import IO, NamedTuple

from vqcodec.errors import UnexpectedError, VqcodecError, is_out_of_memory


class UsageError(ValueError):
    """Paths that mean nothing together."""


class Skipped(Exception):
    """A job whose result is there already; the message is the name of the result."""


class Job(NamedTuple):
    """One input and where its result goes, as paths. make_folders: the folders of the result are made where missing."""

    source: str
    target: str
    make_folders: bool = False


def numbered(target: str, number: int) -> str:
    """Name one of several results: out-3.png for out.png and 3.

    Args:
        target: name of them all.
        number: of this one.
    """
    path = Path(target)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def read(source: str) -> bytes:
    """Read all bytes of an input. Raises `OSError` if it cannot be read."""
    if source != "-":
        return Path(source).read_bytes()
    if sys.stdin is None:
        raise OSError(errno.EBADF, "is closed", "stdin")
    return sys.stdin.buffer.read()


def check_target(target: str, force: bool, make_folders: bool = False, skip_existing: bool = False) -> None:
    """Find out, before any work is done, whether a result can be written.

    Args:
        target: its path, or `-`.
        force: whether a file that exists may be replaced.
        make_folders: whether `write` will make the folders that are missing.
        skip_existing: whether to raise `Skipped` for a file that exists.

    Raises `OSError` if it exists and `force` is off, is a folder, is a link to nothing out of a folder of results, or
    its folder is missing or cannot be written to.
    """
    if target == "-":
        return
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "is a directory", target)
    if make_folders and os.path.islink(target) and not os.path.exists(target):
        folder, leads = os.path.realpath(os.path.dirname(target) or "."), os.path.realpath(target)
        if os.path.commonpath([folder, leads]) != folder:
            raise PermissionError(
                errno.EPERM, "is a link to nothing outside of its folder, and is not followed", target
            )
    if os.path.isfile(target) and skip_existing:
        raise Skipped(target)
    if os.path.isfile(target) and not force:
        raise FileExistsError(errno.EEXIST, "exists already (-f overwrites it)", target)
    if os.path.exists(target) and not os.path.isfile(target):
        return  # a device or a pipe
    folder = os.path.dirname(os.path.realpath(target))
    while make_folders and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, f"there is no folder {_shown(folder)}", target)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder {_shown(folder)} cannot be written to", target)


def write(target: str, data: bytes, force: bool, make_folders: bool = False) -> None:
    """Write a result; a file appears under its name only when it is complete.

    Args:
        target: name of the file, or `-` for stdout.
        data: the bytes.
        force: replace a file of that name.
        make_folders: make the folders that it lies in.

    Raises: OSError as `check_target` does, or if it cannot be written.
    """
    if target == "-":
        put(data)
        return
    check_target(target, force, make_folders)
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            Path(target).write_bytes(data)  # a device or a pipe cannot be replaced
            return
        path = Path(os.path.realpath(target))  # a link stays a link
        if make_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from error


def put(data: bytes) -> None:
    """Write to stdout. Raises `OSError` that names it, `BrokenPipeError` where its reader has gone."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "is closed", "stdout")
    try:
        stream = sys.stdout.buffer
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise OSError(error.errno, error.strerror, "stdout") from error


def put_line(text: str) -> None:
    """Write a line of text to stdout, as `put`. What its encoding does not have is escaped."""
    put(f"{text}\n".encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace"))


def forget_stdout() -> None:
    """Send to nowhere what stdout still holds: it cannot be written, and Python would try again at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def describe(error: BaseException, name: str = "") -> str:
    """Write an error in one line, with the file it is about.

    Of an error that nobody foresaw, its kind too; where the environment variable VQCODEC_DEBUG is set, all of it.

    Args:
        error: to describe.
        name: of the file, where the error names none.
    """
    text = str(error)
    if is_out_of_memory(error):
        text = "out of memory"
    elif isinstance(error, OSError):
        text = error.strerror or text
        name = str(error.filename) if error.filename is not None else name
    elif isinstance(error, UnexpectedError) or not isinstance(error, (VqcodecError, UsageError)):
        kind = "" if isinstance(error, UnexpectedError) else f"unexpected {type(error).__name__}: "
        text = f"{kind}{text} (VQCODEC_DEBUG=1 shows where)"
        if os.environ.get("VQCODEC_DEBUG"):
            return f"{name}: " + "".join(traceback.format_exception(error)).rstrip()
    return one_line(f"{name}: {text}" if name else text)


def one_line(text: str) -> str:
    """Return the same words without line breaks."""
    return " ".join(text.split())


def _replace(path: Path, data: bytes) -> None:
    """Let a file appear whole. Until then it has no name, where the system knows such files, else a hidden one."""
    hidden = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with _opened(path.parent, hidden) as file:
            file.write(data)
            file.flush()
            if not hidden.exists():
                # `src_dir_fd` makes Python follow the link, which Linux does not by itself.
                os.link(f"/proc/self/fd/{file.fileno()}", hidden, src_dir_fd=file.fileno())
        if path.exists():
            shutil.copymode(path, hidden)
        os.replace(hidden, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            hidden.unlink()


def _opened(folder: Path, hidden: Path) -> IO[bytes]:
    """A new file to write: without a name in a folder, else under a hidden one."""
    nameless = getattr(os, "O_TMPFILE", None)
    if nameless is not None and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not every file system knows them
            return open(os.open(folder, nameless | os.O_WRONLY, 0o666), "wb")
    return hidden.open("xb")


def _shown(folder: str) -> str:
    """A folder as people would write it: below the current one without the latter's path."""
    relative = os.path.relpath(folder)
    return folder if relative.startswith(os.pardir) else relative
