# SPDX-License-Identifier: Apache-2.0
"""What datasets give: pictures as tensors, or index maps as tensors, with the key that they have in the collection."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqcodec import codec
from vqcodec.batch.failures import NoIndices
from vqcodec.format import container
from vqcodec.indices import arrays
from vqcodec.indices.arrays import Indices

Sample = dict[str, Any]
AS = ("images", "indices")
"""What samples may hold."""


def as_checked(wanted: str) -> str:
    """Return the name of a kind of samples. Raises ValueError if it is none of `AS`."""
    if wanted not in AS:
        raise ValueError(f"samples hold {' or '.join(AS)}, not {wanted!r}")
    return wanted


def of_bytes(data: bytes, wanted: str) -> Sample:
    """Make the sample of a `.vq2` file, or of an `.npz` file of indices.

    Args:
        data: the file.
        wanted: `images` or `indices`.

    Raises: what decoding does, and NoIndices.
    """
    if data.startswith(container.MAGIC):
        if wanted == "images":
            return {"image": picture(np.asarray(codec.decode(data, device="cpu").convert("RGB")))}
        if container.read_header(data).lossless:
            raise NoIndices("the file holds its picture without loss, and no indices")
        return of_indices(arrays.to_indices(data, device="cpu"), wanted)
    return of_indices(arrays.load(io.BytesIO(data)), wanted)


def of_indices(indices: Indices, wanted: str) -> Sample:
    """Make the sample of indices: the maps of every level, or the picture that they decode to.

    Args:
        indices: of an image.
        wanted: `images` or `indices`.
    """
    if wanted == "images":
        return {"image": picture(np.asarray(arrays.from_indices(indices, device="cpu")))}
    levels = tuple(torch.from_numpy(maps.astype(np.int64)) for maps in indices.levels)
    return {"levels": levels, "width": indices.width, "height": indices.height}


def picture(pixels: Any) -> Tensor:
    """Turn pixels [H, W, 3] into uint8 [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def finished(
    sample: Sample, key: str, label: Callable[[str], Any] | None, transform: Callable[[Sample], Any] | None
) -> Any:
    """Give a sample its key and label, and transform it.

    Args:
        sample: is changed.
        key: of the item.
        label: makes a label of the key; None: no label.
        transform: is applied at the end; None: nothing.
    """
    sample["key"] = key
    if label is not None:
        sample["label"] = label(key)
    return sample if transform is None else transform(sample)
