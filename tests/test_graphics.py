# SPDX-License-Identifier: Apache-2.0
"""Screenshots and drawings, with the shipped model: never larger than the PNG, never under 30 dB at quality 50."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import vqcodec
from vqcodec.codec import Codec
from vqcodec.encoder import fallback
from vqcodec.encoder.request import Request
from vqcodec.images import imaging, metrics, whole
from vqcodec.images.types import Pixels

SIZE = 240, 160
LINES = ["def encode(image, quality=50):", "    # Choose and pack.", "    return pack(choose(image))", "0123456789"]


def sheet(
    mode: str = "RGB", colour: object = "white", size: tuple[int, int] = SIZE
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new(mode, size, colour)  # type: ignore[arg-type]
    return image, ImageDraw.Draw(image)


def text() -> Image.Image:
    image, draw = sheet()
    for i in range(12):
        draw.text((4, 3 + 13 * i), LINES[i % 4] * 2, fill="black", font=ImageFont.load_default(11))
    return image


def terminal() -> Image.Image:
    """Letters of several colours on black, without smooth edges."""
    image, draw = sheet("RGB", (18, 18, 24))
    draw.fontmode = "1"
    for i in range(13):
        draw.text((3, 1 + 12 * i), f"$ {LINES[i % 4]}", fill=[(80, 250, 123), (255, 121, 198), "white"][i % 3])
    return image


def window() -> Image.Image:
    """A dialogue: bars, buttons, a shadow, text."""
    image, draw = sheet("RGB", (236, 239, 244))
    draw.rectangle((20, 14, 219, 145), fill="white", outline=(150, 156, 170))
    draw.rectangle((20, 14, 219, 32), fill=(76, 86, 106))
    for i in range(3):
        draw.ellipse((26 + 14 * i, 19, 34 + 14 * i, 27), fill=[(255, 95, 86), (255, 189, 46), (39, 201, 63)][i])
        draw.rounded_rectangle((130, 48 + 30 * i, 208, 68 + 30 * i), 6, fill=(94, 129, 172))
        draw.text((142, 52 + 30 * i), f"Button {i}", fill="white")
        draw.text((30, 52 + 30 * i), f"Label of {i}", fill=(46, 52, 64))
    return image


def chart() -> Image.Image:
    image, draw = sheet()
    for i, height in enumerate((30, 70, 55, 110, 90, 120)):
        draw.rectangle((20 + 35 * i, 140 - height, 45 + 35 * i, 140), fill=(31, 119, 180), outline="black")
    points = [(x, 80 + 50 * np.sin(x / 17)) for x in range(10, 230)]
    draw.line(points, fill=(214, 39, 40), width=2)
    draw.line((10, 140, 230, 140), fill="black")
    return image


def curves() -> Image.Image:
    """Anti-aliased lines, four times larger and made small."""
    image, draw = sheet(size=(960, 640))
    for i in range(14):
        draw.ellipse((60 * i, 40 * i, 60 * i + 400, 40 * i + 200), outline=(17 * i, 90, 255 - 17 * i), width=7)
    return image.resize(SIZE, Image.Resampling.LANCZOS)


def flat() -> Image.Image:
    return Image.new("RGB", SIZE, (200, 30, 90))


def gradient() -> Image.Image:
    return Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * i).resize(SIZE) for i in range(3)])


def dithered() -> Image.Image:
    """Black and white dots that stand for greys, one bit a pixel."""
    return Image.radial_gradient("L").resize(SIZE).convert("1")


def palette() -> Image.Image:
    """Soft shades in the 216 colours of the old web, dithered."""
    return shadows().convert("P", palette=Image.Palette.WEB)


def pixel_art() -> Image.Image:
    sprites = np.random.default_rng(1).integers(0, 8, (20, 15, 8))[:, :, 0].astype(np.uint8)
    image = Image.fromarray(np.concatenate([sprites, sprites[:, ::-1]], 1)).resize(SIZE, Image.Resampling.NEAREST)
    image.putpalette(
        [0, 0, 0, 255, 255, 255, 200, 40, 40, 40, 200, 40, 40, 40, 200, 240, 220, 70, 90, 60, 30, 9, 99, 99]
    )
    return image


def map_of_regions() -> Image.Image:
    """Polygons of flat colours that meet at all angles."""
    image, draw = sheet()
    random = np.random.default_rng(2)
    for _ in range(40):
        corners = [tuple(point) for point in random.integers(-20, 240, (4, 2)).tolist()]
        draw.polygon(corners, fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


def logo() -> Image.Image:
    """Shapes on nothing, with smooth alpha."""
    image, draw = sheet("RGBA", (0, 0, 0, 0), (960, 640))
    draw.ellipse((100, 60, 600, 560), fill=(230, 80, 20, 255))
    draw.rounded_rectangle((400, 200, 900, 600), 80, fill=(20, 80, 230, 200))
    return image.resize(SIZE, Image.Resampling.LANCZOS)


def page() -> Image.Image:
    """Grey text on paper that is darker on one side."""
    paper = np.linspace(255, 225, SIZE[0])
    return Image.fromarray(np.minimum(np.asarray(text().convert("L")), paper).astype(np.uint8))


def scan(noise: float = 2, mode: str = "L") -> Image.Image:
    """The page as a scanner sees it, with noise of that standard deviation."""
    paper = np.asarray(page().convert(mode)).astype(float)
    return Image.fromarray(
        (paper + np.random.default_rng(3).normal(0, noise, paper.shape)).round().clip(0, 255).astype(np.uint8)
    )


def colour_scan() -> Image.Image:
    return scan(4, "RGB")


def shadows() -> Image.Image:
    """Soft shadows and shades, as of a modern desktop, below sharp text."""
    image = Image.blend(gradient(), Image.new("RGB", SIZE, (90, 120, 200)), 0.7)
    ImageDraw.Draw(image).multiline_text((20, 40), "\n".join(LINES), fill="white")
    return image


def chequered() -> Image.Image:
    """Every pixel another colour than its neighbours: nothing is harder for a model."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return Image.fromarray((((x + y) % 2)[:, :, None] * np.array([255, 200, 40])).astype(np.uint8))


def noisy(draw: Callable[[], Image.Image]) -> Callable[[], Image.Image]:
    """That drawing with noise of sigma 2."""

    def drawn() -> Image.Image:
        pixels = np.asarray(draw().convert("RGB")) + np.random.default_rng(3).normal(0, 2, (*SIZE[::-1], 3))
        return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))

    drawn.__name__ = f"noisy_{draw.__name__}"
    return drawn


def large_letters() -> Image.Image:
    """A scan in colour of which a model does nothing well, and which is seven times larger without loss."""
    image, draw = sheet("RGB", (248, 244, 236))
    for i in range(5):
        draw.text((4, 30 * i), LINES[i % 4], fill=(30, 28, 40), font=ImageFont.load_default(24))
    return image


DRAWINGS: list[Callable[[], Image.Image]] = [
    text, terminal, window, chart, curves, flat, gradient, dithered, palette, pixel_art, map_of_regions, logo, page,
    shadows, chequered, scan, colour_scan, noisy(large_letters), noisy(window), noisy(chart), noisy(map_of_regions),
]  # fmt: skip


def psnr(image: Image.Image, decoded: Image.Image) -> float:
    """Of what is seen on white."""
    white = Image.new("RGBA", image.size, "white")
    shown = [np.asarray(Image.alpha_composite(white, one.convert("RGBA")))[:, :, :3] for one in (image, decoded)]
    return metrics.psnr(*shown)


@pytest.mark.parametrize("draw", DRAWINGS, ids=lambda draw: draw.__name__)
@pytest.mark.usefixtures("falling")
def test_drawings(shipped: Codec, draw: Callable[[], Image.Image]) -> None:
    image = draw()
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    data = shipped.encode(image, quality=50, effort=1)
    got = psnr(image, vqcodec.decode(data))
    assert len(data) <= len(png.getvalue())
    assert got >= 30


@pytest.mark.usefixtures("falling")
def test_noise_goes_and_letters_stay(shipped: Codec) -> None:
    """At the bytes of a model's file; the model's letters are 10 dB worse."""
    image = noisy(large_letters)()
    modelled = shipped.encode(image, quality=50, effort=1, fallback=False)
    data = shipped.encode(image, quality=50, effort=1)
    paper = np.asarray(vqcodec.decode(data))[-8:]  # below the letters
    assert len(data) <= len(modelled)
    assert psnr(image, vqcodec.decode(data)) > psnr(image, vqcodec.decode(modelled)) + 8
    assert np.asarray(image)[-8:].std(axis=(0, 1)).min() > 1.5
    assert paper.std(axis=(0, 1)).max() < 0.5


@pytest.mark.usefixtures("falling")
def test_only_sharp_pictures_are_looked_at_again(photo: NDArray[np.uint8]) -> None:
    """A photograph must not wait until a model's picture of it has been made, nor be stored so, however bad that is."""
    made = []

    def bad(shape: tuple[int, ...]) -> Pixels:
        made.append(shape)
        return np.zeros(shape, np.uint8)

    grey = np.repeat(photo[:, :, 1:2], 3, axis=2)  # of three equal channels: takes a third of the bits per dim
    for pixels, looked in ((photo, False), (grey, False), (np.asarray(scan(mode="RGB")), True)):
        picture = imaging.from_pil(Image.fromarray(pixels))
        data = bytes(len(pixels) * pixels.shape[1] // 8)  # one bit per pixel
        got = fallback.chosen(picture, Request(quality=50), (0.06, 2.0), data, partial(bad, pixels.shape))
        assert (got != data, bool(made)) == (looked, looked)


@pytest.mark.usefixtures("falling")
def test_smooth_photographs_are_kept_without_a_file_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """That file takes half as long as the model's; it is made where the model's picture is bad, or may be larger."""
    rng = np.random.default_rng(3)
    slope = np.linspace(60, 180, 192)[None, :, None] + rng.normal(0, 0.6, (128, 192, 3))
    picture = imaging.from_pil(Image.fromarray(slope.round().astype(np.uint8)))
    made = []
    monkeypatch.setattr(whole, "file", lambda picture, file=whole.file: made.append(1) or file(picture))
    for size, error, tried in ((2000, 4, False), (2000, 60, True), (20000, 4, True)):
        made.clear()
        shown = picture.pixels + np.uint8(error)
        data = fallback.chosen(picture, Request(quality=50), (0.06, 2.0), bytes(size), lambda shown=shown: shown)
        assert (bool(made), data == bytes(size)) == (tried, not tried)
    assert 8 * whole.estimate(picture) < fallback.GRAPHICS * whole.dims(picture)


@pytest.mark.usefixtures("falling")
def test_noise_is_weighed() -> None:
    """A picture that misses the floor by little is kept where no loss would cost much more."""
    image = scan()
    picture, lossless = imaging.from_pil(image), whole.file(imaging.from_pil(image))
    for error, kept in ((8, True), (12, True), (40, False)):  # 30.1, 26.5 and 16.1 dB
        pixels = picture.pixels
        shown = np.where(pixels < 128, pixels + error, pixels - error).astype(np.uint8)
        data = fallback.chosen(picture, Request(quality=50), (0.06, 2.0), bytes(1000), lambda shown=shown: shown)
        assert data == (bytes(1000) if kept else lossless)
    assert fallback.allowance(0) == 0
    assert fallback.allowance(5.5) == pytest.approx(9.4, abs=0.1)
