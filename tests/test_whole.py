# SPDX-License-Identifier: Apache-2.0
"""Pictures without loss: the chunk, and when an encoder falls back to it."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

import vqcodec
import vqcodec.pillow_plugin
from vqcodec.cli import main
from vqcodec.codec import Codec
from vqcodec.format import container
from vqcodec.format.info import describe
from vqcodec.images import imaging, metrics, whole


def drawing(mode: str = "RGB", size: tuple[int, int] = (300, 200)) -> Image.Image:
    image = Image.new("RGB", size, (250, 250, 255))
    draw = ImageDraw.Draw(image)
    for i in range(0, size[0], 20):
        draw.ellipse((i, i // 2, i + 60, i // 2 + 40), outline=(200, i % 255, 30), width=2)
    draw.text((5, 5), "never larger than the PNG", fill="black")
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    return Image.frombytes(mode, size, np.random.default_rng(0).bytes(size[0] * size[1] * len(mode)))


@pytest.mark.parametrize("mode", container.MODES)
@pytest.mark.parametrize("size", [(1, 2), (300, 200), (17, 1)])
def test_every_pixel_comes_back(mode, size):
    for image in (drawing(mode, size), noise(mode, size)):  # colours where nothing is seen of them, too
        image.info["exif"] = Image.Exif().tobytes() + b"\0"
        data = whole.file(imaging.from_pil(image))
        decoded = vqcodec.decode(data)
        assert (decoded.mode, decoded.tobytes()) == (mode, image.tobytes())
        assert decoded.info["exif"] == image.info["exif"]
        with Image.open(io.BytesIO(data)) as opened:
            assert (opened.mode, opened.size, opened.tobytes()) == (mode, size, image.tobytes())


def test_both_kinds_of_payload(monkeypatch):
    picture = imaging.from_pil(drawing())
    webp = whole.encode(picture)
    monkeypatch.setattr(whole.features, "check", lambda name: False)
    png = whole.encode(picture)
    assert (webp[:1], png[:4]) == (b"\x2f", b"\x89PNG")
    header = container.read_header(whole.file(picture))
    with pytest.raises(vqcodec.ImageError, match="this Pillow cannot read"):
        whole.decode(webp, header)
    monkeypatch.undo()
    for payload in (webp, png):
        assert (whole.decode(payload, header).pixels == picture.pixels).all()
        for wrong in (replace(header, width=301), replace(header, width=1, height=1)):
            with pytest.raises(vqcodec.FormatError, match="not"):
                whole.decode(payload, wrong)
        for cut in (payload[:4], payload[: len(payload) // 2]):
            with pytest.raises(vqcodec.FormatError):
                whole.decode(cut, header)
    with pytest.raises(vqcodec.FormatError, match="L"):
        whole.decode(png, replace(header, mode="L"))


def test_large_claims_are_refused_before_they_cost_anything():
    claimed = b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + bytes(8)
    header = container.Header(16383, 16383, "RGB", b"", lossless=True)
    data = container.pack(container.Container(header, (), lossless=claimed))
    with pytest.raises(vqcodec.ImageError, match="limit"):
        vqcodec.decode(data)
    small = container.pack(container.Container(replace(header, width=8, height=8), (), lossless=claimed))
    with pytest.raises(vqcodec.FormatError, match="not"):
        vqcodec.decode(small)


def test_a_file_has_either_a_picture_or_indices(tiny):
    lossless = container.unpack(whole.file(imaging.from_pil(drawing())))
    coded = container.unpack(tiny.encode(drawing(size=(40, 30))))
    for parts in (
        replace(lossless, lossless=None),
        replace(lossless, alpha=b"x"),
        replace(lossless, streams=coded.streams),
        replace(coded, lossless=lossless.lossless),
    ):
        with pytest.raises(vqcodec.FormatError, match="one chunk"):
            container.pack(parts)
    with pytest.raises(vqcodec.ImageError, match="no indices"):
        tiny.read_indices(lossless)


@pytest.mark.usefixtures("falling")
def test_graphics_fall_back_and_photographs_do_not(tiny: Codec, photo, monkeypatch):
    for image in (drawing(), drawing("LA"), Image.new("RGB", (400, 300), (9, 99, 200))):
        data, png = tiny.encode(image), io.BytesIO()
        image.save(png, "PNG", optimize=True)
        assert container.read_header(data).lossless
        assert len(data) <= len(png.getvalue())
        assert tiny.decode(data).tobytes() == image.tobytes()
        assert not container.read_header(tiny.encode(image, fallback=False)).lossless
    assert not container.read_header(tiny.encode(Image.fromarray(photo), quality=0)).lossless
    large = Image.fromarray(photo).resize((1353, 900), Image.Resampling.NEAREST)  # looked at in parts
    large = Image.fromarray(np.asarray(large) ^ np.asarray(noise("RGB", large.size)) >> 5)
    assert not container.read_header(tiny.encode(large, quality=0, effort=1)).lossless


@pytest.mark.usefixtures("falling")
def test_a_size_is_kept(tiny: Codec):
    image = drawing()
    whole_size = len(tiny.encode(image, lossless=True))
    assert container.read_header(tiny.encode(image, size=whole_size)).lossless
    with pytest.raises(vqcodec.ImageError, match="too few"):
        tiny.encode(image, size=40)
    flat = Image.new("L", (256, 256), 7)
    assert len(tiny.encode(flat, size=80)) <= 80  # the model does not come so low


def test_likeness_that_is_asked_for(shipped: Codec, photo):
    pixels = photo[:96, :128]
    image = Image.fromarray(pixels)

    def reached(data: bytes, measure=metrics.psnr) -> float:
        return measure(pixels, np.asarray(shipped.decode(data)))

    ends = [reached(shipped.encode(image, lmbda=lmbda, effort=1)) for lmbda in (16.0, 0.001)]
    target = sum(ends) / 2
    data = shipped.encode(image, psnr=target, effort=1)
    assert target <= reached(data) < target + 0.3
    with pytest.raises(vqcodec.ImageError, match="psnr of 60 is out of reach"):
        shipped.encode(image, psnr=60, effort=1, fallback=False)
    assert container.read_header(shipped.encode(image, psnr=60, effort=1)).lossless
    assert 40 <= reached(shipped.encode(image, ssimulacra2=40, effort=1), metrics.ssimulacra2) < 45
    with pytest.raises(vqcodec.ImageError, match="sides of at least"):
        shipped.encode(image.crop((0, 0, 7, 9)), ssimulacra2=50, fallback=False)
    with pytest.raises(ValueError, match="give one of"):
        shipped.encode(image, psnr=30, quality=3)


def test_command_line(tmp_path: Path, tiny_models: Path, monkeypatch):
    monkeypatch.setenv("VQCODEC_MODELS", str(tiny_models))
    source, target = tmp_path / "a.png", tmp_path / "a.vq2"
    drawing().save(source)
    assert CliRunner().invoke(main, ["encode", str(source), "--lossless"]).exit_code == 0
    info = vqcodec.info(target)
    assert info.lossless
    assert info.header_bytes + info.lossless_bytes + info.overhead_bytes == info.file_bytes
    assert "stored without loss" in describe("a.vq2", info)
    assert CliRunner().invoke(main, ["decode", str(target), str(tmp_path / "b.png")]).exit_code == 0
    with Image.open(tmp_path / "b.png") as decoded:
        assert decoded.tobytes() == drawing().tobytes()
    both = CliRunner().invoke(main, ["encode", "-f", str(source), "--lossless", "-q", "3"])
    assert both.exit_code == 2
    opened = "import sys, vqcodec.pillow_plugin; from PIL import Image; Image.open(sys.argv[1]).load()"
    script = f"{opened}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script, str(target)], check=False).returncode == 0
