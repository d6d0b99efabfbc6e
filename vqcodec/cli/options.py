# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

import math
from typing import Any

import click

from vqcodec.encoder.request import DEFAULT_EFFORT

FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "jxl": ".jxl", "tiff": ".tiff"}


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


PATH = click.Path(allow_dash=True)  # whose names a shell completes
model_option = click.option("--model", metavar="NAME", help="Model name, or path of a weights file.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite what exists.")
quiet_option = click.option("--quiet", is_flag=True, help="No summary on stderr.")
directory_option = click.option(
    "-O", "--output-dir", type=click.Path(file_okay=False), help="Directory for the results."
)
recursive_option = click.option("-r", "--recursive", is_flag=True, help="Folders with all that is in folders below.")
skip_option = click.option("--skip-existing", is_flag=True, help="Leave alone what has a result already.")
format_option = click.option(
    "--format", type=click.Choice(list(FORMATS)), help="Image format; by default as named, or PNG."
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
quality_option = click.option("-q", "--quality", type=Number(0, 100), help="0 (small) to 100 (good); 50 by default.")
lambda_option = click.option("--lambda", "lmbda", type=Number(0), metavar="X", help="Weight of a bit, instead of -q.")
effort_option = click.option(
    "-e",
    "--effort",
    type=click.IntRange(1, 9),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="1 (fast) to 9 (small).",
)
