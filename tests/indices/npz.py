# SPDX-License-Identifier: Apache-2.0
"""Members of .npz files of indices, right and wrong."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np

from vqcodec.indices.arrays import Indices, dumps


def arrays(indices: Indices) -> dict[str, Any]:
    with np.load(io.BytesIO(dumps(indices)), allow_pickle=False) as file:
        return dict(file)


def same(a: Indices, b: Indices) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.levels, b.levels, strict=True)) and (
        replace(a, levels=b.levels).__dict__ == b.__dict__
    )


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **options)
    return file.getvalue()


def claim(shape: str, descr: str = "<u2") -> bytes:
    """The header of an array of that shape, without its data."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def members(indices: Indices) -> dict[str, bytes]:
    return {f"{name}.npy": npy(array) for name, array in arrays(indices).items()}


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()
