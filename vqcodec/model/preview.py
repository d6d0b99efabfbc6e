# SPDX-License-Identifier: Apache-2.0
"""Small pictures from the coarse levels alone.

The decoder network would need all its layers even if the finer levels say nothing. A linear map of the features of a
coarse level, fitted to what the network makes of pictures drawn from the model's own priors, comes within a decibel of
it and takes nearly no time. It is fitted when a model is exported and lies beside its weights (`model.readouts`); where
it does not, it is fitted when the model is first asked for a preview, in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vqcodec.config import PREVIEW_SCALES, AutoencoderConfig
from vqcodec.exact.engine import Batch, run
from vqcodec.images.types import Pixels
from vqcodec.model.lambdas import HIGHEST_TRADEOFF
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.model.precision import exactly

TRADEOFFS = (40, 90, 140, 190)  # of the pictures that are drawn, a tile each
RIDGE = 1e-3  # of the mean energy of a feature
SEED = 0


def level_for(config: AutoencoderConfig, scale: int) -> int | None:
    """Choose the level whose features are looked at for a scale.

    It is the finest but one, or a coarser one that still gives two pixels a position.

    Args:
        config: of the autoencoder.
        scale: how many times smaller the preview is.

    Returns: None where the model has one level only.
    """
    coarse = [level.stride for level in config.levels[:-1]]
    return max((i for i, stride in enumerate(coarse) if stride >= 2 * scale or not i), default=None)


@exactly
def make(model: Model, maps: IndexMaps, scale: int, tradeoff: int = 0) -> Pixels:
    """Make the picture at 1 / scale of its size, uint8 [ceil(H / scale), ceil(W / scale), 3], of a model of several
    levels.

    Args:
        model: whose maps they are.
        maps: of an image; levels finer than that of `level_for` are not looked at.
        scale: one of `config.PREVIEW_SCALES`.
        tradeoff: 0 to 255.
    """
    level = level_for(model.config.autoencoder, scale)
    assert level is not None
    stride = model.config.autoencoder.levels[level].stride
    within = min(scale, stride)
    x = _features(model, [m[None].to(model.device) for m in maps.levels], level, tradeoff)
    weight = _readout(model, level, within, x.shape[1])
    image = F.pixel_shuffle(F.conv2d(x, weight[:, :-1, None, None], weight[:, -1]), stride // within)
    if scale > within:
        image = F.avg_pool2d(image, scale // within, ceil_mode=True, count_include_pad=False)
    pixels = (image[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte()
    return np.ascontiguousarray(pixels[: -(-maps.height // scale), : -(-maps.width // scale)].cpu().numpy())


def _features(model: Model, levels: Sequence[Tensor], level: int, tradeoff: int) -> Tensor:
    """What the decoder has at a level before it goes up to the next one, float [N, C, h, w]. levels: int64 [N, maps, h,
    w] each."""
    autoencoder = model.autoencoder
    tradeoffs = torch.full((1,), tradeoff / HIGHEST_TRADEOFF, device=model.device)
    state: Tensor | None = None
    for i, (quantizer, maps) in enumerate(zip(autoencoder.level_quantizers(), levels, strict=False)):
        codewords = quantizer.lookup(maps).permute(0, 3, 1, 2)
        if i == level:
            return autoencoder.joined(i, codewords, state, tradeoffs)
        state = autoencoder.descend(i, codewords, state, tradeoffs)
    raise AssertionError("the level is one of the model's")


def _readout(model: Model, level: int, scale: int, channels: int) -> Tensor:
    """The map from the features of a level to pixels at 1 / scale: float [3 * (stride / scale)^2, channels + 1]."""
    side = model.config.autoencoder.levels[level].stride // _finest(model, level)
    known = model.readouts.get(level)
    if known is None or known.shape != (3 * side * side, channels + 1):
        known = model.readouts[level] = fit(model, level)
    together = scale // _finest(model, level)  # least squares of a mean of pixels are the mean of their rows
    grouped = known.view(3, side // together, together, side // together, together, -1)
    return grouped.mean((2, 4)).flatten(0, 2).to(model.device)


def _finest(model: Model, level: int) -> int:
    """The finest scale that is made of a level, in pixels of the picture."""
    config = model.config.autoencoder
    return min(config.levels[level].stride, *(s for s in PREVIEW_SCALES if level_for(config, s) == level))


def fit_all(model: Model) -> dict[int, Tensor]:
    """Fit the maps of all levels that previews look at."""
    levels = (level_for(model.config.autoencoder, scale) for scale in PREVIEW_SCALES)
    return {level: fit(model, level) for level in sorted({level for level in levels if level is not None})}


@exactly
def fit(model: Model, level: int) -> Tensor:
    """Fit pixels to a level's features by least squares, at the finest scale that the level is looked at for.

    Args:
        model: to fit.
        level: number of the level, 0 for the coarsest.

    Returns: float [3 * (stride / scale)^2, C + 1].
    """
    scale = _finest(model, level)
    rows, targets = [], []
    for number, tradeoff in enumerate(TRADEOFFS):
        levels = _drawn(model, level, tradeoff, torch.Generator().manual_seed(SEED + number))
        rows.append(_features(model, levels, level, tradeoff))
        small = F.avg_pool2d(_decoded(model, levels, tradeoff), scale)
        targets.append(F.pixel_unshuffle(small, model.config.autoencoder.levels[level].stride // scale))
    x, y = (torch.cat(parts).permute(0, 2, 3, 1).flatten(0, 2).double() for parts in (rows, targets))
    x = F.pad(x, (0, 1), value=1.0)
    square = x.t() @ x
    square += RIDGE * square.diagonal().mean() * torch.eye(len(square), device=x.device, dtype=x.dtype)
    return torch.linalg.solve(square, x.t() @ y).t().float().contiguous()


def _drawn(model: Model, level: int, tradeoff: int, generator: torch.Generator) -> list[Tensor]:
    """The maps of a tile, drawn from the priors, of the levels up to this one."""

    def draw(frequencies: Tensor, batch: Batch) -> Tensor:
        return torch.multinomial(frequencies.cpu(), 1, generator=generator)[:, 0].to(frequencies.device)

    levels: list[Tensor] = []
    for prior in model.priors[: level + 1]:
        side = model.tile_size // prior.level.stride
        levels.append(run(prior, prior.condition(levels, (1, side, side), None, tradeoff), draw))
    return levels


def _decoded(model: Model, levels: Sequence[Tensor], tradeoff: int) -> Tensor:
    """What the whole network makes of the levels given, with nothing at all of the finer ones: float [1, 3, H, W]."""
    size = model.tile_size
    codewords = []
    for i, (quantizer, level) in enumerate(
        zip(model.autoencoder.level_quantizers(), model.config.autoencoder.levels, strict=True)
    ):
        side = size // level.stride
        nothing = torch.zeros(1, level.dim, side, side, device=model.device)
        codewords.append(quantizer.lookup(levels[i]).permute(0, 3, 1, 2) if i < len(levels) else nothing)
    return model.autoencoder.assemble(codewords, torch.full((1,), tradeoff / HIGHEST_TRADEOFF, device=model.device))
