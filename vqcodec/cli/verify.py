# SPDX-License-Identifier: Apache-2.0
"""`vqcodec verify`."""

from __future__ import annotations

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import PATH, device_option, limits_options, quiet_option
from vqcodec.cli.running import run_jobs
from vqcodec.images import files
from vqcodec.images.files import Job
from vqcodec.model.limits import Limits


@main.command("verify")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE...")
@limits_options
@device_option
@quiet_option
def verify_command(paths: tuple[str, ...], limits: Limits, device: str, quiet: bool) -> None:
    """Check .vq2 files: every checksum, every index, the alpha channel, a picture without loss.

    Nothing is written. A line for each file; the exit status is 1 if one is damaged.

    \b
    vqcodec verify *.vq2
    vqcodec verify --quiet *.vq2     damaged ones only
    """

    def work(job: Job) -> str:
        data = files.read(job.source)

        from vqcodec.damage.verify import verify

        checked = verify(data, device=device, limits=limits)
        return f"{job.source}: sound, {checked.width} x {checked.height} pixels, {checked.file_bytes} bytes"

    run_jobs([Job(path, "") for path in paths], work, quiet)
