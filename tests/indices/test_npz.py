# SPDX-License-Identifier: Apache-2.0
"""Files of indices: what they hold, and what is refused before it is allocated."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from npz import claim, members, npy, same, zipped

from vqcodec.errors import FormatError
from vqcodec.indices.arrays import Indices, dumps, load


class Evil:
    """Says so if it is ever unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("width", npy(np.int32(130))),
        ("width", npy(np.array([130]))),
        ("width", npy(np.int64(-1))),
        ("width", npy(np.int64(1 << 40))),
        ("width", npy(np.float64(130))),
        ("height", npy(np.array(Evil(), object), allow_pickle=True)),
        ("level1", npy(np.array([Evil()], object), allow_pickle=True)),
        ("strides", claim(f"({1 << 60},)", "<i8")),
        ("strides", npy(np.array([], np.int64))),
        ("strides", npy(np.arange(600))),
        ("strides", npy(np.array([8, 4]), version=(2, 0))),
        ("codes", npy(np.array([32, 8]))),
        ("codes", npy(np.array([32]))),
        ("stops", npy(np.array([0, 2]))),
        ("stops", npy(np.array([False, False]))),
        ("products", npy(np.array([0, 1 << 62]))),
        ("groups", npy(np.array([1, 0]))),
        ("rate", npy(np.int64(3))),
        ("rate", npy(np.zeros(1, np.uint8))),
        ("model", npy(np.int64(1))),
        ("model", npy("x" * 5000)),
        ("model", claim("()", "<U1") + b"\xff\xff\xff\xff"),
        ("model", npy("\x1b[2J")),
        ("identity", npy("012345")),
        ("identity", npy("zz" * 4)),
        ("identity", npy("0" * 7 + "\n")),
        ("level1", npy(np.zeros((2, 18, 34), np.int64))),
        ("level1", npy(np.zeros((2, 18, 34), ">u2"))),
        ("level1", npy(np.zeros((2, 17, 34), np.uint16))),
        ("level1", npy(np.full((2, 18, 34), 16, np.uint16))),
        ("level1", npy(np.zeros((2, 18, 34), np.uint16))[:-1]),
        ("level1", npy(np.zeros((2, 18, 34), np.uint16)) + b"\0"),
        ("level1", claim(f"({1 << 40}, 18, 34)")),
        ("level1", claim("(-2, 18, -34)")),
        ("level1", claim("(2, 18, 'x')")),
        ("level1", claim("(2, 18, 34), 'more': 1")),
        ("level1", claim("(" * 90)),
        ("level1", claim("(2, 18, 34)").replace(b"False", b"open('/')")),
        ("level1", claim(f"({'9' * 6000}, 18, 34)")),
        ("level1", claim("(2, 18, 34)", "<u2" + " " * 5000)),
        ("level1", claim("(2, 18, 34)", "no type")),
        ("level1", b""),
        ("level1", b"\x93NUMPY\x01"),
    ],
)
def test_files_with_one_wrong_array(image_indices: Indices, name: str, data: bytes) -> None:
    assert same(load(io.BytesIO(zipped(members(image_indices)))), image_indices)
    with pytest.raises(FormatError):
        load(io.BytesIO(zipped(members(image_indices) | {f"{name}.npy": data})))


@pytest.mark.parametrize("name", ["width", "rate", "strides", "stops", "model", "identity", "level0"])
def test_files_with_an_array_missing(image_indices: Indices, name: str) -> None:
    files = members(image_indices)
    del files[f"{name}.npy"]
    with pytest.raises(FormatError, match=f"'{name}' is missing"):
        load(io.BytesIO(zipped(files)))


def test_a_zip_bomb_is_not_inflated(image_indices: Indices, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of zeros behind a header that says what it should, and behind one that does not."""
    sizes: list[int] = []
    real = zipfile.ZipExtFile.read

    def watched(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        data = real(self, n)
        sizes.append(len(data))
        return data

    zeros = bytes(64 << 20)
    bombs = [
        zipped(members(image_indices) | {"level1.npy": head + zeros})
        for head in (claim("(2, 18, 34)"), claim("(4096, 64, 64)"))
    ]
    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    for bomb in bombs:
        assert len(bomb) < 1 << 20
        with pytest.raises(FormatError):
            load(io.BytesIO(bomb))
    assert sum(sizes) < 1 << 16


def test_damaged_files(image_indices: Indices) -> None:
    data = dumps(image_indices)
    rng = np.random.default_rng(1)
    for wrong in (b"", b"PK\x03\x04", b"\x89PNG", data[:-1], data[:100], data[100:], b"\x80\x04K\x01."):
        with pytest.raises(FormatError):
            load(io.BytesIO(wrong))
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(FormatError, match="does not write"):
            load(io.BytesIO(zipped(members(image_indices), compression)))
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] ^= int(rng.integers(1, 256))
        try:
            load(io.BytesIO(damaged))
        except FormatError:
            refused += 1
    assert refused > 200  # the rest changed what nobody reads: times, attributes, comments
