# SPDX-License-Identifier: Apache-2.0
"""Where the bits of the index maps go: raw, order-0, ideal under the prior, and in the stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqcodec import weights
from vqcodec.codec import GROUP_TILES, Codec, pack_stream
from vqcodec.errors import ModelError
from vqcodec.prior.export import from_integers
from vqcodec.prior.network import LevelPrior, index_nll
from vqcodec.registry import ModelFile
from vqcodec.tiling import Tiling


@dataclass(frozen=True)
class LevelRates:
    """Bits of one level over a set of images; all but `stream` are estimates in the sense that no file holds them.

    indices: number of indices. raw: log2 K each. order0: under one table per codebook, the entropy of these very
    indices (no table could do better, and its own cost is not counted). ideal: under the integer prior. floating:
    under the same network without rounding, None if it was not evaluated. stream: of the range coder words. usage:
    share of codes used at all, by codebook.
    """

    indices: int
    raw: float
    order0: float
    ideal: float
    floating: float | None
    stream: int
    usage: list[float]


def float_priors(model: ModelFile, codec: Codec) -> list[LevelPrior]:
    """The priors of a weights file as float networks; call them with exact=False."""
    tensors, _ = weights.load(model.path)
    levels = codec.config.autoencoder.levels
    priors = []
    for i, (config, level) in enumerate(zip(codec.config.priors, levels, strict=True)):
        prior = LevelPrior(config, level, levels[:i]).eval()
        own = f"prior.{i}."
        from_integers(prior, {k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)})
        priors.append(prior)
    return priors


@torch.inference_mode()
def measure(
    codec: Codec, images: Iterable[npt.NDArray[np.uint8]], floats: Sequence[LevelPrior] | None = None
) -> list[LevelRates]:
    """Rates by level, summed over images uint8 [H, W, 3].

    floats: from `float_priors`; sides must then be multiples of the tile (ModelError otherwise), as the float network
    knows no cut tiles.
    """
    levels = codec.config.autoencoder.levels
    counts = [np.zeros((v.codebooks, v.codes), np.int64) for v in levels]
    ideal, floating, stream = np.zeros(len(levels)), np.zeros(len(levels)), np.zeros(len(levels), np.int64)
    for pixels in images:
        height, width = pixels.shape[:2]
        indices = codec.to_indices(pixels)
        rows, columns = codec.tiling(0, width, height).grid
        for first in range(0, rows * columns, GROUP_TILES):
            group = codec.frequencies(indices, width, height, slice(first, first + GROUP_TILES))
            for i, stages in enumerate(group):
                for stage, (symbols, frequencies) in enumerate(stages):
                    counts[i][stage] += np.bincount(symbols.numpy(), minlength=levels[i].codes)
                    share = frequencies.gather(1, symbols[:, None])[:, 0].double() / frequencies.double().sum(1)
                    ideal[i] -= float(share.log2().sum())
                stream[i] += 8 * len(pack_stream(stages))
        if floats is not None:
            floating += _float_bits(codec, floats, indices, width, height)
    found = []
    for i, level in enumerate(levels):
        share = counts[i] / np.maximum(counts[i].sum(1, keepdims=True), 1)
        order0 = -float((counts[i] * np.log2(np.where(share > 0, share, 1))).sum())
        number = int(counts[i].sum())
        floated = None if floats is None else float(floating[i])
        raw, usage = number * math.log2(level.codes), (counts[i] > 0).mean(1).tolist()
        found.append(LevelRates(number, raw, order0, float(ideal[i]), floated, int(stream[i]), usage))
    return found


def _float_bits(
    codec: Codec, priors: Sequence[LevelPrior], indices: Sequence[Tensor], width: int, height: int
) -> npt.NDArray[np.float64]:
    """Ideal code length of the float networks, bits by level."""
    auto, tile = codec.config.autoencoder, codec.config.tile_size
    if width % tile or height % tile:
        raise ModelError(f"the float network needs sides that are multiples of {tile}, not {width}x{height}")
    tiles = [
        Tiling(width, height, tile, auto.coarsest, level.stride).split(maps)
        for level, maps in zip(auto.levels, indices, strict=True)
    ]
    bits = np.zeros(len(priors))
    for i, prior in enumerate(priors):
        for stage in range(prior.level.codebooks):
            asked = torch.full((len(tiles[0]),), stage)
            logits = prior(asked, tiles[i], tiles[:i], exact=False)
            bits[i] += float(index_nll(logits, tiles[i][:, stage]).double().sum()) / math.log(2)
    return bits
