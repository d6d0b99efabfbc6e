# SPDX-License-Identifier: Apache-2.0
"""What is done to every picture: bytes in, bytes and figures out. Knows neither files nor engines.

A task is a small frozen dataclass, which travels to the workers; `prepare` loads the model there, once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vqcodec.batch.failures import NoIndices
from vqcodec.encoder.request import DEFAULT_EFFORT
from vqcodec.errors import ModelError
from vqcodec.format import container
from vqcodec.images.listing import SUFFIXES
from vqcodec.model import registry

if TYPE_CHECKING:
    from PIL import Image

    from vqcodec.codec import Codec


class Coded(NamedTuple):
    """A result.

    Args:
        data: bytes of it; None where there is nothing to write.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        coded: bytes of the `.vq2` file; of the result, where that is none.
        quality: that was asked for, or None.
        stages: of indices, how many stages of each level are used.
    """

    data: bytes | None
    width: int
    height: int
    coded: int
    quality: float | None = None
    stages: tuple[int, ...] = ()


class Task(Protocol):
    """What is done."""

    @property
    def name(self) -> str:
        """Of the command."""

    @property
    def suffix(self) -> str:
        """Of the results, with its dot; empty where nothing is written."""

    @property
    def sources(self) -> frozenset[str]:
        """Suffixes of the files that are taken of folders."""

    @property
    def job(self) -> str:
        """What is asked, as sixteen digits: results of another job are not these."""

    def prepare(self) -> Callable[[bytes], Coded]:
        """Load what is needed. Returns: what does a picture; raises what `vqcodec.encode` does."""

    def size(self, data: bytes) -> tuple[int, int]:
        """Width and height of a picture, by its header. Raises what opening it does."""


@dataclass(frozen=True)
class ModelName:
    """A model as every worker finds it.

    Args:
        name: of an installed model, or the path of a weights file.
        identity: of its weights, which must be the same everywhere.
        device: auto, cpu or cuda.
    """

    name: str
    identity: bytes
    device: str = "auto"

    def load(self) -> Codec:
        """Load the model. Raises ModelError if it is not installed here, or is another."""
        from vqcodec import codec

        if registry.find(self.name).identity != self.identity:
            raise ModelError(f"the model {self.name} of this machine is not that of the one where the job was started")
        return codec.load_model(self.name, self.device)


@dataclass(frozen=True)
class EncodeTask:
    """Pictures to `.vq2` files.

    Args:
        model: to encode with.
        options: of `Codec.encode`, by name, in order of name.
    """

    model: ModelName
    options: tuple[tuple[str, Any], ...] = ()
    name = "encode"
    suffix = ".vq2"
    sources = SUFFIXES

    @property
    def job(self) -> str:
        """Depends on the weights and the options."""
        return _digits(self.name, self.model.identity.hex(), self.options)

    def prepare(self) -> Callable[[bytes], Coded]:
        """Load the model."""
        codec = self.model.load()
        options = dict(self.options)

        def encode(data: bytes) -> Coded:
            with _opened(data) as image:
                coded = codec.encode(image, **options)
                return Coded(coded, image.width, image.height, len(coded), _quality(options))

        return encode

    def size(self, data: bytes) -> tuple[int, int]:
        """Read width and height from the header of the image."""
        with _opened(data) as image:
            return image.size


@dataclass(frozen=True)
class DecodeTask:
    """`.vq2` files to pictures.

    Args:
        format: of the pictures: png, jpeg, webp, avif, jxl or tiff.
        suffix: of their names.
        quality: of the format, None for its default.
        device: auto, cpu or cuda.
    """

    format: str = "png"
    suffix: str = ".png"
    quality: int | None = None
    device: str = "auto"
    name = "decode"
    sources = frozenset([".vq2"])

    @property
    def job(self) -> str:
        """Depends on the format."""
        return _digits(self.name, self.format, self.quality)

    def prepare(self) -> Callable[[bytes], Coded]:
        """Models are loaded as files name them."""
        from vqcodec import codec
        from vqcodec.images import imaging, opening

        opening.register_for(f"x{self.suffix}")
        format = imaging.format_of(f"x{self.suffix}")
        imaging.check_quality(format, self.quality)

        def decode(data: bytes) -> Coded:
            image = codec.decode(data, device=self.device)
            file = io.BytesIO()
            imaging.save(image, file, format, self.quality)
            return Coded(file.getvalue(), image.width, image.height, len(data))

        return decode

    def size(self, data: bytes) -> tuple[int, int]:
        """Read width and height from the header of the file."""
        return _header_size(data)


@dataclass(frozen=True)
class VerifyTask:
    """`.vq2` files, decoded to the last pixel, and nothing written.

    Args:
        device: auto, cpu or cuda.
    """

    device: str = "auto"
    name = "verify"
    suffix = ""
    sources = frozenset([".vq2"])

    @property
    def job(self) -> str:
        """The same for all."""
        return _digits(self.name)

    def prepare(self) -> Callable[[bytes], Coded]:
        """Models are loaded as files name them."""
        from vqcodec import codec

        def verify(data: bytes) -> Coded:
            image = codec.decode(data, device=self.device)
            return Coded(None, image.width, image.height, len(data))

        return verify

    def size(self, data: bytes) -> tuple[int, int]:
        """Read width and height from the header of the file."""
        return _header_size(data)


@dataclass(frozen=True)
class IndicesTask:
    """Pictures, or `.vq2` files, to the `.npz` files of their indices. Pictures are encoded without fallback.

    Args:
        model: to encode pictures with; files name theirs.
        quality: of pictures, None for the middle of the scale.
        lmbda: of pictures, weight of a bit in place of the quality.
        effort: of pictures, 1 to 9.
    """

    model: ModelName
    quality: float | None = None
    lmbda: float | None = None
    effort: int = DEFAULT_EFFORT
    name = "indices"
    suffix = ".npz"
    sources = SUFFIXES | {".vq2"}

    @property
    def job(self) -> str:
        """Depends on the weights and the options."""
        return _digits(self.name, self.model.identity.hex(), self.quality, self.lmbda, self.effort)

    def prepare(self) -> Callable[[bytes], Coded]:
        """Load the model."""
        from vqcodec.encoder.request import Request
        from vqcodec.indices import arrays
        from vqcodec.indices.stages import stages_used

        codec = self.model.load()
        asked = Request(self.quality, self.lmbda, effort=self.effort)

        def indices(data: bytes) -> Coded:
            if data.startswith(container.MAGIC):
                if container.read_header(data).lossless:
                    raise NoIndices("the file holds its picture without loss, and no indices")
                taken, quality = arrays.to_indices(data, device=self.model.device), None
            else:
                with _opened(data) as image:
                    taken = arrays.extract(codec, image, asked)
                quality = _quality({"quality": self.quality, "lmbda": self.lmbda})
            result = arrays.dumps(taken)
            return Coded(result, taken.width, taken.height, len(result), quality, stages_used(taken))

        return indices

    def size(self, data: bytes) -> tuple[int, int]:
        """Read width and height from the header of the image or the file."""
        if data.startswith(container.MAGIC):
            return _header_size(data)
        with _opened(data) as image:
            return image.size


def model_name(name: str | os.PathLike[str] | None, device: str = "auto", tune: str | None = None) -> ModelName:
    """Look up a model as it is installed here.

    Args:
        name: or path; None: the default model of the tune.
        device: `auto`, `cpu` or `cuda`.
        tune: eye, psnr or ssim.

    Raises: ModelError.
    """
    model = registry.find(name, tune)
    is_path = name is not None and (os.fspath(name) != model.name or isinstance(name, os.PathLike))
    return ModelName(str(model.path.resolve()) if is_path else model.name, model.identity, device)


def _opened(data: bytes) -> Image.Image:
    from vqcodec.images import opening

    return opening.open_bytes(data)


def _header_size(data: bytes) -> tuple[int, int]:
    header = container.read_header(data)
    return header.width, header.height


def _quality(options: dict[str, Any]) -> float | None:
    """That was asked for; the default where nothing was."""
    from vqcodec.encoder.request import DEFAULT_QUALITY

    others = ("lmbda", "size", "bpp", "psnr", "ssimulacra2")
    if any(options.get(name) is not None for name in others) or options.get("lossless"):
        return None
    quality = options.get("quality")
    return DEFAULT_QUALITY if quality is None else float(quality)


def _digits(*asked: object) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=asdict).encode()).hexdigest()[:16]
