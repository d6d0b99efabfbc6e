# SPDX-License-Identifier: Apache-2.0
"""Compare VAE, VQ-VAE and VQ-VAE-2: figures on sets of images, and a picture of what they reconstruct and draw.

python tools/systems.py --images val=VAL.zip --images Kodak=KODAK --table docs/systems.md
python tools/systems.py --picture docs/images/systems.png --pictured docs/images/chelsea.png
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from vqcodec import sampling
from vqcodec.codec import Codec
from vqcodec.evaluation import systems
from vqcodec.model import registry
from vqcodec.training.data import load_images, middle
from vqcodec.vae.model import VAEModel

MODELS = ("vae-base", "vqvae-base", "vq2-light")
MARKS = "<!-- figures of {}: begin -->", "<!-- figures of {}: end -->"
SIDE = 128  # of a picture's cells, in pixels: no more than a tile of the codecs, as tiles are drawn independently
SAMPLES = 6
LABEL = 16


@click.command(help=__doc__)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=MODELS,
    show_default=True,
    help="Measure this model, a name or a weights file; repeatable.",
)
@click.option(
    "--images", multiple=True, metavar="NAME=PATH", help="Measure on this set of images, a folder or zip; repeatable."
)
@click.option("--table", "page", type=click.Path(path_type=Path), help="Replace the tables of this page.")
@click.option("--json", "record", type=click.Path(path_type=Path), help="Write all figures to this file.")
@click.option(
    "--bound-samples",
    default=16,
    show_default=True,
    help="Take N draws for the importance-weighted bound; 0: none.",
)
@click.option("--picture", type=click.Path(path_type=Path), help="Write the picture to this file.")
@click.option("--pictured", type=click.Path(exists=True, path_type=Path), help="Reconstruct this image in it.")
def main(
    models: tuple[str, ...],
    images: tuple[str, ...],
    page: Path | None,
    record: Path | None,
    bound_samples: int,
    picture: Path | None,
    pictured: Path | None,
) -> None:
    loaded = [(sampling.load_any(name, "cpu"), registry.find(name)) for name in models]
    by_set = {}
    for pair in images:
        name, _, path = pair.partition("=")
        if not path:
            raise click.BadParameter(f"{pair!r} is not NAME=PATH", param_hint="--images")
        pictures = load_images([path])
        by_set[name] = [systems.figures(model, file, pictures, bound_samples) for model, file in loaded]
        text = systems.table(by_set[name])
        click.echo(f"{name}, {len(pictures)} images\n\n{text}\n")
        if page is not None:
            replace(page, name, f"{len(pictures)} images:\n\n{text}")
    if record is not None:
        rows = {name: [dataclasses.asdict(f) for f in figures] for name, figures in by_set.items()}
        record.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if picture is not None:
        if pictured is None:
            raise click.UsageError("--picture needs --pictured")
        (pixels,) = load_images([pictured])
        sheet([(model, sampling.load_sampler(file.path, "cpu")) for model, file in loaded], pixels).save(picture)


def replace(page: Path, name: str, text: str) -> None:
    """Put a table between the marks of its set.

    Args:
        page: of the documentation.
        name: of the set.
        text: the table.
    """
    begin, end = (mark.format(name) for mark in MARKS)
    before = page.read_text(encoding="utf-8")
    after, number = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", before, flags=re.DOTALL
    )
    if number != 1:
        raise click.ClickException(f"{page} should have one place for {name!r}, marked {begin} and {end}")
    page.write_text(after, encoding="utf-8")


def sheet(models: list[tuple[Codec | VAEModel, sampling.Sampler]], pixels: np.ndarray) -> Image.Image:
    """Draw one row a model: original, reconstruction, samples.

    Args:
        models: with their samplers.
        pixels: uint8 [H, W, 3].
    """
    crop = np.ascontiguousarray(middle(pixels, SIDE))
    whole = Image.new("RGB", ((SIDE + 4) * (SAMPLES + 2), (SIDE + 4 + LABEL) * len(models)), "white")
    writing = ImageDraw.Draw(whole)
    for row, (model, sampler) in enumerate(models):
        y = row * (SIDE + 4 + LABEL)
        drawn = sampler.images(SIDE, SIDE, range(SAMPLES))
        cells = [Image.fromarray(crop), Image.fromarray(systems.reconstruction(model, crop)), *drawn]
        labels = ["original", f"{model.name}: reconstruction", *["sample"] * SAMPLES]
        for column, (cell, label) in enumerate(zip(cells, labels, strict=True)):
            writing.text((column * (SIDE + 4), y + 2), label, fill="black")
            whole.paste(cell, (column * (SIDE + 4), y + LABEL))
    return whole


if __name__ == "__main__":
    main()
