# SPDX-License-Identifier: Apache-2.0
"""Training of VQ-VAE and VQ-VAE-2: mean square error, commitment, EMA codebooks, entropy-constrained assignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.quality import psnr
from vqcodec.training.crops import CropTask
from vqcodec.training.data import CropSampler, Pixels, grid, to_device
from vqcodec.training.loop import Report
from vqcodec.training.schedule import Clock, TrainConfig

PIXEL_VARIANCE = 0.07  # of photographs in 0..1: the distortion is measured in units of it
RATE_START, RATE_FULL = 0.25, 0.6  # progress at which the rate weight begins to grow, and is all there
SHOWN = 6  # validation images in a grid


@dataclass(frozen=True)
class AutoencoderTraining:
    """rate: per level, the weight of a bit in the choice of codes, in units of the level's mean residual energy.
    It grows from nothing between RATE_START and RATE_FULL, when every codebook has learned something worth its bits.
    commitment: beta of van den Oord et al. 2017. Theirs is 0.25 on a latent that can shrink; ours has unit variance.
    With several residual codebooks, detail that a stage can only partly capture would cost more commitment than it
    gains in distortion, and would be given up: 0.05 is better there. unquantized_steps: warm-up before the k-means
    init, from this many batches."""

    rate: tuple[float, ...]
    commitment: float = 0.25
    unquantized_steps: int = 150
    kmeans_batches: int = 24


@dataclass(frozen=True)
class Validation:
    """psnr: dB, mean over images. order0: entropy of each codebook's indices, by level, in bits per index; order0_bpp:
    the same in bits per pixel (estimates, no file). usage: share of codes used, by level and codebook; perplexity
    likewise."""

    psnr: float
    order0_bpp: float
    order0: list[list[float]]
    usage: list[list[float]]
    perplexity: list[list[float]]

    def values(self) -> dict[str, Any]:
        """For the log. Bits per dim are bits per pixel over the three channels."""
        nats = [[bits * math.log(2) for bits in row] for row in self.order0]
        return {
            "val/psnr": self.psnr,
            "val/order0_bits_per_pixel": self.order0_bpp,
            "val/order0_bits_per_dim": self.order0_bpp / 3,
            "val/order0_bits_per_index": self.order0,
            "val/order0_nats_per_index": nats,
            "val/usage": self.usage,
            "val/perplexity": self.perplexity,
        }


@torch.inference_mode()
def validate(model: Autoencoder, images: Sequence[Pixels], device: str) -> Validation:
    """Reconstruct whole images, cropped to multiples of the coarsest stride, and count the codes. Leaves the model in
    evaluation mode."""
    model.eval()
    counts = [torch.zeros(level.codebooks, level.codes, dtype=torch.int64) for level in model.config.levels]
    psnrs, pixels = [], 0
    for array in images:
        image = to_device(array, model.config.coarsest, device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            result = model(image)
        psnrs.append(psnr(result.image.float() * 255, image * 255))
        pixels += image.shape[2] * image.shape[3]
        for count, maps in zip(counts, result.indices, strict=True):
            for stage, index in enumerate(maps[0].cpu()):
                count[stage] += torch.bincount(index.flatten(), minlength=count.shape[1])
    order0, usage, bits = [], [], 0.0
    for count in counts:
        share = count / count.sum(1, keepdim=True)
        entropy = -(share * share.clamp(min=1e-12).log2()).sum(1)
        bits += float((entropy * count.sum(1)).sum())
        order0.append(entropy.tolist())
        usage.append((count > 0).float().mean(1).tolist())
    perplexity = [[2**e for e in row] for row in order0]
    return Validation(sum(psnrs) / len(psnrs), bits / pixels, order0, usage, perplexity)


class AutoencoderTask(CropTask):
    """Loss: MSE / PIXEL_VARIANCE + commitment * sum over levels of mean (z - sg(q))^2, z of unit variance."""

    name = "autoencoder"
    module: Autoencoder
    model: ModelConfig

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        special: AutoencoderTraining,
        train: Sequence[Pixels],
        val: Sequence[Pixels],
    ) -> None:
        """train, val: uint8 [H, W, 3] each; the same on all ranks."""
        torch.manual_seed(config.seed)
        self.model, self.special = model_config, special
        super().__init__(Autoencoder(model_config.autoencoder), config, train, val, config.crop)

    def loss(self, network: nn.Module, batch: Tensor, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            result = network(batch)
        distortion = (result.image.float() - batch).square().mean()
        commitments = torch.stack(result.commitments)
        loss = distortion / PIXEL_VARIANCE + self.special.commitment * commitments.sum()
        return loss, {"train/psnr": -10 * distortion.detach().log10(), "train/residual": commitments}

    def before(self, step: int, clock: Clock, config: TrainConfig) -> bool:
        """Turn the quantisers on after the warm-up, codebooks from k-means."""
        due = step == self.special.unquantized_steps
        for quantizer in self.module.level_quantizers():
            quantizer.enabled = step > self.special.unquantized_steps
        if due:
            initialize_codebooks(self.module, self.sampler, config, self.special.kmeans_batches)
        return due

    def after(self, step: int, clock: Clock, scalars: dict[str, Tensor]) -> None:
        """Let lambda follow rate * mean residual energy per vector (a moving average, so that it is steady)."""
        if step <= self.special.unquantized_steps:
            return
        ramp = min(1.0, max(0.0, (clock.progress - RATE_START) / (RATE_FULL - RATE_START)))
        pairs = zip(self.module.level_quantizers(), self.special.rate, strict=True)
        for (quantizer, weight), residual in zip(pairs, scalars["train/residual"], strict=True):
            quantizer.rate_weight.lerp_(weight * ramp * residual * quantizer.level.dim, 0.02)

    def validate(self, config: TrainConfig, images: bool) -> Report:
        found = validate(self.module, self.val, config.device).values()
        return Report(found, images={"val/reconstruction": self._pairs(config)} if images else {})

    def _pairs(self, config: TrainConfig) -> Tensor:
        """Originals above their reconstructions, [3, H, W]."""
        side = min(256, *(min(image.shape[:2]) for image in self.val[:SHOWN]))
        multiple = self.model.autoencoder.coarsest
        crops = torch.cat([to_device(i[:side, :side], multiple, config.device) for i in self.val[:SHOWN]])
        return grid(torch.cat([crops, self.module(crops).image.float()]), len(crops))


@torch.no_grad()
def initialize_codebooks(model: Autoencoder, sampler: CropSampler, config: TrainConfig, batches: int) -> None:
    """k-means of every level's encoder outputs, coarsest first: finer levels see the quantised coarser ones."""
    for i, quantizer in enumerate(model.level_quantizers()):
        vectors = []
        for _ in range(batches):
            with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
                z = model.latents(sampler.batch(config.batch).to(config.device), i)
            vectors.append(z.float().reshape(-1, z.shape[-1]))
        quantizer.initialize(torch.cat(vectors))
        quantizer.enabled = True
