# SPDX-License-Identifier: Apache-2.0
"""What the tests of collections share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import drawn

from vqcodec.batch.manifest import NAME, PREFIX

ODD = ("sub/ü ñ 'quoted'.PNG", "sub/two\nlines.png", "sub/a.b.c.png", "-q.png", "sub/deep/#1%20?.png")


def fill(folder: Path, number: int = 6) -> None:
    """Pictures of two sizes, among them some with odd names, two of one stem, two damaged ones, and one that is no
    picture."""
    names = [*ODD, *(f"{i}.png" for i in range(number)), "0.jpg"]
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(40 if i % 2 else 24, 24 + i).save(path, "JPEG" if name.endswith("jpg") else "PNG")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "sub" / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")


GOOD = len(ODD) + 7
DAMAGED = {"broken.png", "sub/empty.jpg"}


def lines(dest: Path) -> list[dict[str, Any]]:
    """The records of a local manifest, all of them."""
    read = [json.loads(line) for line in (dest / NAME).read_text().splitlines()]
    return [line for line in read if "key" in line]


def contents(dest: Path) -> dict[str, bytes]:
    """Names and bytes of all files but the manifest."""
    return {
        path.relative_to(dest).as_posix(): path.read_bytes()
        for path in sorted(dest.rglob("*"))
        if path.is_file() and not path.name.startswith(PREFIX)
    }


@pytest.fixture
def pictures(tiny_folder: Path) -> Path:
    """The folder `in` of the working directory, filled."""
    fill(tiny_folder / "in")
    return tiny_folder / "in"
