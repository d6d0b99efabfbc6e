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
from vqcodec.nets.quantizer import Dropout, ResidualQuantizer

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
        """Return the quantiser of every level, coarsest first."""
        return [q for q in self.quantizers if isinstance(q, ResidualQuantizer)]

    def forward(
        self,
        image: Tensor,
        lmbdas: Tensor | None = None,
        lengths: Lengths | None = None,
        tradeoffs: Tensor | None = None,
        dropout: Dropout | None = None,
        refined: int | None = None,
    ) -> Reconstruction:
        """Encode images, choose codes and decode them.

        Args:
            image: float [N, 3, H, W] in 0..1; H and W are multiples of the coarsest stride.
            lmbdas: weights of a bit, float [levels, N]; None: those of the quantisers.
            lengths: gives a level's code lengths in the context of its maps and the coarser ones', each int64
                [N, maps, h, w], coarsest first.
            tradeoffs: where the lambdas lie in the model's range, float [N] in 0..1, for the gains (None: the middle).
            dropout: of the quantisers of all levels.
            refined: how many images are chosen by `lengths` (see `ResidualQuantizer.forward`).

        Raises: ValueError on another shape.
        """
        indices, commitments, state = self._levels(image, lmbdas, lengths, True, tradeoffs, dropout, refined)
        return Reconstruction(self.to_pixels(state, tradeoffs), indices, commitments)

    def scaled(self, name: str, x: Tensor, tradeoffs: Tensor | None) -> Tensor:
        """Multiply channels by the gains of that name, where the model has some.

        Args:
            name: `stem`, `finest` or `head`.
            x: float [N, C, h, w].
            tradeoffs: float [N] or [1] in 0..1; None: the middle.
        """
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
        dropout: Dropout | None = None,
        refined: int | None = None,
        number: int | None = None,
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Quantise level after level, as many as `number` says: indices, commitments, and the decoded state, the finest
        level in it if `last`."""
        features = self.features(image, tradeoffs)
        state: Tensor | None = None
        indices: list[Tensor] = []
        commitments = []
        number = len(self.config.levels) if number is None else number
        for i in range(number):
            z = self.latent(i, features[i], state).permute(0, 2, 3, 1)
            weights = None if lmbdas is None else lmbdas[i]
            # Levels that may stop are all chosen by their cost; of the others the finest, which has nearly all bits.
            chosen_by_cost = self.config.levels[i].stop or i + 1 == len(self.config.levels)
            refine = None
            if lengths is not None and chosen_by_cost:
                refine = partial(lengths, [maps[:refined] for maps in indices])
            of_level = None if dropout is None else Dropout(*(images[i] for images in dropout))
            result = self.quantizers[i](z, weights, refine, of_level, refined)
            indices.append(result.indices)
            commitments.append(result.commitment)
            if last or i + 1 < number:
                state = self.descend(i, result.quantized.permute(0, 3, 1, 2), state, tradeoffs)
        return indices, commitments, features[0] if state is None else state

    def encode(
        self,
        image: Tensor,
        lmbdas: Tensor | None = None,
        lengths: Lengths | None = None,
        tradeoffs: Tensor | None = None,
        number: int | None = None,
    ) -> list[Tensor]:
        """Encode images to indices only.

        Args:
            image: as of `forward`.
            lmbdas: as of `forward`.
            lengths: as of `forward`.
            tradeoffs: as of `forward`.
            number: of levels, the coarsest ones; None: all.

        Returns: per level int64 [N, maps, H/stride, W/stride].
        """
        return self._levels(image, lmbdas, lengths, False, tradeoffs, number=number)[0]

    def decode(self, indices: list[Tensor], tradeoff: float | None = None) -> Tensor:
        """Decode indices to pixels.

        Args:
            indices: per level int [N, maps, H/stride, W/stride], coarsest first.
            tradeoff: where the lambda lies in the model's range, 0 to 1 (None: the middle).

        Returns: float [N, 3, H, W], about 0..1.

        Raises: ValueError if there are no maps, or not as many as levels.
        """
        if not indices:
            raise ValueError("no index maps given")
        pairs = zip(self.level_quantizers(), indices, strict=True)
        quantized = [quantizer.lookup(maps).permute(0, 3, 1, 2) for quantizer, maps in pairs]
        return self.assemble(quantized, None if tradeoff is None else quantized[0].new_full((1,), tradeoff))

    def assemble(self, quantized: Sequence[Tensor], tradeoffs: Tensor | None = None) -> Tensor:
        """Decode codewords to pixels.

        Args:
            quantized: the codewords of every level, float [N, D, h, w], coarsest first.
            tradeoffs: as of `forward`.

        Returns: as of `decode`.
        """
        state: Tensor | None = None
        for i, codewords in enumerate(quantized[:-1]):
            state = self.descend(i, codewords, state)
        return self.finish(quantized[-1], state, tradeoffs)

    def finish(self, quantized: Tensor, state: Tensor | None, tradeoffs: Tensor | None = None) -> Tensor:
        """Decode the finest level's codewords to pixels.

        Args:
            quantized: float [N, D, h, w].
            state: the decoded state of the coarser levels, float [N, C, h, w]; None where there are none.
            tradeoffs: as of `forward`.

        Returns: as of `decode`.
        """
        return self.to_pixels(self.descend(len(self.config.levels) - 1, quantized, state, tradeoffs), tradeoffs)

    def latents(self, image: Tensor, level: int) -> Tensor:
        """Compute the encoder's output of a level ahead of its quantiser: what the k-means start clusters.

        Args:
            image: as of `forward`.
            level: number of the level, 0 for the coarsest.

        Returns: float [N, H/stride, W/stride, D].
        """
        features = self.features(image)
        state: Tensor | None = None
        for i in range(level):
            quantized = self.quantizers[i](self.latent(i, features[i], state).permute(0, 2, 3, 1)).quantized
            state = self.descend(i, quantized.permute(0, 3, 1, 2), state)
        return self.latent(level, features[level], state).permute(0, 2, 3, 1)

    # The steps of the way through, from the image down the levels and back to it. Each can be computed in parts.

    def features(self, image: Tensor, tradeoffs: Tensor | None = None) -> list[Tensor]:
        """Compute the encoder's features of every level.

        Args:
            image: as of `forward`.
            tradeoffs: as of `forward`.

        Returns: float [N, C, H/stride, W/stride], coarsest first.

        Raises: ValueError unless H and W are multiples of the coarsest stride.
        """
        multiple = self.config.coarsest
        if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] % multiple or image.shape[3] % multiple:
            raise ValueError(f"expected [N, 3, H, W] with H, W multiples of {multiple}, got {list(image.shape)}")
        by_level = [self.enter(image, tradeoffs)]
        for i in reversed(range(len(self.config.levels) - 1)):
            by_level.insert(0, self.coarsen(i, by_level[0]))
        return by_level

    def enter(self, image: Tensor, tradeoffs: Tensor | None = None) -> Tensor:
        """Compute the finest level's features.

        Args:
            image: as of `forward`.
            tradeoffs: as of `forward`.
        """
        x = self.stem(F.pixel_unshuffle(image - 0.5, self.config.patch))
        x = self.encode_blocks[0](self.scaled("stem", x, tradeoffs))
        return self._down(x, 0, self._position(-1))

    def coarsen(self, i: int, features: Tensor) -> Tensor:
        """Compute a level's features from those of the next finer one.

        Args:
            i: number of the level, 0 for the coarsest.
            features: of level i + 1, float [N, C, h, w].
        """
        return self._down(features, self._position(i + 1), self._position(i))

    def _down(self, x: Tensor, position: int, target: int) -> Tensor:
        for step in range(position, target):
            x = self.encode_blocks[step + 1](self.down[step](x))
        return x

    def _position(self, level: int) -> int:
        """Where a level's stride is in the lists of layers."""
        return self._by_stride[self.config.levels[level].stride]

    def latent(self, i: int, features: Tensor, state: Tensor | None) -> Tensor:
        """Compute what a level has to quantise.

        Args:
            i: number of the level, 0 for the coarsest.
            features: its features, float [N, C, h, w].
            state: the decoded coarser levels, float [N, C, h, w]; None at the coarsest.

        Returns: float [N, D, h, w].
        """
        z = self.to_latent[i](features if state is None else torch.cat([features, state.to(features.dtype)], 1))
        return self.normalize[i](z.float())

    def descend(self, i: int, quantized: Tensor, state: Tensor | None, tradeoffs: Tensor | None = None) -> Tensor:
        """Join a level's codewords to the decoded state and go up to the next level's stride; stay at the last level's.

        Args:
            i: number of the level, 0 for the coarsest.
            quantized: its codewords, float [N, D, h, w].
            state: the decoded coarser levels, float [N, C, h, w]; None at the coarsest.
            tradeoffs: as of `forward`.
        """
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
        """Do the first half of `descend`, at the level's stride.

        Args:
            i: as of `descend`.
            quantized: as of `descend`.
            state: as of `descend`.
            tradeoffs: as of `forward`.
        """
        x = self.from_latent[i](quantized if state is None else torch.cat([quantized.to(state.dtype), state], 1))
        if i + 1 == len(self.config.levels):
            x = self.scaled("finest", x, tradeoffs)
        return self.decode_blocks[self._position(i)](x)

    def to_pixels(self, state: Tensor, tradeoffs: Tensor | None = None) -> Tensor:
        """Decode the state at the finest level's stride to pixels.

        Args:
            state: float [N, C, h, w].
            tradeoffs: as of `forward`.

        Returns: as of `decode`.
        """
        position = self._position(-1)
        x = state
        while position > 0:
            position -= 1
            x = self.decode_blocks[position](self.up[position](x))
        return F.pixel_shuffle(self.head(self.scaled("head", x, tradeoffs)), self.config.patch) + 0.5
