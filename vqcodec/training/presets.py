# SPDX-License-Identifier: Apache-2.0
"""Named sizes of models to train. A weights file carries its configuration: nothing that loads one looks here."""

from __future__ import annotations

from vqcodec.config import AutoencoderConfig, LevelConfig, ModelConfig, PriorConfig, VAEConfig

# Named presets of VQ-VAE-2. `paper` has the sizes of the paper (section 3.1 and appendix); `base` is what ships as
# vq2-base; `light` what ships as vq2-light, to be trained by `joint` from nothing; `tiny` and `tiny-light` are for
# tests.
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
        lmbdas=(0.06, 2.0),
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
        lmbdas=(0.06, 2.0),
    ),
}

VQVAE2_PRESETS["light"] = ModelConfig(
    AutoencoderConfig(
        levels=(
            LevelConfig(32, 6, 256, 32, stop=True),
            LevelConfig(16, 6, 256, 32, stop=True),
            LevelConfig(8, 8, 256, 96, stop=True, products=2, groups=12, group_codes=64),
        ),
        widths=(192, 160, 160),
        encoder_blocks=(5, 2, 2),
        decoder_blocks=(6, 2, 2),
        patch=8,
        overlap=False,
        norm="level",
        gains=10,
    ),
    priors=tuple(
        PriorConfig(
            channels=96,
            layers=4,
            attention_every=4 if coarsest else 0,
            cond_blocks=0 if coarsest else 2,
            out_blocks=2,
            order="seven",
            out_channels=64,
            tradeoffs=36,
            cond_above=True,
        )
        for coarsest in (True, False, False)
    ),
    lmbdas=(0.0003546, 4.0),
)
VQVAE2_PRESETS["tiny-light"] = ModelConfig(
    AutoencoderConfig(
        levels=(
            LevelConfig(16, 2, 16, 8, stop=True),
            LevelConfig(8, 3, 32, 24, stop=True, products=1, groups=6, group_codes=8),
        ),
        widths=(48, 64),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        patch=8,
        overlap=False,
        norm="level",
        gains=3,
    ),
    priors=(
        PriorConfig(32, 2, attention_every=2, heads=2, cond_blocks=0, order="seven", out_channels=16, tradeoffs=4),
        PriorConfig(32, 2, cond_blocks=1, order="seven", out_channels=16, tradeoffs=4, cond_above=True),
    ),
    tile_size=64,
    lmbdas=(0.004, 2.0),
)

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
