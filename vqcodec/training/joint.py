# SPDX-License-Identifier: Apache-2.0
"""Training of autoencoder and priors together: codes are chosen by what they cost under the priors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig
from vqcodec.images.types import Pixels
from vqcodec.model import lambdas
from vqcodec.nets.autoencoder import Autoencoder, Reconstruction
from vqcodec.nets.quality import psnr
from vqcodec.nets.quantizer import Dropout
from vqcodec.prior.network import live_stages
from vqcodec.training.autoencoder import METRIC_SHARE, METRIC_STEPS, AutoencoderTask, AutoencoderTraining
from vqcodec.training.data import to_device
from vqcodec.training.loop import Report
from vqcodec.training.prior import Priors
from vqcodec.training.schedule import Clock, TrainConfig

PRIOR_SCALE = 4.0  # of the learning rate: what suits the priors against what suits the autoencoder
MEASURED = 12  # validation images
TRADEOFFS = (0.0, 0.25, 0.5, 0.75, 1.0)  # in the range of lambdas


class Coded(NamedTuple):
    """nats: mean per position by level, [levels]."""

    result: Reconstruction
    nats: Tensor


class Joint(nn.Module):
    """An autoencoder and the priors of its levels."""

    def __init__(self, autoencoder: Autoencoder, priors: Priors) -> None:
        super().__init__()
        self.autoencoder, self.priors = autoencoder, priors

    def forward(
        self, image: Tensor, lmbdas: Tensor | None, tradeoffs: Tensor, dropout: Dropout | None, refine: bool, some: int
    ) -> Coded:
        """Encode images, and price their codes under the priors.

        Args:
            image: float [N, 3, H, W] in 0..1.
            lmbdas: weights of a bit, float [levels, N].
            tradeoffs: of these weights, float [N] in 0..1.
            dropout: as of `Autoencoder.forward`.
            refine: choose codes by what they cost under the priors.
            some: how many images, the first ones, are chosen so and train the priors.
        """
        lengths = partial(self.priors.lengths, tradeoffs=tradeoffs[:some]) if refine else None
        result: Reconstruction = self.autoencoder(image, lmbdas, lengths, tradeoffs, dropout, some)
        return Coded(result, self.priors([maps[:some].contiguous() for maps in result.indices], tradeoffs[:some]))


class JointTask(AutoencoderTask):
    """Loss: that of the autoencoder, and nats per position, summed over levels. The autoencoder learns of the rate by
    the choice of codes only: distortion + lambda * bits under the priors as they are at that step, with the integer
    network's rounding, in the context of a first choice by order-0 code lengths. From scratch the quantisers begin as
    in `AutoencoderTask`, and the priors are asked once the lambda has grown."""

    name = "joint"
    scales = {"priors": PRIOR_SCALE}  # noqa: RUF012
    find_unused = True
    module: Joint

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        special: AutoencoderTraining,
        train: Sequence[Pixels],
        val: Sequence[Pixels],
        fresh: bool = False,
    ) -> None:
        """As of `AutoencoderTask`. fresh: from scratch, else the quantisers are on from the first step."""
        super().__init__(model_config, config, special, train, val)
        self.fresh = fresh
        for quantizer in self.autoencoder.level_quantizers():
            quantizer.beam = special.beam
        if special.kept:
            self.autoencoder.requires_grad_(False)

    def wrapped(self) -> nn.Module:
        return Joint(self.autoencoder, Priors(self.model))

    def before(self, step: int, clock: Clock, config: TrainConfig) -> bool:
        """Begin as `AutoencoderTask` does from scratch; else only let the metric follow.

        Args:
            step: number of the step, from 0.
            clock: of the run.
            config: of the run.

        Returns: whether weights changed at one stroke.
        """
        if self.fresh:
            return super().before(step, clock, config)
        self.ramp = 1.0  # the quantisers are on, the codebooks as they were trained
        if self.special.kept:
            self.autoencoder.normalize.eval()
        elif step % METRIC_STEPS == 0:
            self.measure_metric(config, METRIC_SHARE)
        return False

    def loss(self, network: nn.Module, batch: Any, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch: see `Task.loss`.

        Args:
            network: `module`, or what wraps it.
            batch: from `batch`.
            config: of the run.
        """
        image, tradeoffs = batch
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            weights = self.ramp * lambdas.at(self.model, tradeoffs)
            some = max(1, round(self.special.prior_share * len(image)))
            coded = network(image, weights, tradeoffs, self.dropout(tradeoffs), self.ramp >= 1, some)
        rate = {"train/nats_per_position": coded.nats}
        if self.special.kept:
            return coded.nats.sum(), rate
        loss, scalars = self.distortion(coded.result, image, tradeoffs)
        return loss + coded.nats.sum(), scalars | rate

    def validate(self, config: TrainConfig, images: bool) -> Report:
        """Measure PSNR, and bits under the priors, at five trade-offs.

        Args:
            config: of the run.
            images: whether grids are wanted.
        """
        values: dict[str, Any] = {}
        for tradeoff in TRADEOFFS:
            psnrs, bits = [], 0.0
            for array in self.val[:MEASURED]:
                image = to_device(array, self.model.autoencoder.coarsest, config.device)
                measured = estimate(self.autoencoder, self.module.priors, self.model, image, tradeoff)
                psnrs.append(psnr(measured.image * 255, image * 255))
                bits += measured.bits_per_pixel
            key = f"{tradeoff:.2f}"
            values |= {f"val/psnr/{key}": sum(psnrs) / len(psnrs), f"val/bits_per_pixel/{key}": bits / len(psnrs)}
        return Report(values, images={"val/reconstruction": self._pairs(config)} if images else {})


class Estimate(NamedTuple):
    """image: float [1, 3, H, W], about 0..1; bits_per_pixel: estimate under the priors, no file is written; by_level:
    the same of every level; stages: mean number of stages a position uses, by level."""

    image: Tensor
    bits_per_pixel: float
    by_level: list[float]
    stages: list[float]


@torch.no_grad()
def estimate(autoencoder: Autoencoder, priors: Priors, model: ModelConfig, image: Tensor, tradeoff: float) -> Estimate:
    """Code an image at a trade-off, and estimate its bits.

    Args:
        autoencoder: in evaluation mode.
        priors: of its levels.
        model: configuration of both.
        image: float [1, 3, H, W] in 0..1.
        tradeoff: 0 to 1.
    """
    tradeoffs = torch.tensor([tradeoff], device=image.device)
    result = autoencoder(image, lambdas.at(model, tradeoffs), partial(priors.lengths, tradeoffs=tradeoffs), tradeoffs)
    by_level, stages = [], []
    for i, (prior, maps) in enumerate(zip(priors.levels(), result.indices, strict=True)):
        nats = prior(maps, result.indices[:i], tradeoffs=tradeoffs)
        by_level.append(float(nats.sum()) / math.log(2) / (image.shape[2] * image.shape[3]))
        live = live_stages(maps.flatten(2), prior.level)
        stages.append(float(live.float().sum(1).mean()))
    return Estimate(result.image.float(), sum(by_level), by_level, stages)
