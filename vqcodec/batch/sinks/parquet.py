# SPDX-License-Identifier: Apache-2.0
"""Parquet shards: a row for every item, with its result, its figures, or what was wrong. Needs pyarrow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vqcodec.batch.sinks.shards import put
from vqcodec.batch.sinks.writing import Result
from vqcodec.errors import VqcodecError

ROWS = 64
"""Of a row group."""


@dataclass(frozen=True)
class ParquetSink:
    """A folder of Parquet shards.

    Columns: key, bytes (of the result), width, height (pixels), bpp, quality (None where another thing was asked) and
    error (None where all went well). Of indices, in place of the bytes: model, identity, rate, and levels, a list of
    structs, coarsest first: indices (uint16, little-endian, [maps, height, width]), maps, height, width, stages (how
    many are used), and the fields of `config.LevelConfig`.

    Args:
        folder: its location.
        indices: whether the results are .npz files of indices.
    """

    folder: str
    indices: bool = False
    sharded = True
    suffix = ".parquet"

    def write(self, chunk: str, results: Sequence[Result]) -> None:
        """Write all results, those that failed as their errors.

        Args:
            chunk: name of the shard.
            results: of a chunk.
        """
        rows = [self._row(result) for result in results]
        table = arrow().Table.from_pylist(rows, schema=self._schema())
        put(self, chunk, _file(table), [result.record for result in results])

    def without(self, data: bytes, kept: set[str]) -> bytes:
        """Make a shard with the rows of some keys only.

        Args:
            data: a shard.
            kept: the keys.
        """
        import pyarrow.parquet as pq

        names = {text(key) for key in kept}
        table = pq.read_table(io.BytesIO(data))
        return _file(table.filter([name in names for name in table.column("key").to_pylist()]))

    def _row(self, result: Result) -> dict[str, Any]:
        record = result.record
        row: dict[str, Any] = {"key": text(record.key), "error": record.error or None}
        if record.failure:
            return row
        row |= {"width": record.width, "height": record.height, "bpp": record.bpp, "quality": record.quality}
        if not self.indices:
            return row | {"bytes": result.data}
        from vqcodec.indices import arrays

        held = arrays.load(io.BytesIO(result.data or b""))
        levels = [
            {
                "indices": maps.astype("<u2").tobytes(),
                **dict(zip(("maps", "height", "width"), maps.shape, strict=True)),
                "stages": stages,
                **asdict(config),
            }
            for maps, config, stages in zip(held.levels, held.configs, record.stages, strict=True)
        ]
        return row | {"levels": levels, "model": held.model, "identity": held.identity, "rate": held.rate}

    def _schema(self) -> Any:
        pa = arrow()
        figures = [("width", pa.int32()), ("height", pa.int32()), ("bpp", pa.float64()), ("quality", pa.float64())]
        if self.indices:
            from dataclasses import fields

            from vqcodec.config import LevelConfig

            shape = [(name, pa.int32()) for name in ("maps", "height", "width", "stages")]
            config = [(field.name, pa.bool_() if field.name == "stop" else pa.int32()) for field in fields(LevelConfig)]
            levels = pa.list_(pa.struct([("indices", pa.binary()), *shape, *config]))
            held = [("levels", levels), ("model", pa.string()), ("identity", pa.binary()), ("rate", pa.int32())]
        else:
            held = [("bytes", pa.binary())]
        columns = [("key", pa.string()), *held, *figures, ("error", pa.string())]
        return pa.schema(columns, metadata={"vqcodec": "1"})


def text(key: str) -> str:
    """Return a key as Parquet can hold it: bytes of names that are no UTF-8 become escapes."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _file(table: Any) -> bytes:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=ROWS)
    return file.getvalue()


def arrow() -> Any:
    """Import pyarrow. Raises VqcodecError if it is not installed."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise VqcodecError("Parquet needs the extra `batch`: pip install 'vqcodec[batch]'") from error
    return pa
