# SPDX-License-Identifier: Apache-2.0
"""`vqcodec encode`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import (
    PATH,
    Number,
    device_option,
    directory_option,
    effort_option,
    force_option,
    jobs_option,
    lambda_option,
    model_option,
    parse_size,
    quality_option,
    quiet_option,
    recursive_option,
    skip_option,
    target_bpp_option,
    target_psnr_option,
    tune_option,
)
from vqcodec.cli.pictures import load, open_image
from vqcodec.cli.running import run_steps, summary
from vqcodec.encoder.request import VERIFIED_FROM
from vqcodec.images import files
from vqcodec.images.files import Job
from vqcodec.images.listing import SUFFIXES
from vqcodec.images.plan import plan

if TYPE_CHECKING:
    from PIL import Image


@main.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="INPUT... [OUTPUT]")
@directory_option
@recursive_option
@quality_option
@click.option("--target-size", callback=parse_size, metavar="SIZE", help="Fit into this size, as in 20kB.")
@target_bpp_option
@lambda_option
@effort_option
@tune_option
@target_psnr_option
@click.option("--target-ssimulacra2", type=Number(0, 100, min_open=True), help="Reach at least this SSIMULACRA2 score.")
@click.option("--lossless", is_flag=True, help="Store the picture itself, as WebP or PNG.")
@click.option("--no-fallback", is_flag=True, help="Never store the picture itself unless asked to.")
@click.option("--strip", is_flag=True, help="Leave out EXIF and XMP; the picture is turned as they say.")
@model_option
@click.option("--verify/--no-verify", default=None, help="Decode the result and compare; by default where it is cheap.")
@jobs_option
@force_option
@skip_option
@device_option
@quiet_option
def encode(
    paths: tuple[str, ...],
    output_dir: str | None,
    recursive: bool,
    quality: float | None,
    target_size: int | None,
    target_bpp: float | None,
    lmbda: float | None,
    effort: int,
    tune: str,
    target_psnr: float | None,
    target_ssimulacra2: float | None,
    lossless: bool,
    no_fallback: bool,
    strip: bool,
    model: str | None,
    verify: bool | None,
    processes: int,
    force: bool,
    skip_existing: bool,
    device: str,
    quiet: bool,
) -> None:
    """Encode images.

    One image goes to OUTPUT, or to a file of the same name with the extension .vq2. More than two names, or -O, make
    all of them inputs; results go to the last name if that is a folder. `-` is stdin or stdout.

    \b
    vqcodec encode photo.png                      writes photo.vq2
    vqcodec encode photo.png small.vq2 -q 20      at a low quality
    vqcodec encode photo.png --target-size 50kB   at most so large
    vqcodec encode -r photos -O coded             a tree of folders
    """
    targets = target_size, target_bpp, target_psnr, target_ssimulacra2
    if sum(asked is not None for asked in (quality, lmbda, *targets)) + lossless > 1:
        raise click.UsageError("give one of --quality, --lambda, --lossless and the targets")
    jobs = plan(paths, output_dir, ".vq2", SUFFIXES, recursive)
    target = jobs[0].target
    if (
        target != "-"
        and Path(target).suffix.lower() != ".vq2"
        and (Path(target).is_file() or not Path(target).exists())
    ):
        raise click.UsageError(f"the result is a .vq2 file, which {target} is not; for several inputs give -O DIR")
    if verify is None:
        verify = effort >= VERIFIED_FROM and any(asked is not None for asked in targets)

    from vqcodec.batch import Steps
    from vqcodec.model import registry

    registry.find(model, tune)

    @functools.cache
    def loaded() -> Any:
        from vqcodec import codec

        return codec.load_model(model, device, tune)

    def read(job: Job) -> tuple[int, Image.Image]:
        files.check_target(job.target, force, job.make_folders, skip_existing)
        source = files.read(job.source)
        image = open_image(source)
        load(image)
        return len(source), image

    def code(job: Job, read: tuple[int, Image.Image]) -> tuple[int, bytes, int]:
        size, image = read
        data = loaded().encode(
            image,
            quality=quality,
            lmbda=lmbda,
            size=target_size,
            bpp=target_bpp,
            effort=effort,
            tune=tune,
            psnr=target_psnr,
            ssimulacra2=target_ssimulacra2,
            lossless=lossless,
            fallback=not no_fallback,
            verify=verify,
            strip=strip,
        )
        return size, data, image.width * image.height

    def write(job: Job, coded: tuple[int, bytes, int]) -> str:
        size, data, pixels = coded
        files.write(job.target, data, force, job.make_folders)
        return summary(job, size, len(data), 8 * len(data) / pixels)

    run_steps(jobs, Steps(read, loaded, code, write), quiet, processes)
