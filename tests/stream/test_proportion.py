# SPDX-License-Identifier: Apache-2.0
"""Work in proportion to the file: forged sizes are refused at once, streams are canonical, limits hold."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import staged_config
from internals import IndexMaps, container, forged, load, proportion, random_file, save_random, shipped
from PIL import Image

import vqcodec
from vqcodec import FormatError, ImageError, Limits
from vqcodec.cli import main

ZERO, NOISE = bytes(4), b"\x5a\xa5\x3c\x01"
# Width, height, words of the first level and of the others, groups, tiles of a group: files with right checksums that
# ask for far more than they are worth.
FORGED = {
    "44 bytes, 1024x1024": (1024, 1024, b"", b"", 1, 16),
    "510 bytes of zeros, 1024x1024": (1024, 1024, ZERO * 20, ZERO * 96, 1, 16),
    "115 bytes, 65535x1365": (65535, 1365, b"", b"", 6, 256),
    "narrow and empty, 1x65535": (1, 65535, b"", b"", 16, 16),
    "narrow, of zeros, 16x65535": (16, 65535, ZERO * 4, ZERO * 8, 16, 16),
    "narrow, of noise, 65535x16": (65535, 16, NOISE * 4, NOISE * 8, 16, 16),
    "noise, 2000x1500": (2000, 1500, NOISE * 40, NOISE * 100, 3, 16),
    "words beyond the range, 1024x1024": (1024, 1024, b"\xff" * 400, b"\xff" * 400, 1, 16),
}


@pytest.fixture(scope="module", params=["vq2-light", "vq2-base"])
def base(request):
    """A shipped model, after a first decode, which PyTorch needs to warm up."""
    codec = shipped(request.param)
    codec.decode(codec.encode(Image.new("RGB", (16, 16)), fallback=False))
    return codec


@pytest.fixture(scope="module", params=["waves", "seven"])
def staged(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("proportion") / "staged.safetensors"
    return load(save_random(path, staged_config(request.param), stopping=24))


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_are_refused_at_once(base, name):
    width, height, first, others, groups, group_tiles = FORGED[name]
    streams = [first, *[others] * (len(base.priors) - 1)] * groups
    file = forged(base, width, height, streams, group_tiles=group_tiles)
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(FormatError):
            base.decode(file)
        best = min(best, time.process_time() - start)
    assert best < 0.1


def test_no_stream_is_shorter_than_the_least(staged):
    """Indices that are as likely as can be take no less than `least_bits` says."""
    for size in [(1, 1), (40, 21), (200, 100)]:
        tilings = staged.tilings(*size)
        for bias in (0, 60, 2000):
            priors = []
            for prior in staged.priors:
                sure = prior.heads[0]._replace(bias=prior.heads[0].bias.clone())
                sure.bias[0] += bias  # index 0, at which a position stops
                copied = object.__new__(type(prior))
                copied.__dict__ = prior.__dict__ | {"heads": [sure, *prior.heads[1:]]}
                priors.append(copied)
            codec = object.__new__(type(staged))
            codec.__dict__ = staged.__dict__ | {"priors": priors}
            pairs = zip(priors, tilings, strict=True)
            levels = (torch.zeros(p.level.maps, *t.map_shape, dtype=torch.int64) for p, t in pairs)
            maps = IndexMaps(tuple(levels), *size)
            streams = codec.compress(maps)
            proportion.check_lengths(priors, tilings, streams)
            assert codec.decompress(streams, *size).equal(maps)
    bits = proportion.least_bits(priors[1]) * proportion.positions(tilings[1], 0, 16)
    assert len(streams[1]) * 8 < bits + 96  # with certainty so large, hardly more either


def test_positions_of_all_groups_are_those_of_the_image():
    for width, height in [(1, 1), (255, 257), (700, 300), (2000, 37)]:
        codec = shipped("vqvae-base")
        tiling = codec.tiling(0, width, height)
        tiles = math.prod(tiling.grid)
        total = sum(proportion.positions(tiling, first, first + 16) for first in range(0, tiles, 16))
        assert total == math.prod(tiling.map_shape)


def test_streams_are_canonical(staged):
    file, _ = random_file(staged, 40, 21, 100)
    streams = container.unpack(file).streams
    assert forged(staged, 40, 21, streams, rate=100) == file
    staged.decode(file)
    for number, stream in enumerate(streams):
        last = int.from_bytes(stream[-4:], "little")
        others = [
            stream + ZERO,
            stream + NOISE,
            stream[:-4] + (last + 1).to_bytes(4, "little"),  # another coding of the same indices, mostly
            stream[:-4],
            b"",
        ]
        for other in others:
            changed = forged(staged, 40, 21, [*streams[:number], other, *streams[number + 1 :]], rate=100)
            with pytest.raises(FormatError):
                staged.decode(changed)


def test_larger_groups_than_an_encoder_writes_are_refused(staged):
    file = container.unpack(random_file(staged, 17, 33)[0])
    for group_tiles in (32, 1 << 15):
        header = replace(file.header, group_tiles=group_tiles)
        with pytest.raises(FormatError, match="at most 16 tiles"):
            staged.decode(container.pack(replace(file, header=header)))


def test_limits(staged):
    file = random_file(staged, 40, 21)[0]
    assert staged.decode(file, limits=Limits(pixels=840, seconds=60)).size == (40, 21)
    for limits, said in (
        (Limits(pixels=839), "839"),
        (Limits(memory=1000), "MiB"),
        (Limits(seconds=0), "longer than the limit of 0 s"),
    ):
        with pytest.raises(ImageError, match=said):
            staged.decode(file, limits=limits)
    assert staged.decode(file, limits=Limits(memory=None)).size == (40, 21)


def test_pillows_limit_holds_unless_another_is_given(staged, monkeypatch):
    file = random_file(staged, 40, 21)[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="Pillow"):
        staged.decode(file)
    assert staged.decode(file, limits=Limits(pixels=1000)).size == (40, 21)


def test_the_estimate_of_memory_grows_with_the_image(base):
    sizes = [(256, 256), (1024, 1024), (4096, 4096), (9000, 9000)]
    estimates = []
    for size in sizes:
        tilings = base.tilings(*size)
        estimates.append(proportion.memory(base.config, tilings, 64))
    assert np.all(np.diff(estimates) > 0)
    assert 10 << 20 < estimates[0] < estimates[1] < 1 << 30
    assert estimates[-1] < Limits().memory


def test_the_limit_of_the_command_line_and_of_the_function(tmp_path, base):
    file = tmp_path / "a.vq2"
    file.write_bytes(base.encode(Image.new("RGB", (30, 20))))
    result = CliRunner().invoke(main, ["decode", "--max-pixels", "599", str(file), str(tmp_path / "a.png")])
    assert result.exit_code == 1
    assert "30x20 is over the limit of pixels, 599" in result.stderr
    assert not (tmp_path / "a.png").exists()
    result = CliRunner().invoke(main, ["decode", "--max-pixels", "600", str(file), str(tmp_path / "a.png")])
    assert result.exit_code == 0
    with pytest.raises(ImageError):
        vqcodec.decode([file.read_bytes()], limits=Limits(pixels=599))
