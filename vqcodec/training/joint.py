# SPDX-License-Identifier: Apache-2.0
"""Training of autoencoder and priors together: codes are chosen by what they cost under the priors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqcodec.nets.autoencoder import Autoencoder, Reconstruction
from vqcodec.nets.quality import psnr
from vqcodec.training.autoencoder import AutoencoderTask
from vqcodec.training.data import to_device
from vqcodec.training.loop import Report
from vqcodec.training.prior import Priors, bits_per_pixel, level_nats, rate_weights
from vqcodec.training.schedule import Clock, TrainConfig

PRIOR_SCALE = 4.0  # of the learning rate: what suits the priors against what suits the autoencoder
MEASURED = 6  # validation images


class Coded(NamedTuple):
    """nats: mean per index by level, [levels]."""

    result: Reconstruction
    nats: Tensor


class Joint(nn.Module):
    """An autoencoder and the priors of its levels."""

    def __init__(self, autoencoder: Autoencoder, priors: Priors) -> None:
        super().__init__()
        self.autoencoder, self.priors = autoencoder, priors

    def forward(self, image: Tensor, rates: Tensor | None) -> Coded:
        """image: float [N, 3, H, W] in 0..1; rates: float [levels, N], weights of a bit."""
        result: Reconstruction = self.autoencoder(image, rates, self.priors.lengths)
        return Coded(result, self.priors([maps.contiguous() for maps in result.indices]))


class JointTask(AutoencoderTask):
    """Loss: that of the autoencoder, and nats per index, summed over levels. The autoencoder learns of the rate by the
    choice of codes only: distortion + lambda * bits under the priors as they are at that step, with the integer
    network's rounding, in the context of a first choice by order-0 code lengths."""

    name = "joint"
    scales = {"priors": PRIOR_SCALE}  # noqa: RUF012
    module: Joint

    def wrapped(self) -> nn.Module:
        return Joint(self.autoencoder, Priors(self.model))

    def before(self, step: int, clock: Clock, config: TrainConfig) -> bool:
        return False  # the quantisers are on, the codebooks as they were trained

    def loss(self, network: nn.Module, batch: Any, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        image, places = batch
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            coded = network(image, rate_weights(self.model, places))
        loss, scalars = self.distortion(coded.result, image, places)
        return loss + coded.nats.sum(), scalars | {"train/nats_per_index": coded.nats}

    def validate(self, config: TrainConfig, images: bool) -> Report:
        """PSNR and rate under the priors, at both ends of the range of rates and in its middle."""
        values: dict[str, Any] = {}
        for name, place in (("low", 0.0), ("middle", 0.5), ("high", 1.0)):
            rates = rate_weights(self.model, torch.tensor([place], device=config.device))
            psnrs, rate = [], 0.0
            for array in self.val[:MEASURED]:
                image = to_device(array, self.model.autoencoder.coarsest, config.device)
                with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
                    result = self.autoencoder(image, rates, self.module.priors.lengths)
                    nats = level_nats(self.module.priors, result.indices)
                psnrs.append(psnr(result.image.float() * 255, image * 255))
                rate += bits_per_pixel(nats, self.model)
            values |= {f"val/psnr/{name}": sum(psnrs) / len(psnrs), f"val/bits_per_pixel/{name}": rate / len(psnrs)}
        return Report(values, images={"val/reconstruction": self._pairs(config)} if images else {})
