# SPDX-License-Identifier: Apache-2.0
"""What is compared: this codec with a model on a device, and Pillow's codecs, in this process and as commands."""

from __future__ import annotations

import io
import json
import os
import sys
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import AvifImagePlugin, Image

import vqcodec
from vqcodec.codec import load_model
from vqcodec.evaluation.rivals import FORMATS
from vqcodec.model import registry

# Those of `evaluation.rivals` that are timed, but for AVIF's threads, whose number is what is compared here.
_FORMATS = {"JPEG": "JPEG", "WebP": "WebP", "AVIF": "AVIF 4:2:0"}
RIVALS: dict[str, dict[str, Any]] = {
    name: {k: v for k, v in FORMATS[key].options.items() if k != "max_threads"} for name, key in _FORMATS.items()
}

_PILLOW = """
import json, sys
from PIL import Image
source, target, threads, options = sys.argv[1:]
if "avif" in source + target:
    from PIL import AvifImagePlugin
    AvifImagePlugin.DEFAULT_MAX_THREADS = int(threads)
Image.open(source).save(target, **json.loads(options))
"""


class Contender(Protocol):
    """A codec at one setting. Commands read and write files; pixels are in PPM files, which cost next to nothing."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def suffix(self) -> str:
        """Of its files, with the dot."""

    @property
    def threaded(self) -> bool:
        """Whether it can use several threads."""

    def use_threads(self, number: int) -> None:
        """Compute with so many threads from now on, in this process."""

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that its commands need."""

    def encode(self, image: Image.Image) -> bytes: ...

    def decode(self, data: bytes) -> Image.Image: ...

    def encode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        """Give a command line that encodes.

        Args:
            source: the picture to read.
            target: the file to write.
            threads: to compute with.
        """

    def decode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        """Give a command line that decodes.

        Args:
            source: the file to read.
            target: the picture to write.
            threads: to compute with.
        """


class Ours:
    """This codec; `python -m vqcodec` as a command. Raises ModelError, ExactnessError as `load_model`."""

    name = "vqcodec"
    suffix = ".vq2"
    threaded = True

    def __init__(self, model: str | None, device: str) -> None:
        self._file = registry.find(model)
        self.codec = load_model(model, device)
        self.setting = self.codec.name
        self.device = self.codec.device

    def use_threads(self, number: int) -> None:
        torch.set_num_threads(number)

    def environment(self, threads: int) -> dict[str, str]:
        number = str(threads)
        package = str(Path(vqcodec.__file__).parent.parent)
        paths = {"PYTHONPATH": package, registry.ENVIRONMENT: str(self._file.path.parent.resolve())}
        joined = {key: os.pathsep.join(filter(None, (value, os.environ.get(key)))) for key, value in paths.items()}
        return joined | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}

    def encode(self, image: Image.Image) -> bytes:
        return self.codec.encode(image, fallback=False)

    def decode(self, data: bytes) -> Image.Image:
        return self.codec.decode(data)

    def encode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        """As `Contender.encode_command`: `vqcodec encode`.

        Args:
            source: the picture to read.
            target: the file to write.
            threads: not used: the environment has them.
        """
        return [*self._command("encode", source, target), "--no-fallback", "--model", str(self._file.path)]

    def decode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        """As `Contender.decode_command`: `vqcodec decode`.

        Args:
            source: the file to read.
            target: the picture to write.
            threads: not used: the environment has them.
        """
        return self._command("decode", source, target)

    def _command(self, what: str, source: Path, target: Path) -> list[str]:
        files = [str(source), str(target)]
        return [sys.executable, "-m", "vqcodec", what, "-f", "--quiet", "--device", self.device.type, *files]


@dataclass(frozen=True)
class Pillow:
    """A codec of Pillow's, a key of `RIVALS`, at a quality from 1 to 100; a short Python script as a command.

    Only AVIF uses several threads.
    """

    name: str
    quality: int

    device = torch.device("cpu")

    @property
    def setting(self) -> str:
        return f"quality {self.quality}"

    @property
    def suffix(self) -> str:
        return f".{self.name.lower()}"

    @property
    def threaded(self) -> bool:
        return self.name == "AVIF"

    def use_threads(self, number: int) -> None:
        AvifImagePlugin.DEFAULT_MAX_THREADS = number

    def environment(self, threads: int) -> dict[str, str]:
        return {}

    @property
    def _options(self) -> dict[str, Any]:
        arguments = FORMATS[_FORMATS[self.name]].arguments(self.quality)
        return {name: value for name, value in arguments.items() if name != "max_threads"}

    def encode(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.save(file, **self._options)
        return file.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    def encode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        """As `Contender.encode_command`: a Python that imports Pillow.

        Args:
            source: the picture to read.
            target: the file to write.
            threads: to compute with.
        """
        return [sys.executable, "-c", _PILLOW, str(source), str(target), str(threads), json.dumps(self._options)]

    def decode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        """As `Contender.decode_command`: a Python that imports Pillow.

        Args:
            source: the file to read.
            target: the picture to write.
            threads: to compute with.
        """
        return [sys.executable, "-c", _PILLOW, str(source), str(target), str(threads), "{}"]


def within(name: str, image: Image.Image, limit: int) -> Pillow:
    """Make the rival at the highest quality whose file fits, or at quality 1 (sizes rise with the quality, nearly).

    Args:
        name: of the rival.
        image: the picture to encode.
        limit: bytes of the file, at most.
    """
    fits = bisect_right(range(1, 101), limit, key=lambda quality: len(Pillow(name, quality).encode(image)))
    return Pillow(name, max(1, fits))
