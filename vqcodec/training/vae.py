# SPDX-License-Identifier: Apache-2.0
"""Training of the VAE: the negative ELBO, with the KL term growing to its full weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqcodec.config import VAEConfig
from vqcodec.images.types import Pixels
from vqcodec.training.crops import CropTask
from vqcodec.training.data import grid, to_device
from vqcodec.training.loop import Report
from vqcodec.training.schedule import Clock, TrainConfig
from vqcodec.vae.model import VAEFigures, figures, mean_figures
from vqcodec.vae.network import VAE

SHOWN = 8  # reconstructions and samples in a grid


@dataclass(frozen=True)
class VAETraining:
    """kl_warmup: share of the run over which the weight of the KL term grows from kl_start to 1."""

    kl_warmup: float = 0.1
    kl_start: float = 0.1


@torch.inference_mode()
def validate(model: VAE, images: Sequence[Pixels], device: str) -> VAEFigures:
    """Compute means over images, each cropped to multiples of the stride. Leaves the model in evaluation mode.

    Args:
        model: the VAE.
        images: uint8 [H, W, 3] each.
        device: where the model is.
    """
    model.eval()
    return mean_figures([figures(model, to_device(array, model.config.stride, device)) for array in images])


class VAETask(CropTask):
    """Loss: (-E_q[log P(x|z)] + beta * KL) / dims in nats per dimension, beta from kl_start to 1."""

    name = "vae"
    module: VAE
    model: VAEConfig

    def __init__(
        self,
        model_config: VAEConfig,
        config: TrainConfig,
        special: VAETraining,
        train: Sequence[Pixels],
        val: Sequence[Pixels],
    ) -> None:
        """train, val: uint8 [H, W, 3] each; the same on all ranks. Crops have the side of the model's tile."""
        torch.manual_seed(config.seed)
        self.model, self.special = model_config, special
        super().__init__(VAE(model_config), config, train, val, model_config.tile_size)
        self.beta = special.kl_start

    def before(self, step: int, clock: Clock, config: TrainConfig) -> bool:
        """Set the weight of the KL term.

        Args:
            step: number of the step, from 0.
            clock: of the run.
            config: of the run.

        Returns: False: no weights change.
        """
        ramp = min(1.0, clock.progress / max(self.special.kl_warmup, 1e-9))
        self.beta = self.special.kl_start + (1 - self.special.kl_start) * ramp
        return False

    def batch(self, config: TrainConfig) -> Tensor:
        return self.crops(config)

    def loss(self, network: nn.Module, batch: Tensor, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch: see `Task.loss`.

        Args:
            network: `module`, or what wraps it.
            batch: float [N, 3, H, W] in 0..1.
            config: of the run.
        """
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            bound = network(batch)
        dims = batch[0].numel()
        loss = (self.beta * bound.kl - bound.reconstruction).mean() / dims
        bits = dims * math.log(2)
        reconstruction, kl = -bound.reconstruction.detach().mean() / bits, bound.kl.detach().mean() / bits
        scalars = {"reconstruction": reconstruction, "kl": kl, "elbo": reconstruction + kl}
        named = {f"train/{k}_bits_per_dim": v for k, v in scalars.items()}
        return loss, named | {"train/kl_weight": torch.tensor(self.beta, device=batch.device)}

    def validate(self, config: TrainConfig, images: bool) -> Report:
        """Measure the bound in bits per dim, and PSNR.

        Args:
            config: of the run.
            images: whether grids are wanted.
        """
        measured = validate(self.module, self.val, config.device)
        bits = {k: getattr(measured, k) for k in ("elbo", "reconstruction", "kl")}
        values = {f"val/{k}_bits_per_dim": v for k, v in bits.items()} | {"val/psnr": measured.psnr}
        return Report(values, measured.elbo, self._grids(config) if images else {})

    def _grids(self, config: TrainConfig) -> dict[str, Tensor]:
        side = self.model.tile_size
        crops = torch.cat([to_device(image[:side, :side], side, config.device) for image in self.val[:SHOWN]])
        decoded = self.module.decode(self.module.encode(crops).mean).mean / 255
        cells = side // self.model.stride
        z = torch.randn(SHOWN, self.model.latents, cells, cells, device=config.device)
        drawn = self.module.decode(z).mean / 255
        return {"val/reconstruction": grid(torch.cat([crops, decoded]), len(crops)), "samples": grid(drawn, SHOWN)}
