# SPDX-License-Identifier: Apache-2.0
"""Write pictures for the tests of the decoder in browser/, with what Python decodes of them: .vq2 files, RGBA pixels as
raw bytes, and a list with the hashes of their indices. Photographs of scikit-image and drawings, of many sizes."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click
import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageOps
from skimage import data

import vqcodec
from vqcodec.format import container
from vqcodec.images import whole

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from golden import decoded_indices, indices_hash

SIZES = [
    (1, 1), (2, 3), (7, 65), (31, 33), (32, 32), (33, 31), (64, 64), (100, 40), (129, 77), (255, 257), (256, 256),
    (257, 255), (300, 200), (320, 64), (40, 520), (512, 100), (384, 300), (1040, 24), (24, 1040), (513, 65),
]  # fmt: skip
MODELS = ("vq2-light", "vq2-light", "vq2-light", "vq2-base", "vqvae-base")
MODES = ("RGB", "RGB", "L", "RGBA", "RGB", "LA")
QUALITIES = (5, 30, 50, 75, 100)
COUNT = 50
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>a test</x:xmpmeta>"


def sources() -> list[Image.Image]:
    """Photographs and a drawing, larger than all sizes."""
    drawing = Image.new("RGB", (600, 600), "white")
    pen = ImageDraw.Draw(drawing)
    for i in range(40):
        pen.ellipse((i * 11, i * 7, i * 11 + 150, i * 7 + 90), fill=(i * 6, 255 - i * 5, i * 37 % 256), outline="black")
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    return [*map(Image.fromarray, photographs), drawing]


def picture(number: int, available: list[Image.Image]) -> Image.Image:
    """A picture of the list: size, content and mode from its number."""
    width, height = SIZES[number % len(SIZES)]
    image = available[number % len(available)].resize((width, height), Image.Resampling.LANCZOS)
    mode = MODES[number % len(MODES)]
    image = image.convert("L" if mode.startswith("L") else "RGB")
    if mode.endswith("A"):
        ramp = np.add.outer(np.arange(height) * 3, np.arange(width)) % 256
        image.putalpha(Image.fromarray(ramp.astype(np.uint8)))
    return image


def with_metadata(image: Image.Image) -> Image.Image:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Camera of a test"
    image.info |= {"exif": exif.tobytes(), "xmp": XMP}
    return image


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=COUNT, show_default=True, help="Pictures.")
def main(out: Path, count: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    available, listed = sources(), []
    for number in range(count):
        image, model = picture(number, available), MODELS[number % len(MODELS)]
        if number % 10 == 0:
            image = with_metadata(image)
        lossless = number % 12 == 7
        options: dict[str, object] = {"lossless": True} if lossless else {"fallback": False, "effort": 1}
        if model != "vqvae-base" and not lossless:  # which has one quality
            options["quality"] = QUALITIES[number // 5 % 5]
        listed.append(written(out, f"{number:02}", image, model, **options))
    large = available[0].resize((768, 512))
    listed.append(written(out, "768x512", large, "vq2-light", fallback=False, effort=1))
    for mode in ("RGBA", "LA"):
        transparent = available[2].resize((120, 90)).convert(mode)
        transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
        listed.append(written(out, f"lossless-{mode}", transparent, "vq2-light", lossless=True))
        with mock.patch.object(whole, "_vp8l", return_value=b""):
            listed.append(written(out, f"lossless-{mode}-png", transparent, "vq2-light", lossless=True))
    (out / "list.json").write_text(json.dumps(listed, indent=2))
    shown = [*turned_pictures(out, available[1]), *coloured_pictures(out, available[1])]
    (out / "shown.json").write_text(json.dumps(shown, indent=2))


def written(out: Path, name: str, image: Image.Image, model: str, **options: object) -> dict[str, object]:
    """The files of a picture, and its entry in the list."""
    file = vqcodec.encode(image, model=model, **options)
    decoded = vqcodec.decode(file, device="cpu")
    (out / f"{name}.vq2").write_bytes(file)
    # Pillow would drop nothing of it, and a grey picture has three equal channels.
    (out / f"{name}.rgba.gz").write_bytes(gzip.compress(decoded.convert("RGBA").tobytes(), 1))
    entry: dict[str, object] = {"name": name, "width": image.width, "height": image.height, "mode": decoded.mode}
    parts = container.unpack(file)
    entry["model"] = None if parts.header.lossless else model
    entry["exif"], entry["xmp"] = parts.exif is not None, parts.xmp is not None
    if not parts.header.lossless:
        entry["indices"] = indices_hash(decoded_indices(vqcodec.load_model(model, "cpu"), file))
        entry["groups"], entry["levels"] = container.number_of_groups(parts.header), parts.levels
    if parts.streams and name == "768x512":
        small = vqcodec.decode(file, device="cpu", preview=2 if model == "vq2-light" else 4)
        memory = io.BytesIO(small.convert("RGBA").tobytes())
        (out / f"{name}.preview.gz").write_bytes(gzip.compress(memory.getvalue(), 1))
        region = vqcodec.decode(file, device="cpu", region=(300, 200, 100, 50))
        (out / f"{name}.region.gz").write_bytes(gzip.compress(region.convert("RGBA").tobytes(), 1))
    return entry


def turned_pictures(out: Path, photograph: Image.Image) -> list[dict[str, object]]:
    """Files of all orientations, the sixth with an alpha channel; Pillow turns what they decode to."""
    listed = []
    for orientation in range(1, 9):
        image = photograph.resize((77, 45))
        if orientation == 6:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "Maker"
        image.info |= {"exif": exif.tobytes(), "xmp": f"<x tiff:Orientation='{orientation}'/>".encode()}
        listed.append(shown(out, f"turned{orientation}", image, orientation, "srgb", ImageOps.exif_transpose))
    return listed


def coloured_pictures(out: Path, photograph: Image.Image) -> list[dict[str, object]]:
    """Files with profiles; LittleCMS converts what they decode to, to sRGB."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    adobe = {"gamma": 256 / 563, "chromaticity": (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)}
    transparent = photograph.resize((96, 64))
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    grey = photograph.convert("L").resize((96, 64))
    pictures = [
        ("colour-srgb", photograph.resize((96, 64)), {"icc_profile": srgb}, "srgb"),
        ("colour-p3", photograph.resize((96, 64)), {"icc_profile": display_p3(srgb)}, "display-p3"),
        ("colour-adobe", transparent, adobe, "other"),
        ("colour-grey", grey, {"gamma": 1 / 1.8}, "other"),
    ]
    return [shown(out, name, image, 1, colours, to_srgb, **info) for name, image, info, colours in pictures]


def display_p3(srgb: bytes) -> bytes:
    """The profile of sRGB with the primaries of Display P3."""
    profile = bytearray(srgb)
    columns = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.292, 0.6922, 0.0419), b"bXYZ": (0.1571, 0.0666, 0.7841)}
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12):
        name, offset = struct.unpack_from(">4sI", profile, entry)
        if name in columns:
            struct.pack_into(">3i", profile, offset + 8, *(round(65536 * x) for x in columns[name]))
    return bytes(profile)


def to_srgb(image: Image.Image) -> Image.Image:
    """A picture in sRGB by way of its profile, with its alpha as it was."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    opaque = image if image.mode == "L" else image.convert("RGB")
    out = ImageCms.profileToProfile(
        opaque, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    assert out is not None
    if image.mode == "RGBA":
        out.putalpha(image.getchannel("A"))
    return out


def shown(
    out: Path,
    name: str,
    image: Image.Image,
    orientation: int,
    colours: str,
    show: Callable[[Image.Image], Image.Image],
    **info: object,
) -> dict[str, object]:
    """A file, the pixels that it holds and those that are to be seen."""
    image.info |= info
    image.format = "PNG"  # gamma and chromaticities count in these only
    file = vqcodec.encode(image, model="vq2-light", fallback=False, effort=1)
    (out / f"{name}.vq2").write_bytes(file)
    decoded = vqcodec.decode(file, device="cpu")
    seen = show(decoded)
    (out / f"{name}.rgba.gz").write_bytes(gzip.compress(decoded.convert("RGBA").tobytes(), 1))
    (out / f"{name}.shown.gz").write_bytes(gzip.compress(seen.convert("RGBA").tobytes(), 1))
    size = {"width": seen.width, "height": seen.height}
    return {"name": name, "orientation": orientation, "colours": colours, **size}


if __name__ == "__main__":
    main()
