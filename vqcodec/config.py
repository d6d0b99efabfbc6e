# SPDX-License-Identifier: Apache-2.0
"""Frozen configurations, stored as JSON inside every weights file and checkpoint. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LevelConfig:
    """One level of the latent hierarchy.

    stride: pixels per index along each axis (a power of two). codebooks: residual codebooks, each gives one index map.
    codes: entries K of each codebook. dim: dimension of a codeword.
    """

    stride: int
    codebooks: int
    codes: int
    dim: int


@dataclass(frozen=True)
class AutoencoderConfig:
    """VQ-VAE-2 autoencoder (Razavi et al. 2019), for any list of levels, coarsest first.

    widths, blocks: channels and residual blocks at strides 2, 4, 8, ... up to the coarsest level's stride.
    """

    levels: tuple[LevelConfig, ...]
    widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]

    def __post_init__(self) -> None:
        strides = [level.stride for level in self.levels]
        if not strides or strides != sorted(set(strides), reverse=True):
            raise ValueError(f"levels must have distinct strides, coarsest first; got {strides}")
        if strides[0] != 2 ** len(self.widths):
            raise ValueError(f"widths for {len(self.widths)} strides do not end at the coarsest stride {strides[0]}")
        if not len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError("widths, encoder_blocks and decoder_blocks must have one entry per stride")
        for level in self.levels:
            if level.stride & (level.stride - 1) or level.stride < 2 or not 2 <= level.codes <= 4096:
                raise ValueError(f"stride must be a power of two from 2, codes 2..4096; got {level}")

    @property
    def coarsest(self) -> int:
        """Stride of the coarsest level: images are padded to multiples of it."""
        return self.levels[0].stride


@dataclass(frozen=True)
class PriorConfig:
    """Integer PixelCNN prior of one level; it serves all codebooks ("stages") of the level.

    channels: width of the stream. layers: gated residual masked convolutions. attention_every: a causal attention layer
    after every so many of them (0: none). heads: attention heads. cond_blocks: residual blocks of the conditioning
    stack over the maps known before. out_blocks: residual 1x1 blocks before the logits. dropout: after each residual
    block and on the attention weights, in training only.
    """

    channels: int = 64
    layers: int = 6
    attention_every: int = 0
    heads: int = 4
    cond_blocks: int = 3
    out_blocks: int = 1
    dropout: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """A whole codec model: the autoencoder, one prior per level, and the tile size in pixels that the priors saw.

    rates: lowest and highest weight of a bit (lambda) that it was trained for, against the squared error of a latent of
    unit variance; the quality scale runs over them. (0, 0): nearest codes, a single quality.
    """

    autoencoder: AutoencoderConfig
    priors: tuple[PriorConfig, ...] = field(default_factory=tuple)
    tile_size: int = 256
    rates: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        low, high = self.rates
        if not (0 < low <= high or low == high == 0):
            raise ValueError(f"rates must be a range above 0, or 0 and 0; got {self.rates}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`. Raises KeyError, TypeError or ValueError on data that is not a configuration."""
        auto = dict(data["autoencoder"])
        auto["levels"] = tuple(LevelConfig(**level) for level in auto["levels"])
        for name in ("widths", "encoder_blocks", "decoder_blocks"):
            auto[name] = tuple(int(n) for n in auto[name])
        return ModelConfig(
            autoencoder=AutoencoderConfig(**auto),
            priors=tuple(PriorConfig(**prior) for prior in data["priors"]),
            tile_size=int(data["tile_size"]),
            rates=(float(data["rates"][0]), float(data["rates"][1])) if "rates" in data else (0.0, 0.0),
        )


@dataclass(frozen=True)
class VAEConfig:
    """Variational autoencoder (Kingma and Welling 2013) with one map of Gaussian latents; any multiple of its stride is
    an image size.

    widths, encoder_blocks, decoder_blocks: channels and residual blocks at strides 2, 4, 8, ...; the last stride is
    that of the latent map. latents: its channels. tile_size: pixels, the side of the squares it is trained on.
    """

    widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    latents: int
    tile_size: int = 64

    def __post_init__(self) -> None:
        if not 0 < len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError("widths, encoder_blocks and decoder_blocks must have one entry per stride")
        if self.latents < 1 or self.tile_size < 1 or self.tile_size % self.stride:
            raise ValueError(f"latents must be positive and the tile a multiple of {self.stride}; got {self}")

    @property
    def stride(self) -> int:
        """Pixels per latent along each axis."""
        return 2 ** len(self.widths)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; `from_dict` reads it back."""
        return {"system": VAE_SYSTEM} | dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> VAEConfig:
        """Inverse of `to_dict`. Raises KeyError, TypeError or ValueError on data that is not a configuration."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "system"}
        return VAEConfig(**values)


VAE_SYSTEM = "vae"  # under "system" in a VAE's configuration; a codec model's has no such key


def is_vae(meta: Mapping[str, Any]) -> bool:
    """Whether the metadata of a weights file are those of a VAE, which has no indices and is no codec."""
    model = meta.get("model")
    return isinstance(model, dict) and model.get("system") == VAE_SYSTEM


# Named presets of VQ-VAE-2. `paper` has the sizes of the paper (section 3.1 and appendix); `base` is what ships as
# vq2-base; `tiny` is for tests.
VQVAE2_PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(
        AutoencoderConfig(
            levels=(LevelConfig(8, 1, 512, 64), LevelConfig(4, 1, 512, 64)),
            widths=(64, 128, 128),
            encoder_blocks=(0, 2, 2),
            decoder_blocks=(0, 2, 2),
        ),
        priors=(
            PriorConfig(channels=128, layers=20, attention_every=5, cond_blocks=0, out_blocks=4, dropout=0.1),
            PriorConfig(channels=128, layers=20, cond_blocks=20, out_blocks=2, dropout=0.1),
        ),
    ),
    "base": ModelConfig(
        AutoencoderConfig(
            levels=(LevelConfig(16, 1, 512, 64), LevelConfig(8, 14, 256, 64)),
            widths=(32, 128, 192, 192),
            encoder_blocks=(0, 1, 3, 3),
            decoder_blocks=(0, 4, 5, 3),
        ),
        priors=(
            PriorConfig(channels=64, layers=5, attention_every=5, cond_blocks=0, out_blocks=2, dropout=0.1),
            PriorConfig(channels=128, layers=6, cond_blocks=2, out_blocks=2),
        ),
        rates=(0.06, 2.0),
    ),
    "tiny": ModelConfig(
        AutoencoderConfig(
            levels=(LevelConfig(8, 1, 32, 8), LevelConfig(4, 2, 16, 8)),
            widths=(16, 24, 32),
            encoder_blocks=(0, 1, 1),
            decoder_blocks=(0, 1, 1),
        ),
        priors=(
            PriorConfig(channels=32, layers=2, attention_every=2, heads=2, cond_blocks=0, out_blocks=1, dropout=0.1),
            PriorConfig(channels=32, layers=2, cond_blocks=1, out_blocks=1),
        ),
        tile_size=64,
        rates=(0.06, 2.0),
    ),
}

# VQ-VAE: one level. `paper` has the sizes of van den Oord et al. 2017 (section 4.1) with a PixelCNN of this project;
# `base` is what ships as vqvae-base.
VQVAE_PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(
        AutoencoderConfig(
            levels=(LevelConfig(4, 1, 512, 64),), widths=(128, 256), encoder_blocks=(0, 2), decoder_blocks=(0, 2)
        ),
        priors=(PriorConfig(channels=128, layers=15, attention_every=5, cond_blocks=0, out_blocks=2, dropout=0.1),),
        tile_size=128,
    ),
    "base": ModelConfig(
        AutoencoderConfig(
            levels=(LevelConfig(4, 1, 512, 16),), widths=(48, 160), encoder_blocks=(1, 4), decoder_blocks=(2, 6)
        ),
        priors=(PriorConfig(channels=96, layers=6, attention_every=3, cond_blocks=0, out_blocks=2, dropout=0.05),),
        tile_size=128,
    ),
    "tiny": ModelConfig(
        AutoencoderConfig(
            levels=(LevelConfig(4, 1, 32, 8),), widths=(16, 24), encoder_blocks=(0, 1), decoder_blocks=(0, 1)
        ),
        priors=(PriorConfig(channels=32, layers=2, attention_every=2, heads=2, cond_blocks=0, out_blocks=1),),
        tile_size=64,
    ),
}

VAE_PRESETS: dict[str, VAEConfig] = {
    "base": VAEConfig(
        widths=(64, 128, 192, 256), encoder_blocks=(0, 1, 2, 2), decoder_blocks=(0, 2, 3, 2), latents=256
    ),
    "tiny": VAEConfig(widths=(16, 24), encoder_blocks=(0, 1), decoder_blocks=(0, 1), latents=8, tile_size=32),
}
