# SPDX-License-Identifier: Apache-2.0
"""Work in proportion to the file: what streams must at least have for the positions that they claim, and what decoding
them takes. Both are known from header and model, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vqcodec.config import ModelConfig
from vqcodec.errors import FormatError
from vqcodec.exact.network import IntegerPrior
from vqcodec.model.tiling import Tiling

WORD_BITS = 32
PRECISION = 24  # bits of the range coder's probabilities
WINDOW_PIXELS = 2300**2  # that are decoded at once
_ROUNDING = 4  # by so many units of 2^-24 an interval may be wider than its frequency says


def check_lengths(priors: Sequence[IntegerPrior], tilings: Sequence[Tiling], streams: Sequence[bytes]) -> None:
    """Raise FormatError if a stream is too short for its positions, whatever their indices are.

    n indices of at least b bits narrow the coder's range by n * b bits, and a word makes up for 32 of them.

    Args:
        priors: of all levels.
        tilings: of all levels.
        streams: by group, then by level.
    """
    bits = [least_bits(prior) for prior in priors]
    for number, stream in enumerate(streams):
        group, level = divmod(number, len(priors))
        check_length(bits[level], tilings[level], group, stream)


def check_length(bits: float, tiling: Tiling, group: int, stream: bytes) -> None:
    """Raise FormatError if one stream is too short for its positions.

    Args:
        bits: that every position takes at least.
        tiling: of its level.
        group: of tiles.
        stream: the words.
    """
    inside = positions(tiling, group * tiling.group_tiles, (group + 1) * tiling.group_tiles)
    least = math.ceil(inside * bits / WORD_BITS)
    if len(stream) * 8 < least * WORD_BITS:
        raise FormatError(f"a stream of group {group} has {len(stream)} bytes, its {inside} positions take {least * 4}")


def least_bits(prior: IntegerPrior) -> float:
    """Bits that every position of a level takes at least: of its first stage if it may stop there, else of all."""
    level = prior.level
    top, floor = float(prior.table.max()), float(prior.table.min())
    coded = level.alphabets[:1] if level.stop else level.alphabets
    likeliest = (top / (top + (codes - 1) * floor) + _ROUNDING / 2**PRECISION for codes in coded)
    return sum(-math.log2(min(1.0, probability)) for probability in likeliest)


def positions(tiling: Tiling, first: int, stop: int) -> int:
    """Count the positions of some tiles that lie in the image.

    Args:
        tiling: of the level.
        first: number of the first tile, in the order of a file.
        stop: number behind the last one.
    """
    (height, width), (_, columns), side = tiling.map_shape, tiling.grid, tiling.side
    total = 0
    for tile in tiling.sequence[first:stop]:
        row, column = divmod(tile, columns)
        total += min(side, height - row * side) * min(side, width - column * side)
    return total


def memory(config: ModelConfig, tilings: Sequence[Tiling], tiles: int) -> int:
    """About how many bytes decoding takes, above those of the model.

    Args:
        config: of the model.
        tilings: of all levels.
        tiles: whose indices are decoded together.
    """
    together = min(tiles, math.prod(tilings[0].grid))
    of_priors, of_maps = 0, 0
    for prior, level, tiling in zip(config.priors, config.autoencoder.levels, tilings, strict=True):
        vectors = prior.layers + 4 + 20 * bool(prior.cond_blocks) + 8 * bool(prior.attention_every)
        rows = together * math.prod(tiling.tile_shape)
        of_priors = max(of_priors, rows * 4 * (prior.channels * vectors + 8 * level.maps))
        of_maps += math.prod(tiling.map_shape) * level.maps * 8 * 3
    width, height = tilings[0].width, tilings[0].height
    strip = min(width * height, WINDOW_PIXELS)
    channels = max(n / s**2 for n, s in zip(config.autoencoder.widths, config.autoencoder.strides, strict=True))
    return int(of_maps + max(of_priors, strip * channels * 4 * 6) + width * height * 12)
