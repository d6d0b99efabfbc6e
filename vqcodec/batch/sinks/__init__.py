# SPDX-License-Identifier: Apache-2.0
"""Where results go: a folder that mirrors the collection, tar shards, Parquet shards."""

from vqcodec.batch.sinks.folder import FolderSink
from vqcodec.batch.sinks.parquet import ParquetSink, arrow
from vqcodec.batch.sinks.tarred import TarSink
from vqcodec.batch.sinks.writing import Sink

__all__ = ["SINKS", "FolderSink", "ParquetSink", "Sink", "TarSink", "sink"]

SINKS = ("folder", "tar", "parquet")


def sink(kind: str, folder: str, suffix: str, indices: bool = False) -> Sink:
    """Make a destination.

    Args:
        kind: folder, tar or parquet.
        folder: its location.
        suffix: of the results, with its dot.
        indices: whether the results are .npz files of indices.

    Raises ValueError if there is no such kind, VqcodecError if it needs what is not installed.
    """
    if kind == "tar":
        return TarSink(folder, suffix)
    if kind == "parquet":
        arrow()
        return ParquetSink(folder, indices)
    if kind != "folder":
        raise ValueError(f"results go to a folder, tar or parquet, not {kind!r}")
    return FolderSink(folder)
