# SPDX-License-Identifier: Apache-2.0
"""Where the bits go: raw index bits, order-0 entropy, ideal code length under the integer prior and under the same
network in float, and the bits in the stream, by level, summed over the images of folders. Only the last is a file's;
the others are estimates."""

from __future__ import annotations

from pathlib import Path

import click

from vqcodec.codec import load_model
from vqcodec.rates import float_priors, measure
from vqcodec.registry import find
from vqcodec.training.data import load_images


@click.command(help=__doc__)
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", help="name or weights file; the default model if not given")
@click.option("--float/--no-float", "floating", default=True, help="also the float network (sides: whole tiles)")
def main(paths: tuple[Path, ...], model: str | None, floating: bool) -> None:
    codec = load_model(model, "cpu")
    images = load_images(paths)
    rows = measure(codec, images, float_priors(find(model), codec) if floating else None)
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    click.echo(f"{len(images)} images, {pixels} pixels, model {codec.name} ({codec.identity.hex()})")
    click.echo("| level | indices | raw bpp | order-0 | ideal, integer | ideal, float | stream | stream / raw |")
    click.echo("|---|---|---|---|---|---|---|---|")
    names = [*(str(i) for i in range(len(rows))), "all"]
    columns = [[getattr(row, f) for row in rows] for f in ("indices", "raw", "order0", "ideal", "floating", "stream")]
    for i, name in enumerate(names):
        part = slice(None) if name == "all" else slice(i, i + 1)
        indices, raw, order0, ideal, floated, stream = (
            sum(v for v in column[part] if v is not None) for column in columns
        )
        shown = f"{floated / pixels:.5f}" if floating else "-"
        bpp = " | ".join(f"{bits / pixels:.5f}" for bits in (raw, order0, ideal))
        click.echo(f"| {name} | {indices} | {bpp} | {shown} | {stream / pixels:.5f} | {stream / raw:.4f} |")


if __name__ == "__main__":
    main()
