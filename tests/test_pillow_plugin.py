# SPDX-License-Identifier: Apache-2.0
"""The Pillow plugin: lazy opening, pixels at load, metadata, damage, with the tiny model; then with the shipped one."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageFile, UnidentifiedImageError

import vqcodec
import vqcodec.pillow_plugin
from vqcodec import codec
from vqcodec.format import chunks, container
from vqcodec.model import registry
from vqcodec.pillow_plugin import Vq2ImageFile

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def picture(mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[:24, :40]
    image = Image.fromarray(np.stack([6 * x, 10 * y, 3 * (x + y)], axis=2).astype(np.uint8)).convert(mode)
    if mode.endswith("A"):
        image.putalpha(image.convert("L").rotate(180))
    return image


def coded(mode: str = "RGB") -> Image.Image:
    """What the codec makes of the picture: the expected result of saving and opening."""
    decoded = codec.decode(codec.encode(picture(mode), model="tiny"))
    assert decoded.tobytes() != picture(mode).tobytes()
    assert len(set(decoded.getchannel(0).tobytes())) > 2
    return decoded


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


@pytest.fixture
def folder(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in; the tiny model is installed."""
    monkeypatch.setenv(registry.ENVIRONMENT, str(tiny_models))
    return tmp_path


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "a.vq2"
    picture().save(path, model="tiny", exif=camera_exif(), icc_profile=b"profile", xmp=XMP)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
def test_save_and_open(folder: Path, mode: str) -> None:
    path = folder / "a.vq2"
    picture(mode).save(path, model="tiny")
    with Image.open(path) as image:
        assert isinstance(image, Vq2ImageFile)
        assert (image.format, image.get_format_mimetype()) == ("VQ2", "image/x-vq2")
        assert (image.mode, image.size, image.info) == (mode, (40, 24), {})
        assert (image.n_frames, image.is_animated) == (1, False)
        assert image.tobytes() == coded(mode).tobytes()
        if mode.endswith("A"):
            assert image.getchannel("A").tobytes() == picture(mode).getchannel("A").tobytes()


def test_path_is_closed_after_load_and_stream_is_left_open(file: Path) -> None:
    image = Image.open(file)
    opened = image.fp
    assert opened is not None
    assert not opened.closed
    image.load()
    assert opened.closed
    assert image.fp is None
    stream = io.BytesIO(file.read_bytes())
    second = Image.open(stream)
    second.load()
    second.load()
    assert not stream.closed
    assert second.tobytes() == image.tobytes() == coded().tobytes()


def test_operations_on_an_image_that_is_not_loaded(file: Path) -> None:
    expected = coded()
    assert Image.open(file).copy().tobytes() == expected.tobytes()
    assert Image.open(file).getpixel((39, 0)) == expected.getpixel((39, 0))
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(expected))
    assert pickle.loads(pickle.dumps(Image.open(file))).tobytes() == expected.tobytes()
    small = Image.open(file)
    small.thumbnail((20, 20))
    assert small.size == (20, 12)
    parser = ImageFile.Parser()
    parser.feed(file.read_bytes())
    assert parser.close().tobytes() == expected.tobytes()


def test_metadata_without_loading(file: Path) -> None:
    image = Image.open(file)
    assert image.getexif()[274] == 6
    assert image.info["icc_profile"] == b"profile"
    assert image.info["xmp"].startswith(b"<x:xmpmeta")
    assert set(image.info) == {"exif", "icc_profile", "xmp"}
    pytest.importorskip("defusedxml")
    assert "xmpmeta" in image.getxmp()


def test_metadata_given_replace_those_of_the_image(file: Path) -> None:
    image = Image.open(file)
    kept, replaced = io.BytesIO(), io.BytesIO()
    image.save(kept, "VQ2", model="tiny")
    image.save(replaced, "VQ2", model="tiny", exif=b"", icc_profile=None, xmp=b"<other/>")
    assert Image.open(kept).info == image.info
    assert Image.open(replaced).info == {"xmp": b"<other/>"}
    assert set(image.info) == {"exif", "icc_profile", "xmp"}


@pytest.mark.parametrize("data", [b"", container.MAGIC, container.MAGIC + b"H\x05short....", b"\x89VQ3\r\n\x1a\n"])
def test_wrong_data_is_a_syntax_error(data: bytes) -> None:
    with pytest.raises(SyntaxError):
        Vq2ImageFile(io.BytesIO(data))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))


def test_damage_behind_the_metadata_is_found_at_load_and_verify(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    for damaged in (bytes(data), file.read_bytes()[:-1], file.read_bytes() + b"\0"):
        with pytest.raises(OSError, match=r"damaged|truncated|follow"):
            Image.open(io.BytesIO(damaged)).load()
        with pytest.raises(OSError, match=r"damaged|truncated|follow"):
            Image.open(io.BytesIO(damaged)).verify()


def test_what_is_left_of_damaged_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Pillow's own formats, LOAD_TRUNCATED_IMAGES says whether a cut or damaged file opens."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = file.read_bytes()
    with warnings.catch_warnings():  # a sound file is as ever
        warnings.simplefilter("error")
        assert Image.open(file).tobytes() == coded().tobytes()
    header, profile = bytearray(data), bytearray(data)
    header[len(container.MAGIC) + 3] ^= 1
    profile[data.index(chunks.write_chunk("C", chunks.deflate(b"profile"))) + 5] ^= 1
    for damaged, names in ((data[:-3], set()), (bytes(header), set()), (bytes(profile), {"icc_profile"})):
        image = Image.open(io.BytesIO(damaged))
        assert (image.size, image.mode) == ((40, 24), "RGB")
        assert set(image.info) == {"exif", "icc_profile", "xmp"} - names
        with pytest.warns(vqcodec.DamageWarning):
            part = image.crop((4, 4, 12, 10))
        with pytest.warns(vqcodec.DamageWarning):
            image.load()
        assert part.tobytes() == image.crop((4, 4, 12, 10)).tobytes()
        assert len(image.info["losses"]) == len(part.info["losses"]) == 1
        assert (image.tobytes() == coded().tobytes()) == (damaged != data[:-3])
        small = Image.open(io.BytesIO(damaged))
        with pytest.warns(vqcodec.DamageWarning):
            small.thumbnail((20, 20))
        assert small.size == (20, 12)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data[: len(container.MAGIC) + 4]))
    with pytest.raises(OSError, match="no index stream"):
        Image.open(io.BytesIO(data[: data.index(chunks.write_chunk("X", chunks.deflate(XMP))) + 20])).load()


def test_verify_needs_no_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vqcodec.codec", None)
    monkeypatch.delattr(vqcodec, "codec")
    monkeypatch.delenv(registry.ENVIRONMENT)
    image = Image.open(file)
    opened = image.fp
    image.verify()
    assert opened is not None
    assert opened.closed


def test_missing_model_is_an_os_error_at_load(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = registry.find("tiny").identity.hex()
    monkeypatch.setenv(registry.ENVIRONMENT, str(folder))
    with Image.open(file) as image:
        assert image.size == (40, 24)
        with pytest.raises(OSError, match=f"{identity}.*not installed"):
            image.load()


def test_image_that_cannot_be_encoded_is_an_os_error(folder: Path) -> None:
    with pytest.raises(OSError, match="mode F"):
        Image.new("F", (3, 3)).save(folder / "f.vq2", model="tiny")
    assert not (folder / "f.vq2").exists()
    with pytest.raises(OSError, match="nowhere"):
        picture().save(folder / "f.vq2", model="nowhere")


@pytest.mark.parametrize(
    ("option", "message"),
    [({"qualty": 5}, "no option 'qualty'"), ({"optimize": True}, "optimize"), ({"quality": "high"}, "not 'high'")],
)
def test_wrong_options_of_save_are_refused(folder: Path, option: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        picture().save(folder / "f.vq2", **{"model": "tiny", **option})  # type: ignore[arg-type]
    assert not (folder / "f.vq2").exists()


def test_closed_image(file: Path) -> None:
    image = Image.open(file)
    image.close()
    with pytest.raises(OSError, match="closed"):
        image.load()


def test_opening_imports_neither_torch_nor_numpy(file: Path) -> None:
    code = (
        "import sys; import vqcodec.pillow_plugin; from PIL import Image; image = Image.open(sys.argv[1]);"
        "print(image.size, image.getexif()[274], sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(file)]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    assert result.stdout.split() == b"(40, 24) 6 []".split()


def test_registering_twice_changes_nothing() -> None:
    before = list(Image.ID)
    vqcodec.pillow_plugin.register()
    assert before == Image.ID
    assert Image.registered_extensions()[".vq2"] == "VQ2"


def test_the_shipped_model(tmp_path: Path) -> None:
    path = tmp_path / "a.vq2"
    picture("RGBA").save(path, exif=camera_exif())
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((40, 24), "RGBA")
        assert image.getexif()[274] == 6
        pixels = np.asarray(image, np.float64)
    assert np.array_equal(pixels[:, :, 3], np.asarray(picture("RGBA"))[:, :, 3])
    assert np.sqrt(((pixels - np.asarray(picture("RGBA"))) ** 2).mean()) < 30
    assert vqcodec.decode(path.read_bytes()).size == (40, 24)
