# SPDX-License-Identifier: Apache-2.0
"""Index maps to streams: what the encoder codes, and the words of a range coder for it. `reader` is the way back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqcodec import timing
from vqcodec.exact.engine import Batch, known
from vqcodec.exact.network import IntegerPrior
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly
from vqcodec.stream.coding import SymbolEncoder


@exactly
def compress(model: Model, maps: IndexMaps, tradeoff: int = 0) -> list[bytes]:
    """Write index maps into one stream per group of tiles and level, group by group. Inverse of `reader.decompress`.

    Args:
        model: whose indices they are.
        maps: of an image.
        tradeoff: 0 to 255.
    """
    tiles, masks = model.split(maps), [tiling.valid() for tiling in model.tilings(*maps.size)]
    streams = []
    for group in model.groups(*maps.size):
        for level, valid in enumerate(masks):
            inside = None if valid is None else valid[group]
            streams.append(pack_stream(coded(model, [m[group] for m in tiles[: level + 1]], inside, tradeoff)))
    return streams


def coded(
    model: Model, maps: Sequence[Tensor], valid: Tensor | None, tradeoff: int
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """List what is coded of one level, in the order of the stream: see `exact.engine.known`.

    Args:
        model: whose indices they are.
        maps: int64 [tiles, maps, h, w] of the levels up to this one.
        valid: bool [tiles, h, w], of this one.
        tradeoff: 0 to 255.
    """
    *coarse, level_maps = (m.to(model.device) for m in maps)
    inside = None if valid is None else valid.to(model.device)
    prior = model.priors[len(coarse)]
    with timing.part("prior"):
        condition = prior.condition(coarse, (len(level_maps), *level_maps.shape[2:]), inside, tradeoff)
    return known(prior, level_maps, condition, inside)


@timing.timed("prior")
def pack_stream(batches: Iterable[tuple[Batch, Tensor, Tensor]]) -> bytes:
    """Write the range coder words of a level, from what `coded` gives for it."""
    encoder = SymbolEncoder()
    for _, symbols, frequencies in batches:
        with timing.part("entropy coding"):
            encoder.encode(symbols.cpu().numpy().astype(np.int32), frequencies.cpu().numpy())
    return encoder.getvalue()


@dataclass(frozen=True, eq=False)
class Coded:
    """What is coded of one index map of some tiles, by step and position.

    symbols: int64 [n], the indices. frequencies: float32 [n, K]. position: int64 [n], flat (tile * h + y) * w + x. Only
    live positions inside the image are coded: a position that has stopped has no symbols of later stages.
    """

    symbols: Tensor
    frequencies: Tensor
    position: Tensor


@timing.timed("prior")
@exactly
def frequencies(model: Model, maps: IndexMaps, tiles: slice = slice(None), tradeoff: int = 0) -> list[list[Coded]]:
    """List what the encoder codes of some tiles, by level and index map.

    Args:
        model: whose indices they are.
        maps: of an image.
        tiles: of the image, in raster order; all by default.
        tradeoff: 0 to 255.
    """
    levels, split = [], [m[tiles] for m in model.split(maps)]
    for level, (prior, tiling) in enumerate(zip(model.priors, model.tilings(*maps.size), strict=True)):
        valid = tiling.valid()
        batches = coded(model, split[: level + 1], None if valid is None else valid[tiles], tradeoff)
        levels.append(by_map(prior, batches, math.prod(tiling.tile_shape)))
    return levels


def by_map(prior: IntegerPrior, batches: Iterable[tuple[Batch, Tensor, Tensor]], size: int) -> list[Coded]:
    """Sort the batches of a level by index map.

    Args:
        prior: of the level.
        batches: from `coded`.
        size: positions of a tile.
    """
    level = prior.level
    parts: list[list[Coded]] = [
        [Coded(torch.zeros(0, dtype=torch.int64), torch.zeros(0, codes), torch.zeros(0, dtype=torch.int64))]
        for codes in level.alphabets
    ]
    for batch, symbols, frequencies in batches:
        position = (batch.tiles * size + batch.positions).cpu()
        of_groups = symbols.view(-1, batch.groups).cpu().unbind(1)
        frequencies_of_groups = frequencies.view(len(position), batch.groups, -1).cpu().unbind(1)
        for pieces, s, f in zip(parts[level.stage_maps(batch.stage)], of_groups, frequencies_of_groups, strict=True):
            pieces.append(Coded(s, f, position))
    return [
        Coded(
            torch.cat([part.symbols for part in pieces]),
            torch.cat([part.frequencies for part in pieces]),
            torch.cat([part.position for part in pieces]),
        )
        for pieces in parts
    ]
