# SPDX-License-Identifier: Apache-2.0
"""Regions and previews: what is read, and that it shows what the whole does."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import save_untrained, staged_codec
from PIL import Image

import vqcodec
import vqcodec.pillow_plugin
from vqcodec.cli import main
from vqcodec.codec import Codec
from vqcodec.config import PREVIEW_SCALES
from vqcodec.format import container
from vqcodec.model import pixels, preview, readouts, registry, tiling
from vqcodec.stream import reader, region

BOXES = [(0, 0, 1, 1), (150, 130, 64, 40), (300, 0, 151, 300), (0, 299, 451, 1), (0, 0, 451, 300)]


def test_tiles_of_a_group_are_neighbours() -> None:
    for rows, columns, group in ((9, 11, 16), (9, 11, 4), (1, 40, 16), (3, 3, 16), (5, 2, 8)):
        order = tiling.sequence(rows, columns, group)
        assert sorted(order) == list(range(rows * columns))
        for first in range(0, len(order), group):
            part = order[first : first + group]
            assert list(part) == sorted(part)
        whole = order[:group]
        heights = {tile // columns for tile in whole}
        assert max(heights) < 4
    assert tiling.sequence(8, 8, 16)[:16] == tuple(row * 8 + column for row in range(4) for column in range(4))


@pytest.mark.parametrize("group_tiles", [1, 4, 16])
def test_a_region_is_that_of_the_whole(tiny: Codec, photo, monkeypatch, group_tiles):
    monkeypatch.setattr(tiling, "GROUP_TILES", group_tiles)
    monkeypatch.setattr(reader, "STEP_ROWS", 2048)  # several groups at once
    image = Image.fromarray(photo)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = tiny.encode(image, effort=1)
    whole = np.asarray(tiny.decode(data)).astype(int)
    for x, y, width, height in BOXES:
        part = tiny.decode(data, region=(x, y, width, height))
        assert (part.mode, part.size) == ("RGBA", (width, height))
        off = np.abs(np.asarray(part).astype(int) - whole[y : y + height, x : x + width])
        assert off.max() <= 1
        assert not off[:, :, 3].any()


def test_only_groups_that_are_needed_are_read(tiny: Codec, photo, monkeypatch):
    monkeypatch.setattr(tiling, "GROUP_TILES", 1)
    image = Image.fromarray(photo)
    file = container.unpack(tiny.encode(image, effort=1))
    box = (2, 2, 20, 20)
    expected = np.asarray(tiny.decode(container.pack(file), region=box))
    kept = file.streams[:2]  # of the first tile
    spoiled = [bytes(len(words)) for words in file.streams[2:]]
    data = container.pack(replace(file, streams=(*kept, *spoiled)))
    with pytest.raises(vqcodec.FormatError):
        tiny.decode(data)
    assert (np.asarray(tiny.decode(data, region=box)) == expected).all()


def test_windows_are_the_whole(staged: Codec, monkeypatch):
    """Large pictures are made window by window."""
    image = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    maps = staged.to_indices(image)
    whole = staged.from_indices(maps, 9).astype(int)
    monkeypatch.setattr(pixels, "SIDE", 37)
    assert np.abs(staged.from_indices(maps, 9) - whole).max() <= 1


def test_levels_of_groups_that_stop_earlier(photo):
    """Coarse levels reach farther: a batch may have groups of which only those are wanted."""
    codec = staged_codec("seven")
    file = container.unpack(codec.encode(Image.fromarray(photo[:100, :120]), effort=1))
    all_of_it = region.Window(0, 0, 120, 104)
    whole = reader.read(codec, file)
    windows = region.read(codec, file, [all_of_it, region.Window(0, 0, 8, 8)])
    assert torch.equal(windows.levels[0], whole.levels[0])
    assert torch.equal(windows.levels[1][:, :2, :2], whole.levels[1][:, :2, :2])
    assert not region.read(codec, file, [all_of_it]).levels[1].any()


def test_previews(shipped: Codec, one_level: Codec, photo):
    image = Image.fromarray(photo[:200, :251])
    data = shipped.encode(image, quality=90, effort=1)
    streams = container.unpack(data).streams
    damaged = container.pack(replace(container.unpack(data), streams=(*streams[:-1], bytes(len(streams[-1])))))
    for scale, decibels in ((8, 23), (32, 25)):
        small = shipped.decode(damaged, preview=scale)  # the finest level is not looked at
        reduced = np.asarray(image.reduce(scale)).astype(float)
        assert small.size == (-(-251 // scale), -(-200 // scale))
        assert 10 * np.log10(255**2 / np.square(np.asarray(small) - reduced).mean()) > decibels
    assert preview.level_for(one_level.config.autoencoder, 8) is None
    coded = one_level.encode(image, effort=1)
    assert one_level.decode(coded, preview=4).tobytes() == one_level.decode(coded).reduce(4).tobytes()


def test_readouts_lie_beside_the_weights(two: tuple[Codec, Path]) -> None:
    codec, path = two
    fitted = preview.fit_all(codec)
    assert readouts.load(path, codec.identity) == {}
    beside = readouts.save(path, codec.identity, fitted)
    kept = readouts.load(path, codec.identity)
    assert kept.keys() == fitted.keys()
    assert all(torch.equal(kept[level], fitted[level].half().float()) for level in fitted)
    assert readouts.load(path, b"else") == {}
    again = Codec.load(registry.find(path), "cpu")
    assert again.identity == codec.identity
    data = codec.encode(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), effort=1, fallback=False)
    for scale in PREVIEW_SCALES:  # those of coarser scales are means of the finest; half precision moves little
        one, other = (np.asarray(c.decode(data, preview=scale), np.int16) for c in (codec, again))
        assert np.abs(one - other).max() <= 1
    beside.write_bytes(b"nothing of the kind")
    assert readouts.load(path, codec.identity) == {}
    readouts.save(path, codec.identity, {level: torch.zeros(3, 2) for level in fitted})  # of another shape
    assert Codec.load(registry.find(path), "cpu").decode(data, preview=8).size == (8, 8)


def test_readouts_of_shipped_models_are_theirs() -> None:
    for model in registry.installed():
        if (model.path.with_suffix(readouts.SUFFIX)).exists():
            assert readouts.load(model.path, model.identity)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Codec, Path]:
    """A codec of two levels, and its weights file."""
    path = tmp_path / "two.safetensors"
    save_untrained(path)
    return Codec.load(registry.find(path), "cpu"), path


def test_what_cannot_be_asked_for(tiny: Codec, photo):
    data = tiny.encode(Image.fromarray(photo), effort=1)
    for wrong in ((0, 0, 0, 5), (-1, 0, 5, 5), (400, 0, 52, 5)):
        with pytest.raises(ValueError, match="not inside"):
            tiny.decode(data, region=wrong)
    with pytest.raises(ValueError, match="must be one of"):
        tiny.decode(data, preview=3)
    with pytest.raises(ValueError, match="not both"):
        tiny.decode(data, preview=4, region=(0, 0, 5, 5))
    few = vqcodec.Limits(pixels=1000)
    with pytest.raises(vqcodec.ImageError, match="limit"):
        tiny.decode(data, limits=few)
    assert tiny.decode(data, region=(1, 2, 30, 30), limits=few).size == (30, 30)


def test_pillow_and_the_command_line(tiny: Codec, tiny_models: Path, photo, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("VQCODEC_MODELS", str(tiny_models))
    image = Image.fromarray(photo)
    path = tmp_path / "a.vq2"
    path.write_bytes(tiny.encode(image, effort=1))
    whole = vqcodec.decode(path.read_bytes())
    with Image.open(path) as opened:
        part = opened.crop((20, 30, 120, 90))
        assert opened.size == image.size
        assert np.abs(np.asarray(part).astype(int) - np.asarray(whole.crop((20, 30, 120, 90)))).max() <= 1
        assert opened.crop((-5, 0, 5, 5)).tobytes() == whole.crop((-5, 0, 5, 5)).tobytes()  # decodes all
    with Image.open(path) as opened:
        assert opened.draft("L", (100, 70)) == ("RGB", (0, 0, 451 / 4, 300 / 4))
        assert opened.size == (113, 75)
        assert np.asarray(opened).shape == (75, 113, 3)
    with Image.open(path) as opened:
        opened.thumbnail((40, 40))
        assert opened.size == (40, 27)
        assert np.asarray(opened).shape == (27, 40, 3)
    for options, size in ((["--region", "20,30,100,60"], (100, 60)), (["--preview", "8"], (57, 38))):
        done = CliRunner().invoke(main, ["decode", "-f", str(path), str(tmp_path / "b.png"), *options])
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / "b.png") as written:
            assert written.size == size
    assert CliRunner().invoke(main, ["decode", "-f", str(path), "--region", "0,0,452,1"]).exit_code == 1
    assert CliRunner().invoke(main, ["decode", "-f", str(path), "--region", "1,2,3"]).exit_code == 2
    lossless = io.BytesIO()
    image.save(lossless, "VQ2", lossless=True, model="tiny")
    with Image.open(io.BytesIO(lossless.getvalue())) as opened:
        opened.draft(None, (100, 70))
        assert opened.tobytes() == image.reduce(4).tobytes()
