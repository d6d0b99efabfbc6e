# SPDX-License-Identifier: Apache-2.0
"""Tar shards as WebDataset reads them: a result and a .json with its figures, under one name without dots."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vqcodec.batch.items import Record
from vqcodec.batch.names import safe
from vqcodec.batch.sinks.shards import put
from vqcodec.batch.sinks.writing import Result

KEY = "vqcodec_key"


@dataclass(frozen=True)
class TarSink:
    """A folder of tar shards.

    Args:
        folder: its location.
        inner: suffix of the results, with its dot.
    """

    folder: str
    inner: str
    sharded = True
    suffix = ".tar"

    def write(self, chunk: str, results: Sequence[Result]) -> None:
        """Write the results that there are.

        Args:
            chunk: name of the shard.
            results: of a chunk.
        """
        kept = [result for result in results if result.data is not None]
        if kept:
            file = io.BytesIO()
            taken: set[str] = set()
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for record, data, _ in kept:
                    name = _name(record.key, taken)
                    assert data is not None
                    _add(tar, f"{name}{self.inner}", data)
                    _add(tar, f"{name}.json", json.dumps(figures(record), sort_keys=True).encode("ascii"))
            put(self, chunk, file.getvalue(), [result.record for result in kept])

    def without(self, data: bytes, kept: set[str]) -> bytes:
        """Make a shard with the results of some keys only.

        Args:
            data: a shard.
            kept: the keys.
        """
        file = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(data), mode="r:") as old,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as new,
        ):
            members = old.getmembers()
            for result, said in zip(members[::2], members[1::2], strict=True):
                read = [old.extractfile(member) for member in (result, said)]
                pair = [file.read() for file in read if file is not None]
                if json.loads(pair[1])[KEY] in kept:
                    _add(new, result.name, pair[0])
                    _add(new, said.name, pair[1])
        return file.getvalue()


def figures(record: Record) -> dict[str, Any]:
    """Return what the .json beside a result says."""
    said: dict[str, Any] = {KEY: record.key, "width": record.width, "height": record.height, "bpp": record.bpp}
    said |= {"quality": record.quality, "sha256": record.sha256}
    return said | ({"stages": record.stages} if record.stages else {})


def _name(key: str, taken: set[str]) -> str:
    """A name without dots, which end a key for WebDataset, that no other result of the shard has."""
    path = PurePosixPath(safe(key))
    stem = str(path.with_name(path.with_suffix("").name.replace(".", "_") or "_"))
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}~{number}", number + 1
    taken.add(name)
    return name


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
