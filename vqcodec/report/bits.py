# SPDX-License-Identifier: Apache-2.0
"""Where in an image the bits go: the ideal code length of every index, laid out as the indices are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqcodec.codec import Codec
from vqcodec.evaluation.rates import code_length, coded
from vqcodec.model.maps import IndexMaps

Floats = NDArray[np.float64]
Value = Callable[[Tensor, Tensor], Tensor]  # indices int64 [n], frequencies [n, K] -> [n]


@dataclass(frozen=True)
class BitsMap:
    """Bits by position: float64 [H, W] in squares of `stride` pixels of the image, padded as the codec pads it.

    The sum is the ideal code length of all indices under the prior, as an estimate in bits.

    Args:
        levels: its parts by level, coarsest first.
        stages: that a position uses on average, by level.
    """

    bits: Floats
    stride: int
    levels: tuple[float, ...]
    stages: tuple[float, ...]

    @property
    def per_pixel(self) -> Floats:
        """The same density in bits per pixel."""
        return self.bits / self.stride**2


def bits_map(codec: Codec, maps: IndexMaps, tradeoff: int) -> BitsMap:
    """Bits of the index maps of an image: all index maps of a level are added, and the bits of an index of a coarser
    level are spread evenly over the finest level's squares that it covers.

    Args:
        codec: whose indices they are.
        maps: of an image.
        tradeoff: 0 to 255.
    """
    levels = codec.config.autoencoder.levels
    finest = min(level.stride for level in levels)
    total, sums, used = None, [], []
    for level, lengths in zip(levels, level_maps(codec, maps, tradeoff, code_length), strict=True):
        bits = lengths.sum(0).numpy()  # [h, w]
        sums.append(float(bits.sum()))
        first = [level.stage_maps(stage).start for stage in range(level.stages)]
        used.append(float((lengths[first] > 0).double().sum(0).mean()))  # whatever is coded costs something
        times = level.stride // finest
        spread = np.repeat(np.repeat(bits, times, 0), times, 1) / times**2
        total = spread if total is None else total + spread
    if total is None:
        raise ValueError("a model without levels has no bits")
    return BitsMap(total, finest, tuple(sums), tuple(used))


@torch.inference_mode()
def level_maps(codec: Codec, maps: IndexMaps, tradeoff: int, value: Value) -> list[Tensor]:
    """Spread values over maps, by level float64 [maps, h, w]: a value of every index, where that index is in its map; 0
    where none is coded.

    Args:
        codec: whose indices they are.
        maps: of an image.
        tradeoff: 0 to 255.
        value: of indices and their frequencies.
    """
    tilings = codec.tilings(*maps.size)
    pieces: list[list[Tensor]] = [[] for _ in tilings]
    for part, by_level in coded(codec, maps, tradeoff):
        for tiling, level, tiles in zip(tilings, by_level, pieces, strict=True):
            values = torch.zeros(len(level), part.stop - part.start, *tiling.tile_shape, dtype=torch.float64)
            for whole, one in zip(values, level, strict=True):
                whole.view(-1)[one.position] = value(one.symbols, one.frequencies).double()
            tiles.append(values.transpose(0, 1))  # [tiles, maps, h, w]
    return [tiling.join(torch.cat(tiles)) for tiling, tiles in zip(tilings, pieces, strict=True)]
