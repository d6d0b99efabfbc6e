# SPDX-License-Identifier: Apache-2.0
"""The tasks that the tests of training train, all tiny and short."""

from __future__ import annotations

import torch
from conftest import untrained

from vqcodec.training.autoencoder import AutoencoderTask, AutoencoderTraining
from vqcodec.training.joint import JointTask
from vqcodec.training.presets import VAE_PRESETS, VQVAE2_PRESETS
from vqcodec.training.prior import Priors, PriorTask, coded_tiles
from vqcodec.training.schedule import TrainConfig
from vqcodec.training.vae import VAETask, VAETraining

SHORT = TrainConfig(steps=6, batch=2, crop=32, validate_every=3, log_every=2, warmup=2, bf16=False)
SPECIAL = AutoencoderTraining(unquantized_steps=2, kmeans_batches=4)


def autoencoder_task(photos, config=SHORT, special=SPECIAL):
    return AutoencoderTask(VQVAE2_PRESETS["tiny"], config, special, photos, photos[:1])


def vae_task(photos):
    return VAETask(VAE_PRESETS["tiny"], SHORT, VAETraining(), photos, photos[:1])


def joint_task(photos):
    torch.manual_seed(0)
    return JointTask(VQVAE2_PRESETS["tiny"], SHORT, SPECIAL, photos, photos[:1])


def prior_task(photos):
    """On what an untrained autoencoder makes of photographs."""
    config = VQVAE2_PRESETS["tiny"]
    autoencoder, _ = untrained(config)
    torch.manual_seed(0)
    priors = Priors(config)
    return PriorTask(config, SHORT, priors, *coded_tiles(config, autoencoder, priors, photos, photos[:1], SHORT))
