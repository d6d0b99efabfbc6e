# SPDX-License-Identifier: Apache-2.0
"""A stand-in for `vqcodec.codec`, without torch, that stores the pixels as they are.

It lets the command line and the Pillow plugin be tested for what they do themselves. A weights file that holds
`WEIGHTS` is its model.
"""

from __future__ import annotations

import hashlib
import sys
from types import ModuleType

import numpy as np
from PIL import Image

import vqcodec
from vqcodec import container, imaging, registry

WEIGHTS = b"no weights at all"
IDENTITY = hashlib.sha256(WEIGHTS).digest()[:8]


class Codec:
    """Keeps the interface of the real one."""

    def encode(self, image: Image.Image, *, verify: bool = False) -> bytes:
        picture = imaging.from_pil(image)
        height, width = picture.pixels.shape[:2]
        words = picture.pixels.tobytes()
        words += b"\0" * (-len(words) % 4)
        alpha = None if picture.alpha is None else imaging.encode_alpha(picture.alpha)
        header = container.Header(width, height, picture.mode, IDENTITY, 32768)
        file = container.Container(header, (b"", words), alpha, picture.icc, picture.exif, picture.xmp)
        return container.pack(file)

    def sample(self, width: int = 256, height: int = 256, *, seed: int = 0) -> Image.Image:
        return Image.new("RGB", (width, height), (seed % 256, 0, 0))


def load_model(name: object = None, device: str = "auto") -> Codec:
    registry.find("fake" if name is None else str(name))
    return Codec()


def encode(image: Image.Image, *, model: object = None, device: str = "auto", verify: bool = False) -> bytes:
    return load_model(model, device).encode(image, verify=verify)


def decode(data: bytes, *, device: str = "auto") -> Image.Image:
    file = container.unpack(data)
    head = file.header
    registry.find_identity(head.model)
    values = np.frombuffer(file.streams[1], np.uint8)[: 3 * head.width * head.height]
    alpha = None if file.alpha is None else imaging.decode_alpha(file.alpha, head.width, head.height)
    pixels = values.reshape(head.height, head.width, 3)
    return imaging.to_pil(imaging.Picture(pixels, alpha, head.mode, file.icc, file.exif, file.xmp))


def module() -> ModuleType:
    """The stand-in as a module, to be put in the place of `vqcodec.codec`."""
    fake = ModuleType("vqcodec.codec")
    fake.__dict__.update(Codec=Codec, load_model=load_model, encode=encode, decode=decode)
    return fake


def install() -> None:
    """Put it there for the whole process."""
    sys.modules["vqcodec.codec"] = module()
    vqcodec.__dict__["codec"] = sys.modules["vqcodec.codec"]
