# SPDX-License-Identifier: Apache-2.0
"""image -> indices -> frequencies -> bytes, and back by the same rooms. The only place where they meet."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vqcodec import container, imaging, inventory, lambdas, proportion, registry, sampling, schema, weights
from vqcodec.config import ModelConfig, is_vae
from vqcodec.encoder.chooser import Chooser, Original
from vqcodec.encoder.target import search
from vqcodec.errors import FormatError, ImageError, ModelError, VqcodecError
from vqcodec.exact import orders
from vqcodec.exact.check import check_device
from vqcodec.exact.condition import PLACES
from vqcodec.exact.engine import Batch, Draw, known, run
from vqcodec.exact.network import IntegerPrior
from vqcodec.limits import DEFAULT_LIMITS, Deadline, Limits
from vqcodec.nets import strips
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.quality import (
    DEFAULT,
    DEFAULT_EFFORT,
    DEFAULT_QUALITY,
    DEFAULT_TUNE,
    EFFORTS,
    TUNES,
    Request,
    rate_of,
    scale,
)
from vqcodec.stream import Coded, Source, by_map, pack_stream
from vqcodec.tiling import Tiling

GROUP_TILES = 16  # tiles that share a stream per level: with 256x256 tiles a megapixel
BATCH_GROUPS = 4  # groups decoded together at most; bounds the memory of large images
STEP_ROWS = 1024  # positions of a step from which a processor gains nothing by decoding more groups together

Pixels = npt.NDArray[np.uint8]
P = ParamSpec("P")
T = TypeVar("T")


def _plain(method: Callable[P, T]) -> Callable[P, T]:
    """Run a method without gradients and outside any autocast of the caller, which would round what must be exact."""

    @functools.wraps(method)
    def run_plain(*arguments: P.args, **options: P.kwargs) -> T:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(*arguments, **options)

    return run_plain


class Codec:
    """A model, ready to encode, decode and sample on one device.

    Index maps are lists over levels, coarsest first, of int64 tensors [maps, H / stride, W / stride] on the CPU, H and
    W padded to multiples of the coarsest stride. place: of an image in the model's range of rates, 0 (lowest weight of
    a bit) to 255; see `place`.
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, Tensor], device: str = "cpu") -> None:
        """tensors: `autoencoder.*` (float) and `prior.LEVEL.*` (integers). Raises ModelError or ExactnessError."""
        self.config = config
        self.device = torch.device(device)
        self.name = ""
        self.identity = bytes(8)
        check_device(self.device)
        levels = config.autoencoder.levels
        self.autoencoder = Autoencoder(config.autoencoder)
        try:
            self.autoencoder.load_state_dict(weights.single(weights.part(tensors, "autoencoder")))
        except RuntimeError as error:
            raise ModelError(f"the autoencoder's weights do not fit its configuration: {error}") from error
        self.autoencoder.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.priors = []
        for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True)):
            own = weights.part(tensors, f"prior.{i}")
            self.priors.append(IntegerPrior(prior, level, levels[:i], own, self.device))

    @classmethod
    def load(cls, model: registry.ModelFile, device: str = "auto") -> Codec:
        """Read a weights file. Raises ModelError if it is none, ExactnessError if the device is not exact."""
        file = weights.load_model(model.path)
        if is_vae(file.meta):
            raise ModelError(f"model {model.name} is a VAE: it can be sampled and measured, but it is no codec")
        config = schema.model_config(file.meta.get("model"))
        inventory.check_model(config, file.entries)
        tensors = file.tensors()
        inventory.check_finite(tensors)
        codec = cls(config, tensors, pick_device(device))
        codec.name, codec.identity = model.name, file.identity
        return codec

    @property
    def tile_size(self) -> int:
        """Side of a tile, in pixels: what the priors see at once."""
        return self.config.tile_size

    @_plain
    def encode(
        self,
        image: Image.Image,
        *,
        quality: float | None = None,
        rate: float | None = None,
        size: int | None = None,
        bpp: float | None = None,
        effort: int = DEFAULT_EFFORT,
        tune: str = DEFAULT_TUNE,
        verify: bool = False,
    ) -> bytes:
        """image -> the bytes of a .vq2 file, with its metadata.

        At most one of: quality, 0 to 100; rate, the weight of a bit (lambda), from 0; size, in bytes, or bpp, in bits
        per pixel, that the file may have at most. None: the middle of the scale. effort: 1 (fast) to 9. tune: psnr or
        ssim, see `quality.Request`. verify: decode the indices again and compare.

        Raises ValueError on other values, ImageError on an image that cannot be encoded or not in that size, ModelError
        if the model has a single quality and another is asked for.
        """
        asked = Request(quality, rate, size, bpp, effort, tune)
        picture = imaging.from_pil(image)
        height, width = picture.pixels.shape[:2]
        alpha = None if picture.alpha is None else imaging.encode_alpha(picture.alpha)

        def pack(coded: _Encoded) -> bytes:
            header = self.header(width, height, picture.mode, coded.place)
            parts = container.Container(header, tuple(coded.streams), alpha, picture.icc, picture.exif, picture.xmp)
            return container.pack(parts)

        chooser = self.chooser(picture.pixels, asked)
        target = asked.target(width * height)
        if target is None:
            weight = self.rate(asked)
            coded = self._encoded(chooser.maps(weight), chooser, weight)
        else:
            coded = self._within(target, chooser, pack)
        if verify:
            again = self.decompress(coded.streams, width, height, place=coded.place)
            if not all(torch.equal(a, b) for a, b in zip(coded.indices, again, strict=True)):
                raise VqcodecError("verification failed: the file would not decode to the indices that were encoded")
        return pack(coded)

    def _encoded(self, indices: list[Tensor], chooser: Chooser, rate: float) -> _Encoded:
        """Index maps with their streams, for a weight of a bit."""
        place = self.place(rate)
        return _Encoded(indices, self.compress(indices, *chooser.size, place), place)

    def rate(self, asked: Request) -> float:
        """The weight of a bit at a quality (not at a size). Raises ModelError if the model has a single one and another
        is asked for."""
        if asked.rate is not None:
            return asked.rate
        if asked.quality is None and not self.config.rates[1]:
            return 0.0
        return rate_of(DEFAULT_QUALITY if asked.quality is None else asked.quality, self.config.rates)

    def place(self, rate: float) -> int:
        """The place of a weight of a bit in the model's range of rates, 0 to 255; 0 for all of them if the model does
        not look at it. See `lambdas.place`."""
        looks = self.config.autoencoder.gains or any(prior.rates for prior in self.config.priors)
        return lambdas.place(self.config, rate) if looks else 0

    def _within(self, target: float, chooser: Chooser, pack: Callable[[_Encoded], bytes]) -> _Encoded:
        """The largest file of at most so many bytes. Raises ImageError if none is so small."""
        scale(self.config.rates)
        empty = [b""] * (len(self.groups(*chooser.size)) * len(self.priors))
        fixed = len(pack(_Encoded([], empty, 0)))  # metadata and all, packed once
        made: list[tuple[int, _Encoded]] = []

        def estimate(rate: float) -> int:
            return size(self._encoded(chooser.rough(rate), chooser, rate))

        def size(encoded: _Encoded) -> int:
            return fixed + sum(map(_chunk_size, range(len(empty)), encoded.streams))

        def make(rate: float) -> int:
            encoded = self._encoded(chooser.maps(rate), chooser, rate)
            made.append((size(encoded), encoded))
            return made[-1][0]

        search(make, estimate, target, self.config.rates, fixed)
        fitting = [(length, coded) for length, coded in made if length <= target]
        if not fitting:
            smallest = min((length for length, _ in made), default=fixed)
            raise ImageError(f"{target:.0f} bytes are too few for this image: the least that was reached is {smallest}")
        return max(fitting, key=lambda pair: pair[0])[1]

    def header(self, width: int, height: int, mode: str, place: int = 0) -> container.Header:
        """Of the files that this codec writes."""
        return container.Header(width, height, mode, self.identity, self.tile_size, GROUP_TILES, place)

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
        """The bytes of a .vq2 file -> image, with its metadata. Raises FormatError on a damaged file, ModelError
        if it was made with another model, and ImageError if decoding it would cost more than the limits."""
        limits.check_pixels(*_size(container.read_header(data)))
        file = container.unpack(data)
        head = file.header
        indices = self.read_indices(file, limits)
        pixels = self.from_indices(indices, head.width, head.height, head.rate)
        alpha = None if file.alpha is None else imaging.decode_alpha(file.alpha, head.width, head.height)
        return imaging.to_pil(imaging.Picture(pixels, alpha, head.mode, file.icc, file.exif, file.xmp))

    def read_indices(self, file: container.Container, limits: Limits = DEFAULT_LIMITS) -> list[Tensor]:
        """The index maps that a file holds. Raises FormatError, ModelError and ImageError as `decode`."""
        head = file.header
        width, height = _size(head)
        if head.model != self.identity:
            raise ModelError(f"the file needs model {head.model.hex()}, this is {self.name} ({self.identity.hex()})")
        if head.tile_size != self.config.tile_size or file.levels != len(self.priors):
            raise FormatError(f"tiles of {head.tile_size} pixels, {file.levels} levels do not fit model {self.name}")
        if head.group_tiles > GROUP_TILES:
            raise FormatError(f"groups have at most {GROUP_TILES} tiles, not {head.group_tiles}")
        limits.check_pixels(width, height)
        tilings = [self.tiling(level, width, height) for level in range(len(self.priors))]
        tiles = max(head.group_tiles, self._batch_tiles(width, height))
        limits.check_memory(proportion.memory(self.config, tilings, tiles))
        return self.decompress(file.streams, width, height, head.group_tiles, head.rate, limits.deadline())

    def sample(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        keep: sampling.Keep | None = None,
        place: int = 0,
    ) -> Image.Image:
        """Draw an image from the priors, by default one tile. See `sample_indices`."""
        width, height = (self.tile_size if side is None else side for side in (width, height))
        indices = self.sample_indices(width, height, seed=seed, temperature=temperature, keep=keep, place=place)
        return Image.fromarray(self.from_indices(indices, width, height, place))

    def sample_indices(
        self,
        width: int,
        height: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        keep: sampling.Keep | None = None,
        place: int = 0,
    ) -> list[Tensor]:
        """Draw the index maps of an image from the priors; the same arguments give the same on every machine.

        width, height: in pixels; seed: from 0; temperature: above 0, at most 10, 1 for the model's own distribution;
        keep: indices that are given (`sampling.keep_top`, `sampling.keep_upper`). Raises ValueError on others.
        """
        return next(sampling.draw(self, width, height, [seed], temperature=temperature, keep=keep, place=place))

    @_plain
    def to_indices(self, pixels: Pixels, asked: Request = DEFAULT) -> list[Tensor]:
        """uint8 [H, W, 3] -> index maps (see the class). The image is padded by repeating its edge. Raises ModelError
        as `encode`, ValueError if a size is asked for."""
        if asked.sized:
            raise ValueError("index maps have no size: give a quality or a rate weight")
        return self.chooser(pixels, asked).maps(self.rate(asked))

    @_plain
    def chooser(self, pixels: Pixels, asked: Request = DEFAULT) -> Chooser:
        """uint8 [H, W, 3] -> what chooses its index maps at any rate weight."""
        multiple = self.config.autoencoder.coarsest
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
        image = torch.from_numpy(padded).permute(2, 0, 1)[None]
        original = Original(image, width, height)
        return Chooser(self, original, EFFORTS[asked.effort], TUNES[asked.tune])

    def groups(self, width: int, height: int) -> list[slice]:
        """The tiles of an image by the streams that they share."""
        rows, columns = self.tiling(0, width, height).grid
        return [slice(i, min(i + GROUP_TILES, rows * columns)) for i in range(0, rows * columns, GROUP_TILES)]

    @_plain
    def from_indices(self, indices: Sequence[Tensor], width: int, height: int, place: int = 0) -> Pixels:
        """Index maps -> uint8 [height, width, 3]. Floating point: may differ by 1 between devices."""
        maps = [m[None].to(self.device) for m in indices]
        options: dict[str, Any] = {"place": place / (PLACES - 1)} if self.config.autoencoder.gains else {}
        image = strips.decode(self.autoencoder, maps, **options)[0]
        if not bool(torch.isfinite(image).all()):
            raise ModelError(f"model {self.name} decodes these indices to no finite picture")
        pixels = (image.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels[:height, :width].cpu().numpy())

    @_plain
    def frequencies(
        self, indices: Sequence[Tensor], width: int, height: int, tiles: slice = slice(None), place: int = 0
    ) -> list[list[Coded]]:
        """What the encoder codes of the given tiles, by level and index map."""
        levels = []
        for level in range(len(self.priors)):
            split, valid = self._split(indices[: level + 1], width, height)
            batches = self.coded([maps[tiles] for maps in split], None if valid is None else valid[tiles], place)
            levels.append(by_map(self.priors[level], batches, math.prod(split[level].shape[2:])))
        return levels

    def coded(self, maps: Sequence[Tensor], valid: Tensor | None, place: int) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """What the encoder codes of one level, in the order of the stream: see `exact.engine.known`.

        maps: int64 [tiles, maps, h, w] of the levels up to this one; valid: bool [tiles, h, w], of this one.
        """
        *coarse, own = (m.to(self.device) for m in maps)
        inside = None if valid is None else valid.to(self.device)
        prior = self.priors[len(coarse)]
        condition = prior.condition(coarse, (len(own), *own.shape[2:]), inside, place)
        return known(prior, own, condition, inside)

    @_plain
    def compress(self, indices: Sequence[Tensor], width: int, height: int, place: int = 0) -> list[bytes]:
        """Index maps -> one stream per group of tiles and level, group by group. Inverse of `decompress`."""
        levels = [self._split(indices[: level + 1], width, height) for level in range(len(self.priors))]
        streams = []
        for part in self.groups(width, height):
            for maps, valid in levels:
                own = [m[part] for m in maps], None if valid is None else valid[part]
                streams.append(pack_stream(self.coded(*own, place)))
        return streams

    @_plain
    def decompress(
        self,
        streams: Sequence[bytes],
        width: int,
        height: int,
        group_tiles: int = GROUP_TILES,
        place: int = 0,
        deadline: Deadline | None = None,
    ) -> list[Tensor]:
        """Streams -> index maps. Raises FormatError on a stream that `compress` would not write, ImageError after the
        deadline."""
        tilings = [self.tiling(level, width, height) for level in range(len(self.priors))]
        proportion.check_lengths(self.priors, tilings, streams, group_tiles)
        clock = Deadline() if deadline is None else deadline
        sources: list[Source] = []

        def source(level: int, first: int) -> Draw:
            if sources:
                sources[-1].check()  # ahead of the work that the next level is
            group = first // group_tiles
            sources.append(Source(streams[group * len(self.priors) + level :: len(self.priors)], group_tiles, clock))
            return sources[-1]

        batch = max(1, self._batch_tiles(width, height) // group_tiles) * group_tiles
        found = self.produce(source, width, height, batch, place=place)
        sources[-1].check()
        return [tiling.join(tiles) for tiling, tiles in zip(tilings, found, strict=True)]

    @_plain
    def produce(
        self,
        source: Callable[[int, int], Draw],
        width: int,
        height: int,
        batch: int,
        *,
        images: int = 1,
        priors: Sequence[IntegerPrior] | None = None,
        place: int = 0,
    ) -> list[Tensor]:
        """Index maps of images of one size, as tiles: per level int64 [images * tiles, maps, h, w] on the CPU.

        source: level and first tile of a batch -> its draw; batch: tiles that are produced together; priors: in place
        of the model's own.
        """
        tilings = [self.tiling(level, width, height) for level in range(len(self.priors))]
        masks = [tiling.valid() for tiling in tilings]
        number = images * math.prod(tilings[0].grid)
        found: list[list[Tensor]] = [[] for _ in tilings]
        for first in range(0, number, batch):
            tiles = min(batch, number - first)
            coarse: list[Tensor] = []
            for level, prior in enumerate(priors or self.priors):
                valid = masks[level]
                inside = None if valid is None else valid.repeat(images, 1, 1)[first : first + tiles].to(self.device)
                condition = prior.condition(coarse, (tiles, *tilings[level].tile_shape), inside, place)
                coarse.append(run(prior, condition, source(level, first), inside))
                found[level].append(coarse[level].cpu())
        return [torch.cat(maps) for maps in found]

    def tiling(self, level: int, width: int, height: int) -> Tiling:
        """How the maps of a level are cut into tiles, for an image of width x height pixels."""
        auto = self.config.autoencoder
        return Tiling(width, height, self.config.tile_size, auto.coarsest, auto.levels[level].stride)

    def _batch_tiles(self, width: int, height: int) -> int:
        """How many tiles to decode together, so that the steps of the finest level are large enough."""
        most = BATCH_GROUPS * GROUP_TILES
        if self.device.type != "cpu":
            return most
        h, w = self.tiling(len(self.priors) - 1, width, height).tile_shape
        steps = len(orders.order(self.config.priors[-1].order, h, w).steps)
        return min(most, STEP_ROWS * steps // (h * w))

    def _split(self, indices: Sequence[Tensor], width: int, height: int) -> tuple[list[Tensor], Tensor | None]:
        """Tiles [n, maps, h, w] of some levels from the coarsest on, and where those of the last one are valid."""
        tilings = [self.tiling(level, width, height) for level in range(len(indices))]
        return [tiling.split(m) for tiling, m in zip(tilings, indices, strict=True)], tilings[-1].valid()


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Index maps of an image, their streams, and the place they were chosen for."""

    indices: list[Tensor]
    streams: list[bytes]
    place: int


def _size(header: container.Header) -> tuple[int, int]:
    return header.width, header.height


def _chunk_size(number: int, words: bytes) -> int:
    """Bytes of a file that a stream adds to what it has without its words."""
    return len(container.stream_chunk(number, words)) - len(container.stream_chunk(number, b""))


_loaded: dict[tuple[str, bytes, str], Codec] = {}


def pick_device(name: str) -> str:
    """The device that auto, cpu or cuda stands for. Raises ModelError if there is none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"there is no device called {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("the device cuda was asked for, but PyTorch finds no CUDA GPU")
    return str(device)


def _load(model: registry.ModelFile, device: str) -> Codec:
    key = (str(model.path), model.identity, pick_device(device))
    if key not in _loaded:
        _loaded[key] = Codec.load(model, device)
    return _loaded[key]


def load_model(name: str | os.PathLike[str] | None = None, device: str = "auto") -> Codec:
    """An installed model by name, or a weights file by path; the default model for None. Kept for the next call.

    device: auto (a GPU if there is one), cpu, cuda. Raises ModelError if there is no such model.
    """
    return _load(registry.find(name), device)


def load_identity(identity: bytes, device: str = "auto") -> Codec:
    """The installed model with this identity; kept for the next call. Raises ModelError if there is none."""
    return _load(registry.find_identity(identity), device)


def encode(
    image: Image.Image,
    *,
    quality: float | None = None,
    rate: float | None = None,
    size: int | None = None,
    bpp: float | None = None,
    effort: int = DEFAULT_EFFORT,
    tune: str = DEFAULT_TUNE,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    verify: bool = False,
) -> bytes:
    """A Pillow image -> the bytes of a .vq2 file. See `Codec.encode`."""
    codec = load_model(model, device)
    return codec.encode(image, quality=quality, rate=rate, size=size, bpp=bpp, effort=effort, tune=tune, verify=verify)


def decode(data: bytes, *, device: str = "auto", limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The bytes of a .vq2 file -> a Pillow image, with the installed model that the file names. See `Codec.decode`."""
    header = container.read_header(data)
    limits.check_pixels(*_size(header))  # ahead of loading the model
    return load_identity(header.model, device).decode(data, limits=limits)


def pack_model(autoencoder: Autoencoder, priors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a weights file: the autoencoder's in half precision but for its statistics and codebooks, the
    priors' integers. Inverse of what `Codec` reads."""
    tensors: dict[str, Any] = {}
    parameters = dict(autoencoder.named_parameters())
    for name, value in autoencoder.state_dict().items():
        tensors[f"autoencoder.{name}"] = value.half() if name in parameters else value
    for i, prior in enumerate(priors):
        tensors.update({f"prior.{i}.{name}": value for name, value in prior.items()})
    return tensors
