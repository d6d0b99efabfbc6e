# SPDX-License-Identifier: Apache-2.0
"""Training of the priors on the index maps of a frozen autoencoder, with simulated integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vqcodec.codec import Codec
from vqcodec.config import ModelConfig
from vqcodec.images.types import Pixels
from vqcodec.model import lambdas
from vqcodec.model.loading import pack_model
from vqcodec.nets import parallel
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.choice import CodeLengths
from vqcodec.prior.export import to_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.sampling import sample
from vqcodec.training.data import CropSampler, grid
from vqcodec.training.loop import Report, Task
from vqcodec.training.schedule import TrainConfig

MEASURED = 8  # tiles of the training and of the validation set, at each of TRADEOFFS, that every validation looks at
TRADEOFFS = (0.0, 0.5, 1.0)  # in the range of lambdas
DRAWN = 4  # tiles in a picture of samples


class Coded(NamedTuple):
    """Tiles.

    Args:
        maps: per level int64 [N, maps, side, side].
        tradeoffs: of the tiles, float [N].
    """

    maps: list[Tensor]
    tradeoffs: Tensor


class Tiles(Protocol):
    """Where the priors' batches come from."""

    generator: torch.Generator

    def batch(self, number: int) -> Coded:
        """Draw this rank's part of the next joint batch, of number / ranks tiles."""


@dataclass(frozen=True)
class Shares:
    """What of a model its priors are trained on.

    Args:
        levels: code and train so many levels, the coarsest, of which a batch may then have many more tiles; None:
            all.
        enlarged: share of the tiles that are smooth, see `CropSampler`.
        beam: partial choices that are kept while codes are chosen; encoders keep 8 by default.
        fresh: tiles that are coded for a batch, all of which it draws from those that were coded before, too; None: a
            batch has new ones only.
    """

    levels: int | None = None
    enlarged: float = 0.0
    beam: int = 1
    fresh: int | None = None


EVERYTHING = Shares()


class CodedTiles:
    """Tiles of photographs as the codec's encoder sees them: random crops through a frozen autoencoder, codes chosen by
    their cost under the priors as they are, at a lambda drawn from the model's range."""

    def __init__(
        self,
        config: ModelConfig,
        autoencoder: Autoencoder,
        priors: Priors,
        images: Sequence[Pixels],
        seed: int = 0,
        shares: Shares = EVERYTHING,
    ) -> None:
        """shares: what of the model and of the pictures is looked at."""
        self.config, self.autoencoder, self.priors = config, autoencoder.eval(), priors
        self.levels = shares.levels
        for quantizer in autoencoder.level_quantizers():
            quantizer.beam = shares.beam
        self.crops = CropSampler(images, config.tile_size, seed, shares.enlarged)
        self.generator = self.crops.generator
        self.device = next(autoencoder.parameters()).device

    def batch(self, number: int, tradeoff: float | None = None) -> Coded:
        """Code a batch of crops.

        Args:
            number: of crops, over all ranks.
            tradeoff: of all of them, 0 to 1; None: each draws one.
        """
        image = self.crops.batch(number).to(self.device)
        tradeoffs = torch.rand(number, generator=self.generator)[parallel.rank_rows(number)].to(self.device)
        if tradeoff is not None:
            tradeoffs = torch.full_like(tradeoffs, tradeoff)
        training = self.priors.training
        self.priors.eval()
        with torch.no_grad():
            lmbdas = lambdas.at(self.config, tradeoffs)
            lengths = partial(self.priors.lengths, tradeoffs=tradeoffs) if self.config.lmbdas[1] else None
            maps = self.autoencoder.encode(image, lmbdas, lengths, tradeoffs, self.levels)
        self.priors.train(training)
        return Coded([m.contiguous() for m in maps], tradeoffs)


class Pool:
    """Tiles that are drawn from all that were coded so far: coding takes longer than training on what was coded.

    What is in it goes with the process: a run that goes on from a checkpoint fills it anew.
    """

    def __init__(self, tiles: Tiles, fresh: int, size: int = 8192) -> None:
        """fresh: tiles that are coded for a batch, by all ranks together. size: of the pool, on this rank; the oldest
        tiles leave it."""
        self.tiles, self.fresh, self.size = tiles, fresh, size
        self.generator = tiles.generator
        self._maps: list[list[Tensor]] = []  # int16, of every level, by tile
        self._tradeoffs: list[Tensor] = []

    def batch(self, number: int) -> Coded:
        """Code some tiles, and draw a batch from the pool.

        Args:
            number: of tiles, over all ranks.
        """
        rows = parallel.rank_rows(number)
        while True:
            coded = self.tiles.batch(self.fresh)
            self._maps += [list(maps) for maps in zip(*(level.short().cpu() for level in coded.maps), strict=True)]
            self._tradeoffs += coded.tradeoffs.cpu()
            if len(self._maps) >= rows.stop - rows.start:
                break
        del self._maps[: -self.size], self._tradeoffs[: -self.size]
        drawn = torch.randint(len(self._maps), (number,), generator=self.generator)[rows].tolist()
        maps = [torch.stack(level).long() for level in zip(*(self._maps[i] for i in drawn), strict=True)]
        return Coded(maps, torch.stack([self._tradeoffs[i] for i in drawn]))


def level_nats(priors: Priors, coded: Coded, exact: bool = True) -> list[list[float]]:
    """Compute mean nats per position by level and map, 0 counted where none is coded.

    Args:
        priors: of all levels.
        coded: a batch.
        exact: with the rounding of the integer network, or without.
    """
    maps = coded.maps
    coded_levels = priors.levels()[: len(maps)]
    by_level = [prior(maps[i], maps[:i], exact, coded.tradeoffs) for i, prior in enumerate(coded_levels)]
    return [nats.mean((0, 2, 3)).tolist() for nats in by_level]


@torch.inference_mode()
def validate(priors: Priors, coded: Coded, exact: bool = True) -> list[list[float]]:
    """Compute nats per position by level and map, in float32. Leaves the priors in evaluation mode.

    Args:
        priors: of all levels.
        coded: tiles to measure.
        exact: with the rounding of the integer network, or without.
    """
    priors.eval()
    split = [m.split(8) for m in coded.maps]
    batches = [Coded(list(maps), tradeoffs) for *maps, tradeoffs in zip(*split, coded.tradeoffs.split(8), strict=True)]
    parts = [level_nats(priors, batch, exact) for batch in batches]
    return [[sum(stage) / len(parts) for stage in zip(*level, strict=True)] for level in zip(*parts, strict=True)]


def bits_per_pixel(nats: list[list[float]], config: ModelConfig) -> float:
    """Add up bits per pixel, an estimate (no file is written).

    Args:
        nats: per position by level, the coarsest first, and map.
        config: of the model.
    """
    levels = config.autoencoder.levels[: len(nats)]
    return sum(sum(row) / math.log(2) / level.stride**2 for row, level in zip(nats, levels, strict=True))


class Priors(nn.ModuleList):
    """The priors of all levels of a model, coarsest first, trained side by side."""

    def __init__(self, config: ModelConfig) -> None:
        levels = config.autoencoder.levels
        pairs = enumerate(zip(config.priors, levels, strict=True))
        super().__init__(LevelPrior(prior, level, levels[:i]) for i, (prior, level) in pairs)

    def levels(self) -> list[LevelPrior]:
        """Return the prior of every level."""
        return [prior for prior in self if isinstance(prior, LevelPrior)]

    def lengths(self, coarse: Sequence[Tensor], maps: Tensor, tradeoffs: Tensor | None = None) -> CodeLengths:
        """Give a level's code lengths: see `Autoencoder.forward`.

        Args:
            coarse: maps of the coarser levels, int64 [N, maps, h, w] each.
            maps: of the level, int64 [N, maps, h, w].
            tradeoffs: float [N] in 0..1 (None: the lowest weight of a bit).
        """
        return self.levels()[len(coarse)].code_lengths(maps, coarse, tradeoffs)

    def forward(self, tiles: Sequence[Tensor], tradeoffs: Tensor | None = None) -> Tensor:
        """Mean nats per position by level, [levels].

        Args:
            tiles: per level int64 [N, maps, H, W], of all levels or the coarsest ones.
            tradeoffs: as of `LevelPrior`.
        """
        priors = enumerate(self.levels()[: len(tiles)])
        return torch.stack([prior(tiles[i], tiles[:i], tradeoffs=tradeoffs).sum(1).mean() for i, prior in priors])


def coded_tiles(
    config: ModelConfig,
    autoencoder: Autoencoder,
    priors: Priors,
    train: Sequence[Pixels],
    val: Sequence[Pixels],
    settings: TrainConfig,
    shares: Shares = EVERYTHING,
) -> tuple[CodedTiles | Pool, dict[str, Coded]]:
    """Make the tiles to train priors on, and those that `PriorTask` measures, fixed from here on.

    Args:
        config: of the model.
        autoencoder: frozen.
        priors: of its levels.
        train: uint8 [H, W, 3] each.
        val: uint8 [H, W, 3] each.
        settings: of the run.
        shares: what of the model and of the pictures is trained on; measured are the same levels of photographs.
    """
    tiles = CodedTiles(config, autoencoder, priors, train, settings.seed, shares)
    measured = {}
    for name, images in (("train", train), ("val", val)):
        fixed = CodedTiles(config, autoencoder, priors, images, 1, Shares(shares.levels, beam=shares.beam))
        parts = [fixed.batch(MEASURED, tradeoff) for tradeoff in (TRADEOFFS if config.lmbdas[1] else TRADEOFFS[:1])]
        maps = [torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True)]
        measured[name] = Coded(maps, torch.cat([part.tradeoffs for part in parts]))
    return tiles if shares.fresh is None else Pool(tiles, shares.fresh), measured


def _on(device: str, coded: Coded) -> Coded:
    return Coded([m.to(device) for m in coded.maps], coded.tradeoffs.to(device))


class PriorTask(Task):
    """Loss: nats per position, summed over levels. The best checkpoint is the one with the lowest validation rate."""

    name = "prior"
    find_unused = True
    module: Priors

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        priors: Priors,
        tiles: Tiles,
        measured: Mapping[str, Coded],
        autoencoder: Autoencoder | None = None,
    ) -> None:
        """measured: tiles of "train" and "val". autoencoder: to show samples."""
        self.model, self.autoencoder = model_config, autoencoder
        self.module = priors.to(config.device)
        self.tiles, self.generator = tiles, tiles.generator
        self.measured = {k: _on(config.device, v) for k, v in measured.items()}

    def model_config(self) -> dict[str, Any]:
        return self.model.to_dict()

    def batch(self, config: TrainConfig) -> Coded:
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            return _on(config.device, self.tiles.batch(config.batch))

    def loss(self, network: nn.Module, batch: Any, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch: see `Task.loss`.

        Args:
            network: `module`, or what wraps it.
            batch: from `batch`.
            config: of the run.
        """
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            nats = network(batch.maps, batch.tradeoffs)
        return nats.sum(), {"train/nats_per_position": nats}

    def validate(self, config: TrainConfig, images: bool) -> Report:
        """Measure the same tiles of both sets in evaluation mode: where they part, the priors over-fit.

        Args:
            config: of the run.
            images: not used.
        """
        values: dict[str, Any] = {}
        rate = {}
        for name, tiles in self.measured.items():
            nats = validate(self.module, tiles)
            rate[name] = bits_per_pixel(nats, self.model)
            key = "val" if name == "val" else "train/evaluated"
            values |= {
                f"{key}/nats_per_position": nats,
                f"{key}/bits_per_position": [[n / math.log(2) for n in row] for row in nats],
                f"{key}/bits_per_pixel": rate[name],
                f"{key}/bits_per_dim": rate[name] / 3,
            }
        return Report(values, rate["val"], {"samples": self._samples()} if images and self.autoencoder else {})

    def _samples(self) -> Tensor:
        """Tiles drawn from the exported integer priors, [3, H, W]."""
        assert self.autoencoder is not None
        codec = Codec(self.model, pack_model(self.autoencoder, [to_integers(p) for p in self.module.levels()]))
        side = self.model.tile_size
        drawn = [np.asarray(sample(codec, side, side, seed=i)) for i in range(DRAWN)]
        return grid(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255, DRAWN)
