# SPDX-License-Identifier: Apache-2.0
"""Which input goes where: the positional arguments of a command as jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from vqcodec.images.files import Job, UsageError

_STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_STDIN = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


def plan(
    paths: Sequence[str],
    directory: str | None,
    extension: str,
    suffixes: Collection[str] = (),
    recursive: bool = False,
) -> list[Job]:
    """Plan the jobs that the positional arguments of a command ask for.

    Two paths are input and output; more, or one, are inputs, whose results stand beside them under their name with
    another extension. With `directory` all are inputs, and their results go there. So they do where the last of several
    paths is a folder, or ends in a slash. An input that is a folder stands for the files in it.

    Args:
        paths: as they were typed.
        directory: folder of the results, or None.
        extension: of the results, a dot included.
        suffixes: of the files that are taken from folders, in small letters.
        recursive: whether to take those in folders below, too; the tree is the same in `directory`.

    Raises `UsageError` where two results would have one name or stdin has no place, and `FileNotFoundError` for a
    folder without a file of those suffixes.
    """
    sources = ["-" if path in _STDIN else path for path in paths]
    target = None
    if directory is None and len(sources) > 1:
        last = paths[-1]
        if last.endswith(("/", os.sep)) or os.path.isdir(last) or (len(sources) == 2 and os.path.isdir(sources[0])):
            directory = sources.pop()
            if not os.path.isdir(directory) and Path(directory).suffix:
                raise UsageError(f"{sources[0]} is a folder: its results go to a folder, which {directory} is not")
        elif len(sources) == 2:
            target = "-" if last in _STDOUT else sources.pop()
            del sources[1:]
    if target is None and directory is None and sources == ["-"]:
        target = "-"
    if "-" in sources and target is None:
        raise UsageError("stdin is an input on its own: vqcodec ... - OUTPUT")
    if target is not None:
        jobs = [Job(sources[0], target)]
    else:
        jobs = [job for path in sources for job in _jobs_of(path, directory, extension, suffixes, recursive)]
    _check_names(jobs)
    if jobs[0].target == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("the result is not for a terminal: name a file or redirect stdout")
    return jobs


def _jobs_of(path: str, directory: str | None, extension: str, suffixes: Collection[str], recursive: bool) -> list[Job]:
    """The jobs of one input: a file, or the files of a folder."""
    made = directory is not None
    if not os.path.isdir(path) or not suffixes:
        return [Job(path, _beside(Path(path), directory, extension), made)]
    base = Path(path)
    files = sorted(
        file for file in (base.rglob("*") if recursive else base.iterdir()) if file.suffix.lower() in suffixes
    )
    files = [file for file in files if file.is_file()]
    if not files:
        below = "" if recursive else ", and -r, which looks into those below, was not given"
        raise FileNotFoundError(2, f"there is nothing to do in this folder{below}", path)
    folders = [None if directory is None else str(Path(directory) / file.relative_to(base).parent) for file in files]
    return [Job(str(file), _beside(file, folder, extension), made) for file, folder in zip(files, folders, strict=True)]


def _beside(path: Path, directory: str | None, extension: str) -> str:
    named = path.with_suffix(extension) if path.name else path
    return str(named if directory is None else Path(directory) / named.name)


def _check_names(jobs: Sequence[Job]) -> None:
    """Raise `UsageError` where two results would have one name."""
    sources: dict[str, str] = {}
    for job in jobs:
        if job.target in sources:
            raise UsageError(f"{sources[job.target]} and {job.source} would both be written to {job.target}")
        sources[job.target] = job.source
