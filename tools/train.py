# SPDX-License-Identifier: Apache-2.0
"""Train a model: `vae`; `vqvae` or `vqvae2`, then `joint` if you like, then `prior`; then `export` to a weights file.
Thin over vqcodec.training; every run goes on from its checkpoint if there is one, and saves first when it is stopped.
Under `torchrun` all processes train together.

    python tools/train.py vqvae2 --preset base --data photos --val others --out run --minutes 60
    python tools/train.py prior --data photos --val others --out run --minutes 60
    python tools/train.py export --out run --val others mine.safetensors
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from vqcodec.cli.tools import script_help
from vqcodec.config import ModelConfig
from vqcodec.nets import parallel
from vqcodec.training import export as exporting
from vqcodec.training.autoencoder import AutoencoderTask, AutoencoderTraining, validate
from vqcodec.training.data import load_images
from vqcodec.training.joint import JointTask
from vqcodec.training.loop import train
from vqcodec.training.options import (
    EXISTING,
    PATH,
    beam,
    configured,
    data,
    lmbdas,
    preset,
    settings,
    start,
    taken,
    terms,
    unquantized,
)
from vqcodec.training.presets import VAE_PRESETS, VQVAE2_PRESETS, VQVAE_PRESETS
from vqcodec.training.prior import CodedTiles, Priors, PriorTask, Shares, bits_per_pixel, coded_tiles
from vqcodec.training.prior import validate as validate_priors
from vqcodec.training.schedule import TrainConfig
from vqcodec.training.vae import VAETask, VAETraining
from vqcodec.training.vae import validate as validate_vae
from vqcodec.training.widen import carried, widened

VAE = TrainConfig(batch=32, crop=64, learning_rate=7e-4, optimizer="muon")
AUTOENCODER = TrainConfig(batch=12, optimizer="muon")
JOINT = TrainConfig(batch=12, learning_rate=2.5e-4, optimizer="muon")
PRIOR = TrainConfig(batch=4, learning_rate=2e-3, weight_decay=0.0, validate_every=250, log_every=25)


@click.group(help=script_help(__doc__))
@click.option("--threads", default=0, help="Use N CPU threads; 0 for all.")
def main(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


@main.command()
@data
@preset(VAE_PRESETS)
@settings(VAE, "crop")
def vae(out: Path, data: tuple[Path, ...], val: tuple[Path, ...], preset: str, device: str, **kw: Any) -> None:
    """Train a VAE on crops of the preset's tile size.

    \b
    python tools/train.py vae --data photos --val others --out run --minutes 30
    """
    with parallel.processes(device) as name:
        config = configured(VAE, name, kw)
        images = load_images(data), load_images(val, limit=24)
        train(VAETask(VAE_PRESETS[preset], config, VAETraining(), *images), config, out)


def autoencoder(
    presets: Mapping[str, ModelConfig],
    out: Path,
    data: tuple[Path, ...],
    val: tuple[Path, ...],
    preset: str,
    lmbdas: tuple[float, float] | None,
    start: Path | None,
    device: str,
    **kw: Any,
) -> None:
    """Do `vqvae` or `vqvae2`.

    Args:
        presets: by name.
        out: folder of the run.
        data: photographs to train on.
        val: photographs to measure on.
        preset: name of the model's sizes.
        lmbdas: lowest and highest weight of a bit; None: the preset's.
        start: weights file to begin with.
        device: to train on.
    """
    special = AutoencoderTraining(**taken(kw, AutoencoderTraining))
    with parallel.processes(device) as name:
        config = configured(AUTOENCODER, name, kw)
        model = presets[preset]
        if lmbdas is not None:
            model = dataclasses.replace(model, lmbdas=lmbdas)
        images = load_images(data), load_images(val, limit=24)
        task = AutoencoderTask(model, config, special, *images)
        if start is not None:
            click.echo(f"starts from {exporting.start_from(task.module, start)}")
        train(task, config, out)


@main.command()
@data
@preset(VQVAE_PRESETS)
@lmbdas
@start
@terms(0.25)
@unquantized(AutoencoderTraining.unquantized_steps)
@settings(AUTOENCODER)
def vqvae(**kw: Any) -> None:
    """Train a VQ-VAE, the autoencoder of one level.

    \b
    python tools/train.py vqvae --data photos --val others --out run --minutes 60
    """
    autoencoder(VQVAE_PRESETS, **kw)


@main.command()
@data
@preset(VQVAE2_PRESETS)
@lmbdas
@start
@terms(0.05)
@unquantized(AutoencoderTraining.unquantized_steps)
@settings(AUTOENCODER)
def vqvae2(**kw: Any) -> None:
    """Train a VQ-VAE-2, the autoencoder of several levels.

    \b
    python tools/train.py vqvae2 --preset base --data photos --val others --out run --minutes 60
    """
    autoencoder(VQVAE2_PRESETS, **kw)


@main.command()
@data
@lmbdas
@click.option("--start", type=EXISTING, help="Go on from this weights file, instead of --out's autoencoder.")
@click.option("--preset", type=click.Choice(sorted(VQVAE2_PRESETS)), help="Begin from nothing.")
@unquantized(60)
@click.option(
    "--ramp",
    nargs=2,
    default=(80, 240),
    show_default=True,
    help="Let the weight of a bit grow between these steps, from nothing.",
)
@click.option("--products", type=click.IntRange(1), help="Give the finest level of --start so many product stages.")
@click.option("--kept", is_flag=True, help="Train codebooks and priors only, not the networks of the autoencoder.")
@click.option("--enlarged", default=0.0, show_default=True, help="Make this part of the crops smooth.")
@click.option("--prior-share", default=1.0, show_default=True, help="Train the priors on this part of the crops.")
@beam
@terms(0.05)
@settings(JOINT)
def joint(
    out: Path,
    data: tuple[Path, ...],
    val: tuple[Path, ...],
    lmbdas: tuple[float, float] | None,
    start: Path | None,
    preset: str | None,
    products: int | None,
    device: str,
    **kw: Any,
) -> None:
    """Train an autoencoder together with its priors: codes are chosen by their cost under them. Begins with --preset
    from nothing, else goes on from the autoencoder in --out, or from --start.

    \b
    python tools/train.py joint --preset light --data photos --val others --out run --minutes 600
    python tools/train.py joint --start models/vq2-light.safetensors --data photos --val others --out run --minutes 60
    """
    special = AutoencoderTraining(**taken(kw, AutoencoderTraining))
    with parallel.processes(device) as name:
        config = configured(JOINT, name, kw)
        model, priors = None, None
        if (products is not None or special.kept) and (preset is not None or start is None):
            raise click.UsageError("--products and --kept go with --start")
        if preset is not None:
            sizes = VQVAE2_PRESETS[preset]
        elif start is not None:
            before, *trained = exporting.load_model_file(start)
            sizes = widened(before, products, lmbdas)
            model, priors = carried(before, *trained, sizes)
        else:
            model, meta = exporting.load_autoencoder(out / "autoencoder.ckpt.safetensors")
            sizes = ModelConfig.from_dict(meta["model"])
        if lmbdas is not None and start is None:
            sizes = dataclasses.replace(sizes, lmbdas=lmbdas)
        task = JointTask(sizes, config, special, load_images(data), load_images(val, limit=24), fresh=model is None)
        if model is not None:
            task.autoencoder.load_state_dict(model.state_dict())
        if priors is not None:
            task.module.priors.load_state_dict(priors.state_dict())
        train(task, config, out)


@main.command()
@data
@click.option("--levels", type=click.IntRange(1), help="Train this many levels only, the coarsest; all by default.")
@click.option("--enlarged", default=0.0, show_default=True, help="Enlarge this share of the tiles from small parts.")
@beam
@click.option(
    "--fresh", type=click.IntRange(1), help="Code N tiles a step, and draw the batch from all that were coded so far."
)
@settings(PRIOR, "crop")
def prior(
    out: Path,
    data: tuple[Path, ...],
    val: tuple[Path, ...],
    device: str,
    **kw: Any,
) -> None:
    """Train the priors on what the autoencoder in --out makes of random tiles.

    \b
    python tools/train.py prior --data photos --val others --out run --minutes 60
    """
    shares = Shares(**taken(kw, Shares))
    with parallel.processes(device) as name:
        config = configured(PRIOR, name, kw)
        source = exporting.latest(out)
        model, meta = exporting.load_autoencoder(source)
        model = model.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.manual_seed(config.seed)
        sizes = ModelConfig.from_dict(meta["model"])
        priors = exporting.load_priors(source)[0] if meta["name"] == "joint" else Priors(sizes)
        priors.to(config.device)
        tiles = coded_tiles(sizes, model, priors, load_images(data), load_images(val), config, shares)
        train(PriorTask(sizes, config, priors, *tiles, model), config, out)


@main.command()
@click.option("--out", type=EXISTING, required=True, help="Take the run in this folder.")
@click.option("--val", multiple=True, type=EXISTING, required=True, help="Measure on these photographs.")
@click.argument("target", type=PATH)
def export(out: Path, val: tuple[Path, ...], target: Path) -> None:
    """Write the weights file TARGET and print its validation figures.

    \b
    python tools/train.py export --out run --val others mine.safetensors
    """
    images = load_images(val)
    best = out / "vae.best.safetensors"
    if best.exists():
        bounds = validate_vae(exporting.write_vae(best, target), images, "cpu")
        click.echo(f"ELBO {bounds.elbo:.4f} bits per dim (a bound): reconstruction {bounds.reconstruction:.4f}")
        click.echo(f"+ KL {bounds.kl:.4f}; PSNR {bounds.psnr:.2f} dB")
        return
    config, model, priors = exporting.write_codec(out, target)
    report = validate(model, images, "cpu")
    click.echo(f"PSNR {report.psnr:.3f} dB, order-0 entropy {report.order0_bpp:.4f} bpp (estimate)")
    click.echo(f"usage {report.usage}, perplexity {report.perplexity}")
    tiles = CodedTiles(config, model, priors, images, seed=1).batch(32)
    for name, exact in (("integer", True), ("float", False)):
        nats = validate_priors(priors, tiles, exact)
        click.echo(f"{name}: {bits_per_pixel(nats, config):.5f} bpp (estimate), nats per position {nats}")


@main.command()
@click.argument("first", type=EXISTING)
@click.argument("second", type=EXISTING)
@click.option("--share", default=0.5, show_default=True, help="Weigh SECOND by this much, FIRST by the rest.")
@click.argument("target", type=PATH)
def mean(first: Path, second: Path, share: float, target: Path) -> None:
    """Write the mean of two weights files to TARGET: of trained ones, and of a run that began with them.

    \b
    python tools/train.py mean models/vq2-light.safetensors mine.safetensors mean.safetensors --share 0.4
    """
    try:
        exporting.write_mean(first, second, share, target)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@main.command()
@click.argument("weights", type=EXISTING, nargs=-1, required=True)
def previews(weights: tuple[Path, ...]) -> None:
    """Write NAME.preview beside the weights files NAME.safetensors; export does it too.

    \b
    python tools/train.py previews mine.safetensors
    """
    for path in weights:
        click.echo(exporting.write_previews(path))


if __name__ == "__main__":
    main()
