# SPDX-License-Identifier: Apache-2.0
"""`vqcodec info`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import PATH, device_option, limits_options
from vqcodec.cli.running import run_jobs
from vqcodec.format.info import describe
from vqcodec.images import files
from vqcodec.images.files import Job
from vqcodec.model.info import info
from vqcodec.model.limits import Limits


@main.command("info")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each file, one a line.")
@click.option("--deep", is_flag=True, help="Decode the streams, too: as verify does.")
@limits_options
@device_option
def info_command(paths: tuple[str, ...], as_json: bool, deep: bool, limits: Limits, device: str) -> None:
    """Show what .vq2 files hold and where their bytes went.

    \b
    vqcodec info photo.vq2           a few lines
    vqcodec info *.vq2 --json        for programs
    vqcodec info --deep photo.vq2    decodes every index
    """

    def work(job: Job) -> str:
        data = files.read(job.source)
        if deep:
            from vqcodec.damage.verify import verify

            measured = verify(data, device=device, limits=limits)
        else:
            measured = info(data)
        text = json.dumps({"file": job.source, **asdict(measured)}) if as_json else describe(job.source, measured)
        files.put_line(text)
        return ""

    run_jobs([Job(path, "") for path in paths], work, quiet=True)
