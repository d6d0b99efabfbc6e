# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates a pixel of a model's parts, counted by PyTorch while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vqcodec.codec import Codec
from vqcodec.exact import engine


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates a pixel.

    Args:
        encoder: from pixels to the latents of all levels, without the choice of codes.
        decoder: from indices to pixels.
        trunk: of the priors, what every position costs.
        stacks: of the priors, where every position uses all of its stages, the most there can be. lookups are not
            counted.
    """

    encoder: float
    decoder: float
    trunk: float
    stacks: float


def _product(_: Any, rows: Any, columns: Any, **options: Any) -> int:
    """Of `addmm_`, which PyTorch does not count: from the shapes of its arguments."""
    return 2 * int(rows[0] * rows[1] * columns[1])


IN_PLACE = {torch.ops.aten.addmm_: _product}


def _counted(step: Callable[[], object], pixels: int) -> float:
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        step()
    return counter.get_total_flops() / 2 / pixels


@torch.no_grad()
def count(codec: Codec, tiles: int = 2) -> Macs:
    """Count on a picture of tiles x tiles tiles.

    Args:
        codec: on any device.
        tiles: along each side; the borders of a picture cost a little less than its inside.
    """
    side = tiles * codec.tile_size
    model, levels = codec.autoencoder, codec.config.autoencoder.levels
    image = torch.zeros(1, 3, side, side, device=codec.device)
    maps = [torch.ones(1, v.maps, side // v.stride, side // v.stride, dtype=torch.int64) for v in levels]
    inputs = [m.to(codec.device) for m in maps]

    def encode() -> None:
        state: Tensor | None = None
        for i, features in enumerate(model.features(image)):
            model.latent(i, features, state)
            if i + 1 < len(levels):
                quantized = model.level_quantizers()[i].lookup(inputs[i]).permute(0, 3, 1, 2)
                state = model.descend(i, quantized, state)

    def walk(stacks: bool) -> None:
        split = [codec.tiling(i, side, side).split(m[0]).to(codec.device) for i, m in enumerate(maps)]
        for i, prior in enumerate(codec.priors):
            condition = prior.condition(split[:i], (len(split[i]), *split[i].shape[2:]))
            if stacks:
                for _ in engine.known(prior, split[i], condition):
                    pass
            else:
                engine.outputs(prior, split[i], condition)

    pixels = side * side
    trunk = _counted(lambda: walk(False), pixels)
    decoder = _counted(lambda: model.decode(inputs), pixels)
    return Macs(_counted(encode, pixels), decoder, trunk, _counted(lambda: walk(True), pixels) - trunk)
