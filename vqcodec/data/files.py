# SPDX-License-Identifier: Apache-2.0
"""A folder of `.vq2` files, or of `.npz` files of indices, by number."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from vqcodec.batch.items import Item
from vqcodec.batch.sources import source
from vqcodec.batch.worker import bytes_of
from vqcodec.data.samples import Sample, as_checked, finished, of_bytes

SUFFIXES = (".vq2", ".npz")


class Files(Dataset[Any]):
    """The files of a folder and of all below it, those in tar and Parquet shards too, in order of name.

    A sample is a dict with the key, and `image`, uint8 [3, H, W], or `levels`, by level int64 [maps, H / stride,
    W / stride], coarsest first, with `width` and `height` in pixels; and `label`, where a function for it is given.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        hold: str = "images",
        *,
        label: Callable[[str], Any] | None = None,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        """List the folder.

        Args:
            folder: path or URL; a list file, a shard or a pattern will do as well.
            hold: images or indices.
            label: key -> label.
            transform: sample -> what the dataset gives in its place.

        Raises ValueError if `hold` is neither, VqcodecError if there is no such folder.
        """
        self._hold = as_checked(hold)
        self._label, self._transform = label, transform
        self._items: list[Item] = list(source(folder, SUFFIXES).items())
        self._rows: dict[Any, Any] = {}

    @property
    def keys(self) -> list[str]:
        """Names of all samples, in order."""
        return [item.key for item in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Any:
        """A sample. Raises FormatError if the file is damaged, ModelError if its model is not installed."""
        item = self._items[number]
        sample = of_bytes(bytes_of(item, "", self._rows), self._hold)
        return finished(sample, item.key, self._label, self._transform)
