# SPDX-License-Identifier: Apache-2.0
"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from PIL import Image

from vqcodec import codec
from vqcodec.cli import main
from vqcodec.model import registry


def coded(image: Image.Image) -> Image.Image:
    """What the codec makes of an image: in these tests the expected result of encoding and decoding."""
    decoded = codec.decode(codec.encode(image, model="tiny"))
    assert decoded.tobytes() != image.tobytes()
    assert len(set(decoded.tobytes())) > 2
    return decoded


def identity() -> str:
    return registry.find("tiny").identity.hex()


def vq(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"a.png", "b.png"}


def same_pixels(path: Path | str, image: Image.Image) -> bool:
    with Image.open(path) as opened:
        return opened.size == image.size and opened.convert("RGB").tobytes() == image.tobytes()
