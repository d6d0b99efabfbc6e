# SPDX-License-Identifier: Apache-2.0
"""`vqcodec sample`."""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import Number, device_option, force_option, format_option, model_option, quiet_option
from vqcodec.cli.pictures import image_bytes, image_format, open_image
from vqcodec.cli.running import run_jobs
from vqcodec.format.container import MAGIC, MAX_PIXELS, MAX_SIDE, read_header
from vqcodec.images import files
from vqcodec.images.files import Job

if TYPE_CHECKING:
    from vqcodec.sampling import Sampler

MAX_TEMPERATURE = 10  # that of `sampling`, which needs torch


def parse_tiles(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value)
    if sides is None:
        raise click.BadParameter("give width x height as in 2x1")
    return int(sides[1]), int(sides[2])


@main.command()
@click.argument("output", metavar="OUT")
@model_option
@click.option(
    "--count",
    type=click.IntRange(1, 1 << 16),
    default=1,
    show_default=True,
    help="Draw N images, each with the next seed.",
)
@click.option(
    "--tiles", metavar="WxH", callback=parse_tiles, help="Set the size in tiles of the model; 1x1 by default."
)
@click.option("--width", type=click.IntRange(1, MAX_SIDE), help="Set the width in pixels.")
@click.option("--height", type=click.IntRange(1, MAX_SIDE), help="Set the height in pixels.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Draw the same again; random by default.")
@click.option(
    "--temperature",
    type=Number(0, MAX_TEMPERATURE, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw likelier indices below 1, less likely ones above.",
)
@click.option("--columns", type=click.IntRange(1), help="Put N images in a row.")
@click.option("--separate", is_flag=True, help="Write a numbered file for each image: OUT-0, OUT-1...")
@click.option("--like", metavar="IMAGE", help="Draw around a part of this image or .vq2 file, in its size.")
@click.option("--keep", type=click.Choice(["top", "upper"]), help="Keep the coarsest level (top), or the upper half.")
@format_option
@force_option
@device_option
@quiet_option
def sample(
    output: str,
    model: str | None,
    count: int,
    tiles: tuple[int, int] | None,
    width: int | None,
    height: int | None,
    seed: int | None,
    temperature: float,
    columns: int | None,
    separate: bool,
    like: str | None,
    keep: str | None,
    format: str | None,
    force: bool,
    device: str,
    quiet: bool,
) -> None:
    """Draw images from a model.

    The same seed gives the same indices on every machine. Several images come on one picture, row by row.

    \b
    vqcodec sample drawn.png --seed 7              one tile
    vqcodec sample grid.png --count 4 --tiles 2x1  four on one picture
    """
    sized = width is not None or height is not None
    if (tiles and sized) or (like and (tiles or sized)):
        raise click.UsageError("give one of --tiles, --width and --height, --like")
    if (like is None) != (keep is None):
        raise click.UsageError("--like and --keep go together")
    if separate and (columns or output == "-"):
        raise click.UsageError("--separate writes a file for each image: it goes neither with --columns nor with -")

    number = secrets.randbelow(2**31) if seed is None else seed
    targets = [files.numbered(output, i) for i in range(count)] if separate else [output]

    def work(job: Job) -> str:
        for target in targets:
            files.check_target(target, force)
        source = None if like is None else files.read(like)
        written_as = image_format(output, format)

        from vqcodec import sampling
        from vqcodec.images import sheets

        if source is not None and keep is not None:
            sampler, (across, down) = _kept(source, keep, model, device)
        else:
            sampler = sampling.load_sampler(model, device)
            across, down = (side * sampler.tile_size for side in tiles or (1, 1))
            across, down = width or across, height or down
        if max(across, down) > MAX_SIDE or count * across * down > MAX_PIXELS:
            raise files.UsageError(f"{count} of {across}x{down} pixels are over the limit of {MAX_PIXELS}")
        drawn = sampler.images(across, down, range(number, number + count), temperature)
        if count > 1 and not separate:
            drawn = iter([sheets.grid(drawn, count, columns or math.ceil(math.sqrt(count)))])
        for target, image in zip(targets, drawn, strict=True):
            files.write(target, image_bytes(image, written_as), force)
        name = f"{targets[0]} to {targets[-1]}" if len(targets) > 1 else targets[0]
        several = f"{count} of " if count > 1 else ""
        return f"{name}: {several}{across}x{down}, seed {number}"

    run_jobs([Job(output, output)], work, quiet)


def _kept(data: bytes, keep: str, model: str | None, device: str) -> tuple[Sampler, tuple[int, int]]:
    """What draws around that which `--keep` keeps of an image or .vq2 file; its width and height."""
    from vqcodec import codec, sampling
    from vqcodec.indices import arrays
    from vqcodec.model import registry

    coded = data.startswith(MAGIC)
    if coded and model is None:
        model = str(registry.find_identity(read_header(data).model).path)
    loaded = codec.load_model(model, device)
    indices = arrays.extract(loaded, data if coded else open_image(data))
    maps = arrays.index_maps(loaded, indices)
    kept = sampling.keep_top(loaded, maps) if keep == "top" else sampling.keep_upper(loaded, maps)
    return sampling.IndexSampler(loaded, kept, indices.rate), maps.size
