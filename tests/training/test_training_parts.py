# SPDX-License-Identifier: Apache-2.0
"""Optimiser, losses, the linear start, the metric."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tasks import SHORT, autoencoder_task

from vqcodec.nets.autoencoder import Autoencoder, Reconstruction
from vqcodec.nets.quality import WINDOW, ms_ssim
from vqcodec.training import linear
from vqcodec.training.autoencoder import AutoencoderTraining
from vqcodec.training.data import CropSampler
from vqcodec.training.metric import PIXEL_VARIANCE, squared_jacobians
from vqcodec.training.muon import Muon, orthogonalized, parameter_groups
from vqcodec.training.presets import VQVAE2_PRESETS


def test_muon_steps_are_orthogonal_and_descend():
    for shape in ((16, 40), (40, 16), (24, 24)):
        values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
        assert values.max() < 1.35
        assert values.median() > 0.6
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 3, 3))
    optimizer = Muon(parameter_groups(module, {}), lr=0.02)
    image = torch.rand(4, 3, 12, 12)
    losses = []
    for _ in range(60):
        loss = (module(image) - image[:, :, 2:-2, 2:-2]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_ms_ssim_to_train_with(photos):
    """It is the field's own, under a shorter window; its gradient is finite where structure is reversed."""
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    image = torch.from_numpy(np.stack([photo[:128, :128] for photo in photos])).permute(0, 3, 1, 2) / 255
    blurred = torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
    for decoded in (image + 0.05 * torch.randn_like(image), image + 0.2 * torch.randn_like(image), blurred):
        reference = pytorch_msssim.ms_ssim(decoded, image, data_range=1.0, size_average=False, win_size=WINDOW)
        assert torch.allclose(ms_ssim(decoded, image), reference, atol=1e-5)
    assert torch.allclose(ms_ssim(image, image), torch.ones(len(image)))
    reversed_ = (1 - image).requires_grad_()
    (gradient,) = torch.autograd.grad(ms_ssim(reversed_, image).sum(), [reversed_])
    assert gradient.isfinite().all()


def test_ms_ssim_in_the_loss(photos):
    config = dataclasses.replace(SHORT, crop=128)
    with pytest.raises(ValueError, match="at least 97 pixels"):
        autoencoder_task(photos, SHORT, AutoencoderTraining(ms_ssim=0.3))
    image = CropSampler(photos, 128).batch(2)
    result = Reconstruction(image + 0.05 * torch.randn_like(image), [], [torch.zeros(2)] * 2)
    losses = []
    for special in (
        AutoencoderTraining(),
        AutoencoderTraining(ms_ssim=0.3),
        AutoencoderTraining(ms_ssim=0.3, ssimulacra2=0.01),
    ):
        loss, scalars = autoencoder_task(photos, config, special).distortion(result, image, torch.full((2,), 0.5))
        losses.append(loss)
    assert scalars["train/ms_ssim"] < 0.99
    assert (losses[1] - losses[0]).item() == pytest.approx(0.3 * (1 - scalars["train/ms_ssim"].item()), rel=1e-3)
    missing = (100 - scalars["train/ssimulacra2"].item()) / 100
    assert (losses[2] - losses[1]).item() == pytest.approx(0.01 * missing, rel=1e-3)


@torch.no_grad()
def test_linear_start_is_a_transform_code(photos):
    """Before any training the levels leave little of a photograph, every level less, and errors of a latent cost what
    the metric says."""
    config = VQVAE2_PRESETS["tiny-light"].autoencoder
    torch.manual_seed(0)
    model = Autoencoder(config)
    image = CropSampler(photos, 64, seed=1).batch(16)
    linear.start(model, image)
    model.eval()
    for quantizer in model.level_quantizers():
        quantizer.enabled = False
    error = (model(image).image - image).square().mean()
    features, state = model.features(image), None
    for i in range(len(config.levels)):
        latent = model.latent(i, features[i], state)
        assert latent.square().mean() == pytest.approx(1, rel=0.3)  # one unit for all channels of a level
        assert latent[:, 0].var() > 2 * latent[:, -1].var()  # principal components, strongest first
        state = model.descend(i, latent, state)
    assert error < 0.03 * image.var()


def test_metric_is_what_an_error_does_to_the_picture(photos):
    """Against the picture's own change, for small errors of random latents."""
    config = VQVAE2_PRESETS["tiny-light"]
    torch.manual_seed(0)
    model = Autoencoder(config.autoencoder).eval()
    tradeoffs = torch.full((2,), 0.5)
    image = CropSampler(photos, 64, seed=1).batch(2)
    with torch.no_grad():
        indices = model.encode(image, torch.zeros(2, 2), None, tradeoffs)
    draws = [squared_jacobians(model, indices, tradeoffs, torch.Generator().manual_seed(i)) for i in range(200)]
    for level, jacobian in enumerate(torch.stack(parts).mean(0) for parts in zip(*draws, strict=True)):
        latents = [q.lookup(m).permute(0, 3, 1, 2) for q, m in zip(model.level_quantizers(), indices, strict=True)]

        def decode(latents):
            state = None
            for i, latent in enumerate(latents):
                state = model.descend(i, latent, state, tradeoffs)
            return model.to_pixels(state, tradeoffs)

        step = 1e-2 * torch.randn(latents[level].shape, generator=torch.Generator().manual_seed(9))
        moved = [latent + step if i == level else latent for i, latent in enumerate(latents)]
        with torch.no_grad():
            measured = (decode(moved) - decode(latents)).square().sum() / PIXEL_VARIANCE
        rows = step.permute(0, 2, 3, 1).flatten(0, 2)
        assert float((rows @ jacobian * rows).sum()) == pytest.approx(float(measured), rel=0.3)
