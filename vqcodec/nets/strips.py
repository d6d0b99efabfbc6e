# SPDX-License-Identifier: Apache-2.0
"""Large images through the autoencoder in strips, with enough overlap that the result is that of the whole image."""

from __future__ import annotations

import torch
from torch import Tensor

from vqcodec.config import AutoencoderConfig
from vqcodec.nets.autoencoder import Autoencoder

STRIP_PIXELS = 1 << 23  # images above this are cut; bounds the memory of both directions to a few GB


def margin(config: AutoencoderConfig) -> int:
    """Pixels, a multiple of the coarsest stride, beyond which no input can matter to an output.

    Counts one position of the stride for every 3x3 convolution on the way and six more a stride for the changes of
    resolution and the joining of levels, which is more than there are.
    """
    reach = sum(
        2 ** (i + 1) * (down + up + 6)
        for i, (down, up) in enumerate(zip(config.encoder_blocks, config.decoder_blocks, strict=True))
    )
    return -(-reach // config.coarsest) * config.coarsest


def analyse(model: Autoencoder, image: Tensor, limit: int = STRIP_PIXELS) -> tuple[list[Tensor], Tensor]:
    """As `Autoencoder.analyse`, for float [1, 3, H, W] of any size."""
    strides = [level.stride for level in model.config.levels]
    parts = []
    for top, bottom, first, last in _rows(model.config, image.shape[2], image.shape[3], limit):
        maps, latents = model.analyse(image[:, :, first:last].contiguous(memory_format=torch.channels_last))
        pairs = zip([*maps, latents], strides, strict=True)
        parts.append([m[:, :, (top - first) // s : (bottom - first) // s] for m, s in pairs])
    *coarse, finest = (torch.cat(level, 2) for level in zip(*parts, strict=True))
    return coarse, finest


def decode(model: Autoencoder, indices: list[Tensor], limit: int = STRIP_PIXELS) -> Tensor:
    """As `Autoencoder.decode`, for maps of any size, [1, S, H / stride, W / stride] per level."""
    strides = [level.stride for level in model.config.levels]
    height, width = (n * strides[0] for n in indices[0].shape[2:])
    parts = []
    for top, bottom, first, last in _rows(model.config, height, width, limit):
        image = model.decode([m[:, :, first // s : last // s] for m, s in zip(indices, strides, strict=True)])
        parts.append(image[:, :, top - first : bottom - first])
    return torch.cat(parts, 2)


def _rows(config: AutoencoderConfig, height: int, width: int, limit: int) -> list[tuple[int, int, int, int]]:
    """Strips: first and last row that is kept, first and last row that is computed; multiples of the stride."""
    if height * width <= limit:
        return [(0, height, 0, height)]
    around = margin(config)
    step = max(config.coarsest, (limit // width - 2 * around) // config.coarsest * config.coarsest)
    step = max(step, around)  # else nearly all of the work would be overlap
    starts = range(0, height, step)
    return [(top, min(height, top + step), max(0, top - around), min(height, top + step + around)) for top in starts]
