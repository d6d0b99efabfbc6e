# SPDX-License-Identifier: Apache-2.0
"""Train a model: `autoencoder`, then `priors` on its indices, then `export` to a weights file. Thin over
vqcodec.training; every run goes on from its checkpoint if there is one, and saves first when it is stopped."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import click
import torch

from vqcodec import weights
from vqcodec.codec import Codec, pack_model
from vqcodec.config import PRESETS, ModelConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.prior.export import to_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.training.autoencoder import AutoencoderTraining, train_autoencoder, validate
from vqcodec.training.data import load_images
from vqcodec.training.prior import TileSampler, bits_per_pixel, image_indices, train_priors
from vqcodec.training.prior import validate as validate_priors
from vqcodec.training.schedule import TrainConfig

AUTOENCODER = TrainConfig(batch=12, learning_rate=5e-4)
PRIORS = TrainConfig(batch=4, learning_rate=2e-3, validate_every=250, log_every=25)


def settings(defaults: TrainConfig) -> Any:
    """One option per field of TrainConfig that people change, with the run's own defaults."""

    def decorate(command: Any) -> Any:
        for name in ("steps", "minutes", "batch", "crop", "learning_rate", "validate_every", "seed", "bf16", "device"):
            value = getattr(defaults, name)
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                flag += f"/--no-{name}"
            command = click.option(flag, default=value, show_default=True)(command)
        return command

    return decorate


def data(command: Any) -> Any:
    """Where the photographs are."""
    path = click.Path(exists=True, path_type=Path)
    command = click.option("--val", multiple=True, type=path, required=True, help="validation images")(command)
    command = click.option("--data", multiple=True, type=path, required=True, help="folder or zip; repeatable")(command)
    return click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of the run")(command)


@click.group(help=__doc__)
@click.option("--threads", default=0, help="CPU threads, 0: all")
def main(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


@main.command()
@data
@click.option("--preset", type=click.Choice(sorted(PRESETS)), default="base", show_default=True)
@click.option("--rate", default=0.02, show_default=True, help="weight of a bit at every level but the coarsest")
@settings(AUTOENCODER)
def autoencoder(out: Path, data: tuple[Path, ...], val: tuple[Path, ...], preset: str, rate: float, **kw: Any) -> None:
    """Train the VQ-VAE-2 autoencoder."""
    config = dataclasses.replace(AUTOENCODER, **kw)
    model = PRESETS[preset]
    special = AutoencoderTraining(rate=(0.0, *(rate,) * (len(model.autoencoder.levels) - 1)))
    train_autoencoder(model, config, special, load_images(data), load_images(val, limit=24), out)


def load_autoencoder(out: Path, rate_scale: float) -> tuple[Autoencoder, dict[str, Any]]:
    """The autoencoder of a run, its rate weights scaled, and its checkpoint's meta."""
    tensors, meta = weights.load(out / "autoencoder.ckpt.safetensors")
    model = Autoencoder(ModelConfig.from_dict(meta["model"]).autoencoder)
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(state)
    for quantizer in model.level_quantizers():
        quantizer.rate_weight.mul_(rate_scale)
    return model.eval(), meta


@main.command()
@data
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="take the priors' sizes of this preset instead")
@click.option("--rate-scale", default=1.0, show_default=True, help="of the weight of a bit, against training's")
@settings(PRIORS)
def priors(
    out: Path, data: tuple[Path, ...], val: tuple[Path, ...], preset: str | None, rate_scale: float, **kw: Any
) -> None:
    """Train the priors of all levels on the autoencoder's indices."""
    config = dataclasses.replace(PRIORS, **kw)
    model, meta = load_autoencoder(out, rate_scale)
    model = model.to(config.device, memory_format=torch.channels_last)
    model_config = ModelConfig.from_dict(meta["model"])
    if preset:
        model_config = dataclasses.replace(model_config, priors=PRESETS[preset].priors)
    train = image_indices(model, load_images(data), config)
    train_priors(model_config, config, train, image_indices(model, load_images(val), config), out, rate_scale)


@main.command()
@click.option("--out", type=click.Path(exists=True, path_type=Path), required=True, help="folder of the run")
@click.option("--val", multiple=True, type=click.Path(exists=True, path_type=Path), required=True)
@click.argument("target", type=click.Path(path_type=Path))
def export(out: Path, val: tuple[Path, ...], target: Path) -> None:
    """Write the weights file TARGET and print its validation figures (float against integer arithmetic)."""
    tensors, meta = weights.load(out / "priors.best.safetensors")
    model, auto_meta = load_autoencoder(out, meta["rate_scale"])
    config = ModelConfig.from_dict(meta["model"])
    levels = config.autoencoder.levels
    modules = torch.nn.ModuleList(
        LevelPrior(p, level, levels[:i]) for i, (p, level) in enumerate(zip(config.priors, levels, strict=True))
    )
    modules.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    integer = [to_integers(p) for p in modules if isinstance(p, LevelPrior)]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    training = {"autoencoder": auto_meta["train"], "priors": meta["train"], "commit": commit}
    training |= {"rate_scale": meta["rate_scale"]}
    training |= {"autoencoder_steps": auto_meta["step"], "autoencoder_minutes": auto_meta["elapsed"] / 60}
    training |= {"prior_steps": meta["step"], "prior_minutes": meta["elapsed"] / 60}
    packed = pack_model(model, integer)
    Codec(config, packed)  # checks everything that loading will check
    weights.save(target, packed, {"model": config.to_dict(), "training": training})

    images = load_images(val)
    report = validate(model, images, "cpu")
    tiles = TileSampler(image_indices(model, images, TrainConfig(bf16=False)), config, 1).batch(32)
    click.echo(f"PSNR {report.psnr:.3f} dB, order-0 entropy {report.order0_bpp:.4f} bpp (estimate)")
    click.echo(f"usage {[round(u, 3) for u in report.usage]}, perplexity {[round(p, 1) for p in report.perplexity]}")
    for name, exact in (("integer", True), ("float", False)):
        nats = validate_priors(modules, tiles, exact)
        click.echo(f"{name}: {bits_per_pixel(nats, config):.5f} bpp (estimate), nats per index {nats}")


if __name__ == "__main__":
    main()
