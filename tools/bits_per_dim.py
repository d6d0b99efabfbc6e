# SPDX-License-Identifier: Apache-2.0
"""Bits per dimension of images under one or several models, from the bytes of files, and where those bytes go.

    python tools/bits_per_dim.py FOLDER --csv images.csv --json rates.json
    python tools/bits_per_dim.py FOLDER PHOTOS.zip one.png --model vq2-base --model vae-base --samples 16

Bits per dim are 8 * bytes of the file / (width * height * channels); channels: 1 for grey, 2 with alpha, 3 for RGB, 4
with alpha. Estimates, which no file holds, are called so: raw bits of the indices, order-0 entropy, ideal code length
under the prior, in integers and in float, and all that is said of a VAE, which makes no files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image

from vqcodec import sampling
from vqcodec.codec import Codec
from vqcodec.errors import ImageError, VqcodecError
from vqcodec.evaluation import bits_per_dim, rates
from vqcodec.evaluation.bits_per_dim import Record
from vqcodec.images import imaging
from vqcodec.images.listing import members
from vqcodec.model import registry
from vqcodec.prior.network import LevelPrior
from vqcodec.vae.model import VAEModel

FILE = click.Path(dir_okay=False, path_type=Path)


Images = Iterable[tuple[str, Image.Image]]  # with their names


class Report(NamedTuple):
    """Of one model: a record an image, a summary, and that as text."""

    rows: list[Record]
    summary: Record
    text: str


def open_images(paths: Sequence[Path]) -> Iterator[tuple[str, Image.Image]]:
    """Names and images of folders (and those in them), zip files and single files, in sorted order within each.

    Raises ImageError if there is none, and OSError for a file that is no image.
    """
    pairs = _each(paths)
    first = next(pairs, None)
    if first is None:
        raise ImageError("there is no image in what was given")
    yield first
    yield from pairs


def _each(paths: Sequence[Path]) -> Iterator[tuple[str, Image.Image]]:
    for path in paths:
        for name, source in members(path):
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                yield name, image


def without_metadata(image: Image.Image) -> Image.Image:
    """The same pixels and alpha alone."""
    return imaging.to_pil(replace(imaging.from_pil(image), icc=None, exif=None, xmp=None))


def of_codec(codec: Codec, images: Images, floats: Sequence[LevelPrior] | None, metadata: bool) -> Report:
    """Encode all images, and take the files apart.

    Args:
        codec: the model.
        images: names and pictures.
        floats: the priors as float networks; None: leave them out.
        metadata: keep it in the files.
    """
    files = []
    for name, image in images:
        click.echo(f"{codec.name}: {name}", err=True)
        files.append(rates.encoded_rates(codec, image if metadata else without_metadata(image), name, floats))
    title = f"{codec.name} ({codec.identity.hex()})"
    return Report(list(map(bits_per_dim.record, files)), bits_per_dim.summary(files), bits_per_dim.text(title, files))


def of_vae(model: VAEModel, images: Images, samples: int) -> Report:
    """Measure the bounds of all images.

    Args:
        model: the VAE.
        images: names and pictures.
        samples: draws for the importance-weighted bound; 0: leave it out.
    """
    rows, measured = [], []
    for i, (name, image) in enumerate(images):
        click.echo(f"{model.name}: {name}", err=True)
        measured.append((name, model.figures(np.array(image.convert("RGB")), samples=samples, seed=i)))
        rows.append(bits_per_dim.vae_record(name, image.width, image.height, measured[-1][1]))
    return Report(rows, bits_per_dim.vae_summary(measured), bits_per_dim.vae_text(model.name, measured))


def write_csv(path: Path, rows: Sequence[Record]) -> None:
    """Write a line an image and model; cells that a model has no figure for stay empty.

    Args:
        path: of the file.
        rows: records.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Use this model, a name or a weights file; repeatable. The default model if none.",
)
@click.option("--csv", "csv_path", type=FILE, help="Write a row an image and model.")
@click.option("--json", "json_path", type=FILE, help="Write everything.")
@click.option("--metadata/--no-metadata", default=True, help="Keep ICC profile, EXIF and XMP in the files (default).")
@click.option(
    "--float/--no-float", "floating", default=True, help="Measure the float network too, where tiles are whole."
)
@click.option(
    "--samples", default=0, type=click.IntRange(0), help="Take N draws for a VAE's importance-weighted bound."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Use N threads on the CPU.")
def main(
    paths: tuple[Path, ...],
    models: tuple[str, ...],
    csv_path: Path | None,
    json_path: Path | None,
    metadata: bool,
    floating: bool,
    samples: int,
    device: str,
    threads: int | None,
) -> None:
    """Bits per dim of images (files, folders, zips), from the bytes of files, and where those bytes go."""
    if threads:
        torch.set_num_threads(threads)
    rows: list[Record] = []
    everything: list[Record] = []
    for name in models or (None,):
        try:
            model = sampling.load_any(name, device)
            if isinstance(model, VAEModel):
                kind, results = "vae", of_vae(model, open_images(paths), samples)
            else:
                floats = rates.float_priors(registry.find(name), model) if floating else None
                kind, results = "codec", of_codec(model, open_images(paths), floats, metadata)
        except (VqcodecError, ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error
        head = {"model": model.name, "identity": registry.find(name).identity.hex(), "kind": kind}
        rows += [head | row for row in results.rows]
        everything.append(head | results.summary | {"per_image": results.rows})
        click.echo(results.text + "\n")
    if csv_path:
        write_csv(csv_path, rows)
    if json_path:
        json_path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
