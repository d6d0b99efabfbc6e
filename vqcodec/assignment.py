# SPDX-License-Identifier: Apache-2.0
"""The choice of codes: distortion + lambda * bits under the integer prior. Decoders know nothing of it.

A code's cost depends on its neighbours', which are not yet chosen: sweeps over the maps take those of the sweep before,
the first one those that are best by order-0 code lengths (an iterated conditional choice, as Chou, Lookabaugh and Gray
1989 for one table). Only the finest level is chosen so: it has nearly all of the bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from vqcodec.codelengths import code_lengths
from vqcodec.exact.condition import Condition
from vqcodec.nets.choice import CodeLengths, OrderZero
from vqcodec.nets.quality import C2
from vqcodec.quality import Effort

if TYPE_CHECKING:
    from vqcodec.codec import Codec

STEP = 0.03  # of the gradient descent, in units of a latent's standard deviation
REFINED_PIXELS = 1 << 20  # images above this are not refined by gradients: it takes the whole image at once
SEARCH_STEPS = 14
PRECISION = 0.99  # of the target size: the search stops between this and 1


@dataclass(frozen=True, eq=False)
class Analysis:
    """An image as the encoder sees it. coarse: index maps [S, h, w] of all levels but the finest; latents: float
    [D, h, w], what the finest level's codes shall stand for; image: float [1, 3, H, W] in 0..1, padded."""

    coarse: list[Tensor]
    latents: Tensor
    image: Tensor
    width: int
    height: int


class Chooser:
    """Chooses the index maps of one image, at any rate weight."""

    def __init__(self, codec: Codec, analysis: Analysis, effort: Effort, power: float = 0.0) -> None:
        """power: of `emphasis`."""
        self._codec, self._analysis, self._effort = codec, analysis, effort
        self._level = len(codec.priors) - 1
        self._prior = codec.priors[self._level]
        self._quantizer = codec.autoencoder.level_quantizers()[self._level]
        stride = codec.config.autoencoder.levels[self._level].stride
        self._emphasis = emphasis(analysis.image, stride, power)  # [h, w]
        size = (analysis.width, analysis.height)
        tilings = [codec.tiling(level, *size) for level in range(self._level + 1)]
        self._tiling, self._groups = tilings[-1], codec.groups(*size)
        valid = self._tiling.valid()
        self._valid = None if valid is None else valid.to(codec.device)
        coarse = zip(tilings, analysis.coarse, strict=False)
        self._coarse = [tiling.split(maps).to(codec.device) for tiling, maps in coarse]
        self._rates = self._tiling.split(self._emphasis[None])[:, 0]  # of tiles, to be multiplied by the rate weight
        self._conditions: tuple[slice, Condition] | None = None

    @torch.inference_mode()
    def maps(self, rate: float) -> list[Tensor]:
        """Index maps as of `Codec`, coarsest level first. rate: weight of a bit."""
        latents, effort = self._analysis.latents, self._effort
        if effort.nearest or not rate:
            return [*self._analysis.coarse, self._nearest(rate)]
        own = self._choose(latents, rate, None)
        if effort.steps and self._analysis.width * self._analysis.height <= REFINED_PIXELS:
            latents, own = self._refined(rate, own)
        for _ in range(effort.context):
            own = self._choose(latents, rate, own, effort.beam)
        return [*self._analysis.coarse, own]

    def _nearest(self, rate: float) -> Tensor:
        """Nearest codes, as long as they are worth a raw index: every code costs log2 K bits, none the most frequent
        of every later codebook, which adds next to nothing."""
        level = self._prior.level
        table = torch.full((level.codebooks, level.codes), math.log2(level.codes), device=self._codec.device)
        table[1:].scatter_(1, self._quantizer.bits[1:].argmin(1, keepdim=True), 0.0)
        z = self._analysis.latents.permute(1, 2, 0)[None]
        return self._quantizer.choose(z, rate * self._emphasis[None], OrderZero(table))[0][0].cpu()

    def _choose(self, latents: Tensor, rate: float, own: Tensor | None, beam: int = 1) -> Tensor:
        """One sweep. own: maps [S, h, w] of the sweep before, None: by order-0 code lengths."""
        tiles = self._tiling.split(latents).permute(0, 2, 3, 1)
        before = None if own is None else self._tiling.split(own)
        found = []
        for part in self._groups:
            lengths: Sequence[CodeLengths | None] = [None] * (part.stop - part.start)
            if before is not None:
                inside = None if self._valid is None else self._valid[part]
                maps = before[part].to(self._codec.device)
                lengths = code_lengths(self._prior, maps, self._condition(part, inside), inside)
            for tile, cost in enumerate(lengths, part.start):  # one at a time: its candidates stay in the cache
                found.append(self._tile(tiles[tile], rate * self._rates[tile], cost, tile, beam))
        return self._tiling.join(torch.stack(found))

    def _tile(self, z: Tensor, rates: Tensor, cost: CodeLengths | None, tile: int, beam: int) -> Tensor:
        """Maps [S, h, w] of one tile, 0 outside the image. z: float [h, w, D]; rates: float [h, w]."""
        inside = torch.ones_like(rates, dtype=torch.bool) if self._valid is None else self._valid[tile]
        chosen, _ = self._quantizer.choose(z[inside][None, None], rates[inside][None, None], cost, beam=beam)
        maps = chosen.new_zeros(chosen.shape[1], *inside.shape)
        maps[:, inside] = chosen[0, :, 0]
        return maps.cpu()

    def _condition(self, part: slice, inside: Tensor | None) -> Condition:
        """What the coarser levels tell the prior of a group of tiles; kept for the next sweep unless there are more."""
        if self._conditions is None or self._conditions[0] != part:
            known = [maps[part] for maps in self._coarse]
            shape = (part.stop - part.start, *self._tiling.tile_shape)
            self._conditions = part, self._prior.condition(known, shape, inside)
        return self._conditions[1]

    def _refined(self, rate: float, own: Tensor) -> tuple[Tensor, Tensor]:
        """Move the latents against the decoder's error, straight through the choice of codes (Adam). Returns them and
        the maps [S, h, w] chosen last."""
        analysis, codec = self._analysis, self._codec
        state = codec.autoencoder.state([maps[None].to(codec.device) for maps in analysis.coarse])
        with torch.inference_mode(False), torch.enable_grad():
            z = analysis.latents.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([z], lr=STEP)
            target = analysis.image.clone()
            fixed = None if state is None else state.clone()
            for _ in range(self._effort.steps):
                with torch.no_grad():
                    own = self._choose(z.detach(), rate, own)
                    chosen = self._quantizer.lookup(own[None].to(codec.device)).permute(0, 3, 1, 2)
                quantized = z[None] + (chosen.clone() - z[None]).detach()
                error = (codec.autoencoder.finish(quantized, fixed) - target).square().sum()
                (z.grad,) = torch.autograd.grad(error, [z])
                optimizer.step()
        return z.detach(), own


def emphasis(image: Tensor, stride: int, power: float) -> Tensor:
    """What a rate weight is multiplied by at every position of a level, float [H / stride, W / stride]: more where
    there is much contrast to hide errors in, less in smooth places, 1 in the geometric mean.

    image: float [1, 3, H, W] in 0..1. The contrast is the variance of grey values over 3x3 positions plus SSIM's
    constant C2, to this power; 0: 1 everywhere.
    """
    grey = image.mean(1, keepdim=True)
    moments = F.avg_pool2d(torch.cat([grey, grey.square()], 1), stride)
    mean, square = F.avg_pool2d(moments, 3, 1, 1, count_include_pad=False)[0]
    contrast = ((square - mean.square()).clamp(min=0) + C2).log()
    return (power * (contrast - contrast.mean())).exp()


def search(size: Callable[[float], int], target: float, rates: tuple[float, float]) -> float:
    """The rate weight at which a file has at most `target` bytes, and as near to it as PRECISION or SEARCH_STEPS allow.

    size: bytes at a rate weight, falling; a weight that fits is lower than all that fitted before. Returns the lowest
    weight of the range searched if the file is smaller still, and infinity if it is larger even at the highest.
    """
    low, high = rates[0] / 64, rates[1] * 16
    best = math.inf
    bounds: dict[str, tuple[float, int]] = {}
    rate = math.sqrt(rates[0] * rates[1])
    for _ in range(SEARCH_STEPS):
        found = size(rate)
        if found <= target:
            best = min(best, rate)
            if found >= PRECISION * target or rate <= low:
                break
            bounds["fits"] = (rate, found)
        elif rate >= high:
            break
        else:
            bounds["over"] = (rate, found)
        rate = min(high, max(low, _next(bounds, target)))
    return best


def _next(bounds: dict[str, tuple[float, int]], target: float) -> float:
    """Log-linear interpolation between both sides of the target, aimed a little below it; a bold step until both are
    known."""
    if len(bounds) < 2:
        ((name, (rate, found)),) = bounds.items()
        return rate * (found / target) ** 1.6 * (1.25 if name == "over" else 0.8)
    (r1, s1), (r2, s2) = bounds["fits"], bounds["over"]
    aim = 0.995 * target
    share = math.log(aim / s1) / math.log(s2 / s1) if s2 > s1 else 0.5
    share = min(0.9, max(0.1, share))
    return r1 * (r2 / r1) ** share
