# SPDX-License-Identifier: Apache-2.0
"""The index maps of a whole image: docs/format.md, "Index streams", and docs/prior.md, "Tiles" and "The order of
evaluation and of the stream"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .container import File
from .prior import Integers, Mask, Prior, Trunk
from .ranges import RangeDecoder, bounds
from .weights import Model


def decode(file: File, model: Model) -> list[NDArray[np.int64]]:
    """By level, coarsest first: int64 [maps, H / stride, W / stride], H and W padded to the coarsest stride."""
    if file.model != model.identity or file.tile_size != model.config["tile_size"]:
        raise ValueError("the file needs another model")
    priors = [Prior(model.config, number, tensors) for number, tensors in enumerate(model.tensors)]
    coarsest = priors[0].maps.stride
    height, width = -(-file.height // coarsest) * coarsest, -(-file.width // coarsest) * coarsest
    across, down = -(-file.width // file.tile_size), -(-file.height // file.tile_size)
    if len(file.streams) != -(-across * down // file.group_tiles) * len(priors):
        raise ValueError("the number of streams does not fit")
    whole = [np.zeros((p.maps.number, height // p.maps.stride, width // p.maps.stride), np.int64) for p in priors]
    streams = iter(file.streams)
    listed = [
        (row, column) for top in range(0, down, 4) for column in range(across) for row in range(top, min(top + 4, down))
    ]
    for first in range(0, across * down, file.group_tiles):
        corners = sorted(listed[first : first + file.group_tiles])
        coarse: list[Integers] = []
        for prior, maps in zip(priors, whole, strict=True):
            side = file.tile_size // prior.maps.stride
            inside = np.zeros((len(corners), side, side), np.bool_)
            parts = [
                maps[:, row * side : (row + 1) * side, column * side : (column + 1) * side] for row, column in corners
            ]
            for n, part in enumerate(parts):
                inside[n, : part.shape[1], : part.shape[2]] = True
            coarse.append(_group(prior, next(streams), coarse, inside, file.rate))
            for n, part in enumerate(parts):
                part[:] = coarse[-1][n, :, : part.shape[1], : part.shape[2]]
    return whole


def _group(prior: Prior, stream: bytes, coarse: list[Integers], inside: Mask, rate: int) -> Integers:
    """A level of a group of tiles. coarse: maps of the coarser levels; inside: bool [tiles, h, w] -> int64 [tiles,
    maps, h, w]."""
    decoder = RangeDecoder(stream)
    trunk = Trunk(prior, prior.condition(coarse, inside, rate), inside)
    maps = np.zeros((len(inside), prior.maps.number, *inside.shape[1:]), np.int64)
    for step in np.unique(trunk.step).tolist():
        # position by position, by y, then x; at each of them tile by tile
        y, x, n = np.nonzero(((trunk.step == step) & inside).transpose(1, 2, 0))
        if not len(n):
            continue
        h = trunk.evaluate(step, n, y, x)
        indices = np.zeros((len(n), prior.maps.number), np.int64)
        live = np.arange(len(n))
        for s, members in enumerate(prior.maps.stages):
            logits = prior.logits(s, h[live], indices[live]).reshape(len(live) * len(members), -1)
            below = np.minimum(logits.max(1, keepdims=True) - logits, 255)
            limits = bounds(prior.tensors["table"][below]).tolist()
            drawn = np.array([decoder.decode(row) for row in limits]).reshape(len(live), len(members))
            indices[live[:, None], members] = drawn
            if prior.maps.stop:
                live = live[drawn.any(1)]
                if not len(live):
                    break
        maps[n, :, y, x] = indices
        trunk.tell(n, y, x, indices)
    if not decoder.used_up():
        raise ValueError("a stream has more than its indices")
    return maps
