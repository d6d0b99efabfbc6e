# SPDX-License-Identifier: Apache-2.0
"""Frozen configurations, stored as JSON inside every weights file and checkpoint. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PREVIEW_SCALES = (2, 4, 8, 16, 32)
"""Pixels along a side that become one in a preview."""


@dataclass(frozen=True)
class LevelConfig:
    """One level of the latent hierarchy: residual stages, then product stages.

    Args:
        stride: pixels per index along each axis (a power of two).
        codebooks: residual stages of one codebook each, each gives one index map.
        codes: entries K of each codebook.
        dim: dimension of a codeword.
        stop: code 0 of every stage, the first too, means "nothing more": the position uses no later stage, and they are
            not coded; their indices are 0.
        products: product stages that follow (Jegou et al. 2011): each quantises what is left in `groups` groups of dim
            / groups dimensions, one codebook of `group_codes` entries each, and gives as many index maps; code 0 is the
            zero vector. With `stop`, a product stage whose indices are all 0 is the position's last.
    """

    stride: int
    codebooks: int
    codes: int
    dim: int
    stop: bool = False
    products: int = 0
    groups: int = 1
    group_codes: int = 64

    @property
    def stages(self) -> int:
        """Residual and product stages."""
        return self.codebooks + self.products

    @property
    def maps(self) -> int:
        """Index maps: one of every residual stage, `groups` of every product stage."""
        return self.codebooks + self.products * self.groups

    @property
    def alphabets(self) -> tuple[int, ...]:
        """Number of codes of every index map."""
        return (self.codes,) * self.codebooks + (self.group_codes,) * (self.products * self.groups)

    def stage_maps(self, stage: int) -> slice:
        """Return the index maps of a stage."""
        if stage < self.codebooks:
            return slice(stage, stage + 1)
        first = self.codebooks + (stage - self.codebooks) * self.groups
        return slice(first, first + self.groups)


@dataclass(frozen=True)
class AutoencoderConfig:
    """VQ-VAE-2 autoencoder (Razavi et al. 2019), for any list of levels, coarsest first.

    Args:
        levels: coarsest first.
        widths: channels at strides patch, 2 * patch, 4 * patch, ... up to the coarsest level's stride.
        encoder_blocks: residual blocks at the same strides.
        decoder_blocks: likewise.
        patch: side of the blocks of pixels that the first layer takes and the last one gives, a power of two.
        overlap: convolutions that change the resolution reach over the positions that they join (4x4 down, 3x3 up);
            else they do not (2x2, 1x1).
        norm: of the latents, to unit variance of every channel, or of all channels of a level together, so that those
            with more to say keep more of the energy ("level").
        gains: learned vectors of gains, over the range of lambdas, that scale the channels behind the first and before
            the last layer; 0: none.
    """

    levels: tuple[LevelConfig, ...]
    widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    patch: int = 2
    overlap: bool = True
    norm: str = "channel"
    gains: int = 0

    def __post_init__(self) -> None:
        strides = [level.stride for level in self.levels]
        if self.patch < 2 or self.patch & (self.patch - 1):
            raise ValueError(f"the patch must be a power of two from 2, not {self.patch}")
        if self.norm not in ("channel", "level"):
            raise ValueError(f"the norm must be channel or level, not {self.norm!r}")
        if self.gains < 0:
            raise ValueError(f"gains must be 0 or more, not {self.gains}")
        if not strides or strides != sorted(set(strides), reverse=True):
            raise ValueError(f"levels must have distinct strides, coarsest first; got {strides}")
        if strides[0] != self.patch * 2 ** (len(self.widths) - 1) or strides[-1] < self.patch:
            raise ValueError(f"widths for {len(self.widths)} strides do not end at the coarsest stride {strides[0]}")
        if not len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError("widths, encoder_blocks and decoder_blocks must have one entry per stride")
        for level in self.levels:
            if level.stride & (level.stride - 1) or level.stride < 2 or not 2 <= level.codes <= 4096:
                raise ValueError(f"stride must be a power of two from 2, codes 2..4096; got {level}")
            if level.codebooks < 1 or level.products < 0 or level.groups < 1 or level.dim % level.groups:
                raise ValueError(f"a level needs a residual stage, and groups that divide its dimension; got {level}")
            if level.products and not 2 <= level.group_codes <= level.codes:
                raise ValueError(f"codes of a group must be 2 to those of a residual stage; got {level}")

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of every entry of `widths`."""
        return tuple(self.patch * 2**i for i in range(len(self.widths)))

    @property
    def coarsest(self) -> int:
        """Stride of the coarsest level: images are padded to multiples of it."""
        return self.levels[0].stride


@dataclass(frozen=True)
class PriorConfig:
    """Integer PixelCNN prior of one level; it serves all stages of the level.

    Args:
        channels: width of the stream.
        layers: gated residual masked convolutions.
        attention_every: a causal attention layer after every so many of them (0: none).
        heads: attention heads.
        cond_blocks: residual blocks of the conditioning stack over the maps known before.
        out_blocks: residual 1x1 blocks before the logits.
        dropout: after each residual block and on the attention weights, in training only.
        order: of the positions of a tile, a name of `exact.orders`.
        out_channels: width of the output stack, 0: that of the stream.
        tradeoffs: rows of the embedding of the trade-off, 0: none.
        cond_above: the conditioning stack works at the stride of the level above and is expanded after it; else at the
            level's own.
    """

    channels: int = 64
    layers: int = 6
    attention_every: int = 0
    heads: int = 4
    cond_blocks: int = 3
    out_blocks: int = 1
    dropout: float = 0.0
    order: str = "waves"
    out_channels: int = 0
    tradeoffs: int = 0
    cond_above: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """A whole codec model: the autoencoder, one prior per level, and the tile size in pixels that the priors saw.

    Args:
        lmbdas: lowest and highest weight of a bit that it was trained for, against the squared error of a latent of
            unit variance; the quality scale runs over them. (0, 0): nearest codes, a single quality.
        factors: of the weight of a bit at every level, at both ends of the range (log-linear between them); empty: 1
            everywhere.
    """

    autoencoder: AutoencoderConfig
    priors: tuple[PriorConfig, ...] = field(default_factory=tuple)
    tile_size: int = 256
    lmbdas: tuple[float, float] = (0.0, 0.0)
    factors: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        low, high = self.lmbdas
        if self.factors and len(self.factors) != len(self.autoencoder.levels):
            raise ValueError(f"factors must have one entry per level; got {self.factors}")
        if not (0 < low <= high or low == high == 0):
            raise ValueError(f"lmbdas must be a range above 0, or 0 and 0; got {self.lmbdas}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; `from_dict` reads it back. Files call lmbdas and tradeoffs `rates`."""
        data = dataclasses.asdict(self)
        data["rates"] = data.pop("lmbdas")
        for prior in data["priors"]:
            prior["rates"] = prior.pop("tradeoffs")
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`. Raises KeyError, TypeError or ValueError on data that is not a configuration."""
        auto = dict(data["autoencoder"])
        auto["levels"] = tuple(LevelConfig(**level) for level in auto["levels"])
        for name in ("widths", "encoder_blocks", "decoder_blocks"):
            auto[name] = tuple(int(n) for n in auto[name])
        return ModelConfig(
            autoencoder=AutoencoderConfig(**auto),
            priors=tuple(_prior(prior) for prior in data["priors"]),
            tile_size=int(data["tile_size"]),
            lmbdas=(float(data["rates"][0]), float(data["rates"][1])) if "rates" in data else (0.0, 0.0),
            factors=tuple((float(low), float(high)) for low, high in data.get("factors", ())),
        )


def _prior(data: Mapping[str, Any]) -> PriorConfig:
    return PriorConfig(**{"tradeoffs" if name == "rates" else name: value for name, value in data.items()})


@dataclass(frozen=True)
class VAEConfig:
    """Variational autoencoder (Kingma and Welling 2013) with one map of Gaussian latents; any multiple of its stride is
    an image size.

    Args:
        widths, encoder_blocks, decoder_blocks: channels and residual blocks at strides 2, 4, 8, ...; the last stride is
            that of the latent map.
        latents: its channels.
        tile_size: pixels, the side of the squares it is trained on.
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
    """Return whether the metadata of a weights file are those of a VAE, which has no indices and is no codec."""
    model = meta.get("model")
    return isinstance(model, dict) and model.get("system") == VAE_SYSTEM
