# SPDX-License-Identifier: Apache-2.0
"""The one loop over the levels of a batch of tiles: what coarser levels say is the condition of the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vqcodec import timing
from vqcodec.exact.engine import Batch, run
from vqcodec.exact.network import IntegerPrior
from vqcodec.model.model import Model
from vqcodec.model.tiling import Tiling


class IndexSource(Protocol):
    """Where the indices of a level come from: a range decoder, or random words."""

    def __call__(self, frequencies: Tensor, batch: Batch) -> Tensor:
        """Give the indices of a step: see `exact.engine.Draw`.

        Args:
            frequencies: float32 [n, K].
            batch: the positions that they are of.
        """

    def check(self) -> None:
        """Raise FormatError if, now that the level is read, the source was not what an encoder writes."""


def produce(
    model: Model,
    tilings: Sequence[Tiling],
    tiles: Sequence[Sequence[int]],
    source: Callable[[int], IndexSource],
    tradeoff: int,
    priors: Sequence[IntegerPrior] | None = None,
) -> Iterator[Tensor]:
    """Produce the index maps of a batch of tiles, level by level, the coarsest first.

    Args:
        model: whose indices they are.
        tilings: of the levels that are wanted.
        tiles: by level, numbers of tiles in the order of a file, all among those of the level before; ends at a level
            that has none. Further images of the same size go on counting.
        source: level -> its indices. FormatError, where there are none, passes on.
        tradeoff: 0 to 255.
        priors: in place of the model's.

    Yields: int64 [tiles, maps, h, w] on the model's device.

    Raises: FormatError where a source does.
    """
    coarse: list[Tensor] = []
    for level, (numbers, tiling, prior) in enumerate(zip(tiles, tilings, priors or model.priors, strict=False)):
        if not numbers:
            return
        if level and list(numbers) != list(tiles[level - 1]):
            rows = {number: row for row, number in enumerate(tiles[level - 1])}
            coarse = [maps[[rows[number] for number in numbers]] for maps in coarse]
        valid = tiling.valid([number % len(tiling.sequence) for number in numbers])
        inside = None if valid is None else valid.to(model.device)
        indices = source(level)
        with timing.part("prior"):
            condition = prior.condition(coarse, (len(numbers), *tiling.tile_shape), inside, tradeoff)
            coarse.append(run(prior, condition, indices, inside))
        indices.check()  # ahead of the work that the next level is
        yield coarse[-1]


def empty_maps(model: Model, tilings: Sequence[Tiling]) -> list[Tensor]:
    """Make index maps of zeros.

    Args:
        model: whose maps they are.
        tilings: of all levels.

    Returns: by level int64 [maps, H, W].
    """
    levels = model.config.autoencoder.levels
    return [
        torch.zeros(level.maps, *tiling.map_shape, dtype=torch.int64)
        for level, tiling in zip(levels, tilings, strict=True)
    ]
