# SPDX-License-Identifier: Apache-2.0
"""What is trained on: images, crops, tiles of indices."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from conftest import untrained
from PIL import Image

from vqcodec.model import lambdas
from vqcodec.nets.choice import OrderZero
from vqcodec.nets.quantizer import ResidualQuantizer
from vqcodec.training.data import CropSampler, grid, load_images
from vqcodec.training.presets import VQVAE2_PRESETS
from vqcodec.training.prior import Coded, CodedTiles, Pool, Priors


def test_images_from_folders_zips_and_files(tmp_path, photos):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    Image.fromarray(photos[0]).save(tmp_path / "folder" / "deep" / "a.png")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    Image.fromarray(photos[1]).save(tmp_path / "b.png")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(tmp_path / "b.png", "inside/b.png")
        archive.writestr("readme.txt", "no image")
    loaded = load_images([tmp_path / "folder", tmp_path / "c.zip", tmp_path / "b.png"])
    assert [np.array_equal(a, photos[i]) for a, i in zip(loaded, (0, 1, 1), strict=True)] == [True] * 3
    assert len(load_images([tmp_path / "folder", tmp_path / "b.png"], limit=1)) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        load_images([tmp_path / "empty"])


def test_crops_come_from_the_images_and_repeat_with_the_seed(photos):
    batch = CropSampler(photos, 64, seed=5).batch(8)
    assert batch.shape == (8, 3, 64, 64)
    assert torch.equal(batch, CropSampler(photos, 64, seed=5).batch(8))
    assert not torch.equal(batch, CropSampler(photos, 64, seed=6).batch(8))
    ramp = np.arange(80 * 90, dtype=np.int64).reshape(80, 90)
    coded = np.stack([ramp % 256, ramp // 256, ramp * 0], 2).astype(np.uint8)
    for crop in (CropSampler([coded], 32).batch(20) * 255).round().long():
        rows = crop[0] + 256 * crop[1]
        flipped = rows[0, 0] > rows[0, 1]
        rows = rows.flip(1) if flipped else rows
        assert torch.equal(rows, rows[0, 0] + torch.arange(32) + 90 * torch.arange(32)[:, None])
    with pytest.raises(ValueError, match="at least 999"):
        CropSampler(photos, 999)


def test_grids_of_pictures():
    images = torch.arange(3.0)[:, None, None, None].expand(3, 3, 4, 5) / 3
    sheet = grid(images, 2)
    assert sheet.shape == (3, 10, 12)
    assert (sheet[:, :4, :5] == 0).all()
    assert (sheet[:, :4, 5:7] == 1).all()
    assert torch.equal(sheet[:, 6:, :5], images[2])
    assert (sheet[:, 6:, 7:] == 1).all()


def test_tiles_are_what_the_encoder_makes_of_them(photos):
    """Rates lie in the model's range; the choice by cost under the priors has fewer bits under them than that by
    order-0 lengths."""
    config = VQVAE2_PRESETS["tiny"]
    autoencoder, (_, fine) = untrained(config)
    priors = Priors(config)
    priors[1] = fine
    tiles = CodedTiles(config, autoencoder, priors, photos, seed=3)
    (coarse, fine_maps), tradeoffs = tiles.batch(4, tradeoff=1.0)
    assert tradeoffs.tolist() == [1.0] * 4
    assert coarse.shape == (4, 1, 8, 8)
    assert fine_maps.shape == (4, 2, 16, 16)
    image = CropSampler(photos, config.tile_size, seed=3).batch(4)
    lmbdas = lambdas.at(config, torch.ones(4))
    assert lmbdas[0].tolist() == [0.0] * 4
    assert lmbdas[1].tolist() == pytest.approx([2.0] * 4)
    assert lambdas.at(config, torch.tensor([0.0, 0.5]))[1].tolist() == pytest.approx([0.06, 0.12**0.5])
    with torch.no_grad():
        plain = autoencoder.encode(image, lmbdas)
        assert torch.equal(plain[0], coarse)
        bits = [float(fine(maps, [coarse]).mean()) for maps in (plain[1], fine_maps)]
    assert bits[1] < 0.95 * bits[0]


def test_a_beam_finds_cheaper_codes():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(VQVAE2_PRESETS["base"].autoencoder.levels[-1]).eval()
    z = 0.5 * torch.randn(2, 6, 6, quantizer.level.dim)
    weight = 0.01
    costs = {}
    for beam in (1, 8):
        quantizer.beam = beam
        result = quantizer(z, torch.full((2,), weight), lambda maps: OrderZero(quantizer.tables()))
        bits = sum(
            table[index].sum() for table, index in zip(quantizer.tables(), result.indices.unbind(1), strict=True)
        )
        costs[beam] = float((z - result.quantized).square().sum() + weight * bits)
    assert costs[8] < 0.98 * costs[1]


class Numbered:
    """Tiles that say in their only index which they are."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.next = 0

    def batch(self, number):
        here = torch.arange(self.next, self.next + number)
        self.next += number
        return Coded([here[:, None, None, None], -here[:, None, None, None]], here / 1000)


def test_a_pool_draws_from_what_was_coded_before():
    source = Numbered()
    pool = Pool(source, fresh=2, size=40)
    first = pool.batch(6)
    assert source.next == 6  # as many as a batch has, before any can be drawn again
    assert [list(level.shape) for level in first.maps] == [[6, 1, 1, 1]] * 2
    drawn = [pool.batch(6) for _ in range(60)]
    assert source.next == 6 + 2 * 60
    for coded in drawn:
        number = coded.maps[0].flatten()
        assert torch.equal(coded.maps[1].flatten(), -number)
        torch.testing.assert_close(coded.tradeoffs, number / 1000)
    last = drawn[-1].maps[0]
    assert last.min() >= source.next - 40
    assert len(torch.cat([coded.maps[0].flatten() for coded in drawn]).unique()) > 90


def test_enlarged_crops_are_smooth(photos):
    def edges(batch):
        return batch.diff(dim=-1).square().mean((1, 2, 3)) / batch.var((1, 2, 3)).clamp(min=1e-6)

    plain, smooth, some = (
        CropSampler(photos, 64, seed=2, enlarged=smooth_part).batch(12) for smooth_part in (0.0, 1.0, 0.5)
    )
    assert edges(smooth).median() < 0.1 * edges(plain).median()
    assert 2 <= sum(torch.equal(a, b) for a, b in zip(some, plain, strict=True)) <= 10
