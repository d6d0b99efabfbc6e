# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from vqcodec.encoder.request import DEFAULT_EFFORT, DEFAULT_TUNE, TUNES
from vqcodec.model.limits import Limits

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "jxl": ".jxl", "tiff": ".tiff"}


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as click does, and refuse numbers that are not finite.

        Args:
            value: as it was given.
            param: that it was given for.
            ctx: of the command.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """Numbers with commas between them; the empty string is the empty list.

    Args:
        kind: int or float.
        above: all are larger than this.
        empty: whether there may be none.
    """

    name = "n,n,.."

    def __init__(self, kind: type[int] | type[float] = int, above: float = -math.inf, empty: bool = True) -> None:
        self.kind, self.above, self.empty = kind, above, empty

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse the numbers.

        Args:
            value: as it was given.
            param: that it was given for.
            ctx: of the command.
        """
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(item) for item in value.split(",") if item.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers", param, ctx)
        if not (numbers or self.empty):
            self.fail("give one number at least", param, ctx)
        if not all(self.above < number < math.inf for number in numbers):
            self.fail(f"{value!r} is not a list of finite numbers above {self.above}", param, ctx)
        return numbers


PATH = click.Path(allow_dash=True)  # whose names a shell completes
model_option = click.option("--model", metavar="NAME", help="Use this model: a name, or the path of a weights file.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite what exists.")
quiet_option = click.option("--quiet", is_flag=True, help="Print no summary.")
directory_option = click.option(
    "-O", "--output-dir", type=click.Path(file_okay=False), help="Write the results to this directory."
)
recursive_option = click.option(
    "-r", "--recursive", is_flag=True, help="Take folders with all that is in folders below."
)
jobs_option = click.option(
    "-j", "--jobs", "processes", type=click.IntRange(1), default=1, metavar="N", help="Process N files at a time."
)
skip_option = click.option("--skip-existing", is_flag=True, help="Skip files that have a result already.")
format_option = click.option(
    "--format", type=click.Choice(list(FORMATS)), help="Write this image format; by default as named, or PNG."
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Choose where to compute.",
)
quality_option = click.option(
    "-q", "--quality", type=Number(0, 100), help="Set the quality, 0 (small) to 100 (good); 50 by default."
)
lambda_option = click.option(
    "--lambda", "lmbda", type=Number(0), metavar="X", help="Set the weight of a bit, instead of -q."
)
target_bpp_option = click.option("--target-bpp", type=Number(0, min_open=True), help="Fit into N bits per pixel.")
target_psnr_option = click.option(
    "--target-psnr", type=Number(0, min_open=True), metavar="DB", help="Reach at least this PSNR."
)
tune_option = click.option(
    "--tune",
    type=click.Choice(list(TUNES)),
    default=DEFAULT_TUNE,
    show_default=True,
    help="Optimise what people see, squared error, or SSIM.",
)
effort_option = click.option(
    "-e",
    "--effort",
    type=click.IntRange(1, 9),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="Search from 1 (fast) to 9 (for the smallest file).",
)


def parse_size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Parse a number of bytes as in 20000, 20kB or 20KiB."""
    if value is None:
        return None
    parts = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?(?:([kMG])(i?))?B?", value, re.IGNORECASE)
    if parts is None:
        raise click.BadParameter("give bytes as in 20000, 20kB, 1.5MB or 20KiB")
    power = {"": 0, "k": 1, "m": 2, "g": 3}[(parts[2] or "").lower()]
    size = int(float(parts[1]) * (1024 if parts[3] else 1000) ** power)
    if size < 1:
        raise click.BadParameter("the size must be at least one byte")
    return size


_LIMITS = (
    click.option(
        "--max-pixels", type=click.IntRange(1), metavar="N", help="Refuse larger images; by default over 89 MP."
    ),
    click.option(
        "--max-memory", callback=parse_size, metavar="SIZE", help="Refuse files that need more; 8GiB by default."
    ),
    click.option(
        "--max-seconds", type=Number(0, min_open=True), metavar="S", help="Give up on a file after S seconds."
    ),
)


def limits_options(command: F) -> F:
    """Add the options of `Limits`, which the command takes as one argument."""

    @functools.wraps(command)
    def run(
        *arguments: Any, max_pixels: int | None, max_memory: int | None, max_seconds: float | None, **named: Any
    ) -> Any:
        memory = Limits.memory if max_memory is None else max_memory
        return command(*arguments, limits=Limits(max_pixels, memory, max_seconds), **named)

    decorated: Any = run
    for option in reversed(_LIMITS):
        decorated = option(decorated)
    return decorated
