# SPDX-License-Identifier: Apache-2.0
"""What is asked to be left out is not in the file, in no form: planted secrets are looked for in its bytes."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import drawn, load_tool
from PIL import Image, ImageCms, PngImagePlugin

import vqcodec
import vqcodec.pillow_plugin
from vqcodec.cli import main
from vqcodec.images import imaging

fuzz = load_tool("fuzz")
GPS, MAKER, XMP, PROFILE, TEXT, COMMENT = (
    f"planted-{name}" for name in ("gps", "maker", "xmp", "profile", "text", "comment")
)
SECRETS = (GPS, MAKER, XMP, PROFILE, TEXT, COMMENT)


def exif() -> Image.Exif:
    block = Image.Exif()
    block[271] = MAKER
    block[34853] = {29: GPS}
    read = Image.Exif()
    read.load(block.tobytes())  # TIFF's plugin looks groups up in the bytes
    return read


def photograph(format: str) -> Image.Image:
    """A picture with a secret wherever the format has room for one."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    old = "sRGB built-in".encode("utf-16-be")
    assert old in profile
    profile = profile.replace(old, PROFILE[:13].encode("utf-16-be")).replace(b"sRGB built-in", PROFILE[:13].encode())
    options: dict[str, object] = {"exif": exif(), "icc_profile": profile}
    if format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
        options["pnginfo"].add_text("Author", TEXT)
        options["pnginfo"].add_text("Comment", COMMENT, zip=True)
    elif format == "JPEG":
        options |= {"xmp": XMP.encode(), "comment": COMMENT}
    elif format == "TIFF":
        options["exif"][700] = XMP.encode()  # type: ignore[index]
        options["exif"][305] = TEXT  # type: ignore[index]
    else:
        options["xmp"] = XMP.encode()
    file = io.BytesIO()
    drawn().save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def readable(data: bytes) -> bytes:
    """All that a file says: its bytes, its chunks inflated, and text of two bytes a letter as text."""
    text = data + b"".join(zlib.decompress(payload) for kind, payload in fuzz.chunks_of(data) if kind in b"CEX")
    return text + text.replace(b"\0", b"")


def told(data: bytes) -> set[str]:
    said = readable(data)
    return {secret for secret in SECRETS if secret[:13].encode() in said}


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_empty_block_drops_what_it_says(format: str, lossless: bool, tiny_folder: Path) -> None:
    image = photograph(format)

    def saved(**options: object) -> set[str]:
        file = io.BytesIO()
        image.save(file, "VQ2", effort=1, lossless=lossless, **options)
        return told(file.getvalue())

    assert saved() >= {GPS, MAKER, XMP, PROFILE}
    assert not saved() & {COMMENT, TEXT} - ({TEXT} if format == "TIFF" else set())
    assert saved(exif=b"") == {XMP, PROFILE}
    assert XMP not in saved(xmp=b"")
    assert PROFILE not in saved(icc_profile=b"")
    assert saved(exif=b"", xmp=b"", icc_profile=b"") == set()
    assert told(vqcodec.encode(image, effort=1, lossless=lossless, strip=True)) <= {PROFILE}
    assert image.info.get("exif") or format == "TIFF"  # the image itself is as it was


def test_tiff_with_a_broken_exif_block(tmp_path: Path) -> None:
    image = drawn()
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff"
    with pytest.warns(UserWarning, match="broken"):
        imaging.save(image, tmp_path / "a.tiff")
    assert Image.open(tmp_path / "a.tiff").tobytes() == image.tobytes()


def test_links_to_nothing_are_not_followed_out_of_the_folder(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "a.vq2").symlink_to(folder / "elsewhere.vq2")
    (folder / "out" / "b.vq2").symlink_to("inside.vq2")
    result = CliRunner().invoke(main, ["encode", "a.png", "b.png", "-O", "out", "-e", "1"])
    assert result.exit_code == 1
    assert "not followed" in result.stderr
    assert not (folder / "elsewhere.vq2").exists()
    assert (folder / "out" / "inside.vq2").exists()
