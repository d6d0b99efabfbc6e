# SPDX-License-Identifier: Apache-2.0
"""The range decoder: docs/prior.md, "The range coder". Plain Python integers."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

BITS = 24  # of a fixed-point probability
FULL = (1 << 64) - 1
LEAST = 1 << 32  # the range is never below it between two indices


def bounds(frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies [n, K] -> [n, K + 1]: code k has the interval from bound k to bound k + 1."""
    n, codes = frequencies.shape
    below = np.concatenate([np.zeros((n, 1), np.int64), frequencies.cumsum(1)], 1)
    # A quotient of float32 rounded to double and then to float32 is the one of a single operation.
    scale = ((2**BITS - codes) / below[:, -1:]).astype(np.float32)
    low = np.floor(below[:, :-1].astype(np.float32) * scale).astype(np.int64) + np.arange(codes)
    return np.concatenate([low, np.full((n, 1), 2**BITS)], 1)


class RangeDecoder:
    """Decodes one stream, index after index."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise ValueError("a stream is whole words of 32 bits")
        self.words = struct.unpack(f"<{len(data) // 4}I", data)
        self.at = 0
        self.range = FULL
        self.offset = self._word() << 32
        self.offset += self._word()

    def _word(self) -> int:
        """The next word, 0 behind the last."""
        self.at += 1
        return self.words[self.at - 1] if self.at <= len(self.words) else 0

    def decode(self, limits: list[int]) -> int:
        """limits: the K + 1 `bounds` of an index -> the index."""
        unit = self.range >> BITS
        quantile = self.offset // unit
        if quantile >= 1 << BITS:
            raise ValueError("no encoder wrote this stream")
        low, high = 0, len(limits) - 1
        while high - low > 1:  # limits[low] <= quantile < limits[high]
            middle = (low + high) // 2
            if limits[middle] <= quantile:
                low = middle
            else:
                high = middle
        self.offset -= unit * limits[low]
        self.range = unit * (limits[low + 1] - limits[low])
        if self.range < LEAST:
            self.range <<= 32
            self.offset = (self.offset << 32) + self._word()
        return low

    def used_up(self) -> bool:
        """Whether this is the end of a stream, as an encoder leaves it."""
        return self.at >= len(self.words) and (self.range == FULL or self.offset < 2 * LEAST - 1)
