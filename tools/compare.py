# SPDX-License-Identifier: Apache-2.0
"""A page that shows two pictures beside each other, with measures and the bits of a .vq2 file.

python tools/compare.py photo.png photo.vq2 -o compare.html
"""

from __future__ import annotations

from pathlib import Path

import click

from vqcodec.errors import VqcodecError
from vqcodec.images import files

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("original", type=EXISTING)
@click.argument("other", type=EXISTING)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), default="compare.html", show_default=True, help="The page."
)
@click.option("-f", "--force", is_flag=True, help="Overwrite what exists.")
def main(original: Path, other: Path, output: str, force: bool) -> None:
    """Write a page that shows two pictures beside each other.

    The second is measured against the first; of a .vq2 file it shows where the bits go.

    \b
    vqcodec compare photo.png photo.vq2                 writes compare.html
    vqcodec compare photo.png photo.jpg -o jpeg.html
    """
    try:
        files.check_target(output, force)
        from vqcodec.report import compare

        shown = compare.case(original, other)
        files.write(output, compare.html(shown).encode(), force)
    except (VqcodecError, OSError) as error:
        raise click.ClickException(files.describe(error)) from error
    measured = shown.shown[1]
    psnr = "equal" if measured["psnr"] is None else f"{measured['psnr']:.2f} dB"
    click.echo(f"{output}: {psnr}, {measured['bpp']:.4f} bpp", err=True)


if __name__ == "__main__":
    main()
