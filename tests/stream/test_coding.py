# SPDX-License-Identifier: Apache-2.0
"""The wrapper around constriction, and the cutting of maps into tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqcodec.errors import ExactnessError, FormatError
from vqcodec.model.tiling import Tiling
from vqcodec.stream.coding import SymbolDecoder, SymbolEncoder


def random_frequencies(n: int, k: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.floor(2 ** (15 * generator.random((n, k)))).astype(np.float32)


@pytest.mark.parametrize("k", [2, 16, 512])
def test_round_trip_at_the_ideal_length(k):
    f = random_frequencies(4000, k)
    probability = f / f.sum(1, keepdims=True, dtype=np.float64)
    generator = np.random.default_rng(1)
    symbols = (probability.cumsum(1) > generator.random((4000, 1))).argmax(1).astype(np.int32)
    encoder = SymbolEncoder()
    for part in np.array_split(np.arange(4000), 7):
        encoder.encode(symbols[part], np.ascontiguousarray(f[part]))
    data = encoder.getvalue()
    decoder = SymbolDecoder(data)
    symbols_read = [decoder.decode(f[i : i + 100]) for i in range(0, 4000, 100)]
    assert (np.concatenate(symbols_read) == symbols).all()
    assert decoder.complete()
    ideal = -np.log2(probability[np.arange(4000), symbols]).sum()
    assert ideal <= 8 * len(data) < ideal * 1.001 + 64


def test_the_golden_stream():
    """These bytes must never change: files depend on them. Five symbols of four, with frequencies 1, 2, 3, 10."""
    encoder = SymbolEncoder()
    encoder.encode(np.array([3, 0, 1, 2, 3], np.int32), np.tile(np.float32([1, 2, 3, 10]), (5, 1)))
    assert encoder.getvalue().hex() == GOLDEN
    symbols_read = SymbolDecoder(bytes.fromhex(GOLDEN)).decode(np.tile(np.float32([1, 2, 3, 10]), (5, 1)))
    assert symbols_read.tolist() == [3, 0, 1, 2, 3]


GOLDEN = "0381f260"


def test_a_rare_symbol_costs_its_information():
    f = np.tile(np.float32([1, 2**23]), (1000, 1))
    encoder = SymbolEncoder()
    encoder.encode(np.zeros(1000, np.int32), f)
    assert abs(8 * len(encoder.getvalue()) - 1000 * math.log2(1 + 2**23)) < 100


def test_arguments_that_constriction_would_misread_are_refused():
    good, symbols = random_frequencies(6, 4), np.zeros(6, np.int32)
    SymbolEncoder().encode(symbols, good)
    for bad in (
        np.asfortranarray(good),
        good.astype(np.float64),
        good[:, ::2],
        good * 0,
        -good,
        good + np.float32(0.5),
        good * np.float32(2**20),
        good[0],
        np.where(good > 0, np.float32(np.nan), good),
    ):
        with pytest.raises(ExactnessError):
            SymbolEncoder().encode(symbols, bad)
        with pytest.raises(ExactnessError):
            SymbolDecoder(b"1234").decode(bad)
    for bad in (symbols.astype(np.int64), symbols[:5], symbols + 4, symbols - 1):
        with pytest.raises(ExactnessError):
            SymbolEncoder().encode(bad, good)
    with pytest.raises(FormatError):
        SymbolDecoder(b"123")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (256, 256), (257, 255), (700, 300), (2000, 37)])
def test_tiles_come_back(width, height):
    tiling = Tiling(width, height, tile_size=256, coarsest=16, stride=8)
    h, w = tiling.map_shape
    assert (h, w) == (2 * math.ceil(height / 16), 2 * math.ceil(width / 16))
    maps = torch.arange(3 * h * w).view(3, h, w)
    tiles = tiling.split(maps)
    assert tiles.shape == (math.prod(tiling.grid), 3, *tiling.tile_shape)
    assert torch.equal(tiling.join(tiles), maps)
    valid = tiling.valid()
    inside = torch.ones_like(tiles[:, 0], dtype=torch.bool) if valid is None else valid
    assert int(inside.sum()) == h * w
    assert sorted(tiles[:, 0][inside].tolist()) == list(range(h * w))
