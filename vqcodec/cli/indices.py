# SPDX-License-Identifier: Apache-2.0
"""`vqcodec indices`."""

from __future__ import annotations

import io
from pathlib import Path

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import (
    PATH,
    device_option,
    effort_option,
    force_option,
    format_option,
    lambda_option,
    model_option,
    quality_option,
    quiet_option,
)
from vqcodec.cli.pictures import image_bytes, image_format, open_image
from vqcodec.cli.running import run_jobs, summary
from vqcodec.format.container import MAGIC
from vqcodec.images import files
from vqcodec.images.files import Job
from vqcodec.images.plan import plan


@main.command("indices")
@click.argument("source", type=PATH, metavar="IN")
@click.argument("target", type=PATH, metavar="OUT")
@quality_option
@lambda_option
@effort_option
@model_option
@format_option
@force_option
@device_option
@quiet_option
def indices_command(
    source: str,
    target: str,
    quality: float | None,
    lmbda: float | None,
    effort: int,
    model: str | None,
    format: str | None,
    force: bool,
    device: str,
    quiet: bool,
) -> None:
    """Write the indices of an image to an .npz file, or the image of such a file.

    IN is an image or a .vq2 file and OUT ends in .npz, or IN is an .npz file and OUT an image or a .vq2 file. `-` is
    stdin or stdout, which gets an image (--format) if IN ends in .npz. Alpha and metadata are not kept.

    \b
    vqcodec indices photo.png codes.npz    from an image
    vqcodec indices codes.npz again.vq2    and to a file
    """
    if quality is not None and lmbda is not None:
        raise click.UsageError("give one of --quality and --lambda")
    jobs = plan([source, target], None, "")
    extension = Path(target).suffix.lower()
    back = Path(source).suffix.lower() == ".npz" if target == "-" else extension != ".npz"

    def work(job: Job) -> str:
        files.check_target(target, force)
        data = files.read(source)
        as_image = image_format(target, format) if back and extension != ".vq2" else None

        from vqcodec.indices import arrays as indices

        if not back:
            image = data if data.startswith(MAGIC) else open_image(data)
            held = indices.to_indices(image, model=model, device=device, quality=quality, lmbda=lmbda, effort=effort)
            result = indices.dumps(held)
        else:
            held = indices.load(io.BytesIO(data))
            if as_image is None:
                result = indices.to_vq2(held, model=model, device=device)
            else:
                result = image_bytes(indices.from_indices(held, model=model, device=device), as_image)
        files.write(target, result, force)
        coded = len(result) if as_image is None else len(data)
        return summary(job, len(data), len(result), 8 * coded / (held.width * held.height))

    run_jobs(jobs, work, quiet)
