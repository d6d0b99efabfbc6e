# SPDX-License-Identifier: Apache-2.0
"""Pillow images to arrays and back: every mode, metadata, alpha, limits."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqcodec.errors import FormatError, ImageError
from vqcodec.images import imaging

PROFILE = {space: b"\0" * 16 + space.encode() + b"\0" * 108 for space in ("RGB ", "GRAY", "CMYK", "Lab ")}


def gradient(width: int = 20, height: int = 12) -> Image.Image:
    """An RGB image whose channels and sides all differ."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([12 * x, 20 * y, 6 * (x + y)], axis=2).astype(np.uint8))


def camera_exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif[274] = orientation
    exif[34665] = {36867: "2020:01:02 03:04:05"}
    return exif.tobytes()


def taken_apart(image: Image.Image) -> imaging.Picture:
    """`from_pil` where no warning is due."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return imaging.from_pil(image)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (20, 12)])
def test_round_trip(mode: str, size: tuple[int, int]) -> None:
    image = gradient(*size).convert(mode)
    if mode.endswith("A"):
        image.putalpha(gradient(*size).convert("L").rotate(180))
    picture = taken_apart(image)
    assert picture.mode == mode
    assert picture.pixels.shape == (size[1], size[0], 3)
    assert picture.pixels.dtype == np.uint8
    assert (picture.alpha is None) == (not mode.endswith("A"))
    back = imaging.to_pil(picture)
    assert (back.mode, back.size, back.tobytes()) == (mode, image.size, image.tobytes())


def test_grey_is_replicated() -> None:
    picture = taken_apart(gradient().convert("LA"))
    assert (picture.pixels == picture.pixels[:, :, :1]).all()
    assert picture.alpha is not None
    assert (picture.alpha == 255).all()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("P", "RGB"), ("PA", "RGBA"), ("La", "LA"), ("RGBa", "RGBA"), ("RGBX", "RGB")],
)
def test_modes_converted_as_pillow_does(mode: str, expected: str) -> None:
    through = {"PA": "P", "La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")
    image = gradient().convert(through).convert(mode)
    picture = taken_apart(image)
    assert picture.mode == expected
    assert imaging.to_pil(picture).tobytes() == image.convert(expected).tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
def test_modes_converted_with_a_warning(mode: str) -> None:
    image = Image.new(mode, (3, 2), tuple([40] * len(Image.new(mode, (1, 1)).getbands())))
    with pytest.warns(UserWarning, match=f"{mode} is converted to RGB"):
        picture = imaging.from_pil(image)
    assert picture.mode == "RGB"
    assert imaging.to_pil(picture).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bit_grey_keeps_its_high_byte(mode: str) -> None:
    with pytest.warns(UserWarning, match="16-bit"):
        picture = imaging.from_pil(Image.new(mode, (3, 2), 0x1280))
    assert picture.mode == "L"
    assert (picture.pixels == 0x12).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_refused_modes(mode: str) -> None:
    with pytest.raises(ImageError, match=f"mode {mode} cannot be encoded"):
        imaging.from_pil(Image.new(mode, (3, 2)))


def test_transparent_colours_become_alpha() -> None:
    palette = gradient().convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    key = Image.new("RGB", (2, 1), (1, 2, 3))
    key.info["transparency"] = (1, 2, 3)
    grey = Image.new("L", (2, 1), 7)
    grey.info["transparency"] = 7
    for image, mode in (palette, "RGBA"), (key, "RGBA"), (grey, "LA"):
        picture = taken_apart(image)
        assert picture.mode == mode
        assert picture.alpha is not None
        assert picture.alpha[0, 0] == 0


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="65536x1"):
        imaging.from_pil(Image.new("L", (65536, 1)))
    with pytest.raises(ImageError, match="0x5"):
        imaging.from_pil(Image.new("L", (0, 5)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 12 - 1)
    with pytest.raises(ImageError, match="limit of 239 pixels"):
        imaging.from_pil(gradient())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert taken_apart(gradient()).mode == "RGB"


def test_truncated_image_is_an_image_error() -> None:
    file = io.BytesIO()
    gradient(200, 200).save(file, "PNG")
    image = Image.open(io.BytesIO(file.getvalue()[:300]))
    with pytest.raises(ImageError, match="cannot be read"):
        imaging.from_pil(image)


def test_one_frame_with_a_warning() -> None:
    file = io.BytesIO()
    gradient().save(file, "TIFF", save_all=True, append_images=[gradient().rotate(180)])
    with pytest.warns(UserWarning, match="only one of 2 frames"):
        picture = imaging.from_pil(Image.open(file))
    assert imaging.to_pil(picture).tobytes() == gradient().tobytes()


def test_metadata_round_trip_and_no_turning() -> None:
    image = gradient()
    image.info.update(icc_profile=PROFILE["RGB "], exif=camera_exif(), xmp=b"<x:xmpmeta/>")
    picture = taken_apart(image)
    assert (picture.icc, picture.exif, picture.xmp) == (PROFILE["RGB "], camera_exif(), b"<x:xmpmeta/>")
    back = imaging.to_pil(picture)
    assert back.size == (20, 12)
    assert back.getexif()[274] == 6
    assert back.getexif().get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    assert {key: back.info[key] for key in image.info} == image.info
    assert imaging.to_pil(taken_apart(gradient())).info == {}


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0not a TIFF", b"x", b"II*\0\x08\0", b"Exif\0\0II*\0\xff\xff\xff\xff", ["list"]]
)
def test_broken_exif_never_blocks(exif: object) -> None:
    image = gradient()
    image.info["exif"] = exif
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = imaging.from_pil(image)
    assert picture.pixels.shape == (12, 20, 3)
    if picture.exif is None:
        assert any("EXIF" in str(warning.message) for warning in caught)
    else:
        imaging.to_pil(picture).getexif()


def test_useless_exif_is_dropped_with_a_warning() -> None:
    image = gradient()
    image.info["exif"] = b"Exif\0\0not a TIFF"
    with pytest.warns(UserWarning, match="EXIF block is broken"):
        assert imaging.from_pil(image).exif is None


@pytest.mark.parametrize(
    ("mode", "space", "kept"),
    [
        ("RGB", "RGB ", True),
        ("L", "GRAY", True),
        ("P", "RGB ", True),
        ("P", "GRAY", False),
        ("RGB", "CMYK", False),
        ("L", "Lab ", False),
    ],
)
def test_profiles_that_do_not_fit_are_dropped(mode: str, space: str, kept: bool) -> None:
    image = gradient().convert(mode)
    image.info["icc_profile"] = PROFILE[space]
    if kept:
        assert taken_apart(image).icc == PROFILE[space]
    else:
        with pytest.warns(UserWarning, match="ICC profile"):
            assert imaging.from_pil(image).icc is None


def test_cmyk_loses_its_profile() -> None:
    image = gradient().convert("CMYK")
    image.info["icc_profile"] = PROFILE["CMYK"]
    with pytest.warns(UserWarning, match="ICC profile|converted"):
        assert imaging.from_pil(image).icc is None


@pytest.mark.parametrize("value", [0, 255, None])
def test_alpha_round_trip(value: int | None) -> None:
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7) if value is None else np.full((5, 7), value, np.uint8)
    data = imaging.encode_alpha(alpha)
    assert np.array_equal(imaging.decode_alpha(data, 7, 5), alpha)
    with pytest.raises(FormatError, match="alpha"):
        imaging.decode_alpha(data, 5, 7)


def test_damaged_alpha_is_a_format_error() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (40, 40), dtype=np.uint8)
    data = imaging.encode_alpha(alpha)
    for length in range(0, len(data) - 20, 7):
        with pytest.raises(FormatError):
            imaging.decode_alpha(data[:length], 40, 40)
    for position in range(0, len(data) - 12, 11):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            channel = imaging.decode_alpha(bytes(damaged), 40, 40)
        except FormatError:
            continue
        assert channel.shape == (40, 40)


def test_alpha_of_another_mode_or_format() -> None:
    for mode, format in ("RGB", "PNG"), ("1", "PNG"), ("L", "GIF"):
        file = io.BytesIO()
        gradient(7, 5).convert(mode).save(file, format)
        with pytest.raises(FormatError, match="alpha"):
            imaging.decode_alpha(file.getvalue(), 7, 5)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff"])
def test_save_passes_metadata_on(tmp_path: Path, extension: str) -> None:
    image = gradient()
    image.info.update(icc_profile=PROFILE["RGB "], exif=camera_exif(1), xmp=b"<x:xmpmeta/>")
    path = tmp_path / f"a.{extension}"
    imaging.save(image, path)
    with Image.open(path) as saved:
        picture = imaging.from_pil(saved)
    assert (picture.icc, picture.xmp) == (PROFILE["RGB "], b"<x:xmpmeta/>")
    exif = imaging.to_pil(picture).getexif()
    assert exif[271] == "Maker"
    assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    if extension != "jpg":
        assert imaging.to_pil(picture).tobytes() == image.tobytes()


def test_save_of_what_does_not_fit(tmp_path: Path) -> None:
    image = gradient()
    image.info.update(icc_profile=PROFILE["RGB "], exif=camera_exif(), xmp=b"<x/>")
    imaging.save(image, tmp_path / "a.bmp")
    for path in (tmp_path / "a.unknown", tmp_path / "a"):
        with pytest.raises(ImageError, match="extension"):
            imaging.save(image, path)
    with pytest.raises(ImageError, match="no format"):
        imaging.save(image, io.BytesIO())
    image.info["exif"] = camera_exif() + b"\0" * 70000
    with pytest.raises(ImageError, match="JPEG"):
        imaging.save(image, io.BytesIO(), "JPEG")
