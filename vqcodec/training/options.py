# SPDX-License-Identifier: Apache-2.0
"""What the training commands have in common on their command lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from vqcodec.model.precision import fast_bf16
from vqcodec.training.autoencoder import SHAPES
from vqcodec.training.schedule import OPTIMIZERS, SETTINGS, TrainConfig

PATH = click.Path(path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)


def settings(defaults: TrainConfig, *without: str) -> Any:
    """Add one option a field of TrainConfig, with the run's defaults.

    Args:
        defaults: of the run.
        without: fields to leave out.
    """

    def decorate(command: Any) -> Any:
        for f in reversed(dataclasses.fields(TrainConfig)):
            if f.name in without:
                continue
            value = getattr(defaults, f.name)
            flag = f"--{f.name.replace('_', '-')}"
            if isinstance(value, bool):
                flag += f"/--no-{f.name.replace('_', '-')}"
            kind = click.Choice(OPTIMIZERS) if f.name == "optimizer" else type(value)
            value = "auto" if f.name == "device" else None if f.name == "bf16" else value
            command = click.option(flag, default=value, type=kind, show_default=True, help=SETTINGS[f.name])(command)
        return command

    return decorate


def configured(defaults: TrainConfig, device: str, options: dict[str, Any]) -> TrainConfig:
    """Read what the options of `settings` ask for; bf16 where the device is fast at it unless they say otherwise.

    Args:
        defaults: of the run.
        device: to train on.
        options: of the command.
    """
    if options["bf16"] is None:
        options = options | {"bf16": fast_bf16(torch.device(device).type)}
    return dataclasses.replace(defaults, device=device, **options)


def taken(options: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Take the options out that are fields of a dataclass.

    Args:
        options: of the command.
        kind: the dataclass.
    """
    return {f.name: options.pop(f.name) for f in dataclasses.fields(kind) if f.name in options}


def data(command: Any) -> Any:
    """Where the photographs are."""
    for flag, text in (("--val", "Measure on these images"), ("--data", "Train on these photographs")):
        text += ", a folder or zip; repeatable."
        command = click.option(flag, multiple=True, type=EXISTING, required=True, help=text)(command)
    return click.option("--out", type=PATH, required=True, help="Keep the run in this folder.")(command)


def preset(presets: Mapping[str, Any]) -> Any:
    text = "Train a model of these sizes."
    return click.option("--preset", type=click.Choice(sorted(presets)), default="base", show_default=True, help=text)


def lmbdas(command: Any) -> Any:
    """The range of lambda."""
    text = "Set the lowest and the highest weight of a bit; the preset's by default; 0 0: nearest codes."
    return click.option("--lambda", "lmbdas", nargs=2, type=float, help=text)(command)


def start(command: Any) -> Any:
    """A model to start from."""
    text = "Take over the tensors of this weights file where names and shapes agree."
    return click.option("--start", type=EXISTING, help=text)(command)


def terms(commitment: float) -> Any:
    """Terms of an autoencoder's loss."""

    def decorate(command: Any) -> Any:
        text = "Shape a crop's square error in the loss."
        command = click.option("--shape", type=click.Choice(SHAPES), default="mse", show_default=True, help=text)(
            command
        )
        text = "Pass the finest latents of this part of the crops of the lowest lambda on as they are."
        command = click.option("--passed", default=0.0, show_default=True, help=text)(command)
        text = "Give this part of the crops nothing of the finest level."
        command = click.option("--silent", default=0.0, show_default=True, help=text)(command)
        text = "Weigh what is missing to a perfect SSIMULACRA2, in units of 100 points."
        command = click.option("--ssimulacra2", default=0.0, show_default=True, help=text)(command)
        text = "Weigh 1 - MS-SSIM beside the mean square error; 0.3 makes it about half as large."
        command = click.option("--ms-ssim", default=0.0, show_default=True, help=text)(command)
        text = "Weigh the commitment loss."
        return click.option("--commitment", default=commitment, show_default=True, help=text)(command)

    return decorate


beam = click.option(
    "--beam",
    default=1,
    type=click.IntRange(1),
    show_default=True,
    help="Choose codes with a beam of N; encoders do with 8.",
)
"""How hard codes are searched for in training."""


def unquantized(steps: int) -> Any:
    """How a run from nothing begins."""
    text = "Train the first N steps without quantisers, from nothing."
    return click.option("--unquantized-steps", default=steps, show_default=True, help=text)
