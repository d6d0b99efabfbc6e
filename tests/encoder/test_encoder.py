# SPDX-License-Identifier: Apache-2.0
"""The choice of index maps: every level that may stop, by its cost under the priors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import staged_config
from numpy.typing import NDArray
from PIL import Image
from randomprior import random_tensors
from skimage import data

from vqcodec.codec import Codec
from vqcodec.config import ModelConfig
from vqcodec.encoder import choice
from vqcodec.encoder.lengths import PriorLengths
from vqcodec.encoder.request import EFFORTS, Request, lmbda_asked
from vqcodec.format import container
from vqcodec.model import weights
from vqcodec.model.loading import pack_model
from vqcodec.model.maps import IndexMaps
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.stream import writer


def codec(**changes: object) -> Codec:
    """Levels that may stop, codewords as large as the latents of a photograph, gains, priors that see the trade-off."""
    config: ModelConfig = dataclasses.replace(staged_config("seven"), **changes)
    config = dataclasses.replace(config, autoencoder=dataclasses.replace(config.autoencoder, gains=2))
    levels = config.autoencoder.levels
    torch.manual_seed(0)
    autoencoder = Autoencoder(config.autoencoder)
    image = torch.from_numpy(data.chelsea()[:296, :448] / 255).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        for gains in autoencoder.gains.values():
            gains.logs.normal_(std=0.1)
        for i, quantizer in enumerate(autoencoder.level_quantizers()):
            autoencoder.normalize[i].momentum = 1.0
            quantizer.enabled = False
            autoencoder.train().latents(image, i)
            quantizer.enabled = True
            scale = 6 * 0.6 ** torch.arange(quantizer.level.codebooks)
            quantizer.codebooks.mul_(scale[:, None, None])
            quantizer.get_buffer("bits").copy_(torch.cat([torch.ones(1), torch.full((15,), 5.0)]))
            autoencoder.eval()
    pairs = enumerate(zip(config.priors, levels, strict=True))
    priors = [random_tensors(prior, level, levels[:i], i, stopping=24) for i, (prior, level) in pairs]
    return Codec(config, weights.single(pack_model(autoencoder, priors)))


@pytest.fixture(scope="module")
def part(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """No multiple of a tile."""
    return np.ascontiguousarray(photo[100:170, 100:157])


def nats(model: Codec, maps: IndexMaps, tradeoff: int) -> list[float]:
    """Of all that is coded, by level."""
    by_level = []
    for level in writer.frequencies(model, maps, tradeoff=tradeoff):
        logs = [(m.frequencies.gather(1, m.symbols[:, None])[:, 0] / m.frequencies.sum(1)).log() for m in level]
        by_level.append(-float(torch.cat(logs).double().sum()))
    return by_level


def stopped(model: Codec, maps: IndexMaps) -> bool:
    """Whether nothing follows a stop."""
    for level, stages_of_level in zip(model.config.autoencoder.levels, maps.levels, strict=True):
        live = torch.ones_like(stages_of_level[0], dtype=torch.bool)
        for stage in range(level.stages):
            some = stages_of_level[level.stage_maps(stage)].any(0)
            if bool((some & ~live).any()):
                return False
            live = live & some
    return True


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_gives_a_file_that_decodes_to_what_was_chosen(effort: int, part: NDArray[np.uint8]) -> None:
    model = codec()
    asked = Request(quality=60, effort=effort)
    maps = model.to_indices(part, asked)
    assert stopped(model, maps)
    encoded = model.encode(Image.fromarray(part), quality=60, effort=effort, verify=True)
    file = container.unpack(encoded)
    assert model.read_indices(file).equal(maps)
    assert file.header.rate == model.tradeoff(lmbda_asked(asked, model.config.lmbdas)) > 0


def test_more_bits_at_more_quality(part: NDArray[np.uint8]) -> None:
    model = codec()
    sizes = [len(model.encode(Image.fromarray(part), quality=quality)) for quality in range(0, 101, 20)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 4 * sizes[0]


def test_a_factor_moves_indices_between_levels(part: NDArray[np.uint8]) -> None:
    used = []
    for factors in ((), ((16.0, 16.0), (1.0, 1.0)), ((1.0, 1.0), (16.0, 16.0))):
        maps = codec(factors=factors).to_indices(part, Request(lmbda=0.4, effort=1))
        used.append([int((level != 0).sum()) for level in maps.levels])
    assert used[1][0] < 0.6 * used[0][0]
    assert used[2][1] < 0.6 * used[0][1]
    assert used[2][0] == used[0][0]  # the coarsest level comes first


def test_finer_levels_see_the_coarser_ones_as_they_are_decoded(part: NDArray[np.uint8]) -> None:
    """The finest level's maps are those of its latents under the state of the chosen coarser maps."""
    model = codec()
    maps = model.to_indices(part, Request(lmbda=0.3, effort=1))
    padded = np.pad(part, ((0, -part.shape[0] % 8), (0, -part.shape[1] % 8), (0, 0)), mode="edge")
    image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    tradeoffs = torch.tensor([model.tradeoff(0.3) / 255])
    auto, (top, bottom) = model.autoencoder, model.autoencoder.level_quantizers()
    with torch.inference_mode():
        features = auto.features(image, tradeoffs)
        state = auto.descend(0, top.lookup(maps.levels[0][None]).permute(0, 3, 1, 2), None, tradeoffs)
        z = auto.latent(1, features[1], state).permute(0, 2, 3, 1)
        again = bottom.choose(z, torch.tensor([0.3]))[0]
    assert (again == maps.levels[1]).float().mean() > 0.97  # up to bfloat16


def test_costs_are_those_of_the_prior(part: NDArray[np.uint8]) -> None:
    """Code lengths in the context of maps against the frequencies that these are coded with."""
    model = codec()
    maps = model.to_indices(part, Request(lmbda=0.2, effort=1))
    for level, prior in enumerate(model.priors):
        *coarse, tile_maps = model.split(maps)[: level + 1]
        valid = model.tiling(level, *maps.size).valid()
        condition = prior.condition(coarse, (len(tile_maps), *tile_maps.shape[2:]), valid, 77)
        lengths = PriorLengths(prior, tile_maps, condition, valid)
        inside = torch.ones(len(tile_maps), *tile_maps.shape[2:], dtype=torch.bool) if valid is None else valid
        chosen = tile_maps.permute(0, 2, 3, 1)[inside]  # [M, maps]
        rows = torch.arange(len(chosen))
        earlier, live, total = None, torch.ones(len(chosen), dtype=torch.bool), 0.0
        for stage in range(prior.level.stages):
            index = chosen[:, prior.level.stage_maps(stage)]
            logs = lengths.logs(stage, earlier, rows).view(len(chosen), index.shape[1], -1)
            total -= float((logs.gather(2, index[..., None])[..., 0].sum(1) * live).sum())
            live = live & index.any(1)
            if stage + 1 < prior.level.stages:
                handed_on = lengths.handed_on(stage, index[:, None] if stage >= prior.level.codebooks else index[:, :1])
                assert handed_on is not None
                earlier = handed_on if earlier is None else earlier + handed_on
        assert total == pytest.approx(nats(model, maps, 77)[level], rel=0.02)


def test_bits_and_distortion_fall_with_effort(part: NDArray[np.uint8]) -> None:
    """The cost of the finest level, the only one: distortion + lambda * bits under the prior."""
    config = staged_config("seven")
    auto = dataclasses.replace(config.autoencoder, levels=config.autoencoder.levels[1:], widths=(8, 8),
                               encoder_blocks=(0, 1), decoder_blocks=(0, 1))  # fmt: skip
    model = codec(autoencoder=auto, priors=(dataclasses.replace(config.priors[0], attention_every=0),))
    quantizer = model.autoencoder.level_quantizers()[0]
    height, width = (side // 4 * 4 for side in part.shape[:2])
    pixels = np.ascontiguousarray(part[:height, :width])
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    rate, costs = 0.3, {}
    tradeoffs = torch.tensor([model.tradeoff(rate) / 255])
    for effort in (1, 3, 6):
        maps = model.to_indices(pixels, Request(lmbda=rate, effort=effort))
        with torch.inference_mode():
            z = model.autoencoder.latent(0, model.autoencoder.features(image, tradeoffs)[0], None)[0]
            error = float((z - quantizer.lookup(maps.levels[0][None])[0].permute(2, 0, 1)).square().sum())
        bits = nats(model, maps, model.tradeoff(rate))[0] / math.log(2)
        costs[effort] = error + rate * bits
    assert costs[6] < costs[3] < costs[1]


def test_features_are_kept_for_places_near_by(part: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    model = codec()
    calls = []
    features = choice.strips.features
    monkeypatch.setattr(choice.strips, "features", lambda *a, **k: calls.append(a[2]) or features(*a, **k))
    alone = choice.chooser(model, part, Request(effort=1))
    alone.maps(0.3)
    alone.maps(0.3)
    assert len(calls) == 1
    alone.rough(0.31)
    assert len(calls) == 1
    alone.maps(0.31)
    alone.maps(2.0)
    assert len(calls) == 3


def test_priors_get_the_tradeoff(part: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    model = codec()
    tradeoffs = []
    for prior in model.priors:
        condition = prior.condition

        def spied(coarse, shape, valid, tradeoff, condition=condition):
            tradeoffs.append(tradeoff)
            return condition(coarse, shape, valid, tradeoff)

        monkeypatch.setattr(prior, "condition", spied)
    model.to_indices(part, Request(lmbda=0.3))
    assert set(tradeoffs) == {model.tradeoff(0.3)}
    assert 0 < model.tradeoff(0.3) < 255
