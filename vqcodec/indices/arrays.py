# SPDX-License-Identifier: Apache-2.0
"""Index maps as data: images to arrays and `.npz` files, and back, for models that are trained on the codes.

    An .npz file holds
    level0 ...     uint16 [maps, H / stride, W / stride], coarsest level first; H and W are the height and width
                   rounded up to the coarsest stride. The maps are those of the residual stages, then those of the
                   groups of each product stage
    width, height  int64, of the image in pixels
    rate           uint8, the trade-off, as a .vq2 file has it
    strides, codebooks, codes, dims, stops, products, groups, group_codes
                   int64 [levels], what the model's configuration says of a level (`config.LevelConfig`): pixels per
                   index along each axis, residual stages, codes of each, dimension of a code, whether positions may
                   stop (0 or 1), product stages, their groups, codes of a group
    model          str, its name; identity: str, the hexadecimal digits that a .vq2 file names it by

Where a level may stop, indices of stages that a position does not reach are 0. Indices carry colour only: no alpha
channel and no metadata; those of a grey image decode to RGB.
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
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqcodec.config import LevelConfig
from vqcodec.encoder.request import DEFAULT, DEFAULT_EFFORT, Request, lmbda_asked
from vqcodec.errors import FormatError, ModelError, boundary
from vqcodec.format import container
from vqcodec.format.container import IDENTITY_BYTES
from vqcodec.format.source import Source, contents, is_source
from vqcodec.images import imaging, opening

if TYPE_CHECKING:
    from vqcodec.codec import Codec
    from vqcodec.images.opening import ImageSource
    from vqcodec.model.maps import IndexMaps

_MAX_LEVELS = 16
_MAX_SMALL = 4096  # bytes of an array that is no index map
_FIELDS = {"stride": "strides", "dim": "dims", "stop": "stops"}
_ARRAYS = {field.name: _FIELDS.get(field.name, field.name) for field in fields(LevelConfig)}
"""Field of `LevelConfig` -> its array."""
_SAMPLES = 3  # indices per pixel at most, over all levels: no more than an image has numbers
_MAX_HEADER = 512  # bytes before the values of an array; numpy writes 128
_IDENTITY = re.compile(f"[0-9a-f]{{{2 * IDENTITY_BYTES}}}")
_HEADER = re.compile(
    rb"\{'descr': '([<|=]?[iuU]\d{1,4})', 'fortran_order': (True|False), 'shape': \((|\d+,|\d+(?:, \d+)+)\), \} *\n"
)
"""What numpy writes before the values of an array in version 1.0 of its format, of the types that matter here."""

# What zipfile raises for bytes that are not its own, and numpy for a type that there is not.
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, LookupError, TypeError,
           SyntaxError, RuntimeError, OverflowError)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Indices:
    """The index maps of an image, and of which model.

    Args:
        levels: uint16 [maps, H / stride, W / stride], coarsest first, H and W padded to the coarsest stride.
        width, height: of the image, in pixels.
        configs: what the maps of each level are.
        model: its name, for people.
        identity: 4 bytes, the one that counts.
        rate: the trade-off, 0 to 255.

    Raises FormatError where these do not fit together: also where a position has an index after it has stopped.
    """

    levels: tuple[NDArray[np.uint16], ...]
    width: int
    height: int
    configs: tuple[LevelConfig, ...]
    model: str
    identity: bytes
    rate: int = 0

    def __post_init__(self) -> None:
        sizes = _Sizes(self.width, self.height, self.rate, self.configs)
        sizes.check()
        if len(self.levels) != len(self.configs):
            raise FormatError(f"{len(self.levels)} levels of indices, {len(self.configs)} in the configuration")
        for i, (maps, config) in enumerate(zip(self.levels, self.configs, strict=True)):
            sizes.check_maps(i, maps.dtype, maps.shape)
            _check_indices(i, maps, config)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per index along each axis, by level."""
        return tuple(config.stride for config in self.configs)


def _check_indices(level: int, maps: NDArray[np.uint16], config: LevelConfig) -> None:
    """Raise FormatError if an index is none of its codes, or not 0 where its position has stopped."""
    live: NDArray[np.bool_] = np.ones(maps.shape[1:], np.bool_)
    for stage in range(config.stages):
        part = config.stage_maps(stage)
        codes = config.alphabets[part.start]
        if (largest := maps[part].max()) >= codes:
            raise FormatError(f"level {level} has the index {largest}, of {codes} codes")
        used: NDArray[np.bool_] = np.any(maps[part], axis=0)
        if np.any(used & ~live):
            raise FormatError(f"level {level} has an index in stage {stage} where the position has stopped before")
        if config.stop:
            live = used


@boundary()
def dumps(indices: Indices) -> bytes:
    """Make the bytes of an `.npz` file; no time stamps, so that the same indices give the same bytes."""
    arrays: dict[str, Any] = {f"level{i}": maps for i, maps in enumerate(indices.levels)}
    arrays["width"], arrays["height"] = np.int64(indices.width), np.int64(indices.height)
    arrays["rate"] = np.uint8(indices.rate)
    for field, name in _ARRAYS.items():
        arrays[name] = np.array([getattr(config, field) for config in indices.configs], np.int64)
    arrays["model"], arrays["identity"] = np.array(indices.model), np.array(indices.identity.hex())
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@boundary()
def save(target: str | os.PathLike[str] | IO[bytes], indices: Indices) -> None:
    """Write an `.npz` file; raise OSError if it cannot be written.

    Args:
        target: path, or a file open for writing bytes.
        indices: of an image.
    """
    if isinstance(target, (str, os.PathLike)):
        Path(target).write_bytes(dumps(indices))
    else:
        target.write(dumps(indices))


@boundary()
def load(source: Source) -> Indices:
    """Read what `save` wrote. Nothing is unpickled, and no array is allocated before its size has been checked.

    Raises FormatError if it is no such file, and OSError if it cannot be read.
    """
    data = contents(source, "an .npz file: its bytes, its path or an open file")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return _read(file)
    except _BROKEN as error:
        raise FormatError(f"not an .npz file of indices, or damaged: {error}") from error


@boundary()
def extract(codec: Codec, source: ImageSource, asked: Request = DEFAULT) -> Indices:
    """Take the indices of an image, or of a `.vq2` file, which is decoded no further.

    Args:
        codec: to choose or read them with.
        source: an image as `Codec.encode` takes it, or a `.vq2` file: its path, its bytes or an open file.
        asked: quality and effort, for an image.

    Warns where an alpha channel is left out. Raises ImageError, FormatError or ModelError as `Codec.encode` and
    `Codec.decode`.
    """
    source = _read_source(source)
    if isinstance(source, bytes):
        file = container.unpack(source)
        maps = codec.read_indices(file)
        alpha, rate = file.header.has_alpha, file.header.rate
    else:
        picture = imaging.from_pil(opening.as_image(source))
        maps = codec.to_indices(picture.pixels, asked)
        alpha, rate = picture.alpha is not None, codec.tradeoff(lmbda_asked(asked, codec.config.lmbdas))
    if alpha:
        warnings.warn("indices carry no alpha channel: it is left out", stacklevel=2)
    levels = tuple(m.numpy().astype(np.uint16) for m in maps.levels)
    return Indices(levels, *maps.size, codec.config.autoencoder.levels, codec.name, codec.identity, rate)


def _read_source(source: ImageSource) -> ImageSource:
    """The bytes of a .vq2 file; anything else is an image."""
    if not is_source(source):
        return source
    data = contents(cast(Source, source))
    return data if data.startswith(container.MAGIC) else opening.open_bytes(data)


def index_maps(codec: Codec, indices: Indices) -> IndexMaps:
    """Turn indices into what `Codec` takes; raise ModelError if they are those of another model.

    Args:
        codec: the model that they were made with.
        indices: of an image.
    """
    import torch

    from vqcodec.model.maps import IndexMaps

    if indices.identity != codec.identity:
        needed = f"{indices.model} ({indices.identity.hex()})"
        raise ModelError(f"the indices are those of model {needed}, this is {codec.name} ({codec.identity.hex()})")
    if indices.configs != codec.config.autoencoder.levels:
        raise FormatError(f"the levels of these indices are not those of model {codec.name}")
    levels = tuple(torch.from_numpy(maps.astype(np.int64)) for maps in indices.levels)
    return IndexMaps(levels, indices.width, indices.height)


@boundary()
def to_indices(
    source: ImageSource,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    quality: float | None = None,
    lmbda: float | None = None,
    effort: int = DEFAULT_EFFORT,
) -> Indices:
    """Take the indices of an image, or of a `.vq2` file. See `extract`.

    Args:
        source: the image, or the file, as `vqcodec.encode` and `vqcodec.decode` take them.
        model: by name or path; by default the one that the file names, and the default model for an image.
        device: auto (a GPU if there is one), cpu or cuda.
        quality: for an image, 0 (small) to 100 (good).
        lmbda: for an image, weight of a bit in place of the quality.
        effort: for an image, 1 (fast) to 9 (small).
    """
    from vqcodec import codec

    source = _read_source(source)
    if model is None and isinstance(source, bytes):
        return extract(codec.load_identity(container.read_header(source).model, device), source)
    return extract(codec.load_model(model, device), source, Request(quality, lmbda, effort=effort))


@boundary()
def from_indices(indices: Indices, *, model: str | os.PathLike[str] | None = None, device: str = "auto") -> Image.Image:
    """Make a picture of indices.

    Args:
        indices: of any installed model.
        model: theirs, by name or path; by default the installed one that they name.
        device: auto (a GPU if there is one), cpu or cuda.

    Returns: a Pillow image of mode RGB. Raises ModelError if the model is not installed or not theirs.
    """
    codec = _codec(indices, model, device)
    return Image.fromarray(codec.from_indices(index_maps(codec, indices), indices.rate))


@boundary()
def to_vq2(indices: Indices, *, model: str | os.PathLike[str] | None = None, device: str = "auto") -> bytes:
    """Write indices into a `.vq2` file.

    Args:
        indices: of any installed model.
        model: theirs, by name or path; by default the installed one that they name.
        device: auto (a GPU if there is one), cpu or cuda.

    Returns: the bytes that `encode` gives for an RGB image that has these indices and no metadata. Raises what
    `from_indices` does.
    """
    codec = _codec(indices, model, device)
    streams = codec.compress(index_maps(codec, indices), indices.rate)
    header = codec.header(indices.width, indices.height, "RGB", indices.rate)
    return container.pack(container.Container(header, tuple(streams)))


def _codec(indices: Indices, model: str | os.PathLike[str] | None, device: str) -> Codec:
    from vqcodec import codec

    return codec.load_identity(indices.identity, device) if model is None else codec.load_model(model, device)


class _Sizes(NamedTuple):
    """What is known of a file before any index is read, and what it says of the maps to come."""

    width: int
    height: int
    rate: int
    configs: tuple[LevelConfig, ...]

    def check(self) -> None:
        """Raise FormatError unless these are the sizes of an image and of levels."""
        limit = min(Image.MAX_IMAGE_PIXELS or container.MAX_PIXELS, container.MAX_PIXELS)
        inside = all(1 <= side <= container.MAX_SIDE for side in (self.width, self.height))
        if not inside or self.width * self.height > limit:
            raise FormatError(f"{self.width}x{self.height} is no size of an image, or over the limit of {limit} pixels")
        if not 0 <= self.rate <= container.MAX_RATE:
            raise FormatError(f"the trade-off must be 0 to {container.MAX_RATE}, not {self.rate}")
        if not 1 <= len(self.configs) <= _MAX_LEVELS:
            raise FormatError(f"{len(self.configs)} levels, not 1 to {_MAX_LEVELS}")
        strides = [config.stride for config in self.configs]
        falling = strides == sorted(set(strides), reverse=True)
        if not falling or any(stride not in {1 << i for i in range(1, 9)} for stride in strides):
            raise FormatError(f"the strides {strides} are no falling powers of two up to 256")
        for i, config in enumerate(self.configs):
            codes = (config.codes, config.group_codes)
            if any(not 2 <= number <= 1 << 16 for number in codes):
                raise FormatError(f"the numbers of codes {list(codes)} of level {i} are not all from 2 to 65536")
            if min(config.codebooks, config.groups, config.dim) < 1 or config.products < 0 or config.stop not in (0, 1):
                raise FormatError(f"level {i} is no level of a model: {config}")
        room = _SAMPLES * math.prod(self.map_shape(strides[0])) * strides[0] ** 2
        if sum(config.maps * math.prod(self.map_shape(config.stride)) for config in self.configs) > room:
            raise FormatError("the levels have more indices than the image has numbers")

    def map_shape(self, stride: int) -> tuple[int, int]:
        """Height and width of the maps of that stride."""
        coarsest = self.configs[0].stride
        return -(-self.height // coarsest) * coarsest // stride, -(-self.width // coarsest) * coarsest // stride

    def check_maps(self, level: int, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        """Raise FormatError if an array is not that of the maps of a level."""
        config = self.configs[level]
        wanted = (config.maps, *self.map_shape(config.stride))
        if dtype != np.uint16 or tuple(shape) != wanted:
            raise FormatError(f"level {level} should be uint16 {list(wanted)}; it is {dtype} {list(shape)}")


def _read(file: zipfile.ZipFile) -> Indices:
    width, height = (int(_small(file, name, "i", 0)) for name in ("width", "height"))
    rate = int(_small(file, "rate", "u", 0))
    columns = {field: _small(file, name, "i", 1).tolist() for field, name in _ARRAYS.items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise FormatError("the arrays that describe the levels are not of one length")
    configs = []
    for row in zip(*columns.values(), strict=True):
        values = dict(zip(columns, row, strict=True))
        if values["stop"] in (0, 1):
            values["stop"] = bool(values["stop"])
        configs.append(LevelConfig(**values))
    sizes = _Sizes(width, height, rate, tuple(configs))
    sizes.check()
    model, identity = (
        _small(file, name, "U", 0).tobytes().decode("utf-32-le").rstrip("\0") for name in ("model", "identity")
    )
    if not model.isprintable() or not _IDENTITY.fullmatch(identity):
        raise FormatError(f"no name and identity of a model: {model!r}, {identity!r}")
    levels = [_array(file, f"level{i}", partial(sizes.check_maps, i)) for i in range(len(configs))]
    return Indices(tuple(levels), width, height, tuple(configs), model, bytes.fromhex(identity), rate)


def _small(file: zipfile.ZipFile, name: str, kind: str, dimensions: int) -> NDArray[Any]:
    """An array that is no index map: int64 for kind i, uint8 for kind u, text for kind U."""

    def check(dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        right = dtype == {"i": np.int64, "u": np.uint8}[kind] if kind in "iu" else dtype.kind == kind
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
        header = _HEADER.fullmatch(stream.read(min(_MAX_HEADER, int.from_bytes(start[8:], "little"))))
        if not start.startswith(b"\x93NUMPY\x01\x00") or header is None:
            raise FormatError(f"'{name}' is no array of numbers or text as numpy writes it")
        dtype, fortran = np.dtype(header[1].decode()), header[2] == b"True"
        shape = tuple(int(side) for side in header[3].rstrip(b",").split(b",") if side)
        check(dtype, shape)
        size = math.prod(shape) * dtype.itemsize
        data = stream.read(size)
        if len(data) != size or stream.read(1):
            raise FormatError(f"'{name}' has not the size that it says")
    flat = np.frombuffer(data, dtype).copy()
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
