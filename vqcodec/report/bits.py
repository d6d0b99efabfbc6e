# SPDX-License-Identifier: Apache-2.0
"""Where in an image the bits go: the ideal code length of every index, laid out as the indices are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.codec import GROUP_TILES, Codec
from vqcodec.exact.waveorder import coding_order
from vqcodec.rates import code_length

Floats = NDArray[np.float64]
Value = Callable[[Tensor, Tensor], Tensor]  # indices int64 [n], frequencies [n, K] -> [n]


@dataclass(frozen=True)
class BitsMap:
    """Bits by place: float64 [H, W] in squares of `stride` pixels of the image, padded as the codec pads it.

    The sum is the ideal code length of all indices under the prior, as an estimate in bits; levels: its parts by level,
    coarsest first.
    """

    bits: Floats
    stride: int
    levels: tuple[float, ...]

    @property
    def per_pixel(self) -> Floats:
        """The same density in bits per pixel."""
        return self.bits / self.stride**2


def bits_map(codec: Codec, indices: Sequence[Tensor], width: int, height: int) -> BitsMap:
    """Bits of the index maps of an image of width x height pixels.

    All codebooks of a level are added. The bits of an index of a coarser level are spread evenly over the finest
    level's squares that it covers.
    """
    levels = codec.config.autoencoder.levels
    finest = min(level.stride for level in levels)
    total, sums = None, []
    for level, maps in zip(levels, level_maps(codec, indices, width, height, code_length), strict=True):
        bits = maps.sum(0).numpy()  # [h, w]
        sums.append(float(bits.sum()))
        times = level.stride // finest
        spread = np.repeat(np.repeat(bits, times, 0), times, 1) / times**2
        total = spread if total is None else total + spread
    if total is None:
        raise ValueError("a model without levels has no bits")
    return BitsMap(total, finest, tuple(sums))


@torch.inference_mode()
def level_maps(codec: Codec, indices: Sequence[Tensor], width: int, height: int, value: Value) -> list[Tensor]:
    """By level, float64 [codebooks, h, w]: a value of every index and its frequencies, where that index is in its map.

    Goes through the stream as the encoder writes it: group of tiles by group, within one in the order of waves.
    """
    rows, columns = codec.tiling(0, width, height).grid
    found: list[list[Tensor]] = [[] for _ in indices]
    for first in range(0, rows * columns, GROUP_TILES):
        part = slice(first, first + GROUP_TILES)
        for level, stages in enumerate(codec.frequencies(indices, width, height, part)):
            tiling = codec.tiling(level, width, height)
            valid = tiling.valid()
            shape = (min(GROUP_TILES, rows * columns - first), *tiling.tile_shape)  # [tiles, h, w]
            place = coding_order(*shape, None if valid is None else valid[part])
            tiles = torch.zeros(len(stages), *shape, dtype=torch.float64)
            for stage, (symbols, frequencies) in enumerate(stages):
                tiles[stage].view(-1)[place] = value(symbols, frequencies).double()
            found[level].append(tiles.transpose(0, 1))  # [tiles, codebooks, h, w]
    return [codec.tiling(level, width, height).join(torch.cat(tiles)) for level, tiles in enumerate(found)]
