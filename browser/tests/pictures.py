# SPDX-License-Identifier: Apache-2.0
"""Write pictures for the tests of the decoder in browser/, with what Python decodes of them: .vq2 files, RGBA pixels as
raw bytes, and a list with the hashes of their indices. Photographs of scikit-image and drawings, of many sizes."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw
from skimage import data

import vqcodec
from vqcodec.format import container

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
    whole = available[0].resize((768, 512))
    listed.append(written(out, "768x512", whole, "vq2-light", fallback=False, effort=1))
    (out / "list.json").write_text(json.dumps(listed, indent=2))


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
    if len(parts.streams) and name == "768x512":
        small = vqcodec.decode(file, device="cpu", preview=2 if model == "vq2-light" else 4)
        memory = io.BytesIO(small.convert("RGBA").tobytes())
        (out / f"{name}.preview.gz").write_bytes(gzip.compress(memory.getvalue(), 1))
        region = vqcodec.decode(file, device="cpu", region=(300, 200, 100, 50))
        (out / f"{name}.region.gz").write_bytes(gzip.compress(region.convert("RGBA").tobytes(), 1))
    return entry


if __name__ == "__main__":
    main()
