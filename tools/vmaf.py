# SPDX-License-Identifier: Apache-2.0
"""VMAF of a model and of AVIF at equal bytes, a measure that no loss of training knows: a table in Markdown.

python tools/vmaf.py KODAK -q 25,50,75
"""

from __future__ import annotations

from pathlib import Path

import click

from vqcodec.evaluation.markdown import table
from vqcodec.evaluation.rivals import AVIF, ours
from vqcodec.evaluation.unseen import at_equal_bytes
from vqcodec.images.listing import images_of
from vqcodec.model.registry import DEFAULT_MODEL


@click.command(help=__doc__)
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Measure this model, a name or a path.")
@click.option(
    "-q", "--quality", "qualities", default="25,50,75", show_default=True, help="Set the qualities of the model."
)
@click.option("--device", default="auto", show_default=True, help="Run the model on auto, cpu or cuda.")
def main(folders: tuple[Path, ...], model: str, qualities: str, device: str) -> None:
    for folder in folders:
        rows = []
        for setting in ours([model], [int(quality) for quality in qualities.split(",")], device):
            for result in at_equal_bytes(images_of(folder), setting, AVIF):
                quality = str(setting.quality) if result.name == setting.name else ""
                rows.append([quality, result.name, f"{result.bpp:.3f}", f"{result.vmaf:.1f}", str(result.fitted)])
        click.echo(f"{folder.resolve().name}\n\n{table(['quality', 'codec', 'bpp', 'VMAF', 'images'], rows)}\n")


if __name__ == "__main__":
    main()
