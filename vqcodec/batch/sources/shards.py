# SPDX-License-Identifier: Apache-2.0
"""Pictures in tar files, as WebDataset has them, and in Parquet files. Only their lists are read here: the pictures
are read where they are done, a tar file's by position."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from vqcodec.batch import storage
from vqcodec.batch.items import Item
from vqcodec.errors import VqcodecError

SHARDS = (".tar", ".parquet")
COLUMNS = ("bytes", "image", "images", "img", "picture", "content", "data")
"""Names of columns that are taken for pictures, the first that there is."""
KEYS = ("key", "__key__", "path", "file_name", "filename", "name", "id")


def is_wanted(key: str, suffixes: tuple[str, ...], pattern: str) -> bool:
    """Say whether a name is one of those that were asked for.

    Args:
        key: the name, with slashes.
        suffixes: of the names wanted, where there is no pattern.
        pattern: `*` stands for slashes, too, `**/` for nothing as well.
    """
    if pattern:
        return fnmatchcase(key, pattern) or (pattern.startswith("**/") and fnmatchcase(key, pattern[3:]))
    return PurePosixPath(key).suffix.lower() in suffixes


@dataclass(frozen=True)
class ShardSource:
    """The pictures of shards, in order. Keys are names in the shard; where there are several shards, that of the shard
    stands before those that were not written by this package.

    Args:
        locations: of the shards.
        suffixes: of the files that are taken of tar files.
        pattern: of their names, in place of the suffixes.
        column: of Parquet files, that holds the pictures; empty: see `COLUMNS`.
        prefixed: whether the name of a single shard stands before, too.
    """

    locations: tuple[str, ...]
    suffixes: tuple[str, ...]
    pattern: str = ""
    column: str = ""
    prefixed: bool = False

    def items(self) -> Iterator[Item]:
        """Yield the pictures of every shard. Of several with one key, the later ones get a number."""
        seen: dict[bytes, int] = {}
        for location in self.locations:
            entry = storage.entry_of(location)
            name = PurePosixPath(location.replace(os.sep, "/")).stem
            prefix = f"{name}/" if len(self.locations) > 1 or self.prefixed else ""
            tar = location.lower().endswith(".tar")
            for item in self._members(entry, prefix) if tar else _rows(entry, prefix, self.column):
                digest = hashlib.blake2b(item.key.encode(errors="surrogatepass"), digest_size=8).digest()
                seen[digest] = seen.get(digest, 0) + 1
                yield item if seen[digest] == 1 else item._replace(key=_numbered(item.key, seen[digest]))

    def _members(self, entry: storage.Entry, prefix: str) -> Iterator[Item]:
        pictures: list[Item] = []
        keys: dict[str, str] = {}  # of the member's name without its last suffix, as a .json of ours says
        try:
            with storage.opened(entry.location) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not member.isreg():
                        continue
                    stem = member.name.rsplit(".", 1)[0]
                    if member.name.endswith(".json") and member.size < 1 << 16:
                        said = tar.extractfile(member)
                        if said is not None and (key := _key_said(said.read())):
                            keys[stem] = key
                    elif is_wanted(member.name, self.suffixes, self.pattern):
                        stamp = f"{member.mtime}:{member.chksum}:{member.offset_data}:{entry.stamp}"
                        pictures.append(Item(member.name, entry.location, member.size, stamp, member.offset_data))
        except tarfile.TarError as error:
            raise VqcodecError(f"{entry.location} is no tar file, or damaged: {error}") from error
        for item in pictures:
            yield item._replace(key=keys.get(item.key.rsplit(".", 1)[0]) or prefix + item.key.removeprefix("./"))


def read_row(location: str, group: int, row: int, column: str, cache: dict[Any, Any]) -> bytes:
    """Read the picture of a row of a Parquet file.

    Args:
        location: of the file.
        group: its row group.
        row: in the group.
        column: that was named, or empty.
        cache: of the caller, in which the last row group is kept.

    Raises VqcodecError where there is none.
    """
    if (location, group) not in cache:
        cache.clear()
        with storage.opened(location) as file:
            parquet = _parquet(file, location)
            name = picture_column(parquet.schema_arrow, column, location)
            cache[location, group] = parquet.read_row_group(group, columns=[name]).column(0)
    value = cache[location, group][row].as_py()
    if isinstance(value, dict):
        value = value.get("bytes")
    if value is None:
        raise VqcodecError("the row has no picture")
    return bytes(value)


def picture_column(schema: Any, wanted: str, location: str) -> str:
    """Choose the column that holds pictures: bytes, or a struct with a field `bytes`.

    Args:
        schema: of the Parquet file.
        wanted: name of the column; empty: the only one that fits.
        location: of the file, for the error.

    Raises: VqcodecError if there is none.
    """
    import pyarrow as pa

    def fits(name: str) -> bool:
        if name not in schema.names:
            return False
        kind = schema.field(name).type
        if pa.types.is_struct(kind):
            fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
            kind = fields.get("bytes", pa.null())
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    names = [wanted] if wanted else list(COLUMNS)
    name = next(filter(fits, names), None)
    if name is None:
        sought = f"column {wanted} of bytes" if wanted else f"column of bytes called {', '.join(COLUMNS)} (--column)"
        raise VqcodecError(f"{location} has no {sought}")
    return name


def _rows(entry: storage.Entry, prefix: str, column: str) -> Iterator[Item]:
    with storage.opened(entry.location) as file:
        parquet = _parquet(file, entry.location)
        schema = parquet.schema_arrow
        picture_column(schema, column, entry.location)
        ours = b"vqcodec" in (schema.metadata or {})
        names = [name for name in KEYS if name in schema.names]
        number = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            columns = [*names[:1], *(["error"] if ours else [])]
            table = parquet.read_row_group(group, columns=columns).to_pydict() if columns else {}
            for row in range(rows):
                if ours and table["error"][row]:
                    continue
                key = str(table[names[0]][row]) if names else f"{number:09}"
                key = key if ours else prefix + key.lstrip("/")
                number += 1
                yield Item(key, entry.location, 0, f"{entry.size}:{entry.stamp}:{row}", row, group)


def _parquet(file: Any, location: str) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise VqcodecError("Parquet needs the extra `batch`: pip install 'vqcodec[batch]'") from error
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise VqcodecError(f"{location} is no Parquet file, or damaged: {error}") from error


def _numbered(key: str, number: int) -> str:
    path = PurePosixPath(key)
    return str(path.with_name(f"{path.stem}~{number}{path.suffix}"))


def _key_said(data: bytes) -> str:
    """The key in a .json member of ours."""
    try:
        values = json.loads(data)
    except ValueError:
        return ""
    return str(values.get("vqcodec_key", "")) if isinstance(values, dict) else ""
