# SPDX-License-Identifier: Apache-2.0
"""Files of collections: local paths, and URLs (`s3://`, `gs://`, `memory://`) through fsspec, the extra `batch`.

Locations are strings that mean the same in every process: absolute paths, or URLs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from vqcodec.errors import VqcodecError
from vqcodec.images import files

WHOLE_OBJECTS = frozenset("s3 s3a gs gcs az abfs abfss adl oss memory".split())
"""Protocols whose objects appear whole, under their name, once they are written."""


class Entry(NamedTuple):
    """A file of a listing.

    Args:
        location: path or URL.
        size: bytes; -1 of what cannot be read: a folder, a link to nowhere, a pipe.
        stamp: changes with the contents: an etag, or the time of the last change.
    """

    location: str
    size: int
    stamp: str


def is_url(location: str) -> bool:
    """Return whether fsspec is asked for a location."""
    return "://" in location


def absolute(location: str | os.PathLike[str]) -> str:
    """Return the location of what a user named: URLs as they are, but for `file://`; paths absolute."""
    text = os.fspath(location).removeprefix("file://")
    if not is_url(text):
        return os.path.abspath(text)
    fs, path = _filesystem(text)
    return str(fs.unstrip_protocol(path)).rstrip("/")


def join(folder: str, name: str) -> str:
    """Name a location below a folder.

    Args:
        folder: a path or a URL.
        name: with slashes.
    """
    return f"{folder}/{name}" if is_url(folder) else os.path.join(folder, *name.split("/"))


def is_local_to_process(location: str) -> bool:
    """Return whether other processes see something else at a location."""
    return location.startswith("memory://")


def is_folder(location: str) -> bool:
    """Return whether there is a folder; object stores have one where there are objects below the name."""
    if is_url(location):
        fs, path = _filesystem(location)
        return bool(fs.isdir(path))
    return os.path.isdir(location)


def size_of(location: str) -> int | None:
    """Bytes of a file; None if there is none."""
    if is_url(location):
        fs, path = _filesystem(location)
        with contextlib.suppress(FileNotFoundError):
            return int(fs.info(path)["size"])
        return None
    with contextlib.suppress(OSError):
        return os.stat(location).st_size
    return None


def entry_of(location: str) -> Entry:
    """Return a file as a listing has it."""
    if is_url(location):
        fs, path = _filesystem(location)
        try:
            return _entry(fs, fs.info(path))
        except FileNotFoundError:
            return Entry(location, -1, "")
    return _local_entry(location)


def walk(folder: str) -> Iterator[list[Entry]]:
    """Yield the files of a folder and of all below it, folder by folder, in order of name. A folder that cannot be
    listed is an entry of its own."""
    if is_url(folder):
        fs, path = _filesystem(folder)
        pending = [path]
        while pending:
            infos = sorted(fs.ls(pending.pop(), detail=True), key=lambda info: str(info["name"]))
            pending += [info["name"] for info in reversed(infos) if info["type"] == "directory"]
            yield [_entry(fs, info) for info in infos if info["type"] != "directory"]
        return
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            yield [Entry(here, -1, "")]
            continue
        waiting += [entry.path for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]
        yield [_local_entry(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False)]


def sizes(folder: str) -> dict[str, int]:
    """Names and sizes of the files in a folder; nothing where there is no such folder."""
    if is_url(folder):
        fs, path = _filesystem(folder)
        fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            infos = fs.ls(path, detail=True)
            return {str(info["name"]).rsplit("/", 1)[-1]: int(info["size"] or 0) for info in infos}
        return {}
    listed: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as scan:
        for entry in scan:
            with contextlib.suppress(OSError):
                listed[entry.name] = entry.stat().st_size
    return listed


def read(location: str, start: int | None = None, length: int | None = None) -> bytes:
    """Read a file, or a part of it.

    Args:
        location: a path or a URL.
        start: first byte; None: 0.
        length: bytes to read; None: all.

    Raises: OSError.
    """
    if is_url(location):
        fs, path = _filesystem(location)
        end = None if start is None or length is None else start + length
        return bytes(fs.cat_file(path, start=start, end=end))
    with open(location, "rb", opener=_regular) as file:
        if start is not None:
            file.seek(start)
        return file.read(-1 if length is None else length)


@contextlib.contextmanager
def opened(location: str) -> Iterator[IO[bytes]]:
    """Open a file to seek and read in. Raises OSError."""
    if is_url(location):
        fs, path = _filesystem(location)
        with fs.open(path, "rb") as remote:
            yield remote
    else:
        with open(location, "rb", opener=_regular) as file:
            yield file


def write(location: str, data: bytes) -> None:
    """Write a file, which appears whole or not at all and replaces one of its name; make folders.

    Args:
        location: a path or a URL.
        data: the bytes.

    Raises: OSError.
    """
    if not is_url(location):
        files.write(location, data, force=True, make_folders=True)
        return
    fs, path = _filesystem(location)
    if protocol(location) in WHOLE_OBJECTS:
        fs.pipe_file(path, data)
        return
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    hidden = f"{path}.{os.urandom(8).hex()}.tmp"
    try:
        fs.pipe_file(hidden, data)
        fs.mv(hidden, path)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(hidden)
        raise


def remove(location: str) -> None:
    """Remove a file; nothing happens if there is none."""
    if is_url(location):
        fs, path = _filesystem(location)
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(location)


def matching(pattern: str) -> list[str]:
    """Return the locations that a pattern with `*`, `**`, `?` and `[...]` stands for, in order of name."""
    if is_url(pattern):
        fs, path = _filesystem(pattern)
        return sorted(str(fs.unstrip_protocol(name)) for name in fs.glob(path))
    import glob

    return sorted(glob.glob(pattern, recursive=True))


def protocol(location: str) -> str:
    """`s3` of `s3://bucket/name`, also where URLs are chained."""
    return location.split("://", 1)[0].rsplit("::", 1)[-1]


def _filesystem(location: str) -> tuple[Any, str]:
    """The file system of a URL, which fsspec keeps, and the path there."""
    try:
        import fsspec.core
    except ImportError as error:
        raise VqcodecError("URLs need the extra `batch`: pip install 'vqcodec[batch]'") from error
    try:
        fs, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise VqcodecError(f"{location}: {error}") from error
    return fs, str(path)


def _entry(fs: Any, info: dict[str, Any]) -> Entry:
    stamps = (info.get(name) for name in ("ETag", "etag", "LastModified", "last_modified", "mtime", "created"))
    stamp = next((str(value) for value in stamps if value), "")
    size = info.get("size")
    return Entry(str(fs.unstrip_protocol(info["name"])), -1 if size is None else int(size), stamp)


def _local_entry(path: str) -> Entry:
    try:
        status = os.stat(path)
    except OSError:
        return Entry(path, -1, "")
    return Entry(path, status.st_size if stat.S_ISREG(status.st_mode) else -1, str(status.st_mtime_ns))


def _regular(path: str, flags: int) -> int:
    """Open a file, but no pipe, whose writer would be waited for."""
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise OSError(None, "is no ordinary file", path)
    return os.open(path, flags)
