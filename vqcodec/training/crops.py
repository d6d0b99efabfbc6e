# SPDX-License-Identifier: Apache-2.0
"""What the tasks that train on crops of photographs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig, VAEConfig
from vqcodec.images.types import Pixels
from vqcodec.training.data import CropSampler
from vqcodec.training.loop import Task
from vqcodec.training.schedule import TrainConfig


class CropTask(Task):
    """A task whose batches are crops.

    Args:
        model: its configuration.
        special: a frozen dataclass of what it alone needs.
    """

    model: ModelConfig | VAEConfig
    special: Any

    def __init__(
        self, module: nn.Module, config: TrainConfig, train: Sequence[Pixels], val: Sequence[Pixels], side: int
    ) -> None:
        """train, val: uint8 [H, W, 3] each, the same on all ranks; side: of the crops, in pixels."""
        self.module, self.val = module.to(config.device), val
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sampler = CropSampler(train, side, config.seed)
        self.generator = self.sampler.generator

    def model_config(self) -> dict[str, Any]:
        return self.model.to_dict()

    def extra(self) -> dict[str, Any]:
        return {"special": asdict(self.special)}

    def crops(self, config: TrainConfig) -> Tensor:
        """Draw this rank's crops of the next joint batch, float [N, 3, side, side] in 0..1."""
        image = self.sampler.batch(config.batch)
        return image.to(config.device, memory_format=torch.channels_last, non_blocking=True)
