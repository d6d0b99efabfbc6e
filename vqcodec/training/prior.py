# SPDX-License-Identifier: Apache-2.0
"""Training of the priors on the index maps of a frozen autoencoder, with simulated integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqcodec import parallel
from vqcodec.codec import Codec, pack_model
from vqcodec.config import ModelConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.prior.export import to_integers
from vqcodec.prior.network import LevelPrior, index_nll
from vqcodec.training.data import Pixels, grid, to_device
from vqcodec.training.loop import Report, Task
from vqcodec.training.schedule import TrainConfig

STAGES = 3  # of a level that each tile of a batch is asked for: more tiles for the same work
MEASURED = 16  # tiles of the training and of the validation set that every validation looks at
DRAWN = 4  # tiles in a picture of samples

Indices = list[np.ndarray]  # per level, int16 [S, H/stride, W/stride]


@torch.inference_mode()
def image_indices(model: Autoencoder, images: Sequence[Pixels], config: TrainConfig) -> list[Indices]:
    """Index maps of whole images (cropped to multiples of the coarsest stride), as the codec would see them.

    Every rank encodes its part of the images; all get the same list.
    """
    model.eval()
    found = []
    for array in images[parallel.rank() :: parallel.world()]:
        image = to_device(array, model.config.coarsest, config.device)
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            maps = model.encode(image)
        found.append([m[0].to(torch.int16).cpu().numpy() for m in maps])
    return _interleaved(found, len(images))


def _interleaved(own: list[Indices], number: int) -> list[Indices]:
    if parallel.world() == 1:
        return own
    parts: list[list[Indices]] = [[] for _ in range(parallel.world())]
    torch.distributed.all_gather_object(parts, own)
    return [parts[i % len(parts)][i // len(parts)] for i in range(number)]


class TileSampler:
    """Random tiles of index maps, aligned to the coarsest level. All ranks draw the same joint batch."""

    def __init__(self, indices: Sequence[Indices], config: ModelConfig, seed: int = 0) -> None:
        self.strides = [level.stride for level in config.autoencoder.levels]
        self.side = config.tile_size // self.strides[0]  # of a tile, in indices of the coarsest level
        self.indices = [maps for maps in indices if min(maps[0].shape[1:]) >= self.side]
        if not self.indices:
            raise ValueError(f"no image is at least {config.tile_size} pixels in both directions")
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self, number: int) -> list[Tensor]:
        """Per level int64 [number, S, side, side]."""
        tiles: list[list[np.ndarray]] = [[] for _ in self.strides]
        for which, top, left in torch.rand(number, 3, generator=self.generator).tolist():
            maps = self.indices[int(which * len(self.indices))]
            y = int(top * (maps[0].shape[1] - self.side + 1))
            x = int(left * (maps[0].shape[2] - self.side + 1))
            for level, (array, stride) in enumerate(zip(maps, self.strides, strict=True)):
                r = self.strides[0] // stride
                tiles[level].append(array[:, y * r : (y + self.side) * r, x * r : (x + self.side) * r])
        return [torch.from_numpy(np.stack(t)).long() for t in tiles]

    def stages(self, number: int, codebooks: int) -> Tensor:
        """For each tile STAGES different stages of a level, at random: int64 [number, min(STAGES, codebooks)]."""
        draws = torch.rand(number, codebooks, generator=self.generator)
        return draws.argsort(1)[:, : min(STAGES, codebooks)]


def tile_nll(prior: LevelPrior, level: int, tiles: list[Tensor], stages: Tensor, exact: bool = True) -> Tensor:
    """Nats per index, [N, H, W], of the asked stage of every tile. tiles: per level [N, S, H_i, W_i]."""
    logits = prior(stages, tiles[level], tiles[:level], exact)
    target = tiles[level][torch.arange(len(stages), device=stages.device), stages]
    return index_nll(logits, target)


@torch.inference_mode()
def validate(priors: Priors, tiles: list[Tensor], exact: bool = True) -> list[list[float]]:
    """Nats per index by level and stage, in float32 with the rounding of the integer network (exact) or without.
    Leaves the priors in evaluation mode."""
    priors.eval()
    found = []
    for level, prior in enumerate(priors.levels()):
        row = []
        for stage in range(prior.level.codebooks):
            total = 0.0
            for parts in zip(*(t.split(8) for t in tiles), strict=True):
                stages = torch.full((len(parts[0]),), stage, device=tiles[0].device)
                total += float(tile_nll(prior, level, list(parts), stages, exact).mean((1, 2)).sum())
            row.append(total / len(tiles[0]))
        found.append(row)
    return found


def bits_per_pixel(nats: list[list[float]], config: ModelConfig) -> float:
    """From nats per index by level and stage: bits per pixel, an estimate (no file is written)."""
    return sum(
        sum(row) / math.log(2) / level.stride**2 for row, level in zip(nats, config.autoencoder.levels, strict=True)
    )


class Priors(nn.ModuleList):
    """The priors of all levels of a model, coarsest first, trained side by side."""

    def __init__(self, config: ModelConfig) -> None:
        levels = config.autoencoder.levels
        pairs = enumerate(zip(config.priors, levels, strict=True))
        super().__init__(LevelPrior(prior, level, levels[:i]) for i, (prior, level) in pairs)

    def levels(self) -> list[LevelPrior]:
        """The prior of every level."""
        return [prior for prior in self if isinstance(prior, LevelPrior)]

    def forward(self, tiles: list[Tensor], stages: list[Tensor]) -> Tensor:
        """Mean nats per index by level, [levels]. tiles: per level int64 [N, S, H, W]; stages: per level int64 [N, k],
        the stages that each tile is asked for."""
        means = []
        for level, (prior, asked) in enumerate(zip(self.levels(), stages, strict=True)):
            repeated = [t.repeat_interleave(asked.shape[1], 0) for t in tiles[: level + 1]]
            means.append(tile_nll(prior, level, repeated, asked.flatten()).mean())
        return torch.stack(means)


class PriorTask(Task):
    """Loss: nats per index, summed over levels. The best checkpoint is the one with the lowest validation rate."""

    name = "prior"
    sparse = True  # a batch need not ask for every stage
    module: Priors

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        train: Sequence[Indices],
        val: Sequence[Indices],
        autoencoder: Autoencoder | None = None,
        rate_scale: float = 1.0,
    ) -> None:
        """train, val: from `image_indices`, the same on all ranks. autoencoder: to show samples. rate_scale is only
        recorded: how the indices were made."""
        torch.manual_seed(config.seed)
        self.model, self.rate_scale, self.autoencoder = model_config, rate_scale, autoencoder
        self.module = Priors(model_config).to(config.device)
        self.sampler = TileSampler(train, model_config, config.seed)
        self.generator = self.sampler.generator
        samplers = {"train": TileSampler(train, model_config, 1), "val": TileSampler(val, model_config, 1)}
        self.measured = {k: [t.to(config.device) for t in s.batch(MEASURED)] for k, s in samplers.items()}

    def model_config(self) -> dict[str, Any]:
        return self.model.to_dict()

    def extra(self) -> dict[str, Any]:
        return {"rate_scale": self.rate_scale}

    def batch(self, config: TrainConfig) -> tuple[list[Tensor], list[Tensor]]:
        own = parallel.share(config.batch)
        tiles = [t[own].to(config.device) for t in self.sampler.batch(config.batch)]
        levels = self.model.autoencoder.levels
        return tiles, [self.sampler.stages(config.batch, v.codebooks)[own].to(config.device) for v in levels]

    def loss(self, network: nn.Module, batch: Any, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            nats = network(*batch)
        return nats.sum(), {"train/nats_per_index": nats}

    def validate(self, config: TrainConfig, images: bool) -> Report:
        """The same tiles of both sets in evaluation mode: where they part, the priors over-fit."""
        values: dict[str, Any] = {}
        rate = {}
        for name, tiles in self.measured.items():
            nats = validate(self.module, tiles)
            rate[name] = bits_per_pixel(nats, self.model)
            key = "val" if name == "val" else "train/evaluated"
            values |= {
                f"{key}/nats_per_index": nats,
                f"{key}/bits_per_index": [[n / math.log(2) for n in row] for row in nats],
                f"{key}/bits_per_pixel": rate[name],
                f"{key}/bits_per_dim": rate[name] / 3,
            }
        return Report(values, rate["val"], {"samples": self._samples()} if images and self.autoencoder else {})

    def _samples(self) -> Tensor:
        """Tiles drawn from the exported integer priors, [3, H, W]."""
        assert self.autoencoder is not None
        codec = Codec(self.model, pack_model(self.autoencoder, [to_integers(p) for p in self.module.levels()]))
        side = self.model.tile_size
        drawn = [np.asarray(codec.sample(side, side, seed=i)) for i in range(DRAWN)]
        return grid(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255, DRAWN)
