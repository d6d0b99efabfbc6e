# SPDX-License-Identifier: Apache-2.0
"""The steps of `Autoencoder` for large images: in strips of rows, which overlap so far that nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqcodec.config import AutoencoderConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.timing import timed

STRIP_PIXELS = 1 << 22  # images above this are cut; bounds the memory of both directions


@timed("network")
def features(
    model: Autoencoder, image: Tensor, tradeoff: float | None = None, limit: int = STRIP_PIXELS
) -> list[Tensor]:
    """As `Autoencoder.features`, for one image of any size; in half precision where it is cut.

    Args:
        model: the autoencoder.
        image: uint8 [1, 3, H, W], on any device.
        tradeoff: of the lambda in the model's range, 0..1.
        limit: pixels of a strip.
    """
    device = model.head.weight.device
    tradeoffs = _tradeoffs(model, tradeoff)

    large = image.shape[2] * image.shape[3] > limit

    def enter(pixels: Tensor) -> Tensor:
        scaled = pixels.to(device).float().div_(255)
        x = model.enter(scaled.contiguous(memory_format=torch.channels_last), tradeoffs)
        return x.half() if large else x

    by_level = [_in_strips(enter, [(image, 1)], model.config.levels[-1].stride, _enter_reach(model.config), limit)]
    for i in reversed(range(len(model.config.levels) - 1)):
        finer, coarser = model.config.levels[i + 1].stride, model.config.levels[i].stride
        coarsened = _in_strips(
            lambda x, i=i: model.coarsen(i, x),
            [(by_level[0], finer)],
            coarser,
            _coarsen_reach(model.config, i),
            limit,
        )
        by_level.insert(0, coarsened)
    return by_level


@timed("network")
def latent(model: Autoencoder, i: int, features: Tensor, state: Tensor | None, limit: int = STRIP_PIXELS) -> Tensor:
    """As `Autoencoder.latent`, of one image, in strips; in half precision where it is cut.

    Args:
        model: the autoencoder.
        i: number of the level, 0 for the coarsest.
        features: its features, float [1, C, h, w].
        state: the decoded coarser levels, float [1, C, h, w]; None at the coarsest.
        limit: pixels of the picture that a strip may cover.
    """
    stride = model.config.levels[i].stride
    inputs = [(x, stride) for x in (features, state) if x is not None]
    reach = 3 * stride  # two blocks, and one position to spare: so little that strips can be narrow

    large = features.shape[2] * features.shape[3] * stride**2 > limit

    def step(level_input: Tensor, above: Tensor | None = None) -> Tensor:
        z = model.latent(i, level_input, above)
        return z.half() if large else z

    return _in_strips(step, inputs, stride, reach, limit // 4 if large else limit)


@timed("network")
def descend(
    model: Autoencoder,
    i: int,
    quantized: Tensor,
    state: Tensor | None,
    tradeoff: float | None = None,
    limit: int = STRIP_PIXELS,
) -> Tensor:
    """As `Autoencoder.descend` of one image, from a level to the next finer one, in strips; in half precision where
    it is cut, so for encoders only.

    Args:
        model: the autoencoder.
        i: number of the level, 0 for the coarsest.
        quantized: its codewords, float [1, D, h, w].
        state: the decoded coarser levels, float [1, C, h, w]; None at the coarsest.
        tradeoff: where the lambda lies in the model's range, 0 to 1 (None: the middle).
        limit: pixels of the picture that a strip may cover.
    """
    stride, finer = (level.stride for level in model.config.levels[i : i + 2])
    tradeoffs = _tradeoffs(model, tradeoff)
    inputs = [(x, stride) for x in (quantized, state) if x is not None]

    large = quantized.shape[2] * quantized.shape[3] * stride**2 > limit

    def step(level_input: Tensor, above: Tensor | None = None) -> Tensor:
        finer_state = model.descend(i, level_input, above, tradeoffs)
        return finer_state.half() if large else finer_state

    return _in_strips(step, inputs, finer, _descend_reach(model.config, i), limit)


def _single(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x


def _tradeoffs(model: Autoencoder, tradeoff: float | None) -> Tensor | None:
    return None if tradeoff is None else model.head.weight.new_full((1,), tradeoff)


# Rows of pixels beyond which no input can matter to an output: a position of the stride for every 3x3 convolution and
# one more for every change of resolution, which is more than there is.


def _enter_reach(config: AutoencoderConfig) -> int:
    strides = [s for s in config.strides if s <= config.levels[-1].stride]
    return sum(s * (blocks + 2) for s, blocks in zip(strides, config.encoder_blocks, strict=False))


def _coarsen_reach(config: AutoencoderConfig, i: int) -> int:
    finer, coarser = config.levels[i + 1].stride, config.levels[i].stride
    return sum(s * (n + 2) for s, n in zip(config.strides, config.encoder_blocks, strict=True) if finer < s <= coarser)


def _descend_reach(config: AutoencoderConfig, i: int) -> int:
    """From a level to the next finer one, or to pixels."""
    stride = config.levels[i].stride
    last = i + 1 == len(config.levels)
    end = 0 if last else config.levels[i + 1].stride
    return sum(s * (n + 3) for s, n in zip(config.strides, config.decoder_blocks, strict=True) if end < s <= stride)


def _in_strips(
    step: Callable[..., Tensor], inputs: Sequence[tuple[Tensor, int]], stride: int, reach: int, limit: int
) -> Tensor:
    """A step on tensors [1, C, H / stride, W / stride], each with its stride, that gives one of another stride. It gets
    those of half precision in single precision.

    reach: rows of pixels on either side that a result depends on; limit: pixels of a strip.
    """
    tensor, scale = inputs[0]
    height, width = tensor.shape[2] * scale, tensor.shape[3] * scale
    if height * width <= limit:
        return step(*(_single(x) for x, _ in inputs))
    unit = max(stride, *(s for _, s in inputs))
    around = -(-reach // unit) * unit
    rows = max(unit, around, (limit // width - 2 * around) // unit * unit)  # else nearly all work would be overlap
    result: Tensor | None = None
    for top in range(0, height, rows):
        bottom, first = min(height, top + rows), max(0, top - around)
        last = min(height, bottom + around)
        part = step(*(_single(x[:, :, first // s : last // s]) for x, s in inputs))
        if result is None:
            shape = (1, part.shape[1], height // stride, width // stride)
            result = part.new_empty(shape).contiguous(memory_format=torch.channels_last)
        result[:, :, top // stride : bottom // stride] = part[
            :, :, (top - first) // stride : (bottom - first) // stride
        ]
    assert result is not None
    return result
