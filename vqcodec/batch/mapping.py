# SPDX-License-Identifier: Apache-2.0
"""The encoder as a callable class, for a pipeline of one's own: `ds.map_batches(vqcodec.batch.Encoder, ...)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.encoder.request import DEFAULT_TUNE
from vqcodec.errors import VqcodecError
from vqcodec.images.files import describe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vqcodec.batch.lists import Options

COLUMNS = ("bytes", "image")


class Encoder:
    """Encodes the pictures of batches. Knows no Ray: anything may call it.

    A batch is a dict of columns. What it gets in addition: `vq2`, the bytes of the files, None of a picture that
    failed; `width` and `height` in pixels; `bpp`; `error`, empty if all went well.
    """

    def __init__(self, column: str = "", threads: int = 0, **options: Unpack[Options]) -> None:
        """Load the model.

        Args:
            column: of the pictures: bytes of image files, or arrays, uint8 [H, W, 3]; by default `bytes` or `image`.
            threads: of PyTorch; 0 leaves them as they are.
            options: those of `vqcodec.encode`.

        Raises ModelError if the model is not installed.
        """
        from vqcodec import codec

        if threads:
            import torch

            torch.set_num_threads(threads)
        given: dict[str, Any] = dict(options)
        tune = given.get("tune", DEFAULT_TUNE)
        self._codec = codec.load_model(given.pop("model", None), given.pop("device", "auto"), tune)
        self._column, self._options = column, given

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Encode a batch. Raises ValueError if it has no column of pictures."""
        name = self._column or next(filter(batch.__contains__, COLUMNS), "")
        if name not in batch:
            raise ValueError(f"there is no column of pictures {self._column or ' or '.join(COLUMNS)}")
        rows = [self._row(value) for value in batch[name]]
        columns = zip(*rows, strict=True) if rows else ((),) * 5
        names = ("vq2", "width", "height", "bpp", "error")
        types = (object, np.int64, np.int64, np.float64, object)
        added = {name: _column(values, type_) for name, values, type_ in zip(names, columns, types, strict=True)}
        return {**batch, **added}

    def _row(self, value: Any) -> tuple[bytes | None, int, int, float, str]:
        from PIL import Image

        from vqcodec.images import opening

        try:
            if isinstance(value, (bytes, bytearray, memoryview)):
                image = opening.open_bytes(bytes(value))
            else:
                image = Image.fromarray(np.asarray(value))
            data = self._codec.encode(image, **self._options)
        except (VqcodecError, OSError, MemoryError) as error:
            return None, 0, 0, 0.0, describe(error)
        return data, image.width, image.height, 8 * len(data) / (image.width * image.height), ""


def _column(values: Iterable[Any], type_: type) -> Any:
    """Values as an array of one dimension, bytes as they are."""
    held = list(values)
    array: Any = np.empty(len(held), type_)
    array[:] = held
    return array
