# SPDX-License-Identifier: Apache-2.0
"""Names of results."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import PurePosixPath


class Names:
    """Names of results: that of the item with another suffix; where another item has that, added to the whole name."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._taken: set[bytes] = set()

    def of(self, key: str) -> str:
        """Choose the name of the result of the next item."""
        path = PurePosixPath(safe(key))
        stem = path.with_suffix("") if path.suffix else path
        numbered = (f"{path}~{number}{self._suffix}" for number in itertools.count(2))
        for name in itertools.chain([f"{stem}{self._suffix}", f"{path}{self._suffix}"], numbered):
            digest = hashlib.blake2b(name.casefold().encode(errors="surrogatepass"), digest_size=8).digest()
            if digest not in self._taken:
                self._taken.add(digest)
                return name
        raise AssertionError("numbers do not end")


def safe(key: str) -> str:
    """Return a key as a path that stays below a folder."""
    parts = [part for part in key.split("/") if part not in ("", ".")]
    return "/".join("_" if part == ".." else part for part in parts) or "_"
