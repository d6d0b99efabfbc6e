# SPDX-License-Identifier: Apache-2.0
"""The VQ-VAE-2 autoencoder for any list of levels: one level is VQ-VAE, two are VQ-VAE-2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.config import AutoencoderConfig
from vqcodec.nets.blocks import Gains, LatentNorm, LevelNorm, Upsample, blocks, initialize
from vqcodec.nets.choice import CodeLengths
from vqcodec.nets.quantizer import ResidualQuantizer

Lengths = Callable[[Sequence[Tensor], Tensor], CodeLengths]


class Reconstruction(NamedTuple):
    """image: float [N, 3, H, W], about 0..1. indices: per level int64 [N, S, H/stride, W/stride].
    commitments: per level, float [N] (see `Quantized`)."""

    image: Tensor
    indices: list[Tensor]
    commitments: list[Tensor]


class Autoencoder(nn.Module):
    """VQ-VAE-2 (Razavi et al. 2019, algorithm 1), written top-down over the levels.

    The encoder makes features e_s at every stride. From the coarsest level down: z = f(e_s, d_s), quantised to q; the
    decoded state d = g(q, d_s) is upsampled to the next stride, so that every level sees what the coarser ones hold
    and keeps what they cannot; the last state, which has seen all levels, is upsampled to pixels.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self._by_stride = {stride: i for i, stride in enumerate(config.strides)}
        patch = 3 * config.patch**2

        self.stem = nn.Conv2d(patch, widths[0], 3, padding=1)  # on blocks of pixels
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, *((4, 2, 1) if config.overlap else (2, 2)))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.encode_blocks = nn.ModuleList(blocks(c, n) for c, n in zip(widths, config.encoder_blocks, strict=True))
        self.decode_blocks = nn.ModuleList(blocks(c, n) for c, n in zip(widths, config.decoder_blocks, strict=True))
        self.up = nn.ModuleList(
            Upsample(b, a, 3 if config.overlap else 1) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Conv2d(widths[0], patch, 3, padding=1)
        finest = widths[self._by_stride[config.levels[-1].stride]]
        sizes = {"stem": widths[0], "finest": finest, "head": widths[0]} if config.gains else {}
        self.gains = nn.ModuleDict({name: Gains(config.gains, size) for name, size in sizes.items()})

        self.to_latent = nn.ModuleList()
        self.normalize = nn.ModuleList()
        self.from_latent = nn.ModuleList()
        self.quantizers = nn.ModuleList(ResidualQuantizer(level) for level in config.levels)
        for i, level in enumerate(config.levels):
            c = widths[self._by_stride[level.stride]]
            seen = c if i else 0  # channels of the decoded coarser levels
            self.to_latent.append(
                nn.Sequential(nn.Conv2d(c + seen, c, 1), *blocks(c, 2 if i else 0), nn.Conv2d(c, level.dim, 1))
            )
            # Zero mean and unit variance: else a level drifts faster than its codebook follows, and collapses.
            if config.norm == "level":
                self.normalize.append(LevelNorm(level.dim))
            else:
                self.normalize.append(LatentNorm(level.dim, momentum=0.02, affine=False))
            self.from_latent.append(nn.Conv2d(level.dim + seen, c, 3, padding=1))
        initialize(self)

    def level_quantizers(self) -> list[ResidualQuantizer]:
        """The quantiser of every level, coarsest first."""
        return [q for q in self.quantizers if isinstance(q, ResidualQuantizer)]

    def forward(
        self,
        image: Tensor,
        lmbdas: Tensor | None = None,
        lengths: Lengths | None = None,
        tradeoffs: Tensor | None = None,
        silent: Tensor | None = None,
        refined: int | None = None,
    ) -> Reconstruction:
        """image: float [N, 3, H, W] in 0..1, H and W multiples of the coarsest stride -> `Reconstruction`.

        lmbdas: float [levels, N], in place of the quantisers' own. lengths: gives a level's code lengths in the
        context of its maps and the coarser ones', int64 [N, maps, h, w] each, coarsest first. tradeoffs: float [N] in
        0..1, of the lambdas in the model's range, for the gains (None: the middle). silent: bool [levels, N],
        images that get nothing of a level; refined: how many are chosen by `lengths` (see `ResidualQuantizer`).
        """
        indices, commitments, state = self._levels(image, lmbdas, lengths, True, tradeoffs, silent, refined)
        return Reconstruction(self.to_pixels(state, tradeoffs), indices, commitments)

    def scaled(self, name: str, x: Tensor, tradeoffs: Tensor | None) -> Tensor:
        """Channels times the gains of that name, where the model has some."""
        if name not in self.gains:
            return x
        if tradeoffs is None:
            tradeoffs = x.new_full((1,), 0.5, dtype=torch.float32)
        return self.gains[name](x, tradeoffs)

    def _levels(
        self,
        image: Tensor,
        lmbdas: Tensor | None,
        lengths: Lengths | None,
        last: bool,
        tradeoffs: Tensor | None = None,
        silent: Tensor | None = None,
        refined: int | None = None,
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Quantise level after level: indices, commitments, and the decoded state, the finest level in it if `last`."""
        features = self.features(image, tradeoffs)
        state: Tensor | None = None
        indices: list[Tensor] = []
        commitments = []
        for i in range(len(self.config.levels)):
            z = self.latent(i, features[i], state).permute(0, 2, 3, 1)
            weights = None if lmbdas is None else lmbdas[i]
            # Levels that may stop are all chosen by their cost; of the others the finest, which has nearly all bits.
            chosen_by_cost = self.config.levels[i].stop or i + 1 == len(self.config.levels)
            refine = None
            if lengths is not None and chosen_by_cost:
                refine = partial(lengths, [maps[:refined] for maps in indices])
            result = self.quantizers[i](z, weights, refine, None if silent is None else silent[i], refined)
            indices.append(result.indices)
            commitments.append(result.commitment)
            if last or i + 1 < len(self.config.levels):
                state = self.descend(i, result.quantized.permute(0, 3, 1, 2), state, tradeoffs)
        return indices, commitments, features[0] if state is None else state

    def encode(
        self,
        image: Tensor,
        lmbdas: Tensor | None = None,
        lengths: Lengths | None = None,
        tradeoffs: Tensor | None = None,
    ) -> list[Tensor]:
        """Indices only, per level int64 [N, maps, H/stride, W/stride]. Arguments as of `forward`."""
        return self._levels(image, lmbdas, lengths, False, tradeoffs)[0]

    def decode(self, indices: list[Tensor], tradeoff: float | None = None) -> Tensor:
        """indices: per level int [N, maps, H/stride, W/stride] -> image, float [N, 3, H, W], about 0..1. tradeoff: of
        the lambda in the model's range, 0 to 1 (None: the middle)."""
        if not indices:
            raise ValueError("no index maps given")
        pairs = zip(self.level_quantizers(), indices, strict=True)
        quantized = [quantizer.lookup(maps).permute(0, 3, 1, 2) for quantizer, maps in pairs]
        return self.assemble(quantized, None if tradeoff is None else quantized[0].new_full((1,), tradeoff))

    def assemble(self, quantized: Sequence[Tensor], tradeoffs: Tensor | None = None) -> Tensor:
        """The codewords of every level, float [N, D, h, w], coarsest first -> image, as of `decode`."""
        state: Tensor | None = None
        for i, codewords in enumerate(quantized[:-1]):
            state = self.descend(i, codewords, state)
        return self.finish(quantized[-1], state, tradeoffs)

    def finish(self, quantized: Tensor, state: Tensor | None, tradeoffs: Tensor | None = None) -> Tensor:
        """The finest level's codewords, float [N, D, h, w], and the decoded state of the others -> image."""
        return self.to_pixels(self.descend(len(self.config.levels) - 1, quantized, state, tradeoffs), tradeoffs)

    def latents(self, image: Tensor, level: int) -> Tensor:
        """Encoder output of one level before its quantiser, float [N, H, W, D]: what the k-means init clusters."""
        features = self.features(image)
        state: Tensor | None = None
        for i in range(level):
            quantized = self.quantizers[i](self.latent(i, features[i], state).permute(0, 2, 3, 1)).quantized
            state = self.descend(i, quantized.permute(0, 3, 1, 2), state)
        return self.latent(level, features[level], state).permute(0, 2, 3, 1)

    # The steps of the way through, from the image down the levels and back to it. Each can be computed in parts.

    def features(self, image: Tensor, tradeoffs: Tensor | None = None) -> list[Tensor]:
        """Encoder features of every level, coarsest first, float [N, C, H/stride, W/stride]. Arguments as of `forward`;
        raises ValueError unless H and W are multiples of the coarsest stride."""
        multiple = self.config.coarsest
        if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] % multiple or image.shape[3] % multiple:
            raise ValueError(f"expected [N, 3, H, W] with H, W multiples of {multiple}, got {list(image.shape)}")
        by_level = [self.enter(image, tradeoffs)]
        for i in reversed(range(len(self.config.levels) - 1)):
            by_level.insert(0, self.coarsen(i, by_level[0]))
        return by_level

    def enter(self, image: Tensor, tradeoffs: Tensor | None = None) -> Tensor:
        """The finest level's features."""
        x = self.stem(F.pixel_unshuffle(image - 0.5, self.config.patch))
        x = self.encode_blocks[0](self.scaled("stem", x, tradeoffs))
        return self._down(x, 0, self._position(-1))

    def coarsen(self, i: int, features: Tensor) -> Tensor:
        """The features of a level from those of the next finer one."""
        return self._down(features, self._position(i + 1), self._position(i))

    def _down(self, x: Tensor, position: int, target: int) -> Tensor:
        for step in range(position, target):
            x = self.encode_blocks[step + 1](self.down[step](x))
        return x

    def _position(self, level: int) -> int:
        """Where a level's stride is in the lists of layers."""
        return self._by_stride[self.config.levels[level].stride]

    def latent(self, i: int, features: Tensor, state: Tensor | None) -> Tensor:
        """What level i has to quantise, float [N, D, h, w], from its features and the decoded coarser levels."""
        z = self.to_latent[i](features if state is None else torch.cat([features, state.to(features.dtype)], 1))
        return self.normalize[i](z.float())

    def descend(self, i: int, quantized: Tensor, state: Tensor | None, tradeoffs: Tensor | None = None) -> Tensor:
        """Join level i's codewords, float [N, D, h, w], to the decoded state and go up to the next level's stride, or
        stay at the last level's."""
        x, position = self.joined(i, quantized, state, tradeoffs), self._position(i)
        if i + 1 < len(self.config.levels):
            target = self._position(i + 1)
            while position > target:
                position -= 1
                x = self.up[position](x)
                if position > target:
                    x = self.decode_blocks[position](x)
        return x

    def joined(self, i: int, quantized: Tensor, state: Tensor | None, tradeoffs: Tensor | None = None) -> Tensor:
        """The first half of `descend`, at level i's stride."""
        x = self.from_latent[i](quantized if state is None else torch.cat([quantized.to(state.dtype), state], 1))
        if i + 1 == len(self.config.levels):
            x = self.scaled("finest", x, tradeoffs)
        return self.decode_blocks[self._position(i)](x)

    def to_pixels(self, state: Tensor, tradeoffs: Tensor | None = None) -> Tensor:
        """The state at the finest level's stride -> image, as of `decode`."""
        position = self._position(-1)
        x = state
        while position > 0:
            position -= 1
            x = self.decode_blocks[position](self.up[position](x))
        return F.pixel_shuffle(self.head(self.scaled("head", x, tradeoffs)), self.config.patch) + 0.5
