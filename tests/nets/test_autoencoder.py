# SPDX-License-Identifier: Apache-2.0
"""The VQ-VAE-2 network: shapes for any list of levels, and that every level matters."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import untrained

from vqcodec.config import AutoencoderConfig, LevelConfig, ModelConfig
from vqcodec.nets import strips, windows
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.windows import Window
from vqcodec.training.presets import VQVAE2_PRESETS

LEVELS = {
    "one": (LevelConfig(8, 1, 16, 4),),
    "two": (LevelConfig(8, 1, 16, 4), LevelConfig(4, 2, 8, 6)),
    "far apart": (LevelConfig(8, 2, 16, 4), LevelConfig(2, 1, 8, 6)),
    "three": (LevelConfig(8, 1, 16, 4), LevelConfig(4, 1, 8, 6), LevelConfig(2, 1, 8, 2)),
}


@pytest.mark.parametrize("name", LEVELS)
def test_shapes_and_agreement_of_the_ways(name):
    levels = LEVELS[name]
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(levels, (8, 8, 12), (0, 1, 1), (1, 1, 1))).eval()
    image = torch.rand(2, 3, 24, 40)
    with torch.inference_mode():
        result = model(image)
        indices = model.encode(image)
        decoded = model.decode(indices)
    assert result.image.shape == image.shape
    for level, a, b in zip(levels, result.indices, indices, strict=True):
        assert a.shape == (2, level.codebooks, 24 // level.stride, 40 // level.stride)
        assert torch.equal(a, b)
    torch.testing.assert_close(decoded, result.image)


def test_the_image_depends_on_every_map():
    model, _ = untrained()
    with torch.inference_mode():
        indices = model.encode(torch.rand(1, 3, 32, 32))
        before = model.decode(indices)
        for level, maps in enumerate(indices):
            for stage in range(maps.shape[1]):
                changed = [m.clone() for m in indices]
                changed[level][0, stage, 1, 1] = (changed[level][0, stage, 1, 1] + 1) % 16
                assert not torch.equal(model.decode(changed), before)


def test_bottom_sees_the_decoded_top():
    """With another top codebook the bottom's encoder output changes, though the image does not."""
    model, _ = untrained()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = model.latents(image, 1)
        model.level_quantizers()[0].codebooks.mul_(2)
        assert not torch.equal(model.latents(image, 1), before)


def test_gradients_reach_every_parameter():
    model, _ = untrained()
    result = model.train()(torch.rand(2, 3, 32, 32))
    (result.image.square().mean() + sum(result.commitments).mean()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_a_new_model_keeps_most_of_the_image():
    """The orthogonal start makes the linear path a transform code: without quantisers, a straight line from one image
    to the next is kept, and no channel dies."""
    torch.manual_seed(0)
    model = Autoencoder(VQVAE2_PRESETS["base"].autoencoder).eval()
    for quantizer in model.level_quantizers():
        quantizer.enabled = False
    with torch.inference_mode():
        z = model.latents(torch.rand(2, 3, 64, 64), 1)
    assert z.std((0, 1, 2)).min() > 1e-3


@pytest.mark.parametrize("changes", [{}, {"gains": 3}])
def test_strips_equal_the_whole_image(changes):
    config = VQVAE2_PRESETS["tiny"]
    config = dataclasses.replace(config, autoencoder=dataclasses.replace(config.autoencoder, **changes))
    model, _ = untrained(config)
    image = torch.randint(0, 256, (1, 3, 256, 24), dtype=torch.uint8)
    few = 96 * 24
    with torch.inference_mode():
        steps = []
        for limit in (256 * 24, few):
            in_strips = strips.features(model, image, 0.2, limit)
            latent = strips.latent(model, 0, in_strips[0], None, limit)
            state = strips.descend(model, 0, latent, None, 0.2, limit)
            steps.append([*in_strips, latent, state, strips.latent(model, 1, in_strips[1], state, limit)])
        whole = model.features(image.float() / 255, torch.full((1,), 0.2))
        for a, c in zip(steps[0], whole, strict=False):
            torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-4)
        for a, b in zip(*steps, strict=True):
            torch.testing.assert_close(b.float(), a, atol=5e-3, rtol=5e-3)  # strips are kept in half precision
        maps = model.encode(image.float() / 255)
        decoded = model.decode(maps, 0.2)
        for window in (Window(0, 0, 24, 256), Window(3, 100, 20, 133), Window(23, 255, 24, 256)):
            needed = windows.needed(model.config, window, 24, 256)
            kept = [torch.full_like(m[0], 99999) for m in maps]  # no index: whoever looks at it fails
            for level, m, known, part in zip(model.config.levels, maps, kept, needed, strict=True):
                part.of(known, level.stride)[:] = part.of(m[0], level.stride)
            in_strips = windows.decode(model, kept, window, 0.2)
            torch.testing.assert_close(in_strips, window.of(decoded, 1)[0], atol=1e-5, rtol=0)
        # and what is around is needed: without it, the seams show
        cut = [m[:, :, : 128 // level.stride] for m, level in zip(maps, model.config.levels, strict=True)]
        assert (model.decode(cut, 0.2)[:, :, -8:] - decoded[:, :, 120:128]).abs().max() > 1e-3


@pytest.mark.parametrize("name", LEVELS)
def test_the_steps_are_the_whole(name):
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(LEVELS[name], (8, 8, 12), (0, 1, 1), (1, 1, 1), gains=2)).eval()
    image, tradeoffs = torch.rand(2, 3, 24, 40), torch.tensor([0.1, 0.8])
    with torch.inference_mode():
        result = model(image, tradeoffs=tradeoffs)
        state, features = None, model.features(image, tradeoffs)
        for i, quantizer in enumerate(model.level_quantizers()):
            chosen = quantizer.choose(model.latent(i, features[i], state).permute(0, 2, 3, 1))
            assert torch.equal(chosen, result.indices[i])
            state = model.descend(i, quantizer.lookup(chosen).permute(0, 3, 1, 2), state, tradeoffs)
        torch.testing.assert_close(model.to_pixels(state, tradeoffs), result.image)


def test_wrong_sizes_raise():
    model, _ = untrained()
    for shape in ((1, 3, 30, 32), (1, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match="multiples of 8"):
            model(torch.zeros(shape))


def test_configuration_survives_json_and_is_checked():
    for config in VQVAE2_PRESETS.values():
        assert ModelConfig.from_dict(config.to_dict()) == config
    base = VQVAE2_PRESETS["tiny"].autoencoder
    for changes in (
        {"widths": (8, 8)},
        {"levels": base.levels[::-1]},
        {"levels": (LevelConfig(8, 1, 1, 4),)},
        {"encoder_blocks": (1,)},
    ):
        with pytest.raises(ValueError, match="levels|widths|stride|encoder_blocks"):
            dataclasses.replace(base, **changes)
