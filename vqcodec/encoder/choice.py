# SPDX-License-Identifier: Apache-2.0
"""The choice of index maps: distortion + lambda * bits under the integer priors, level after level, coarsest first.

A code's cost depends on its neighbours', which are not yet chosen: sweeps over the maps take those of the sweep before,
the first one those that are best by order-0 code lengths (an iterated conditional choice, as Chou, Lookabaugh and Gray
1989 for one table). The latents of a level are computed from the coarser levels as they will be decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqcodec import timing
from vqcodec.encoder.emphasis import emphasis
from vqcodec.encoder.lengths import PriorLengths
from vqcodec.encoder.request import DEFAULT, EFFORTS, TUNES, Effort, Request
from vqcodec.exact.condition import Condition
from vqcodec.images.types import Pixels
from vqcodec.model import lambdas
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.nets import strips
from vqcodec.nets.choice import CodeLengths

ROUGH = Effort(0)
RANGE = 32  # of trade-offs, 0..255, whose features are alike enough for an estimate


def chooser(model: Model, pixels: Pixels, asked: Request = DEFAULT) -> Chooser:
    """Make what chooses the index maps of an image, which is padded by repeating its edge.

    Args:
        model: whose indices they will be.
        pixels: uint8 [H, W, 3].
        asked: for its effort and tune.
    """
    multiple = model.config.autoencoder.coarsest
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
    image = torch.from_numpy(padded).permute(2, 0, 1)[None]
    return Chooser(model, Original(image, width, height), EFFORTS[asked.effort], TUNES[asked.tune])


@dataclass(frozen=True, eq=False)
class Original:
    """image: uint8 [1, 3, H, W], padded to multiples of the coarsest stride. width, height: before that."""

    image: Tensor
    width: int
    height: int


class Chooser:
    """Chooses the index maps of one image, at any weight of a bit."""

    def __init__(self, model: Model, original: Original, effort: Effort, power: float = 0.0) -> None:
        """power: of `emphasis`."""
        self._model, self._original, self._effort, self._power = model, original, effort, power
        self._features: tuple[int, list[Tensor]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self._original.width, self._original.height

    @timing.timed("choice of codes")
    @torch.inference_mode()
    def maps(self, lmbda: float) -> IndexMaps:
        """Choose index maps at lmbda, the weight of a bit."""
        return IndexMaps(tuple(self._descended(lmbda, self._effort)), *self.size)

    @torch.inference_mode()
    def rough(self, lmbda: float) -> IndexMaps:
        """Choose index maps of the lowest effort: those of any effort have nearly the same size."""
        return IndexMaps(tuple(self._descended(lmbda, ROUGH, RANGE)), *self.size)

    def _descended(self, lmbda: float, effort: Effort, near: int = 0) -> list[Tensor]:
        """Maps level after level. near: as of `_analysed`."""
        model, autoencoder = self._model, self._model.autoencoder
        tradeoff = model.tradeoff(lmbda)
        features = list(self._analysed(tradeoff, near))
        fractions = torch.tensor(
            [lambdas.tradeoff(model.config, lmbda) / lambdas.HIGHEST_TRADEOFF], dtype=torch.float32
        )
        weights = (lmbda * lambdas.factors(model.config, fractions))[:, 0].tolist()
        state: Tensor | None = None
        maps: list[Tensor] = []
        for i, level in enumerate(autoencoder.config.levels):
            quantizer, finest = autoencoder.level_quantizers()[i], i + 1 == len(weights)
            z = strips.latent(autoencoder, i, features.pop(0), state)
            if level.stop or finest:
                choice = LevelChoice(model, self._original, effort, maps, tradeoff, weights[i], self._emphasis(i))
                state = state if not finest else None  # it is large
                level_maps = choice.maps(z[0])
            else:
                level_maps = quantizer.choose(z.permute(0, 2, 3, 1))[0].cpu()
            maps.append(level_maps)
            if not finest:
                quantized = quantizer.lookup(level_maps[None].to(model.device)).permute(0, 3, 1, 2)
                state = strips.descend(autoencoder, i, quantized, state, tradeoff / lambdas.HIGHEST_TRADEOFF)
        return maps

    def _analysed(self, tradeoff: int, near: int) -> list[Tensor]:
        """The features of all levels at a tradeoff. Those of the call before serve if their tradeoff is no farther than
        `near`, or if the model does not look at it; those of large images are not kept."""
        autoencoder = self._model.autoencoder
        key = tradeoff if autoencoder.config.gains else 0
        if self._features is not None and abs(self._features[0] - key) <= near:
            return self._features[1]
        self._features = None
        features = strips.features(autoencoder, self._original.image, tradeoff / lambdas.HIGHEST_TRADEOFF)
        if math.prod(self.size) <= strips.STRIP_PIXELS:
            self._features = key, features
        return features

    def _emphasis(self, i: int) -> Tensor | None:
        """What the weight of a bit is multiplied by at the positions of a level, float [h, w]; None: 1 everywhere."""
        if not self._power:
            return None
        stride = self._model.config.autoencoder.levels[i].stride
        return emphasis(self._original.image.to(self._model.device).float() / 255, stride, self._power)


class LevelChoice:
    """The choice of one level's maps at one weight of a bit."""

    def __init__(
        self,
        model: Model,
        original: Original,
        effort: Effort,
        coarse: list[Tensor],
        tradeoff: int,
        weight: float,
        emphasis: Tensor | None,
    ) -> None:
        """
        Args:
            model: for its priors and tiles.
            original: the image.
            effort: how hard to try.
            coarse: int64 [maps, h, w] per coarser level.
            tradeoff: of the lambda in the model's range, 0..255.
            weight: of a bit at this level.
            emphasis: float [h, w], what it is multiplied by; None: 1 everywhere.
        """
        level, size = len(coarse), (original.width, original.height)
        self._prior, self._device, self._effort, self._tradeoff = model.priors[level], model.device, effort, tradeoff
        self._quantizer = model.autoencoder.level_quantizers()[level]
        self._tiling, self._groups = model.tiling(level, *size), model.groups(*size)
        valid = self._tiling.valid()
        self._valid = None if valid is None else valid.to(model.device)
        self._coarse = [model.tiling(i, *size).split(maps) for i, maps in enumerate(coarse)]
        shape = self._tiling.map_shape
        self._weights = torch.full(shape, weight, dtype=torch.float32, device=model.device)
        if emphasis is not None:
            self._weights *= emphasis
        self._condition: tuple[slice, Condition] | None = None

    def maps(self, z: Tensor) -> Tensor:
        """Choose by order-0 code lengths, then again in every sweep of the effort.

        Args:
            z: latents, float [D, h, w].

        Returns: int64 [maps, h, w] on the CPU.
        """
        beam = 1 if self._effort.context else self._effort.beam
        maps = self._quantizer.choose(z.permute(1, 2, 0)[None], self._weights[None], beam=beam)[0].cpu()
        for _ in range(self._effort.context):
            maps = self._swept(z, maps)
        return maps

    def _swept(self, z: Tensor, maps: Tensor) -> Tensor:
        """Choose again, by the code lengths under the prior in the context of maps.

        Args:
            z: latents, float [D, h, w].
            maps: int64 [maps, h, w].
        """
        beam = self._effort.beam
        before, vectors, weights = (self._tiling.split(x) for x in (maps, z, self._weights[None]))
        parts = []
        for part, inside, lengths in self._lengths(before):
            tiles = vectors[part].permute(0, 2, 3, 1)  # [n, h, w, D]
            lmbdas = weights[part][:, 0]
            if inside is None:
                parts.append(self._quantizer.choose(tiles, lmbdas, lengths, beam=beam).cpu())
                continue
            chosen = self._quantizer.choose(tiles[inside][None, None], lmbdas[inside][None, None], lengths, beam=beam)
            whole = before.new_zeros(*lmbdas.shape, before.shape[1])
            whole[inside.cpu()] = chosen[0, :, 0].t().cpu()
            parts.append(whole.permute(0, 3, 1, 2))
        return self._tiling.join(torch.cat(parts))

    def _lengths(self, before: Tensor) -> Iterator[tuple[slice, Tensor | None, CodeLengths]]:
        """For every group of tiles: where they lie in the image, and the code lengths there."""
        for part in timing.steps("choosing codes", self._groups):
            inside = None if self._valid is None else self._valid[part]
            if inside is not None and bool(inside.all()):
                inside = None
            if self._condition is None or self._condition[0] != part:
                coarse = [maps[part].to(self._device) for maps in self._coarse]
                shape = (part.stop - part.start, *self._tiling.tile_shape)
                with timing.part("prior"):
                    self._condition = part, self._prior.condition(coarse, shape, inside, self._tradeoff)
            yield part, inside, PriorLengths(self._prior, before[part].to(self._device), self._condition[1], inside)
