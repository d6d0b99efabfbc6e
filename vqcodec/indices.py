# SPDX-License-Identifier: Apache-2.0
"""Index maps as data: images to arrays and `.npz` files, and back, for models that are trained on the codes.

    An .npz file holds
    level0 ...     uint16 [codebooks, H / stride, W / stride], coarsest level first; H and W are the height and width
                   rounded up to the coarsest stride
    width, height  int64, of the image in pixels
    strides, codes int64 [levels]: pixels per index along each axis, and the number of codes of each codebook
    model          str, its name; identity: str, the hexadecimal digits that a .vq2 file names it by

Indices carry colour only: no alpha channel and no metadata; those of a grey image decode to RGB.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import container, imaging
from .errors import FormatError, ModelError
from .quality import DEFAULT, DEFAULT_EFFORT, Request

if TYPE_CHECKING:
    from torch import Tensor

    from .codec import Codec

_MAX_LEVELS = 16
_MAX_SMALL = 4096  # bytes of an array that is no index map
_SAMPLES = 3  # indices per pixel that are believed, over all levels: no more than an image has numbers
_MAX_HEADER = 512  # bytes before the values of an array; numpy writes 128
_IDENTITY = re.compile("[0-9a-f]{16}")
_HEADER = re.compile(
    rb"\{'descr': '([<|=]?[iuU]\d{1,4})', 'fortran_order': (True|False), 'shape': \((|\d+,|\d+(?:, \d+)+)\), \} *\n"
)
"""What numpy writes before the values of an array in version 1.0 of its format, of the types that matter here."""

# What zipfile raises for bytes that are not its own, and numpy for a type that there is not.
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, LookupError, TypeError,
           SyntaxError, RuntimeError, OverflowError, MemoryError)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Indices:
    """The index maps of an image, and of which model.

    levels: uint16 [codebooks, H / stride, W / stride], coarsest first, H and W padded to the coarsest stride; width,
    height: of the image, in pixels; strides, codes: per level; model: its name, for people; identity: 8 bytes, the one
    that counts. Raises FormatError where these do not fit together.
    """

    levels: tuple[NDArray[np.uint16], ...]
    width: int
    height: int
    strides: tuple[int, ...]
    codes: tuple[int, ...]
    model: str
    identity: bytes

    def __post_init__(self) -> None:
        sizes = _Sizes(self.width, self.height, self.strides, self.codes)
        sizes.check()
        if len(self.levels) != len(self.strides):
            raise FormatError(f"{len(self.levels)} levels of indices with {len(self.strides)} strides")
        room = sizes.most_indices
        for i, (maps, codes) in enumerate(zip(self.levels, self.codes, strict=True)):
            sizes.check_maps(i, maps.dtype, maps.shape, room)
            room -= maps.size
            if maps.max() >= codes:
                raise FormatError(f"level {i} has the index {maps.max()}, of {codes} codes")


def dumps(indices: Indices) -> bytes:
    """The bytes of an `.npz` file; no time stamps, so that the same indices give the same bytes."""
    arrays: dict[str, Any] = {f"level{i}": maps for i, maps in enumerate(indices.levels)}
    arrays["width"], arrays["height"] = np.int64(indices.width), np.int64(indices.height)
    arrays["strides"], arrays["codes"] = np.array(indices.strides, np.int64), np.array(indices.codes, np.int64)
    arrays["model"], arrays["identity"] = np.array(indices.model), np.array(indices.identity.hex())
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def save(target: str | os.PathLike[str] | IO[bytes], indices: Indices) -> None:
    """Write an `.npz` file. Raises OSError if it cannot be written."""
    if isinstance(target, (str, os.PathLike)):
        Path(target).write_bytes(dumps(indices))
    else:
        target.write(dumps(indices))


def load(source: str | os.PathLike[str] | IO[bytes]) -> Indices:
    """Read what `save` wrote. Nothing is unpickled, and no array is allocated before its size has been checked.

    Raises FormatError if it is no such file, and OSError if it cannot be read.
    """
    data = Path(source).read_bytes() if isinstance(source, (str, os.PathLike)) else source.read()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return _read(file)
    except _BROKEN as error:
        raise FormatError(f"not an .npz file of indices, or damaged: {error}") from error


def extract(codec: Codec, source: Image.Image | bytes, asked: Request = DEFAULT) -> Indices:
    """The indices of an image, or of a `.vq2` file given as its bytes, which is decoded no further; asked: of an image.

    Warns where an alpha channel is left out. Raises ImageError, FormatError or ModelError as `Codec.encode` and
    `Codec.decode`.
    """
    if isinstance(source, bytes):
        file = container.unpack(source)
        maps = codec.read_indices(file)
        width, height, alpha = file.header.width, file.header.height, file.header.has_alpha
    else:
        picture = imaging.from_pil(source)
        maps = codec.to_indices(picture.pixels, asked)
        height, width = picture.pixels.shape[:2]
        alpha = picture.alpha is not None
    if alpha:
        warnings.warn("indices carry no alpha channel: it is left out", stacklevel=2)
    levels = codec.config.autoencoder.levels
    return Indices(
        tuple(m.numpy().astype(np.uint16) for m in maps), width, height, tuple(level.stride for level in levels),
        tuple(level.codes for level in levels), codec.name, codec.identity,
    )  # fmt: skip


def index_maps(codec: Codec, indices: Indices) -> list[Tensor]:
    """Index maps as `Codec` takes them. Raises ModelError if they are those of another model."""
    import torch

    levels = codec.config.autoencoder.levels
    if indices.identity != codec.identity:
        needed = f"{indices.model} ({indices.identity.hex()})"
        raise ModelError(f"the indices are those of model {needed}, this is {codec.name} ({codec.identity.hex()})")
    found = zip([len(maps) for maps in indices.levels], indices.strides, indices.codes, strict=True)
    if list(found) != [(level.codebooks, level.stride, level.codes) for level in levels]:
        raise FormatError(f"the levels of these indices are not those of model {codec.name}")
    return [torch.from_numpy(maps.astype(np.int64)) for maps in indices.levels]


def to_indices(
    source: Image.Image | bytes,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    quality: float | None = None,
    rate: float | None = None,
    effort: int = DEFAULT_EFFORT,
) -> Indices:
    """A Pillow image, or the bytes of a `.vq2` file, -> its indices. See `extract`.

    model: by name or path; by default the one that the file names, and the default model for an image. quality, rate,
    effort: for an image, as of `Codec.encode`.
    """
    from . import codec

    if model is None and isinstance(source, bytes):
        return extract(codec.load_identity(container.read_header(source).model, device), source)
    return extract(codec.load_model(model, device), source, Request(quality, rate, effort=effort))


def from_indices(indices: Indices, *, model: str | os.PathLike[str] | None = None, device: str = "auto") -> Image.Image:
    """Indices -> a Pillow image of mode RGB, with the installed model that they name, or with `model`, which must be
    the same. Raises ModelError if it is not installed or not theirs."""
    codec = _codec(indices, model, device)
    return Image.fromarray(codec.from_indices(index_maps(codec, indices), indices.width, indices.height))


def to_vq2(indices: Indices, *, model: str | os.PathLike[str] | None = None, device: str = "auto") -> bytes:
    """Indices -> the bytes of a `.vq2` file: those of `encode`, for an RGB image that has these indices and no
    metadata. Takes and raises what `from_indices` does."""
    codec = _codec(indices, model, device)
    streams = codec.compress(index_maps(codec, indices), indices.width, indices.height)
    return container.pack(container.Container(codec.header(indices.width, indices.height, "RGB"), tuple(streams)))


def _codec(indices: Indices, model: str | os.PathLike[str] | None, device: str) -> Codec:
    from . import codec

    return codec.load_identity(indices.identity, device) if model is None else codec.load_model(model, device)


class _Sizes(NamedTuple):
    """What is known of a file before any index is read, and what it says of the maps to come."""

    width: int
    height: int
    strides: tuple[int, ...]
    codes: tuple[int, ...]

    @property
    def most_indices(self) -> int:
        rows, columns = (-(-side // self.strides[0]) * self.strides[0] for side in (self.height, self.width))
        return _SAMPLES * rows * columns

    def check(self) -> None:
        """Raise FormatError unless these are the sizes of an image and of levels."""
        limit = min(Image.MAX_IMAGE_PIXELS or container.MAX_PIXELS, container.MAX_PIXELS)
        inside = all(1 <= side <= container.MAX_SIDE for side in (self.width, self.height))
        if not inside or self.width * self.height > limit:
            raise FormatError(f"{self.width}x{self.height} is no size of an image, or over the limit of {limit} pixels")
        if not 1 <= len(self.strides) <= _MAX_LEVELS or len(self.strides) != len(self.codes):
            raise FormatError(f"{len(self.strides)} strides and {len(self.codes)} numbers of codes")
        falling = list(self.strides) == sorted(set(self.strides), reverse=True)
        if not falling or any(stride not in {1 << i for i in range(1, 9)} for stride in self.strides):
            raise FormatError(f"the strides {list(self.strides)} are no falling powers of two up to 256")
        if any(not 2 <= number <= 1 << 16 for number in self.codes):
            raise FormatError(f"the numbers of codes {list(self.codes)} are not all from 2 to 65536")

    def check_maps(self, level: int, dtype: np.dtype[Any], shape: Sequence[int], room: int) -> None:
        """Raise FormatError if an array cannot hold the maps of a level, or more than `room` indices."""
        coarsest, stride = self.strides[0], self.strides[level]
        rows, columns = (-(-side // coarsest) * coarsest // stride for side in (self.height, self.width))
        if dtype != np.uint16 or len(shape) != 3 or tuple(shape[1:]) != (rows, columns) or shape[0] < 1:
            found = f"{dtype} {list(shape)}"
            raise FormatError(f"level {level} should be uint16 [codebooks, {rows}, {columns}]; it is {found}")
        if math.prod(shape) > room:
            raise FormatError(f"level {level} has {shape[0]} codebooks: more indices than the image has numbers")


def _read(file: zipfile.ZipFile) -> Indices:
    width, height = (int(_small(file, name, "i", 0)) for name in ("width", "height"))
    strides, codes = (tuple(_small(file, name, "i", 1).tolist()) for name in ("strides", "codes"))
    sizes = _Sizes(width, height, strides, codes)
    sizes.check()
    model, identity = (
        _small(file, name, "U", 0).tobytes().decode("utf-32-le").rstrip("\0") for name in ("model", "identity")
    )
    if not model.isprintable() or not _IDENTITY.fullmatch(identity):
        raise FormatError(f"no name and identity of a model: {model!r}, {identity!r}")
    room, levels = sizes.most_indices, []
    for i in range(len(strides)):
        levels.append(_array(file, f"level{i}", partial(sizes.check_maps, i, room=room)))
        room -= levels[-1].size
    return Indices(tuple(levels), width, height, strides, codes, model, bytes.fromhex(identity))


def _small(file: zipfile.ZipFile, name: str, kind: str, dimensions: int) -> NDArray[Any]:
    """An array that is no index map: int64 for kind i, text for kind U."""

    def check(dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        right = dtype == np.int64 if kind == "i" else dtype.kind == kind
        if not right or len(shape) != dimensions or not 0 < math.prod(shape) * dtype.itemsize <= _MAX_SMALL:
            raise FormatError(f"'{name}' should not be {dtype} {list(shape)}")

    return _array(file, name, check)


def _array(file: zipfile.ZipFile, name: str, check: Callable[[np.dtype[Any], Sequence[int]], None]) -> NDArray[Any]:
    """One array of the file; `check` is asked about its type and shape before any of its values is read."""
    try:
        member = file.getinfo(f"{name}.npy")
    except KeyError as error:
        raise FormatError(f"no .npz file of indices: '{name}' is missing") from error
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"'{name}' is compressed in a way that numpy does not write")
    with file.open(member) as stream:
        start = stream.read(10)
        found = _HEADER.fullmatch(stream.read(min(_MAX_HEADER, int.from_bytes(start[8:], "little"))))
        if not start.startswith(b"\x93NUMPY\x01\x00") or found is None:
            raise FormatError(f"'{name}' is no array of numbers or text as numpy writes it")
        dtype, fortran = np.dtype(found[1].decode()), found[2] == b"True"
        shape = tuple(int(side) for side in found[3].rstrip(b",").split(b",") if side)
        check(dtype, shape)
        size = math.prod(shape) * dtype.itemsize
        data = stream.read(size)
        if len(data) != size or stream.read(1):
            raise FormatError(f"'{name}' has not the size that it says")
    flat = np.frombuffer(data, dtype).copy()
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
