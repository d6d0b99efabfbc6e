# SPDX-License-Identifier: Apache-2.0
"""Entropy coding: the one module that calls constriction, and where its arguments are checked.

constriction misreads a Fortran-order array silently and accepts negative values; float32 and float64 give different
streams. Frequencies are therefore float32, C order, exact integers from 1 with a sum below 2^24.
"""

from __future__ import annotations

import constriction
import numpy as np
import numpy.typing as npt

from vqcodec.errors import ExactnessError, FormatError

Frequencies = npt.NDArray[np.float32]  # [n, K]
Symbols = npt.NDArray[np.int32]  # [n]


def _model() -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(perfect=False)


def _checked(frequencies: Frequencies) -> Frequencies:
    """Raise ExactnessError unless constriction will read what we mean."""
    f = frequencies
    if f.dtype != np.float32 or f.ndim != 2 or not f.flags.c_contiguous or f.shape[1] < 2:
        raise ExactnessError(f"frequencies must be C-order float32 [n, K], got {f.dtype} {f.shape}")
    if f.size and not (f.min() >= 1 and _small(f) and (f == np.rint(f)).all()):
        raise ExactnessError("frequencies must be integers from 1 with a sum below 2^24")
    return f


def _small(f: Frequencies) -> bool:
    """Whether all sums are below 2^24; mostly the largest frequency says so already."""
    return float(f.max()) * f.shape[1] < 2**24 or float(f.sum(1, dtype=np.float64).max()) < 2**24


class SymbolEncoder:
    """Range encoder; symbols come out of `SymbolDecoder` in the order in which they went in."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Symbols, frequencies: Frequencies) -> None:
        """Encode symbols.

        Args:
            symbols: int32 [n] in 0..K-1.
            frequencies: [n, K].

        Raises: ExactnessError on other arguments.
        """
        f = _checked(frequencies)
        if symbols.dtype != np.int32 or symbols.shape != f.shape[:1]:
            raise ExactnessError(f"symbols must be int32 [{f.shape[0]}], got {symbols.dtype} {symbols.shape}")
        if symbols.size:
            if symbols.min() < 0 or symbols.max() >= f.shape[1]:
                raise ExactnessError(f"symbols must be in 0..{f.shape[1] - 1}")
            self._encoder.encode(np.ascontiguousarray(symbols), _model(), f)

    def getvalue(self) -> bytes:
        """Return the stream so far: little-endian 32-bit words."""
        return bytes(self._encoder.get_compressed().astype("<u4").tobytes())


class SymbolDecoder:
    """Range decoder that takes nothing but what `SymbolEncoder` writes.

    constriction reads zeros behind the end of a stream and has no say on words that are left over. Symbols are
    therefore encoded again as they come: a stream that is too short is noticed at once, any other in `complete`.
    """

    def __init__(self, data: bytes) -> None:
        """data: what `SymbolEncoder.getvalue` gave. Raises FormatError if it is not whole words."""
        if len(data) % 4:
            raise FormatError(f"an index stream must be whole 32-bit words, this one has {len(data)} bytes")
        self._words = np.frombuffer(data, "<u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(self._words)
        self._again = constriction.stream.queue.RangeEncoder()

    def decode(self, frequencies: Frequencies) -> Symbols:
        """Decode symbols, int32 [n], of frequencies [n, K]. Raises FormatError where the stream cannot be right."""
        f = _checked(frequencies)
        if not f.size:
            return np.zeros(0, np.int32)
        try:
            symbols = np.asarray(self._decoder.decode(_model(), f), np.int32)
        except (ValueError, AssertionError) as error:
            raise FormatError(f"damaged index stream: {error}") from error
        self._again.encode(symbols, _model(), f)
        if self._again.num_words() > len(self._words) + 1:  # one word of the end may still go
            raise FormatError("damaged index stream: it has run out of words")
        return symbols

    def complete(self) -> bool:
        """Return whether the stream is what an encoder writes for the symbols read so far, no word more and no
        other."""
        return bool(np.array_equal(self._again.get_compressed(), self._words))
