# SPDX-License-Identifier: Apache-2.0
"""Indices of images of many sizes go round. `tools/check_sizes.py` does every size with the shipped models."""

from __future__ import annotations

import pytest
from conftest import load_tool
from internals import container, load, random_file
from randomprior import random_maps

from vqcodec.model.maps import IndexMaps

check_sizes = load_tool("check_sizes")
TILE, STRIDE = 16, 8  # of the codec below


def shapes() -> list[tuple[int, int]]:
    """A size of every shape of maps that images up to 40x40 have: the largest width, and the least height."""
    return [(w, h) for w in range(STRIDE, 41, STRIDE) for h in range(1, 41, STRIDE)]


def boundaries() -> list[tuple[int, int]]:
    """Tiles, bands and groups of them, and the number of tiles from which groups are smaller."""
    sizes = list(check_sizes.boundary_sizes(TILE))
    largest = (65 * TILE, 4 * TILE + 1)
    assert all(max(size) <= largest[0] for size in sizes)
    return [size for i, size in enumerate(sizes) if i % 3 == 0 or max(size) > 4 * TILE]


@pytest.mark.parametrize("sizes", [shapes, boundaries], ids=lambda made: made.__name__)
def test_indices_of_every_shape_come_back(staged, sizes):
    for width, height in sizes():
        tilings = staged.tilings(width, height)
        levels = staged.config.autoencoder.levels
        maps = (random_maps(v, 1, *t.map_shape, seed=width)[0] for v, t in zip(levels, tilings, strict=True))
        written = IndexMaps(tuple(maps), width, height)
        streams = staged.compress(written, height % 256)
        assert staged.decompress(streams, width, height, tradeoff=height % 256).equal(written), (width, height)


def test_the_tool_takes_pictures_around(tmp_path, one_level_file):
    codec = load(one_level_file)
    for size in ((1, 1), (9, 66), (65, 2)):
        assert check_sizes.around(codec, *size) > 40
        assert container.read_header(random_file(codec, *size)[0]).width == size[0]
    out = tmp_path / "sizes.jsonl"
    assert check_sizes.checked(codec, 3, 4, out) == ""
    assert check_sizes.finished(out) == {(codec.identity.hex(), 3, 4): ""}
    assert sorted(check_sizes.small_sizes(2)) == [(1, 1), (1, 2), (2, 1), (2, 2)]
