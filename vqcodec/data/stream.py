# SPDX-License-Identifier: Apache-2.0
"""Shards, read from end to end: for collections that are larger than a list of their names should be."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from vqcodec.batch import storage
from vqcodec.batch.sources.shards import ShardSource
from vqcodec.batch.worker import bytes_of
from vqcodec.config import LevelConfig
from vqcodec.data.samples import Sample, as_checked, finished, of_bytes, of_indices
from vqcodec.errors import VqcodecError
from vqcodec.indices.arrays import Indices


class Stream(IterableDataset[Any]):
    """The results in shards of `vqcodec batch`, tar or Parquet. Samples are those of `Files`.

    Shards are divided among the workers of a DataLoader, and the ranks of `torch.distributed`: give them at least as
    many. With a buffer, order of shards and samples is drawn; `set_epoch` draws anew.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str],
        hold: str = "images",
        *,
        buffer: int = 0,
        seed: int = 0,
        label: Callable[[str], Any] | None = None,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        """List the shards.

        Args:
            shards: folder of them, or a pattern, as path or URL.
            hold: images or indices.
            buffer: samples that one is drawn from; 0 keeps the order.
            seed: of that.
            label: key -> label.
            transform: sample -> what the dataset gives in its place.

        Raises ValueError if `hold` is neither, VqcodecError if there are no shards.
        """
        self._hold = as_checked(hold)
        self._buffer, self._seed, self._epoch = buffer, seed, 0
        self._label, self._transform = label, transform
        location = storage.absolute(shards)
        if storage.is_folder(location):
            names = sorted(name for name in storage.sizes(location) if name.endswith((".tar", ".parquet")))
            self.shards = [storage.join(location, name) for name in names]
        else:
            self.shards = storage.matching(location)
        if not self.shards:
            raise VqcodecError(f"there are no shards {os.fspath(shards)}")

    def set_epoch(self, epoch: int) -> None:
        """Draw another order, the same on all ranks."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        """The samples of this worker's shards. Raises FormatError if one is damaged."""
        draw = random.Random(f"{self._seed}:{self._epoch}")
        shards = list(self.shards)
        if self._buffer:
            draw.shuffle(shards)
        number, among = _part()
        waiting: list[tuple[Sample, str]] = []
        for shard in shards[number::among]:
            for pair in self._samples(shard):
                waiting.append(pair)
                if len(waiting) > self._buffer:
                    at = draw.randrange(len(waiting))
                    waiting[at], waiting[-1] = waiting[-1], waiting[at]
                    yield finished(*waiting.pop(), self._label, self._transform)
        if self._buffer:
            draw.shuffle(waiting)
        for sample, key in waiting:
            yield finished(sample, key, self._label, self._transform)

    def _samples(self, shard: str) -> Iterator[tuple[Sample, str]]:
        if shard.endswith(".parquet"):
            yield from self._rows(shard)
            return
        cache: dict[Any, Any] = {}
        for item in ShardSource((shard,), (".npz", ".vq2")).items():
            yield of_bytes(bytes_of(item, "", cache), self._hold), item.key

    def _rows(self, shard: str) -> Iterator[tuple[Sample, str]]:
        """Rows of a Parquet shard, a row group in memory at a time; those that failed have no sample."""
        import pyarrow.parquet as pq

        with storage.opened(shard) as file:
            parquet = pq.ParquetFile(file)
            for group in range(parquet.num_row_groups):
                for row in parquet.read_row_group(group).to_pylist():
                    if row["error"]:
                        continue
                    if "levels" in row:
                        yield of_indices(indices_of(row), self._hold), row["key"]
                    else:
                        yield of_bytes(row["bytes"], self._hold), row["key"]


def indices_of(row: dict[str, Any]) -> Indices:
    """Return the indices of a row that `batch indices --to parquet` wrote. Raises FormatError if they do not fit
    together."""
    levels, configs = [], []
    for level in row["levels"]:
        maps = np.frombuffer(level["indices"], "<u2").astype(np.uint16)
        levels.append(maps.reshape(level["maps"], level["height"], level["width"]))
        configs.append(LevelConfig(**{field.name: level[field.name] for field in fields(LevelConfig)}))
    size = row["width"], row["height"]
    return Indices(tuple(levels), *size, tuple(configs), row["model"], row["identity"], row["rate"])


def _part() -> tuple[int, int]:
    """Which part of the shards is this process's, and of how many."""
    rank, ranks = 0, 1
    if distributed.is_available() and distributed.is_initialized():
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
    worker = get_worker_info()
    if worker is None:
        return rank, ranks
    return rank * worker.num_workers + worker.id, ranks * worker.num_workers
