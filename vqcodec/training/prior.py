# SPDX-License-Identifier: Apache-2.0
"""Training of the priors on the index maps of a frozen autoencoder, with simulated integer arithmetic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.prior.network import LevelPrior, index_nll
from vqcodec.training import checkpoint
from vqcodec.training.data import Pixels
from vqcodec.training.schedule import Clock, Log, TrainConfig

STAGES = 3  # of a level that each tile of a batch is asked for: more tiles for the same work

Indices = list[np.ndarray]  # per level, int16 [S, H/stride, W/stride]


@torch.inference_mode()
def image_indices(model: Autoencoder, images: Sequence[Pixels], config: TrainConfig) -> list[Indices]:
    """Index maps of whole images (cropped to multiples of the coarsest stride), as the codec would see them."""
    model.eval()
    multiple = model.config.coarsest
    found = []
    for array in images:
        h, w = (n - n % multiple for n in array.shape[:2])
        image = torch.from_numpy(array[:h, :w].copy()).permute(2, 0, 1)[None].to(config.device).float() / 255
        with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
            maps = model.encode(image.to(memory_format=torch.channels_last))
        found.append([m[0].to(torch.int16).cpu().numpy() for m in maps])
    return found


class TileSampler:
    """Random tiles of index maps, aligned to the coarsest level."""

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


def tile_nll(prior: LevelPrior, level: int, tiles: list[Tensor], stages: Tensor, exact: bool = True) -> Tensor:
    """Nats per index, [N, H, W], of the asked stage of every tile. tiles: per level [N, S, H_i, W_i]."""
    logits = prior(stages, tiles[level], tiles[:level], exact)
    target = tiles[level][torch.arange(len(stages), device=stages.device), stages]
    return index_nll(logits, target)


@torch.inference_mode()
def validate(priors: nn.ModuleList, tiles: list[Tensor], exact: bool = True) -> list[list[float]]:
    """Nats per index by level and stage, in float32 with the rounding of the integer network (exact) or without."""
    priors.eval()
    found = []
    for level, prior in enumerate(priors):
        assert isinstance(prior, LevelPrior)
        row = []
        for stage in range(prior.level.codebooks):
            total = 0.0
            for parts in zip(*(t.split(8) for t in tiles), strict=True):
                stages = torch.full((len(parts[0]),), stage, device=tiles[0].device)
                total += float(tile_nll(prior, level, list(parts), stages, exact).mean((1, 2)).sum())
            row.append(total / len(tiles[0]))
        found.append(row)
    priors.train()
    return found


def bits_per_pixel(nats: list[list[float]], config: ModelConfig) -> float:
    """From nats per index by level and stage: bits per pixel, an estimate (no file is written)."""
    return sum(
        sum(row) / math.log(2) / level.stride**2 for row, level in zip(nats, config.autoencoder.levels, strict=True)
    )


def train_priors(
    model_config: ModelConfig,
    config: TrainConfig,
    train: Sequence[Indices],
    val: Sequence[Indices],
    out: Path,
    rate_scale: float = 1.0,
) -> nn.ModuleList:
    """Train all levels' priors side by side, or go on from `out/priors.ckpt.safetensors`.

    Each step draws config.batch tiles. The checkpoint with the best validation rate stays as
    `priors.best.safetensors`. rate_scale is only recorded: how the indices were made. Raises FloatingPointError when
    the loss is not finite.
    """
    torch.manual_seed(config.seed)
    levels = model_config.autoencoder.levels
    priors = nn.ModuleList(
        LevelPrior(prior, level, levels[:i])
        for i, (prior, level) in enumerate(zip(model_config.priors, levels, strict=True))
    ).to(config.device)
    optimizer = torch.optim.AdamW(
        priors.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    sampler = TileSampler(train, model_config, config.seed)
    val_tiles = [t.to(config.device) for t in TileSampler(val, model_config, 1).batch(16)]
    generators = {"sampler": sampler.generator}
    path = out / "priors.ckpt.safetensors"
    step, elapsed, best = 0, 0.0, math.inf
    if path.exists():
        meta = checkpoint.load(path, priors, optimizer, generators)
        step, elapsed, best = meta["step"], meta["elapsed"], meta["best"]
    clock, log = Clock(config, elapsed), Log(out / "log.jsonl")

    def save(name: str) -> None:
        meta = {"step": step, "elapsed": clock.elapsed, "best": best, "model": model_config.to_dict()}
        meta |= {"train": dataclasses.asdict(config), "rate_scale": rate_scale}
        checkpoint.save(out / name, priors, optimizer, generators, meta)

    priors.train()
    with clock:
        while clock.running(step):
            for group in optimizer.param_groups:
                group["lr"] = clock.learning_rate(step)
            tiles = [t.to(config.device) for t in sampler.batch(config.batch)]
            nats = training_step(priors, optimizer, tiles, config)
            step += 1
            if step % config.log_every == 0:
                log.write(step=step, minutes=clock.elapsed / 60, nats=nats, lr=optimizer.param_groups[0]["lr"])
            if step % config.validate_every == 0 or not clock.running(step):
                by_stage = validate(priors, val_tiles)
                rate = bits_per_pixel(by_stage, model_config)
                log.write(step=step, val_nats=by_stage, val_bpp=rate)
                if rate < best:
                    best = rate
                    save("priors.best.safetensors")
                save("priors.ckpt.safetensors")
    return priors


def training_step(
    priors: nn.ModuleList, optimizer: torch.optim.Optimizer, tiles: list[Tensor], config: TrainConfig
) -> list[float]:
    """One update of every level's prior on tiles [N, S, H, W] per level; each tile is asked for STAGES of its stages,
    drawn at random. Returns nats per index by level."""
    optimizer.zero_grad(set_to_none=True)
    means = []
    for level, prior in enumerate(priors):
        assert isinstance(prior, LevelPrior)
        number = min(STAGES, prior.level.codebooks)
        draws = torch.rand(len(tiles[0]), prior.level.codebooks)
        stages = draws.argsort(1)[:, :number].flatten().to(config.device)
        repeated = [t.repeat_interleave(number, 0) for t in tiles[: level + 1]]
        with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
            loss = tile_nll(prior, level, repeated, stages).mean()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss of level {level} is {loss.item()}; the last checkpoint is kept")
        loss.backward()
        nn.utils.clip_grad_norm_(prior.parameters(), config.clip)
        means.append(loss.item())
    optimizer.step()
    return means
