# SPDX-License-Identifier: Apache-2.0
"""Drawing images from a model: at a temperature, several at once, or around what is kept of an image.

All that decides an index is integer arithmetic: a seed, a size, a temperature and what is kept give the same indices
on every machine, whatever the number of threads, and however many images are drawn in the same call.
"""

from __future__ import annotations

import copy
import decimal
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqcodec import timing
from vqcodec.codec import Codec, load_model
from vqcodec.config import is_vae
from vqcodec.errors import ImageError, ModelError, boundary
from vqcodec.exact import ops
from vqcodec.exact.engine import Batch
from vqcodec.exact.network import IntegerPrior
from vqcodec.model import registry, weights
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model, pick_device
from vqcodec.model.precision import exactly
from vqcodec.model.tiling import Tiling
from vqcodec.stream.levels import empty_maps, produce
from vqcodec.vae.model import VAEModel

BATCH_TILES = 64  # drawn together; above it, an image is drawn in parts: changing it changes what its seed gives
MAX_TEMPERATURE = 10

_EXACT = decimal.Context(prec=50, rounding=decimal.ROUND_HALF_EVEN)  # decimal rounds exp() correctly, everywhere


@dataclass(frozen=True, eq=False)
class Keep:
    """Index maps, and where sampling leaves them as they are.

    Args:
        maps: of an image.
        masks: by level bool [H / stride, W / stride], True where all indices are kept.

    Positions are drawn in the order in which they are coded. A kept index therefore informs what is coded after it, and
    nothing before; tiles never inform each other.
    """

    maps: IndexMaps
    masks: tuple[Tensor, ...]


def keep_top(model: Model, maps: IndexMaps) -> Keep:
    """Keep the coarsest level's maps and draw all finer levels: exactly the model's conditional distribution.

    Args:
        model: that draws.
        maps: of an image.

    Raises: ModelError if the model has one level only, as nothing would be drawn.
    """
    if len(maps.levels) == 1:
        raise ModelError(f"model {model.name} has a single level: with its top map kept, nothing is left to draw")
    return Keep(maps, tuple(torch.full(m.shape[1:], not i, dtype=torch.bool) for i, m in enumerate(maps.levels)))


def keep_upper(model: Model, maps: IndexMaps) -> Keep:
    """Keep all levels' indices in the upper half of an image, and draw the rest.

    What is drawn is not quite the model's conditional distribution, as something that is kept may come after what is
    drawn and would have to inform it. In the order "waves" the convolutions never look at rows below, and only
    attention meets this: a kept position to the upper right comes after drawn ones at the lower left. In the order
    "seven", drawn positions of early steps come before kept ones of later steps. Next to the border, finer maps that
    are kept were once conditioned on coarser indices that are now drawn without knowing them. Tiles are independent of
    each other: below a border between tiles, nothing is known of what is above.

    Args:
        model: that draws.
        maps: of an image, half of whose height is rounded down to the coarsest stride.

    Raises: ImageError if nothing is left of that half.
    """
    rows = maps.height // 2 // model.config.autoencoder.coarsest * model.config.autoencoder.coarsest
    if not rows:
        least = 2 * model.config.autoencoder.coarsest
        raise ImageError(f"{maps.height} rows of pixels have no upper half to keep; model {model.name} needs {least}")
    masks = []
    for level, level_maps in zip(model.config.autoencoder.levels, maps.levels, strict=True):
        mask = torch.zeros(level_maps.shape[1:], dtype=torch.bool)
        mask[: rows // level.stride] = True
        masks.append(mask)
    return Keep(maps, tuple(masks))


def temperature_table(top: int, floor: int, temperature: float) -> list[int]:
    """Make table[d] = max(least, round(top * exp(-d / (2^LOGIT_BITS * T)))) for d = 0..254, least for 255 and more.

    The least is the floor where T > 1, and 0 below: there, codes that have a frequency only so that they can be coded
    are not drawn.

    Args:
        top: greatest frequency of the model's table (see `ops.exp_table`).
        floor: least frequency of the model's table.
        temperature: T, the decimal number that it is written as.

    Raises: ValueError unless 0 < T <= 10.
    """
    if not 0 < temperature <= MAX_TEMPERATURE:
        raise ValueError(f"the temperature must be above 0 and at most {MAX_TEMPERATURE}, got {temperature}")
    least = floor if temperature > 1 else 0
    with decimal.localcontext(_EXACT):
        scale = 2**ops.LOGIT_BITS * decimal.Decimal(str(temperature))
        curve = [int((top * (-d / scale).exp()).to_integral_value()) for d in range(255)]
    return [max(least, value) for value in curve] + [least]


def tempered(prior: IntegerPrior, temperature: float) -> IntegerPrior:
    """Give a prior another table of frequencies, for drawing only.

    Args:
        prior: is not changed.
        temperature: 1 gives the prior itself.
    """
    if temperature == 1:
        return prior
    table = temperature_table(int(prior.table[0]), int(prior.table[-1]), temperature)
    other = copy.copy(prior)
    other.table = torch.tensor(table, dtype=torch.float32, device=prior.device)
    return other


def draw(
    model: Model,
    width: int,
    height: int,
    seeds: Sequence[int],
    *,
    temperature: float = 1.0,
    keep: Keep | None = None,
    tradeoff: int = 0,
) -> Iterator[IndexMaps]:
    """Draw index maps, one image a seed, each the same as if it were drawn alone.

    Args:
        model: that draws.
        width: in pixels.
        height: in pixels.
        seeds: from 0.
        temperature: above 0, at most 10, 1 for the model's distribution.
        keep: indices that all images have.
        tradeoff: 0 to 255.

    Raises: ValueError on other arguments.
    """
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1, got {width}x{height}")
    if any(seed < 0 for seed in seeds):
        raise ValueError("seeds must not be negative")
    tilings = model.tilings(width, height)
    shapes = [(v.maps, *t.map_shape) for v, t in zip(model.config.autoencoder.levels, tilings, strict=True)]
    kept_shapes = None if keep is None else [tuple(m.shape) for m in keep.maps.levels]
    if keep is not None and (keep.maps.size != (width, height) or kept_shapes != shapes):
        raise ValueError(f"the maps to keep are not those of an image of {width}x{height} pixels")
    if keep is not None and [tuple(m.shape) for m in keep.masks] != [shape[1:] for shape in shapes]:
        raise ValueError("the masks do not fit the maps to keep")
    priors = [tempered(prior, temperature) for prior in model.priors]
    together = max(1, BATCH_TILES // len(tilings[0].sequence))
    known = None if keep is None else _in_tiles(model, keep)
    for start in range(0, len(seeds), together):
        generators = [random.Random(seed) for seed in seeds[start : start + together]]
        for levels in _drawn(model, tilings, generators, known, priors, tradeoff):
            yield IndexMaps(tuple(levels), width, height)


@exactly
def _drawn(
    model: Model,
    tilings: Sequence[Tiling],
    generators: Sequence[random.Random],
    known: list[tuple[Tensor, Tensor]] | None,
    priors: Sequence[IntegerPrior],
    tradeoff: int,
) -> list[list[Tensor]]:
    """The index maps of as many images as there are generators, by level."""
    images, tiles = [empty_maps(model, tilings) for _ in generators], len(tilings[0].sequence)
    number = len(images) * tiles
    for first in timing.steps("drawing indices", range(0, number, BATCH_TILES)):
        batch = range(first, min(first + BATCH_TILES, number))
        source = partial(_Draw, model, generators, known, tiles, first)
        for level, maps in enumerate(produce(model, tilings, [batch] * len(tilings), source, tradeoff, priors)):
            for tile, drawn in zip(batch, maps.cpu(), strict=True):
                tilings[level].paste(images[tile // tiles][level], [tile % tiles], drawn[None])
    return images


def _in_tiles(model: Model, keep: Keep) -> list[tuple[Tensor, Tensor]]:
    """Indices [tiles, maps, h * w] and mask [tiles, h * w], by level."""
    tilings = model.tilings(*keep.maps.size)
    masks = [tiling.split(mask[None])[:, 0].flatten(1) for tiling, mask in zip(tilings, keep.masks, strict=True)]
    return [(maps.flatten(2), mask) for maps, mask in zip(model.split(keep.maps), masks, strict=True)]


class _Draw:
    """Draws the indices of a batch at random, in integers (see `engine.Draw`); each image has its own random words, in
    the order of the stream.

    Words are drawn for known positions too, whose indices are then put in place; none outside the image and where a
    position has stopped. They are no stream for the range decoder: it refuses those that no encoder could have written.
    """

    def __init__(
        self,
        model: Model,
        generators: Sequence[random.Random],
        known: Sequence[tuple[Tensor, Tensor]] | None,
        tiles: int,
        first: int,
        level: int,
    ) -> None:
        """generators: one per image; known: from `_in_tiles`, per level; tiles: of an image; first: tile of the batch,
        counted over all images; level: to draw."""
        self._level = model.config.autoencoder.levels[level]
        self._generators, self._tiles, self._first = generators, tiles, first
        self._known = None if known is None else known[level]

    def __call__(self, frequencies: Tensor, batch: Batch) -> Tensor:
        ends = frequencies.cpu().numpy().cumsum(1, dtype=np.uint64)
        tiles, positions = batch.tiles.cpu() + self._first, batch.positions.cpu()
        images = np.repeat((tiles // self._tiles).numpy(), batch.groups)
        words = np.zeros((len(ends), 1), np.uint64)
        for i, number in enumerate(np.bincount(images, minlength=len(self._generators)).tolist()):
            words[images == i, 0] = np.frombuffer(self._generators[i].randbytes(8 * number), "<u8")
        # 40 random bits times a sum below 2^24 fit in 64 bits.
        points = (words >> np.uint64(24)) * ends[:, -1:] >> np.uint64(40)
        drawn = torch.from_numpy((ends <= points).sum(1)).view(-1, batch.groups)
        if self._known is not None:
            maps, masks = self._known
            kept = maps[tiles % self._tiles, self._level.stage_maps(batch.stage), positions]
            drawn = torch.where(masks[tiles % self._tiles, positions][:, None], kept, drawn)
        return drawn.flatten().to(frequencies.device)

    def check(self) -> None:
        """Accept any draw: random words are no stream, and need no end."""


class Sampler(Protocol):
    """A model that draws images."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def tile_size(self) -> int:
        """Side of the squares that the model was trained on, in pixels."""

    def images(self, width: int, height: int, seeds: Sequence[int], temperature: float = 1.0) -> Iterator[Image.Image]:
        """Draw images of mode RGB, one a seed, each the same as if it were drawn alone.

        Args:
            width: in pixels.
            height: in pixels.
            seeds: from 0.
            temperature: above 0, 1 for the model's distribution.
        """


@dataclass(frozen=True, eq=False)
class IndexSampler:
    """A `Sampler` that draws from a codec's priors.

    keep: indices that all images share. tradeoff: 0 to 255.
    """

    codec: Codec
    keep: Keep | None = None
    tradeoff: int = 0

    @property
    def name(self) -> str:
        """Of the model."""
        return self.codec.name

    @property
    def tile_size(self) -> int:
        """Side of a tile, in pixels."""
        return self.codec.tile_size

    def images(self, width: int, height: int, seeds: Sequence[int], temperature: float = 1.0) -> Iterator[Image.Image]:
        """As `Sampler.images`.

        Args:
            width: in pixels.
            height: in pixels.
            seeds: from 0.
            temperature: above 0, at most 10.

        Raises: ValueError on other arguments.
        """
        drawn = draw(self.codec, width, height, seeds, temperature=temperature, keep=self.keep, tradeoff=self.tradeoff)
        for maps in drawn:
            yield Image.fromarray(self.codec.from_indices(maps, self.tradeoff))


@boundary()
def sample_indices(
    model: Model,
    width: int,
    height: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    keep: Keep | None = None,
    tradeoff: int = 0,
) -> IndexMaps:
    """Draw the index maps of an image from the priors; the same arguments give the same on every machine.

    Args:
        model: a codec or any other model with priors.
        width: in pixels.
        height: in pixels.
        seed: from 0.
        temperature: above 0, at most 10, 1 for the model's distribution.
        keep: indices that are given, see `keep_top` and `keep_upper`.
        tradeoff: 0 to 255.

    Raises: ValueError on other arguments.
    """
    return next(draw(model, width, height, [seed], temperature=temperature, keep=keep, tradeoff=tradeoff))


@boundary()
def sample(
    codec: Codec,
    width: int | None = None,
    height: int | None = None,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    keep: Keep | None = None,
    tradeoff: int = 0,
) -> Image.Image:
    """Draw an image from a codec's priors.

    Args:
        codec: that draws.
        width: in pixels; None: one tile.
        height: in pixels; None: one tile.
        seed: as of `sample_indices`.
        temperature: as of `sample_indices`.
        keep: as of `sample_indices`.
        tradeoff: as of `sample_indices`.

    Returns: mode RGB.

    Raises: ValueError on other arguments.
    """
    width, height = (codec.tile_size if side is None else side for side in (width, height))
    return next(IndexSampler(codec, keep, tradeoff).images(width, height, [seed], temperature))


@boundary()
def load_any(name: str | os.PathLike[str] | None = None, device: str = "auto") -> Codec | VAEModel:
    """Load a model of any kind.

    Args:
        name: of an installed model, or path of a weights file; None: the default model.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.

    Raises: ModelError if there is no such model.
    """
    model = registry.find(name)
    if is_vae(weights.load_meta(model.path)):
        return VAEModel.load(model, pick_device(device))
    return load_model(name, device)


def load_sampler(name: str | os.PathLike[str] | None = None, device: str = "auto") -> Sampler:
    """Load a model of any kind, ready to draw images.

    Args:
        name: as of `load_any`.
        device: as of `load_any`.

    Raises: ModelError if there is no such model.
    """
    model = load_any(name, device)
    return IndexSampler(model) if isinstance(model, Codec) else model
