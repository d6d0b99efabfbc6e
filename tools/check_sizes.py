# SPDX-License-Identifier: Apache-2.0
"""Send drawn pictures of every size around the circle with the shipped models: every size up to 40x40, and those around
the boundaries of tiles, groups and bands of tiles.

    python tools/check_sizes.py --out sizes.jsonl
    python tools/check_sizes.py --largest 8 --model vq2-base --no-boundaries
    python tools/check_sizes.py --largest 0 --no-boundaries --random 500 --farthest 3000 --out random.jsonl

Every picture is encoded with effort 1, at a quality and in a mode that follow from its size; the indices that its file
holds are read and compared, and pixels are made of them. `--out` gets a line a picture, and pictures
that have one are not done again: the work, some hours of a slow core, can be broken off at any time.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image

from vqcodec.codec import Codec, load_model
from vqcodec.encoder.request import Request, lmbda_asked
from vqcodec.errors import VqcodecError
from vqcodec.format import container
from vqcodec.format.container import MODES
from vqcodec.images import imaging
from vqcodec.model.tiling import BAND, GROUP_TILES, LARGE

MODELS = ("vq2-light", "vq2-light-psnr", "vq2-base", "vqvae-base")
Size = tuple[int, int]


def small_sizes(largest: int) -> Iterator[Size]:
    """Every width and height up to a side, in an order without order.

    Args:
        largest: side, in pixels.
    """
    sides = range(1, largest + 1)
    sizes = [(w, h) for w in sides for h in sides]
    random.Random(0).shuffle(sizes)  # a run that was broken off has seen all kinds
    yield from sizes


def random_sizes(number: int, farthest: int) -> list[Size]:
    """Draw sizes whose sides have logarithms that are all as likely: most are small, so that the run ends.

    Args:
        number: of sizes, all different.
        farthest: longest side, in pixels.

    Returns: width and height, the smallest areas first; the same at every call.
    """
    drawn, sizes = random.Random(0), set[Size]()
    while len(sizes) < number:
        width, height = (round(math.exp(drawn.uniform(0, math.log(farthest)))) for _ in range(2))
        sizes.add((width, height))
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def boundary_sizes(tile: int) -> Iterator[Size]:
    """Sizes around the boundaries of tiles, of bands of them, of groups, and where groups become smaller.

    Args:
        tile: its side, in pixels.
    """
    narrow = (1, 17, tile - 1, tile, tile + 1)
    sides = [
        *((n * tile + d, other) for n in (1, 2) for d in (-1, 0, 1) for other in narrow),
        *((BAND * tile + d, other) for d in (-1, 0, 1) for other in (1, 16, 17, tile, tile + 1)),
        *((GROUP_TILES * tile + d, other) for d in (-1, 0, 1) for other in (1, 16, 17)),
        *((LARGE * tile + d, 1) for d in (0, 1)),
    ]
    whole = BAND * tile  # a side of a group of 16
    yield from sorted(
        {*sides, *((h, w) for w, h in sides), (whole, whole), (whole + 1, whole)}, key=lambda s: s[0] * s[1]
    )


def drawn(width: int, height: int) -> Image.Image:
    """Ramps, blocks and noise, in the four modes in turn.

    Args:
        width: in pixels.
        height: in pixels.
    """
    mode = MODES[(width + height) % len(MODES)]
    rng = np.random.default_rng((width, height))
    y, x = (side[..., None] for side in np.mgrid[:height, :width])
    channels = np.arange(len(mode) if mode != "L" else 1)
    ramps = (5 * x * (channels + 1) + 9 * y + 40 * ((x // 7 + y // 5) % 2)) % 256
    pixels = np.clip(ramps + rng.integers(-30, 31, ramps.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels)


def around(codec: Codec, width: int, height: int) -> int:
    """Encode a drawn picture, read the indices that its file holds, compare them, and make pixels of them.

    Args:
        codec: the model.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns: bytes of the file.

    Raises: VqcodecError if anything is not as it was.
    """
    picture = imaging.from_pil(drawn(width, height))
    lmbdas = codec.config.lmbdas  # some models have a single quality
    asked = Request(
        quality=(7 * width + 13 * height) % 101 if any(lmbdas) else None, lmbda=None if any(lmbdas) else 0.0
    )
    asked = replace(asked, effort=1)
    maps = codec.to_indices(picture.pixels, asked)
    tradeoff = codec.tradeoff(lmbda_asked(asked, lmbdas))
    alpha = None if picture.alpha is None else imaging.encode_alpha(picture.alpha)
    streams = tuple(codec.compress(maps, tradeoff))
    file = container.pack(container.Container(codec.header(width, height, picture.mode, tradeoff), streams, alpha))
    unpacked = container.unpack(file)
    if not codec.read_indices(unpacked).equal(maps):
        raise VqcodecError("other indices come back")
    if codec.from_indices(maps, unpacked.header.rate).shape != (height, width, 3):
        raise VqcodecError("pixels of another size")
    return len(file)


def finished(out: Path | None) -> dict[tuple[str, int, int], str]:
    """What the lines of a file say: errors by identity, width and height, empty where there was none.

    Args:
        out: the file, if there is one.
    """
    if out is None or not out.exists():
        return {}
    lines = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]
    return {(line["identity"], line["width"], line["height"]): line["error"] for line in lines}


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS), default=MODELS, show_default=True)
@click.option("--largest", default=40, show_default=True, help="Side of the largest of all small pictures.")
@click.option("--random", "number", default=0, show_default=True, help="So many random sizes as well.")
@click.option("--farthest", default=3000, show_default=True, help="Longest side of these, in pixels.")
@click.option("--boundaries/--no-boundaries", default=True, show_default=True, help="Of tiles and groups.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File of lines of JSON, which is extended."
)
def main(models: tuple[str, ...], largest: int, number: int, farthest: int, boundaries: bool, out: Path | None) -> None:
    before, failures, start = finished(out), 0, time.process_time()
    for model in models:
        codec = load_model(model, "cpu")
        sizes = [
            *(boundary_sizes(codec.tile_size) if boundaries else ()),
            *small_sizes(largest),
            *random_sizes(number, farthest),
        ]
        for width, height in sizes:
            error = before.get((codec.identity.hex(), width, height))
            if error is None:
                error = checked(codec, width, height, out)
            failures += bool(error)
        seconds = time.process_time() - start
        click.echo(f"{model} ({codec.identity.hex()}): {len(sizes)} sizes, {failures} failures so far, {seconds:.0f} s")
    raise SystemExit(bool(failures))


def checked(codec: Codec, width: int, height: int, out: Path | None) -> str:
    """Do one size, and write its line.

    Args:
        codec: the model.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        out: file of lines, if one is wanted.

    Returns: the error's words, empty if there was none.
    """
    start, error, size = time.process_time(), "", 0
    try:
        size = around(codec, width, height)
    except Exception as failure:  # of any class: the other sizes are done all the same
        error = f"{type(failure).__name__}: {failure}"
        click.echo(f"{codec.name}, {width}x{height}: {error}")
    if out is not None:
        line = {"model": codec.name, "identity": codec.identity.hex(), "width": width, "height": height}
        line |= {"bytes": size, "seconds": round(time.process_time() - start, 4), "error": error}
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return error


if __name__ == "__main__":
    main()
