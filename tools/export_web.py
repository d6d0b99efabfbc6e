# SPDX-License-Identifier: Apache-2.0
"""Write models for the decoder in browser/ (extra `web`): ONNX graphs, priors and a manifest, into browser/dist/models
by default. Without names: all codec models that are installed."""

from __future__ import annotations

from pathlib import Path

import click

from vqcodec.model import registry
from vqcodec.web.export import export, installed

OUT = Path(__file__).resolve().parent.parent / "browser" / "dist" / "models"


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=OUT, help="Folder.")
def main(models: tuple[str, ...], out: Path) -> None:
    chosen = [registry.find(name) for name in models] or installed()
    for model in export(chosen, out)["models"]:
        size = sum(file["bytes"] for file in model["files"])
        click.echo(f"{model['name']} ({model['identity']}): {size / 1e6:.2f} MB in {len(model['files'])} files")


if __name__ == "__main__":
    main()
