# SPDX-License-Identifier: Apache-2.0
"""Write the golden files of shipped codec models into tests/golden: .vq2 files and the hashes of their indices.

Run it only when a model or the format changes on purpose, and say so in the changelog: tests/test_golden.py holds every
later version to these files.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from index_hashes import hashed
from PIL import Image
from skimage import data

from vqcodec.codec import Codec, load_model
from vqcodec.format import container
from vqcodec.model.maps import IndexMaps

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
MODELS = ("vq2-light", "vq2-light-psnr", "vq2-base", "vqvae-base")


def pictures() -> dict[str, Image.Image]:
    """Photographs of scikit-image, cut so that whole and cut tiles, one and several, odd sizes and grey occur."""
    cat, coffee = data.chelsea(), data.coffee()
    return {
        "cat-300x280": Image.fromarray(cat[10:290, 80:380]),
        "coffee-255x100-grey": Image.fromarray(coffee[60:160, 150:405]).convert("L"),
        "coffee-17x33": Image.fromarray(coffee[100:133, 200:217]),
    }


def indices_hash(indices: IndexMaps) -> str:
    """SHA-256 over all index maps as little-endian 16-bit numbers, level by level."""
    return hashed(maps.numpy() for maps in indices.levels)


def decoded_indices(codec: Codec, file: bytes) -> IndexMaps:
    """Read the index maps that a file holds.

    Args:
        codec: the model.
        file: its bytes.
    """
    return codec.read_indices(container.unpack(file))


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS), default=MODELS, show_default=True)
def main(models: tuple[str, ...]) -> None:
    for model in models:
        write(load_model(model, "cpu"), FOLDER / model)


def write(codec: Codec, folder: Path) -> None:
    """Replace the files of one model.

    Args:
        codec: the model.
        folder: of its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.vq2"):
        old.unlink()
    hashes = {}
    for name, picture in pictures().items():
        file = codec.encode(picture, verify=True, fallback=False)
        (folder / f"{name}.vq2").write_bytes(file)
        hashes[name] = indices_hash(decoded_indices(codec, file))
        click.echo(f"{codec.name}, {name}: {len(file)} bytes, indices {hashes[name]}")
    golden = {"model": codec.name, "identity": codec.identity.hex(), "indices": hashes}
    (folder / "golden.json").write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    main()
