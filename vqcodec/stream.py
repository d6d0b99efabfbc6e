# SPDX-License-Identifier: Apache-2.0
"""Index streams: from what is coded of a level to the words of a range coder, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqcodec.coding import SymbolDecoder, SymbolEncoder
from vqcodec.errors import FormatError
from vqcodec.exact.engine import Batch
from vqcodec.exact.network import IntegerPrior
from vqcodec.limits import Deadline


@dataclass(frozen=True, eq=False)
class Coded:
    """What is coded of one index map of some tiles, by step and position.

    symbols: int64 [n], the indices. frequencies: float32 [n, K]. position: int64 [n], flat (tile * h + y) * w + x. Only
    live positions inside the image are coded: a position that has stopped has no symbols of later stages.
    """

    symbols: Tensor
    frequencies: Tensor
    position: Tensor


def by_map(prior: IntegerPrior, batches: Iterable[tuple[Batch, Tensor, Tensor]], size: int) -> list[Coded]:
    """The batches of a level, from `Codec.coded`, by index map. size: positions of a tile."""
    level = prior.level
    parts: list[list[Coded]] = [
        [Coded(torch.zeros(0, dtype=torch.int64), torch.zeros(0, codes), torch.zeros(0, dtype=torch.int64))]
        for codes in level.alphabets
    ]
    for batch, symbols, frequencies in batches:
        position = (batch.tiles * size + batch.positions).cpu()
        of_groups = symbols.view(-1, batch.groups).cpu().unbind(1)
        frequencies_of_groups = frequencies.view(len(position), batch.groups, -1).cpu().unbind(1)
        for own, s, f in zip(parts[level.stage_maps(batch.stage)], of_groups, frequencies_of_groups, strict=True):
            own.append(Coded(s, f, position))
    return [
        Coded(
            torch.cat([part.symbols for part in own]),
            torch.cat([part.frequencies for part in own]),
            torch.cat([part.position for part in own]),
        )
        for own in parts
    ]


def pack_stream(batches: Iterable[tuple[Batch, Tensor, Tensor]]) -> bytes:
    """The range coder words of a level, from what `Codec.coded` gives for it."""
    encoder = SymbolEncoder()
    for _, symbols, frequencies in batches:
        encoder.encode(symbols.cpu().numpy().astype(np.int32), frequencies.cpu().numpy())
    return encoder.getvalue()


class Source:
    """Reads the indices of a batch from one range decoder per group of tiles."""

    def __init__(self, streams: Sequence[bytes], group_tiles: int, deadline: Deadline) -> None:
        self._streams, self._deadline = streams, deadline
        self._decoders: dict[int, SymbolDecoder] = {}
        self._group_tiles = group_tiles

    def __call__(self, frequencies: Tensor, batch: Batch) -> Tensor:
        self._deadline.check()
        values = frequencies.cpu().numpy()
        groups = (batch.tiles // self._group_tiles).repeat_interleave(batch.groups).cpu().numpy()
        symbols = np.zeros(len(values), np.int64)
        if not groups.any():
            symbols[:] = self._decoder(0).decode(values)
        else:
            for group in np.unique(groups).tolist():
                rows = np.flatnonzero(groups == group)
                symbols[rows] = self._decoder(group).decode(values[rows])
        return torch.from_numpy(symbols).to(frequencies.device)

    def _decoder(self, group: int) -> SymbolDecoder:
        if group not in self._decoders:
            self._decoders[group] = SymbolDecoder(self._streams[group])
        return self._decoders[group]

    def check(self) -> None:
        """Raise FormatError unless the streams are what an encoder writes for the indices that were read."""
        if not all(decoder.complete() for decoder in self._decoders.values()):
            raise FormatError("an index stream is longer than its indices, or another coding of them")
