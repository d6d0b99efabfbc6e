# SPDX-License-Identifier: Apache-2.0
"""Every preset trains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from skimage import data

from vqcodec.training.autoencoder import AutoencoderTask, AutoencoderTraining
from vqcodec.training.loop import train
from vqcodec.training.presets import VAE_PRESETS, VQVAE2_PRESETS, VQVAE_PRESETS
from vqcodec.training.prior import Priors, PriorTask, coded_tiles
from vqcodec.training.schedule import TrainConfig
from vqcodec.training.vae import VAETask, VAETraining

PRESETS = {
    **{f"vqvae-{k}": v for k, v in VQVAE_PRESETS.items()},
    **{f"vqvae2-{k}": v for k, v in VQVAE2_PRESETS.items()},
}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_codec_preset_trains(tmp_path, name, monkeypatch):
    """Autoencoder for some steps, quantised from the second; then its priors on its indices: losses are finite, and
    every parameter that can move moves."""
    monkeypatch.setattr("vqcodec.training.prior.MEASURED", 1)  # tiles at each trade-off
    model = PRESETS[name]
    side = model.tile_size
    photo = [np.ascontiguousarray(data.astronaut()[100 : 100 + side, 100 : 100 + side])]
    config = TrainConfig(
        steps=3, batch=1, crop=min(128, side), validate_every=100, log_every=100, warmup=1, bf16=False, ema=0.5
    )
    special = AutoencoderTraining(unquantized_steps=1, kmeans_batches=16)
    task = AutoencoderTask(model, config, special, photo, photo)
    before = {k: v.clone() for k, v in task.module.named_parameters()}
    train(task, config, tmp_path)
    assert all(not torch.equal(v, before[k]) for k, v in task.module.named_parameters())
    settings = dataclasses.replace(config, steps=1 if model.priors[0].layers > 10 else 3, learning_rate=1e-3)
    networks = Priors(model)
    priors = PriorTask(model, settings, networks, *coded_tiles(model, task.autoencoder, networks, photo, photo, config))
    start = [p.detach().clone() for p in priors.module.parameters()]
    assert train(priors, settings, tmp_path).name == "prior.best.safetensors"
    moved = [not torch.equal(a, b) for a, b in zip(start, priors.module.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("name", sorted(VAE_PRESETS))
def test_every_vae_preset_trains(tmp_path, photos, name):
    config = TrainConfig(steps=2, batch=2, validate_every=100, log_every=100, warmup=1, bf16=False)
    task = VAETask(VAE_PRESETS[name], config, VAETraining(), photos, photos[:1])
    before = {k: v.clone() for k, v in task.module.named_parameters()}
    assert train(task, config, tmp_path).name == "vae.best.safetensors"
    assert all(not torch.equal(v, before[k]) for k, v in task.module.named_parameters())


def test_a_preset_is_what_ships(shipped):
    assert shipped.config == VQVAE2_PRESETS["light"]
