# SPDX-License-Identifier: Apache-2.0
"""Where the bits of the index maps go: raw, order-0, ideal under the prior, and in the stream; and of whole files.

A file is made, its indices are read back from it, and the prior says with which frequencies each was coded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.errors import ModelError
from vqcodec.format import container
from vqcodec.images.types import Pixels
from vqcodec.model import loading, weights
from vqcodec.model.maps import IndexMaps
from vqcodec.model.registry import ModelFile
from vqcodec.prior.export import from_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.stream.writer import Coded, frequencies


@dataclass(frozen=True)
class LevelRates:
    """Bits of one level over a set of images; all but `stream` are estimates in the sense that no file holds them.

    Args:
        positions: of the level's maps.
        indices: number of those that are coded.
        stages: coded at a position, on average.
        raw: log2 of its codes for each index.
        order0: under one table per index map, the entropy of these very indices (no table could do better, and its own
            cost is not counted).
        ideal: under the integer prior.
        floating: under the same network without rounding, None if it was not evaluated.
        stream: of the range coder words.
        usage: share of codes used at all, by index map.
    """

    positions: int
    indices: int
    stages: float
    raw: float
    order0: float
    ideal: float
    floating: float | None
    stream: int
    usage: list[float]


@dataclass(frozen=True, eq=False)
class Tally:
    """What is counted of one level. The tallies of several images add up to that of the set.

    Args:
        counts: for every index map, int64 [codes], how often each index is coded.
        positions: of the maps.
        used: stages that are coded, over all positions. The others: bits, as in `LevelRates`.
    """

    counts: tuple[npt.NDArray[np.int64], ...]
    positions: int
    used: int
    ideal: float
    floating: float | None
    stream: int

    def __add__(self, other: Tally) -> Tally:
        both = None if self.floating is None or other.floating is None else self.floating + other.floating
        return Tally(
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            positions=self.positions + other.positions,
            used=self.used + other.used,
            ideal=self.ideal + other.ideal,
            floating=both,
            stream=self.stream + other.stream,
        )

    def rates(self) -> LevelRates:
        """Work out the rates of what was counted; order0 is under the tables of all of it."""
        numbers = [int(counts.sum()) for counts in self.counts]
        return LevelRates(
            positions=self.positions,
            indices=sum(numbers),
            stages=self.used / self.positions,
            raw=sum(n * math.log2(len(counts)) for n, counts in zip(numbers, self.counts, strict=True)),
            order0=sum(map(_entropy, self.counts)),
            ideal=self.ideal,
            floating=self.floating,
            stream=self.stream,
            usage=[float((counts > 0).mean()) for counts in self.counts],
        )


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    """Bits of all that was counted, under its own frequencies."""
    probabilities = counts / max(int(counts.sum()), 1)
    return -float((counts * np.log2(np.where(probabilities > 0, probabilities, 1))).sum())


@dataclass(frozen=True, eq=False)
class FileRates:
    """A file of `size` bytes, taken apart: `parts` says where its bytes are, `tallies` are its index streams by level,
    the coarsest first."""

    name: str
    header: container.Header
    size: int
    parts: container.Layout
    tallies: tuple[Tally, ...]

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.header.width * self.header.height

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * self.size / self.pixels

    @property
    def bits_per_dim(self) -> float:
        """Bits of the whole file per number of the image: `Header.channels` numbers a pixel."""
        return self.bpp / self.header.channels


def code_length(symbols: Tensor, frequencies: Tensor) -> Tensor:
    """-log2 of the probability of each index.

    Args:
        symbols: int64 [n], the indices.
        frequencies: float32 [n, K], of all codes.

    Returns: float64 [n], bits.
    """
    chosen = frequencies.gather(1, symbols[:, None])[:, 0].double()
    total = frequencies.sum(1).double()  # integers below 2^24: exact in float32
    return (total / chosen).log2()


def float_priors(model: ModelFile, codec: Codec) -> list[LevelPrior]:
    """Load the priors of a weights file as float networks; call them with exact=False.

    Args:
        model: the weights file.
        codec: the same model, for its configuration.
    """
    tensors = loading.read_codec(model.path).tensors
    levels = codec.config.autoencoder.levels
    priors = []
    for i, (config, level) in enumerate(zip(codec.config.priors, levels, strict=True)):
        prior = LevelPrior(config, level, levels[:i]).eval()
        from_integers(prior, weights.part(tensors, f"prior.{i}"))
        priors.append(prior)
    return priors


def coded(codec: Codec, maps: IndexMaps, tradeoff: int) -> Iterator[tuple[slice, list[list[Coded]]]]:
    """List what an image has in its streams: for every group of tiles, those tiles and, by level and index map, its
    indices.

    Args:
        codec: whose indices they are.
        maps: of an image.
        tradeoff: 0 to 255.
    """
    for tiles in codec.groups(*maps.size):
        yield tiles, frequencies(codec, maps, tiles, tradeoff)


def level_rates(codec: Codec, images: Iterable[Pixels], floats: Sequence[LevelPrior] | None = None) -> list[LevelRates]:
    """Rates by level, summed over images.

    Args:
        codec: to encode with.
        images: uint8 [H, W, 3] each.
        floats: from `float_priors`; sides must then be multiples of the tile (ModelError otherwise), as the float
            network knows no cut tiles.
    """
    tallies = []
    for pixels in images:
        if floats is not None:
            _check_whole(codec, pixels.shape[1], pixels.shape[0])
        tallies.append(encoded_rates(codec, Image.fromarray(pixels), floats=floats).tallies)
    return [total(level).rates() for level in zip(*tallies, strict=True)]


def encoded_rates(
    codec: Codec, image: Image.Image, name: str = "", floats: Sequence[LevelPrior] | None = None
) -> FileRates:
    """Encode an image, as it is and with its metadata, and take the file apart.

    Args:
        codec: to encode with.
        image: of any mode that the codec takes.
        name: of the image, for the result.
        floats: as of `take_apart`.

    Raises ImageError on an image that cannot be encoded.
    """
    return take_apart(codec, codec.encode(image, fallback=False), name, floats)


def take_apart(codec: Codec, data: bytes, name: str = "", floats: Sequence[LevelPrior] | None = None) -> FileRates:
    """Say where the bits of a .vq2 file are.

    Args:
        codec: of its model.
        data: the bytes of the file.
        name: of the image, for the result.
        floats: from `float_priors`; evaluated where both sides are multiples of the tile, elsewhere `floating` is None.

    Raises as `Codec.decode`.
    """
    file, parts = container.unpack(data), container.layout(data)
    header = file.header
    maps = codec.read_indices(file)
    whole = maps.width % codec.tile_size == maps.height % codec.tile_size == 0
    bits = None
    if floats is not None and whole:
        bits = float_bits(codec, floats, maps, header.rate)
    tallies = _tallies(codec, maps, header.rate, parts.levels, bits)
    return FileRates(name, header, len(data), parts, tallies)


def _tallies(
    codec: Codec,
    maps: IndexMaps,
    tradeoff: int,
    streams: Sequence[int],
    floating: npt.NDArray[np.float64] | None,
) -> tuple[Tally, ...]:
    """What is counted, by level. streams: bytes by level; floating: bits by level."""
    levels = codec.config.autoencoder.levels
    counts = [[np.zeros(codes, np.int64) for codes in level.alphabets] for level in levels]
    used, ideal = [0] * len(levels), [0.0] * len(levels)
    for _, by_level in coded(codec, maps, tradeoff):
        for i, (level, level_maps) in enumerate(zip(levels, by_level, strict=True)):
            for one, counted in zip(level_maps, counts[i], strict=True):
                counted += np.bincount(one.symbols.numpy(), minlength=len(counted))
                ideal[i] += float(code_length(one.symbols, one.frequencies).sum())
            used[i] += sum(len(level_maps[level.stage_maps(stage).start].symbols) for stage in range(level.stages))
    return tuple(
        Tally(
            counts=tuple(counts[i]),
            positions=maps.levels[i][0].numel(),
            used=used[i],
            ideal=ideal[i],
            floating=None if floating is None else float(floating[i]),
            stream=8 * streams[i],
        )
        for i in range(len(levels))
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """Add up one or more tallies of a level."""
    first, *others = tallies
    for other in others:
        first = first + other
    return first


@torch.inference_mode()
def float_bits(codec: Codec, priors: Sequence[LevelPrior], maps: IndexMaps, tradeoff: int) -> npt.NDArray[np.float64]:
    """Ideal code length under the float networks.

    Args:
        codec: whose indices they are.
        priors: from `float_priors`.
        maps: of an image.
        tradeoff: 0 to 255.

    Returns: bits by level. Raises ModelError unless all tiles are whole.
    """
    _check_whole(codec, *maps.size)
    tiles = codec.split(maps)
    bits = np.zeros(len(priors))
    for group in codec.groups(*maps.size):
        parts = [m[group] for m in tiles]
        tradeoffs = torch.full((group.stop - group.start,), tradeoff / container.MAX_RATE)
        for i, prior in enumerate(priors):
            bits[i] += float(prior(parts[i], parts[:i], exact=False, tradeoffs=tradeoffs).double().sum()) / math.log(2)
    return bits


def _check_whole(codec: Codec, width: int, height: int) -> None:
    tile = codec.tile_size
    if width % tile or height % tile:
        raise ModelError(f"the float network needs sides that are multiples of {tile}, not {width}x{height}")
