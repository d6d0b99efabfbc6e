# SPDX-License-Identifier: Apache-2.0
"""Figures of a model of any system (VAE, VQ-VAE, VQ-VAE-2) on a set of images, side by side in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vqcodec.codec import Codec
from vqcodec.evaluation import markdown, metrics, rates
from vqcodec.images.types import Pixels
from vqcodec.model import registry, weights
from vqcodec.vae.model import VAEModel, mean_figures


@dataclass(frozen=True)
class SystemFigures:
    """Of one model on one set of images; means over images unless said.

    Args:
        system: VAE, VQ-VAE or VQ-VAE-2.
        parameters: learned numbers by part (codebooks included).
        minutes: of training, as its weights file says.
        psnr: dB, of the reconstruction.
        bound: for a VAE, (reconstruction, KL) in bits per dim: their sum, the ELBO, bounds what it takes to store the
            pixels themselves; None for the others.
        importance_weighted: the tighter bound, if it was asked for.
        nats_per_index: by level, under the integer prior, an estimate (no file); empty for a VAE.
        index_bits_per_dim: the same over all dimensions of the images.
        file_bits_per_dim: of the files' bytes, None for a VAE.
        usage: share of codes used on the whole set, by level and codebook.
    """

    model: str
    system: str
    parameters: dict[str, int]
    minutes: float
    psnr: float
    bound: tuple[float, float] | None
    importance_weighted: float | None
    nats_per_index: list[float]
    index_bits_per_dim: float | None
    file_bits_per_dim: float | None
    usage: list[list[float]]


def figures(model: Codec | VAEModel, file: registry.ModelFile, images: Sequence[Pixels], samples: int) -> SystemFigures:
    """Measure a loaded model.

    Args:
        model: of any system.
        file: its weights.
        images: uint8 [H, W, 3].
        samples: draws for a VAE's importance-weighted bound, or 0.
    """
    tensors, meta = weights.load(file.path)
    minutes = training_minutes(meta)
    if isinstance(model, VAEModel):
        return _of_vae(model, minutes, images, samples)
    tables = ("table", "exp_table")  # the same in every model, not learned
    numbers = sum(v.numel() for k, v in tensors.items() if k.startswith("prior.") and k.split(".")[-1] not in tables)
    return _of_codec(model, minutes, numbers, images)


def _of_vae(model: VAEModel, minutes: float, images: Sequence[Pixels], samples: int) -> SystemFigures:
    means = mean_figures([model.figures(pixels, samples=samples, seed=i) for i, pixels in enumerate(images)])
    parameters = {"autoencoder": sum(p.numel() for p in model.network.parameters())}
    bound = (means.reconstruction, means.kl)
    weighted = means.importance_weighted
    return SystemFigures(model.name, "VAE", parameters, minutes, means.psnr, bound, weighted, [], None, None, [])


def _of_codec(model: Codec, minutes: float, prior_numbers: int, images: Sequence[Pixels]) -> SystemFigures:
    files = [rates.encoded_rates(model, Image.fromarray(pixels)) for pixels in images]
    # A file decodes to the indices that were coded, so that decoding it would only repeat this.
    psnrs = [metrics.psnr(pixels, reconstruction(model, pixels)) for pixels in images]
    dims = sum(pixels.size for pixels in images)
    levels = [rates.total(tallies).rates() for tallies in zip(*(file.tallies for file in files), strict=True)]
    system = "VQ-VAE" if len(levels) == 1 else "VQ-VAE-2"
    sizes = [(v.codebooks * v.codes + v.products * v.group_codes) * v.dim for v in model.config.autoencoder.levels]
    parameters = {
        "autoencoder": sum(p.numel() for p in model.autoencoder.parameters()) + sum(sizes),
        "prior": prior_numbers,
    }
    return SystemFigures(
        model.name,
        system,
        parameters,
        minutes,
        psnr=sum(psnrs) / len(psnrs),
        bound=None,
        importance_weighted=None,
        nats_per_index=[level.ideal * math.log(2) / level.indices for level in levels],
        index_bits_per_dim=sum(level.ideal for level in levels) / dims,
        file_bits_per_dim=8 * sum(file.size for file in files) / dims,
        usage=[level.usage for level in levels],
    )


def reconstruction(model: Codec | VAEModel, pixels: Pixels) -> Pixels:
    """Put an image through a model and back.

    Args:
        model: of any system.
        pixels: uint8 [H, W, 3].

    Returns: uint8 [H, W, 3].
    """
    if isinstance(model, VAEModel):
        return model.reconstruct(pixels)
    return model.from_indices(model.to_indices(pixels))


def training_minutes(meta: Mapping[str, Any]) -> float:
    """Minutes of all stages of training, from a weights file's metadata."""
    training = meta.get("training", {})
    older = [value for key, value in training.items() if key.endswith("_minutes")]
    if older:  # there, a stage's own "minutes" are the ones that it was allowed
        return float(sum(older))
    return float(sum(part["minutes"] for part in training.values() if isinstance(part, dict)))


def table(figures: Sequence[SystemFigures]) -> str:
    """Write a Markdown table, one row a model."""
    head = ["model", "system", "parameters", "training", "PSNR", "bits per dim of the pixels, bound"]
    head += ["bits per dim of the indices, estimate", "bits per dim, files", "nats per index, by level"]
    head += ["least usage, by level"]
    rows = []
    for f in figures:
        parts = " + ".join(f"{n / 1e6:.2f} M" for n in f.parameters.values())
        bound = "" if f.bound is None else f"{sum(f.bound):.3f} = {f.bound[0]:.3f} + KL {f.bound[1]:.3f}"
        if f.importance_weighted is not None:
            bound += f"; importance-weighted {f.importance_weighted:.3f}"
        cells = (
            f"`{f.model}`",
            f.system,
            parts,
            f"{f.minutes:.0f} min",
            f"{f.psnr:.2f} dB",
            bound,
            _number(f.index_bits_per_dim),
            _number(f.file_bits_per_dim),
            ", ".join(f"{n:.3f}" for n in f.nats_per_index),
            ", ".join(f"{100 * min(level):.1f} %" for level in f.usage),
        )
        rows.append(cells)
    return markdown.table(head, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
