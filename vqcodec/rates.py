# SPDX-License-Identifier: Apache-2.0
"""Where the bits of the index maps go: raw, order-0, ideal under the prior, and in the stream; and of whole files.

Nothing is coded or evaluated for the sake of measuring: the counts are taken while a file is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vqcodec import container, weights
from vqcodec.codec import GROUP_TILES, Codec, Pixels
from vqcodec.errors import ModelError
from vqcodec.prior.export import from_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.registry import ModelFile


@dataclass(frozen=True)
class LevelRates:
    """Bits of one level over a set of images; all but `stream` are estimates in the sense that no file holds them.

    indices: number of indices. raw: log2 K each. order0: under one table per codebook, the entropy of these very
    indices (no table could do better, and its own cost is not counted). ideal: under the integer prior. floating:
    under the same network without rounding, None if it was not evaluated. stream: of the range coder words. usage:
    share of codes used at all, by codebook.
    """

    indices: int
    raw: float
    order0: float
    ideal: float
    floating: float | None
    stream: int
    usage: list[float]


@dataclass(frozen=True, eq=False)
class Tally:
    """What is counted of one level. The tallies of several images add up to that of the set.

    counts: int64 [codebooks, codes], how often each index occurs. The others: bits, as in `LevelRates`.
    """

    counts: npt.NDArray[np.int64]
    ideal: float
    floating: float | None
    stream: int

    def __add__(self, other: Tally) -> Tally:
        both = None if self.floating is None or other.floating is None else self.floating + other.floating
        return Tally(self.counts + other.counts, self.ideal + other.ideal, both, self.stream + other.stream)

    def rates(self) -> LevelRates:
        """The rates of what was counted; order0 is under the tables of all of it."""
        counts = self.counts
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        order0 = -float((counts * np.log2(np.where(share > 0, share, 1))).sum())
        number = int(counts.sum())
        usage: list[float] = (counts > 0).mean(1).tolist()
        raw = number * math.log2(counts.shape[1])
        return LevelRates(number, raw, order0, self.ideal, self.floating, self.stream, usage)


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


class _Counting(Codec):
    """A codec that counts what it codes, with the very frequencies that it codes it with."""

    def __init__(self, codec: Codec) -> None:
        self.__dict__.update(codec.__dict__)
        self.coded: Sequence[Tensor] = ()
        self._start()

    def _start(self) -> None:
        levels = self.config.autoencoder.levels
        self.counts = [np.zeros((v.codebooks, v.codes), np.int64) for v in levels]
        self.ideal = [0.0] * len(levels)

    def compress(self, indices: Sequence[Tensor], width: int, height: int) -> list[bytes]:
        self.coded = indices
        self._start()
        return super().compress(indices, width, height)

    def frequencies(
        self, indices: Sequence[Tensor], width: int, height: int, tiles: slice = slice(None)
    ) -> list[list[tuple[Tensor, Tensor]]]:
        found = super().frequencies(indices, width, height, tiles)
        for i, stages in enumerate(found):
            for stage, (symbols, frequencies) in enumerate(stages):
                self.counts[i][stage] += np.bincount(symbols.numpy(), minlength=self.counts[i].shape[1])
                self.ideal[i] += float(code_length(symbols, frequencies).sum())
        return found

    def tallies(self, streams: Sequence[int], floating: npt.NDArray[np.float64] | None) -> tuple[Tally, ...]:
        """Of what was compressed last. streams: bytes by level; floating: bits by level."""
        floats = [None if floating is None else float(floating[i]) for i in range(len(streams))]
        rows = zip(self.counts, self.ideal, floats, streams, strict=True)
        return tuple(Tally(counts, ideal, floated, 8 * size) for counts, ideal, floated, size in rows)


def code_length(symbols: Tensor, frequencies: Tensor) -> Tensor:
    """-log2 of the probability of each index: int64 [n], frequencies [n, K] -> float64 [n]."""
    own = frequencies.gather(1, symbols[:, None])[:, 0].double()
    total = frequencies.sum(1).double()  # integers below 2^24: exact in float32
    return (total / own).log2()


def float_priors(model: ModelFile, codec: Codec) -> list[LevelPrior]:
    """The priors of a weights file as float networks; call them with exact=False."""
    tensors, _ = weights.load(model.path)
    levels = codec.config.autoencoder.levels
    priors = []
    for i, (config, level) in enumerate(zip(codec.config.priors, levels, strict=True)):
        prior = LevelPrior(config, level, levels[:i]).eval()
        from_integers(prior, weights.part(tensors, f"prior.{i}"))
        priors.append(prior)
    return priors


def measure(codec: Codec, images: Iterable[Pixels], floats: Sequence[LevelPrior] | None = None) -> list[LevelRates]:
    """Rates by level, summed over images uint8 [H, W, 3].

    floats: from `float_priors`; sides must then be multiples of the tile (ModelError otherwise), as the float network
    knows no cut tiles.
    """
    counting, levels = _Counting(codec), len(codec.priors)
    found: list[tuple[Tally, ...]] = []
    for pixels in images:
        height, width = pixels.shape[:2]
        streams = counting.compress(counting.to_indices(pixels), width, height)
        sizes = [sum(map(len, streams[level::levels])) for level in range(levels)]
        floating = None if floats is None else float_bits(codec, floats, counting.coded, width, height)
        found.append(counting.tallies(sizes, floating))
    return [total(level).rates() for level in zip(*found, strict=True)]


def measure_file(
    codec: Codec, image: Image.Image, name: str = "", floats: Sequence[LevelPrior] | None = None
) -> FileRates:
    """Encode an image, as it is and with its metadata, and take the file apart.

    floats: from `float_priors`; evaluated where both sides are multiples of the tile, elsewhere `floating` is None.
    Raises ImageError on an image that cannot be encoded.
    """
    counting = _Counting(codec)
    data = counting.encode(image)
    header, parts = container.read_header(data), container.layout(data)
    whole = header.width % codec.tile_size == header.height % codec.tile_size == 0
    floating = None
    if floats is not None and whole:
        floating = float_bits(codec, floats, counting.coded, header.width, header.height)
    return FileRates(name, header, len(data), parts, counting.tallies(parts.levels, floating))


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of one or more tallies of a level."""
    first, *others = tallies
    for other in others:
        first = first + other
    return first


@torch.inference_mode()
def float_bits(
    codec: Codec, priors: Sequence[LevelPrior], indices: Sequence[Tensor], width: int, height: int
) -> npt.NDArray[np.float64]:
    """Ideal code length of the float networks, bits by level. Raises ModelError unless all tiles are whole."""
    tile = codec.tile_size
    if width % tile or height % tile:
        raise ModelError(f"the float network needs sides that are multiples of {tile}, not {width}x{height}")
    tiles = [codec.tiling(level, width, height).split(maps) for level, maps in enumerate(indices)]
    bits = np.zeros(len(priors))
    for first in range(0, len(tiles[0]), GROUP_TILES):
        group = [maps[first : first + GROUP_TILES] for maps in tiles]
        for i, prior in enumerate(priors):
            bits[i] += float(prior(group[i], group[:i], exact=False).double().sum()) / math.log(2)
    return bits
