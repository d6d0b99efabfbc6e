# SPDX-License-Identifier: Apache-2.0
"""Python as people write it: images and files of any origin, options that are wrong, what a codec says of itself."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vqcodec
from vqcodec import indices
from vqcodec.codec import Codec
from vqcodec.format import source
from vqcodec.images import opening


@pytest.fixture
def written(folder: Path) -> bytes:
    """The bytes of a.vq2, which lies beside a.png."""
    data = vqcodec.encode("a.png", effort=1)
    Path("a.vq2").write_bytes(data)
    return data


def test_encode_takes_an_image_as_whatever_it_comes(written: bytes) -> None:
    png = Path("a.png").read_bytes()
    with open("a.png", "rb") as file:
        for image in (Path("a.png"), png, bytearray(png), memoryview(png), file, io.BytesIO(png), Image.open("a.png"),
                      np.asarray(Image.open("a.png"))):  # fmt: skip
            assert vqcodec.encode(image, effort=1) == written, type(image)
    assert vqcodec.encode(["a.png", png], effort=1) == [written, written]
    assert vqcodec.load_model().encode("a.png", effort=1) == written


@pytest.mark.parametrize(("channels", "mode"), [((), "L"), ((1,), "L"), ((2,), "LA"), ((3,), "RGB"), ((4,), "RGBA")])
def test_arrays(folder: Path, channels: tuple[int, ...], mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, *channels), dtype=np.uint8)
    decoded = vqcodec.decode(vqcodec.encode(values, lossless=True))
    assert (decoded.mode, decoded.size) == (mode, (7, 5))
    assert np.array_equal(np.asarray(decoded).reshape(values.shape), values)
    strided = vqcodec.encode(values[::-1, ::2], lossless=True)
    assert np.array_equal(np.asarray(vqcodec.decode(strided)).ravel(), values[::-1, ::2].ravel())


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((4, 4)), "uint8"), (np.zeros((4, 4, 5), np.uint8), "picture"), (np.zeros((0, 4), np.uint8), "picture"),
     (np.zeros(4, np.uint8), "picture"), (np.zeros((4, 4), np.uint16), "uint16")],
)  # fmt: skip
def test_arrays_that_are_no_picture(array: Any, message: str) -> None:
    with pytest.raises(vqcodec.ImageError, match=message):
        opening.as_image(array)


def test_decode_info_and_indices_take_a_file_as_whatever_it_comes(written: bytes) -> None:
    wanted = np.asarray(vqcodec.decode(written))
    codes = vqcodec.to_indices(written)
    with open("a.vq2", "rb") as file:
        for given in (written, bytearray(written), memoryview(written), "a.vq2", Path("a.vq2"), file):
            if given is file:
                file.seek(0)
            assert np.array_equal(np.asarray(vqcodec.decode(given)), wanted)
            if given is file:
                file.seek(0)
            assert vqcodec.info(given) == vqcodec.info(written)
            if given is file:
                file.seek(0)
            assert indices.dumps(vqcodec.to_indices(given)) == indices.dumps(codes)
    assert len(vqcodec.decode(["a.vq2", written])) == 2
    assert indices.dumps(indices.load(indices.dumps(codes))) == indices.dumps(codes)
    assert vqcodec.to_indices("a.png", effort=1).model == codes.model


def test_what_is_no_source() -> None:
    for value in (None, 5, 1.5):
        with pytest.raises(TypeError, match=r"must be a \.vq2 file.*not (NoneType|int|float)"):
            vqcodec.decode(value)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="must be an image.*not (NoneType|int|float)"):
            opening.as_image(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="open as text"):
        vqcodec.info(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        vqcodec.decode("missing.vq2")
    with pytest.raises(FileNotFoundError):
        vqcodec.encode("missing.png")
    with pytest.raises(vqcodec.FormatError):
        vqcodec.info(b"no such file")
    assert not source.is_source([b"several"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quality": "high"}, TypeError, "the quality must be a number, not 'high'"),
        ({"quality": True}, TypeError, "the quality must be a number"),
        ({"quality": 101}, ValueError, "0 to 100"),
        ({"quality": float("nan")}, ValueError, "0 to 100"),
        ({"size": "20kB"}, TypeError, "the size must be a number"),
        ({"effort": 2.5}, TypeError, "the effort must be a whole number"),
        ({"effort": None}, TypeError, "the effort must be a whole number"),
        ({"effort": 10}, ValueError, "1 to 9"),
        ({"tune": 3}, TypeError, "tune must be one of eye, psnr, ssim, not 3"),
        ({"tune": "vmaf"}, ValueError, "tune must be"),
        ({"psnr": 30, "bpp": 1}, ValueError, "give one of"),
        ({"qualty": 5}, TypeError, "encode\\(\\) has no option 'qualty'"),
        ({"model": "nothing"}, vqcodec.ModelError, "nothing"),
        ({"device": "abacus"}, vqcodec.ModelError, "abacus"),
    ],
)
def test_wrong_options_of_encode(folder: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vqcodec.encode("a.png", **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"region": (0, 0, 5)}, TypeError, "four whole numbers"),
        ({"region": "abcd"}, TypeError, "four whole numbers"),
        ({"region": (0, 0, 50, 5)}, ValueError, "not inside 40x24"),
        ({"preview": 3}, ValueError, "must be one of"),
        ({"preview": "4"}, ValueError, "'4'"),
        ({"preview": 2, "region": (0, 0, 5, 5)}, ValueError, "not both"),
        ({"limits": 5}, TypeError, "a vqcodec.Limits"),
        ({"scale": 2}, TypeError, "decode\\(\\) has no option 'scale'"),
    ],
)
def test_wrong_options_of_decode(written: bytes, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vqcodec.decode(written, **options)


def test_a_codec_says_what_it_is(tiny: Codec) -> None:
    assert repr(tiny) == f"<Codec tiny ({tiny.identity.hex()}) on cpu, strides 8, 4>"


def test_docstrings_at_the_top_name_every_option() -> None:
    for function, options in ((vqcodec.encode, "Options"), (vqcodec.decode, "Wanted")):
        from vqcodec.batch import lists

        text = inspect.getdoc(function)  # without the indentation, which Python 3.13 leaves out by itself
        assert text is not None
        for name in getattr(lists, options).__annotations__:
            assert f"\n    {name}: " in text
