# SPDX-License-Identifier: Apache-2.0
"""What a trained VAE does with images: bounds in bits per dim, reconstruction, interpolation between two."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from PIL import Image

from vqcodec.images import sheets
from vqcodec.model import registry
from vqcodec.training.data import load_images, middle
from vqcodec.vae.model import VAEModel, mean_figures

EXISTING = click.Path(exists=True, path_type=Path)
model_option = click.option("--model", "name", default="vae-base", show_default=True, help="name or weights file")
device_option = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)


@click.group(help=__doc__)
def main() -> None:
    pass


def load(name: str, device: str) -> VAEModel:
    """Load a VAE.

    Args:
        name: or path.
        device: to compute on.
    """
    return VAEModel.load(registry.find(name), device)


@main.command()
@model_option
@device_option
@click.option("--samples", default=0, help="Take N draws for the importance-weighted bound; 0: leave it out.")
@click.option("--seed", default=0)
@click.option("--crop", default=0, help="Measure the middle square of this side in pixels; 0: whole images.")
@click.argument("paths", nargs=-1, required=True, type=EXISTING)
def bound(name: str, device: str, samples: int, seed: int, crop: int, paths: tuple[Path, ...]) -> None:
    """ELBO and its parts in bits per dim, mean over the images of folders, zips and files; JSON on stdout."""
    model = load(name, device)
    measured = []
    for i, pixels in enumerate(load_images(paths)):
        if crop:
            pixels = middle(pixels, crop)
        measured.append(model.figures(pixels, samples=samples, seed=seed + i))
    click.echo(json.dumps({"model": model.name, "images": len(measured)} | asdict(mean_figures(measured)), indent=2))


@main.command()
@model_option
@device_option
@click.argument("image", type=EXISTING)
@click.argument("target", type=click.Path(path_type=Path))
def reconstruct(name: str, device: str, image: Path, target: Path) -> None:
    """Write what the VAE makes of IMAGE to TARGET."""
    (pixels,) = load_images([image])
    Image.fromarray(load(name, device).reconstruct(pixels)).save(target)


@main.command()
@model_option
@device_option
@click.option("--steps", default=8, show_default=True, help="Draw N pictures in the row, both ends included.")
@click.option("--crop", default=256, show_default=True, help="Cut squares of this side in pixels from the middle.")
@click.argument("first", type=EXISTING)
@click.argument("last", type=EXISTING)
@click.argument("target", type=click.Path(path_type=Path))
def interpolate(name: str, device: str, steps: int, crop: int, first: Path, last: Path, target: Path) -> None:
    """Write a row of pictures between FIRST and LAST to TARGET."""
    ends = []
    for pixels in load_images([first, last]):
        square = Image.fromarray(middle(pixels, min(crop, *pixels.shape[:2])))
        ends.append(np.asarray(square.resize((crop, crop), Image.Resampling.LANCZOS)))
    pictures = (Image.fromarray(p) for p in load(name, device).interpolate(*ends, steps))
    sheets.grid(pictures, steps, steps).save(target)


if __name__ == "__main__":
    main()
