# SPDX-License-Identifier: Apache-2.0
"""The edge of what images say of themselves: 16 bits, colour by gAMA, cHRM and CMYK profiles, dots per inch, strip."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from vqcodec.images import imaging, metadata, profiles
from vqcodec.images.imaging import Picture


def png(depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes], size: tuple[int, int] = (2, 1)) -> bytes:
    """A PNG file. rows: with their filter bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def taken(data: bytes | Image.Image, strip: bool = False) -> tuple[Picture, list[str]]:
    """A picture and what was said about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
        picture = imaging.from_pil(image, strip)
    return picture, [str(warning.message) for warning in caught]


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "samples", "mode"), [(2, 3, "RGB"), (6, 4, "RGBA"), (4, 2, "RGBA"), (0, 1, "L")])
def test_16_bits_are_reduced_with_one_warning(kind: int, samples: int, mode: str) -> None:
    values = np.arange(2 * samples, dtype=">u2") * 0x1111
    picture, said = taken(png(16, kind, b"\0" + values.tobytes()))
    assert picture.mode == mode
    assert len(said) == 1
    assert "16" in said[0]
    assert "reduced" in said[0]
    back = imaging.to_pil(picture)
    flat = np.asarray(back.convert("LA") if kind == 4 else back).ravel()  # Pillow has no grey of 16 bits with alpha
    assert np.abs(flat.astype(int) - np.arange(2 * samples) * 0x11).max() <= 1


def test_8_bits_warn_of_nothing() -> None:
    assert taken(png(8, 2, b"\0" + bytes(6)))[1] == []


def test_16_bit_netpbm_files() -> None:
    grey, said = taken(b"P5 2 1 65535\n" + bytes([0x12, 0x80, 0xFF, 0xFF]))
    assert (grey.mode, grey.pixels[0, :, 0].tolist()) == ("L", [0x12, 0xFF])
    assert len(said) == 1
    colour, said = taken(b"P6 1 1 65535\n" + bytes([0x12, 0x80, 0xFF, 0xFF, 0, 0]))
    assert (colour.mode, colour.pixels[0, 0].tolist()) == ("RGB", [0x12, 0xFF, 0])
    assert len(said) == 1


def test_transparent_colours_of_16_bits() -> None:
    grey = taken(png(16, 0, b"\0\x12\x34\x12\x35", (b"tRNS", b"\x12\x34")))[0]
    assert (grey.mode, grey.alpha is not None and grey.alpha.tolist()) == ("LA", [[0, 255]])
    rows = b"\0" + b"\x12\x34\x56\x78\x9a\xbc" + b"\x13\x34\x56\x78\x9a\xbc"
    colour = taken(png(16, 2, rows, (b"tRNS", rows[1:7])))[0]
    assert (colour.mode, colour.alpha is not None and colour.alpha.tolist()) == ("RGBA", [[0, 255]])


def light(profile: bytes, grey: bool, value: int) -> float:
    """Luminance, 0 to 100, of a grey value by Little CMS."""
    image = Image.new("L" if grey else "RGB", (1, 1), value if grey else (value,) * 3)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    lab = ImageCms.profileToProfile(image, source, ImageCms.createProfile("LAB"), outputMode="LAB")
    lightness = lab.getpixel((0, 0))[0] * 100 / 255  # type: ignore[index]
    return float(((lightness + 16) / 116) ** 3 * 100 if lightness > 8 else lightness / 9.033)


@pytest.mark.parametrize("kind", [0, 2])
def test_gamma_becomes_a_profile(kind: int) -> None:
    data = png(8, kind, b"\0" + bytes(2 if kind == 0 else 6), (b"gAMA", struct.pack(">I", 100000)))
    profile = taken(data)[0].icc
    assert profile is not None
    assert light(profile, not kind, 128) == pytest.approx(100 * 128 / 255, abs=1)
    assert len(profile) < 700


def test_chromaticities_become_a_profile() -> None:
    display_p3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    chunks = ((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in display_p3))))
    profile = taken(png(8, 2, b"\0" + bytes(6), *chunks))[0].icc
    assert profile is not None
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    colorants = [opened.red_colorant[0], opened.green_colorant[0], opened.blue_colorant[0]]
    known = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))  # as published
    assert colorants == [pytest.approx(colorant, abs=1e-3) for colorant in known]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).profile  # of Little CMS
    ours = profiles._colours(profiles.SRGB_PRIMARIES)
    assert ours is not None
    assert ours[:, 0] == pytest.approx(srgb.red_colorant[0], abs=5e-4)
    assert ours[:, 2] == pytest.approx(srgb.blue_colorant[0], abs=5e-4)


@pytest.mark.parametrize(
    "info",
    [{}, {"gamma": 0.45455}, {"gamma": 1.0, "srgb": 0}, {"gamma": 0.0}, {"gamma": float("nan")},
     {"gamma": 0.45455, "chromaticity": profiles.SRGB_PRIMARIES}, {"chromaticity": (0.0,) * 8},
     {"chromaticity": (0.3127, 0.329) + (0.64, 0.33) * 3}],
)  # fmt: skip
def test_what_is_srgb_or_senseless_has_no_profile(info: dict[str, Any]) -> None:
    assert profiles.of_png(info, grey=False) is None


def test_cmyk_through_its_profile() -> None:
    ramps = np.indices((8, 8)).sum(0).astype(np.uint8)
    image = Image.merge("CMYK", [Image.fromarray(ramps * factor) for factor in (1, 4, 9, 16)])
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.info["icc_profile"] = lab[:16] + b"CMYK" + lab[20:]  # says so, and is none: Pillow's way, with a warning
    picture, said = taken(image)
    assert picture.icc is None
    assert any("cannot be used" in text for text in said)
    assert imaging.to_pil(picture).tobytes() == image.convert("RGB").tobytes()


def test_cmyk_is_given_to_little_cms(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def convert(image: Image.Image, source: Any, target: Any, intent: Any, mode: str, flags: Any) -> Image.Image:
        asked.append((image.mode, mode))
        return Image.new("RGB", image.size, "red")

    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: file.read())
    image = Image.new("CMYK", (3, 2))
    image.info["icc_profile"] = bytes(16) + b"CMYK" + bytes(200)
    picture, said = taken(image)
    assert asked == [("CMYK", "RGB")]
    assert picture.icc is None
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]
    assert said == ["CMYK is converted to sRGB by its profile"]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_dots_per_inch_are_kept(format: str) -> None:
    data = saved(Image.new("RGB", (9, 9), "teal"), format, dpi=(300, 150))
    back = imaging.to_pil(taken(data)[0])
    assert back.info["dpi"] == pytest.approx((300, 150), abs=0.1)
    for target in ("PNG", "JPEG", "TIFF"):
        file = io.BytesIO()
        imaging.save(back, file, target)
        assert Image.open(file).info["dpi"] == pytest.approx((300, 150), abs=0.5)
    assert taken(saved(Image.new("L", (9, 9)), "PNG", dpi=(72, 72)))[0].exif is None


def test_an_exif_block_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[274] = 6
    image = Image.new("RGB", (4, 3))
    image.info.update(exif=exif.tobytes(), dpi=(300, 300))
    assert taken(image)[0].exif == exif.tobytes()
    assert metadata.dpi(b"nonsense") is None
    assert metadata.dpi(None) is None
    for wrong in ("ab", (0, 1), (float("inf"), 1), None, (1, 2, 3)):
        assert profiles.finite(wrong) is None


def test_strip_turns_and_leaves_out() -> None:
    exif = Image.Exif()
    exif[274] = 6
    exif[271] = "camera"
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info.update(exif=exif.tobytes(), dpi=(300, 300), xmp=b"<x/>", icc_profile=srgb)
    picture, said = taken(image, strip=True)
    assert (picture.exif, picture.xmp, picture.icc) == (None, None, srgb)
    assert np.array_equal(picture.pixels, np.rot90(np.asarray(image), -1))
    assert said == []
    assert image.info["exif"] == exif.tobytes()
    image = Image.fromarray(np.asarray(image))
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xff"  # broken
    assert np.array_equal(taken(image, strip=True)[0].pixels, np.asarray(image))
    tiff = Image.open(io.BytesIO(saved(image, "TIFF", tiffinfo={271: "camera"})))
    assert taken(tiff, strip=True)[0].exif is None
