# SPDX-License-Identifier: Apache-2.0
"""`vqcodec decode`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import (
    FORMATS,
    PATH,
    device_option,
    directory_option,
    force_option,
    format_option,
    jobs_option,
    limits_options,
    quiet_option,
    recursive_option,
    skip_option,
)
from vqcodec.cli.pictures import image_bytes, image_format
from vqcodec.cli.running import run_steps, summary
from vqcodec.config import PREVIEW_SCALES
from vqcodec.format.container import read_header
from vqcodec.images import files
from vqcodec.images.files import Job
from vqcodec.images.plan import plan
from vqcodec.model.limits import Limits

if TYPE_CHECKING:
    from PIL import Image


def parse_region(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int, int, int] | None:
    """Four numbers of pixels as in 100,200,512,512."""
    if value is None:
        return None
    parts = re.fullmatch(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})", value)
    if parts is None:
        raise click.BadParameter("give pixels as in 100,200,512,512: left, top, width, height")
    left, top, width, height = map(int, parts.groups())
    return left, top, width, height


@main.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="INPUT... [OUTPUT]")
@directory_option
@recursive_option
@format_option
@click.option("--region", callback=parse_region, metavar="X,Y,W,H", help="Decode these pixels only.")
@click.option(
    "--preview",
    type=click.Choice([str(scale) for scale in PREVIEW_SCALES]),
    help="Make a picture N times smaller, from the coarse levels.",
)
@click.option(
    "--fit",
    type=click.IntRange(1),
    metavar="N",
    help="Make a picture of at most N pixels a side, of the coarse levels.",
)
@click.option(
    "-q",
    "--quality",
    type=click.IntRange(1, 100),
    help="Set the quality of JPEG (95), AVIF (90), WebP (without loss) or JXL.",
)
@click.option(
    "--best-effort", is_flag=True, help="Decode what is left of damaged files; exit status 3 if part is lost."
)
@limits_options
@jobs_option
@force_option
@skip_option
@device_option
@quiet_option
def decode(
    paths: tuple[str, ...],
    output_dir: str | None,
    recursive: bool,
    format: str | None,
    region: tuple[int, int, int, int] | None,
    preview: str | None,
    fit: int | None,
    quality: int | None,
    limits: Limits,
    processes: int,
    best_effort: bool,
    force: bool,
    skip_existing: bool,
    device: str,
    quiet: bool,
) -> None:
    """Decode .vq2 files.

    One file goes to OUTPUT, whose extension chooses the format, or to a PNG file of the same name. More than two
    names, or -O, make all of them inputs; results go to the last name if that is a folder. `-` is stdin or stdout.

    \b
    vqcodec decode photo.vq2                      writes photo.png
    vqcodec decode photo.vq2 back.jpg -q 85       as JPEG
    vqcodec decode -r coded -O back               a tree of folders
    """
    if sum(part is not None for part in (region, preview, fit)) > 1:
        raise click.UsageError("give one of --region, --preview and --fit")
    jobs = plan(paths, output_dir, FORMATS[format or "png"], (".vq2",), recursive)
    if Path(jobs[0].target).suffix.lower() == ".vq2":
        raise click.UsageError("the output of decode is an image; for two inputs give -O DIR")

    from vqcodec.batch import Steps
    from vqcodec.errors import ImageError
    from vqcodec.model import registry

    @functools.cache
    def decoder() -> Callable[..., Image.Image]:
        from vqcodec import batch, codec

        return functools.partial(batch.decode, best_effort=True) if best_effort else codec.decode

    def read(job: Job) -> bytes:
        files.check_target(job.target, force, job.make_folders, skip_existing)
        source = files.read(job.source)
        if not best_effort:
            header = read_header(source)
            if not header.lossless:
                registry.find_identity(header.model)
            if not (region or preview or fit):
                limits.check_pixels(header.width, header.height)
        image_format(job.target, format, quality)  # imports Pillow, which the checks above do without
        return source

    def code(job: Job, source: bytes) -> tuple[int, Image.Image]:
        scale = int(preview or 1)
        if fit is not None and not best_effort:
            longest = max(read_header(source).width, read_header(source).height)
            scale = max((s for s in PREVIEW_SCALES if s * fit <= longest), default=1)
        try:
            image = decoder()(source, device=device, limits=limits, region=region, preview=scale)
            if fit is not None:
                image.thumbnail((fit, fit))
            return len(source), image
        except ValueError as error:
            raise ImageError(str(error)) from error

    def write(job: Job, coded: tuple[int, Image.Image]) -> str:
        size, image = coded
        data = image_bytes(image, image_format(job.target, format), quality)
        files.write(job.target, data, force, job.make_folders)
        done = summary(job, size, len(data), 8 * size / (image.width * image.height))
        done.damaged = "losses" in image.info
        return done

    run_steps(jobs, Steps(read, decoder, code, write), quiet, processes)
