# SPDX-License-Identifier: Apache-2.0
"""Pictures by their names: those of a list file, or given one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from vqcodec.batch import storage
from vqcodec.batch.items import Item


@dataclass(frozen=True)
class ListSource:
    """Pictures by name.

    Args:
        names: paths or URLs.
        file: location of a text file with one on every line, relative to the file's folder; empty lines and those that
            begin with `#` are left out.
        base: folder that keys are relative to; by default the deepest one that all names are below.
    """

    names: tuple[str, ...]
    file: str = ""
    base: str = ""

    def items(self) -> Iterator[Item]:
        """Yield all of them, each once."""
        locations = list(dict.fromkeys(self._locations()))
        base = self.base or _common(locations)
        for location in locations:
            _, size, stamp = storage.entry_of(location)
            below = location.startswith(f"{base}/")
            key = location[len(base) + 1 :] if below else location.split("://")[-1].lstrip("/")
            yield Item(key.replace(os.sep, "/"), location, size, stamp)

    def _locations(self) -> Iterator[str]:
        yield from (storage.absolute(name) for name in self.names)
        if self.file:
            folder = self.file.rsplit("/", 1)[0] if storage.is_url(self.file) else os.path.dirname(self.file)
            lines = storage.read(self.file).decode("utf-8-sig", "surrogateescape").splitlines()
            for line in map(str.strip, lines):
                if line and not line.startswith("#"):
                    named = storage.is_url(line) or PurePosixPath(line).is_absolute() or os.path.isabs(line)
                    yield storage.absolute(line if named else storage.join(folder, line))


def _common(locations: list[str]) -> str:
    """The folder that all locations are below; empty where there is none."""
    folders = [location.rsplit("/", 1)[0].split("/") for location in locations]
    if not folders:
        return ""
    shortest, longest = min(folders), max(folders)
    same = 0
    while same < min(len(shortest), len(longest)) and shortest[same] == longest[same]:
        same += 1
    return "/".join(shortest[:same])
