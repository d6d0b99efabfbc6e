# SPDX-License-Identifier: Apache-2.0
"""A rectangle of the picture that `Autoencoder.decode` makes, from the indices around it and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqcodec.config import AutoencoderConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.timing import timed


class Window(NamedTuple):
    """Pixels left <= x < right, top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    def grown(self, reach: int, unit: int, width: int, height: int) -> Window:
        """Grow on all sides, outwards to multiples of a unit, and no farther than the image.

        Args:
            reach: pixels to grow by.
            unit: of pixels, that all sides become multiples of.
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
        left, top = ((side - reach) // unit * unit for side in (self.left, self.top))
        right, bottom = (-(-(side + reach) // unit) * unit for side in (self.right, self.bottom))
        return Window(max(0, left), max(0, top), min(width, right), min(height, bottom))

    def of(self, maps: Tensor, stride: int, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Cut this window out of maps.

        Args:
            maps: [..., h, w].
            stride: pixels a position, along each axis.
            corner: the pixel (x, y) where the first position of the maps lies.
        """
        x, y = corner
        rows = slice((self.top - y) // stride, -(-(self.bottom - y) // stride))
        return maps[..., rows, (self.left - x) // stride : -(-(self.right - x) // stride)]


def needed(config: AutoencoderConfig, window: Window, width: int, height: int) -> list[Window]:
    """Say what must be known of every level, coarsest first, for the pixels of a window.

    Args:
        config: of the autoencoder.
        window: inside the image.
        width: of the image, padded to a multiple of the coarsest stride.
        height: the same.
    """
    windows: list[Window] = []
    for i in reversed(range(len(config.levels))):
        window = window.grown(reach(config, i), config.levels[i].stride, width, height)
        windows.insert(0, window)
    return windows


def reach(config: AutoencoderConfig, i: int) -> int:
    """Compute how far, in pixels, a level can matter to the next finer one, or to the picture: a position for every 3x3
    convolution.

    Args:
        config: of the autoencoder.
        i: number of the level, 0 for the coarsest.
    """
    stride, last = config.levels[i].stride, i + 1 == len(config.levels)
    end = config.patch if last else config.levels[i + 1].stride
    total = stride  # where the codewords come in
    for s, blocks in zip(config.strides, config.decoder_blocks, strict=True):
        if end < s <= stride or (s == end and last):
            total += s * (blocks + (config.overlap and s > end))
    return total + last * config.patch  # the head


@timed("network")
@torch.inference_mode()
def decode(model: Autoencoder, levels: Sequence[Tensor], window: Window, tradeoff: float | None = None) -> Tensor:
    """Decode the pixels of a window: float [3, h, w], about 0..1, equal to those of the whole but for rounding.

    Args:
        model: the autoencoder.
        levels: int64 [maps, H / stride, W / stride] by level, coarsest first; only what `needed` says is looked at.
        window: inside the padded image.
        tradeoff: of the lambda in the model's range, 0 to 1.
    """
    device, strides = model.head.weight.device, [level.stride for level in model.config.levels]
    height, width = levels[0].shape[1] * strides[0], levels[0].shape[2] * strides[0]
    tradeoffs = None if tradeoff is None else model.head.weight.new_full((1,), tradeoff)
    windows = needed(model.config, window, width, height)
    state: Tensor | None = None
    for i, (quantizer, maps) in enumerate(zip(model.level_quantizers(), levels, strict=True)):
        if i:
            assert state is not None
            state = windows[i].of(state, strides[i], windows[i - 1][:2])
        indices = windows[i].of(maps, strides[i])[None].to(device)
        codewords = quantizer.lookup(indices).permute(0, 3, 1, 2)
        if i + 1 < len(levels):
            state = model.descend(i, codewords, state, tradeoffs)
    image = model.finish(codewords, state, tradeoffs)
    return window.of(image, 1, windows[-1][:2])[0]
