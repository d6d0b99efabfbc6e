# SPDX-License-Identifier: Apache-2.0
"""The command line: `vqcodec encode|decode|info|models|sample|indices`.

Data go to stdout, talk goes to stderr; the exit status is 0, 1 when something failed, 2 for wrong usage. What a command
needs is imported inside it, and torch last of all, once an input has been read: `info` and `models` answer at once, and
so does a command whose paths are wrong.
"""

from __future__ import annotations

import functools
import io
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, files
from .container import MAGIC, MAX_PIXELS, MAX_SIDE, read_header
from .errors import ImageError, VqcodecError
from .files import Job
from .quality import DEFAULT_EFFORT, DEFAULT_TUNE, TUNES

if TYPE_CHECKING:
    from PIL import Image

    from .batch import Outcome, Steps

_MAX_TEMPERATURE = 10  # that of `sampling`, which needs torch
_FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


class _Failure(click.ClickException):
    """An error that ends the command: one line on stderr, exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"vqcodec: error: {self.format_message()}", file=file or sys.stderr)


class _Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class _Commands(click.Group):
    """A group whose commands end in one line, never in a traceback, for errors that users can meet."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends the process quietly: the reader has gone
        except (VqcodecError, OSError, MemoryError) as error:
            raise _Failure(files.describe(error)) from error


_model = click.option("--model", metavar="NAME", help="Model name, or path of a weights file.")
_force = click.option("-f", "--force", is_flag=True, help="Overwrite what exists.")
_quiet = click.option("--quiet", is_flag=True, help="No summary on stderr.")
_directory = click.option("-O", "--output-dir", type=click.Path(file_okay=False), help="Directory for the results.")
_format = click.option("--format", type=click.Choice(list(_FORMATS)), help="Image format; by default as named, or PNG.")
_device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vqcodec", message="%(prog)s %(version)s")
def main() -> None:
    """A learned image codec: images to .vq2 files and back."""


def _parse_size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A number of bytes as in 20000, 20kB or 20KiB."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?(?:([kM])(i?))?B?", value, re.IGNORECASE)
    if found is None:
        raise click.BadParameter("give bytes as in 20000, 20kB, 1.5MB or 20KiB")
    power = {"": 0, "k": 1, "m": 2}[(found[2] or "").lower()]
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1:
        raise click.BadParameter("the size must be at least one byte")
    return size


_quality = click.option("-q", "--quality", type=_Number(0, 100), help="0 (small) to 100 (good); 50 by default.")
_rate = click.option("--lambda", "rate", type=_Number(0), metavar="X", help="Weight of a bit, in place of -q.")
_effort = click.option(
    "-e",
    "--effort",
    type=click.IntRange(1, 9),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="1 (fast) to 9 (small).",
)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@_directory
@_quality
@click.option("--target-size", callback=_parse_size, metavar="SIZE", help="At most so large a file, as in 20kB.")
@click.option("--target-bpp", type=_Number(0, min_open=True), help="The same in bits per pixel.")
@_rate
@_effort
@click.option(
    "--tune", type=click.Choice(list(TUNES)), default=DEFAULT_TUNE, show_default=True, help="What quality is to mean."
)
@_model
@click.option("--verify", is_flag=True, help="Decode the result and compare before it is written.")
@_force
@_device
@_quiet
def encode(
    paths: tuple[str, ...],
    output_dir: str | None,
    quality: float | None,
    target_size: int | None,
    target_bpp: float | None,
    rate: float | None,
    effort: int,
    tune: str,
    model: str | None,
    verify: bool,
    force: bool,
    device: str,
    quiet: bool,
) -> None:
    """Encode images.

    One image goes to OUTPUT, or to a file of the same name with the extension .vq2. More than two names, or -O, make
    all of them inputs. `-` is stdin or stdout.
    """
    if sum(asked is not None for asked in (quality, target_size, target_bpp, rate)) > 1:
        raise click.UsageError("give one of --quality, --target-size, --target-bpp and --lambda")
    jobs = files.plan(paths, output_dir, ".vq2")
    if len(paths) == 2 and not output_dir and Path(paths[1]).suffix.lower() != ".vq2" and Path(paths[1]).is_file():
        raise click.UsageError(f"{paths[1]} is not a .vq2 file; for two inputs give -O DIR")

    from . import registry
    from .batch import Steps

    registry.find(model)

    @functools.cache
    def loaded() -> Any:
        from . import codec

        return codec.load_model(model, device)

    def read(job: Job) -> tuple[int, Image.Image]:
        files.check_target(job.target, force)
        source = files.read(job.source)
        image = _open_image(source)
        _load(image)
        return len(source), image

    def code(job: Job, read: tuple[int, Image.Image]) -> tuple[int, bytes, int]:
        size, image = read
        data = loaded().encode(
            image,
            quality=quality,
            rate=rate,
            size=target_size,
            bpp=target_bpp,
            effort=effort,
            tune=tune,
            verify=verify,
        )
        return size, data, image.width * image.height

    def write(job: Job, coded: tuple[int, bytes, int]) -> str:
        size, data, pixels = coded
        files.write(job.target, data, force)
        return _summary(job, size, len(data), 8 * len(data) / pixels)

    _run_steps(jobs, Steps(read, loaded, code, write), quiet)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@_directory
@_format
@click.option("--max-pixels", type=click.IntRange(1), metavar="N", help="Refuse larger images; by default over 89 MP.")
@_force
@_device
@_quiet
def decode(
    paths: tuple[str, ...],
    output_dir: str | None,
    format: str | None,
    max_pixels: int | None,
    force: bool,
    device: str,
    quiet: bool,
) -> None:
    """Decode .vq2 files.

    One file goes to OUTPUT, whose extension chooses the format, or to a PNG file of the same name. More than two
    names, or -O, make all of them inputs. `-` is stdin or stdout.
    """
    jobs = files.plan(paths, output_dir, _FORMATS[format or "png"])
    if len(paths) == 2 and not output_dir and Path(paths[1]).suffix.lower() == ".vq2":
        raise click.UsageError("the output of decode is an image; for two inputs give -O DIR")

    from . import registry
    from .batch import Steps
    from .limits import Limits

    limits = Limits(pixels=max_pixels)

    @functools.cache
    def decoder() -> Callable[..., Image.Image]:
        from . import codec

        return codec.decode

    def read(job: Job) -> bytes:
        files.check_target(job.target, force)
        source = files.read(job.source)
        header = read_header(source)
        registry.find_identity(header.model)
        _image_format(job.target, format)
        limits.check_pixels(header.width, header.height)
        return source

    def code(job: Job, source: bytes) -> tuple[int, Image.Image]:
        return len(source), decoder()(source, device=device, limits=limits)

    def write(job: Job, coded: tuple[int, Image.Image]) -> str:
        size, image = coded
        data = _image_bytes(image, _image_format(job.target, format))
        files.write(job.target, data, force)
        return _summary(job, size, len(data), 8 * size / (image.width * image.height))

    _run_steps(jobs, Steps(read, decoder, code, write), quiet)


@main.command("info")
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one line a file.")
def info_command(paths: tuple[str, ...], as_json: bool) -> None:
    """Show what .vq2 files hold and where their bytes went."""

    import json
    from dataclasses import asdict

    from .fileinfo import describe, info

    def work(job: Job) -> str:
        found = info(files.read(job.source))
        text = json.dumps({"file": job.source, **asdict(found)}) if as_json else describe(job.source, found)
        click.echo(text)
        return ""

    _run([Job(path, "") for path in paths], work, quiet=True)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of the table.")
def models(as_json: bool) -> None:
    """List the installed models with their measured figures."""
    import json

    from . import registry

    rows = []
    for model in registry.installed():
        row = {"name": model.name, "identity": model.identity.hex(), "path": str(model.path)}
        rows.append({**registry.figures(model), **row})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"no model is installed; put one into a directory that {registry.ENVIRONMENT} names", err=True)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        click.echo(f"{row['name']:{width}}  {row['identity']}  {row.get('title', '')}".rstrip())
        shown = row.get("figures")
        measured: dict[str, Any] = shown if isinstance(shown, dict) else {}
        for key, value in measured.items():
            click.echo(f"{'':{width}}  {key}: {value}")


def _parse_tiles(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value)
    if sides is None:
        raise click.BadParameter("give width x height as in 2x1")
    return int(sides[1]), int(sides[2])


@main.command()
@click.argument("output", metavar="OUT")
@_model
@click.option(
    "--count", type=click.IntRange(1, 1 << 16), default=1, show_default=True, help="Images, of seeds + 0, 1..."
)
@click.option("--tiles", metavar="WxH", callback=_parse_tiles, help="Size in tiles of the model; one by default.")
@click.option("--width", type=click.IntRange(1, MAX_SIDE), help="In pixels.")
@click.option("--height", type=click.IntRange(1, MAX_SIDE), help="In pixels.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Draws the same again; random by default.")
@click.option(
    "--temperature",
    type=_Number(0, _MAX_TEMPERATURE, min_open=True),
    default=1.0,
    show_default=True,
    help="Below 1: likelier indices.",
)
@click.option("--columns", type=click.IntRange(1), help="Of the picture that shows several images.")
@click.option("--separate", is_flag=True, help="A numbered file for each image: OUT-0, OUT-1...")
@click.option("--like", metavar="IMAGE", help="Draw around a part of this image or .vq2 file, in its size.")
@click.option("--keep", type=click.Choice(["top", "upper"]), help="That part: the coarsest level, or the upper half.")
@_format
@_force
@_device
@_quiet
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
    """
    sized = width is not None or height is not None
    if (tiles and sized) or (like and (tiles or sized)):
        raise click.UsageError("give one of --tiles, --width and --height, --like")
    if (like is None) != (keep is None):
        raise click.UsageError("--like and --keep go together")
    if separate and (columns or output == "-"):
        raise click.UsageError("--separate writes a file for each image: it goes neither with --columns nor with -")

    import secrets

    number = secrets.randbelow(2**31) if seed is None else seed
    targets = [files.numbered(output, i) for i in range(count)] if separate else [output]

    def work(job: Job) -> str:
        for target in targets:
            files.check_target(target, force)
        source = None if like is None else files.read(like)
        written_as = _image_format(output, format)

        from . import sampling

        kept, place = None, 0
        if source is not None and keep is not None:
            sampler, kept, found = _kept(source, keep, model, device)
            across, down, place = found.width, found.height, found.rate
        else:
            sampler = sampling.load_sampler(model, device)
            across, down = (side * sampler.tile_size for side in tiles or (1, 1))
            across, down = width or across, height or down
        if max(across, down) > MAX_SIDE or count * across * down > MAX_PIXELS:
            raise click.UsageError(f"{count} of {across}x{down} pixels are over the limit of {MAX_PIXELS}")
        drawn = sampling.images(
            sampler, across, down, count=count, seed=number, temperature=temperature, keep=kept, place=place
        )
        if count > 1 and not separate:
            drawn = iter([sampling.grid(drawn, count, columns or math.ceil(math.sqrt(count)))])
        for target, image in zip(targets, drawn, strict=True):
            files.write(target, _image_bytes(image, written_as), force)
        name = f"{targets[0]} to {targets[-1]}" if len(targets) > 1 else targets[0]
        several = f"{count} of " if count > 1 else ""
        return f"{name}: {several}{across}x{down}, seed {number}"

    _run([Job(output, output)], work, quiet)


def _kept(data: bytes, keep: str, model: str | None, device: str) -> tuple[Any, Any, Any]:
    """The codec, what `--keep` keeps of an image or .vq2 file (`sampling.Keep`), and all of its `Indices`."""
    from . import indices, registry, sampling

    coded = data.startswith(MAGIC)
    if coded and model is None:
        model = str(registry.find_identity(read_header(data).model).path)
    codec = sampling.with_indices(sampling.load_sampler(model, device))
    found = indices.extract(codec, data if coded else _open_image(data))
    maps = indices.index_maps(codec, found)
    kept = sampling.keep_top(codec, maps) if keep == "top" else sampling.keep_upper(codec, maps, found.height)
    return codec, kept, found


@main.command("indices")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@_quality
@_rate
@_effort
@_model
@_format
@_force
@_device
@_quiet
def indices_command(
    source: str,
    target: str,
    quality: float | None,
    rate: float | None,
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
    """
    if quality is not None and rate is not None:
        raise click.UsageError("give one of --quality and --lambda")
    jobs = files.plan([source, target], None, "")
    extension = Path(target).suffix.lower()
    back = Path(source).suffix.lower() == ".npz" if target == "-" else extension != ".npz"

    def work(job: Job) -> str:
        files.check_target(target, force)
        data = files.read(source)
        as_image = _image_format(target, format) if back and extension != ".vq2" else None

        from . import indices

        if not back:
            image = data if data.startswith(MAGIC) else _open_image(data)
            found = indices.to_indices(image, model=model, device=device, quality=quality, rate=rate, effort=effort)
            result = indices.dumps(found)
        else:
            found = indices.load(io.BytesIO(data))
            if as_image is None:
                result = indices.to_vq2(found, model=model, device=device)
            else:
                result = _image_bytes(indices.from_indices(found, model=model, device=device), as_image)
        files.write(target, result, force)
        coded = len(result) if as_image is None else len(data)
        return _summary(job, len(data), len(result), 8 * coded / (found.width * found.height))

    _run(jobs, work, quiet)


def _run(jobs: list[Job], work: Callable[[Job], str], quiet: bool) -> None:
    """Do all jobs, whatever happens to each; exit with status 1 if one failed."""
    from .batch import attempt

    failed = False
    for job in jobs:
        outcome = attempt(job, work)
        _say(outcome, quiet)
        failed |= outcome.failed
    if failed:
        raise click.exceptions.Exit(1)


def _run_steps(jobs: list[Job], steps: Steps, quiet: bool) -> None:
    """The same for jobs of three steps, which overlap; with a progress bar on a terminal, if there are several."""
    from .batch import run

    outcomes: list[Outcome] = []
    if len(jobs) > 1 and not quiet and sys.stderr.isatty():
        bar: Any = click.progressbar(jobs, file=sys.stderr, item_show_func=lambda job: job and job.source)
        with bar:

            def advance(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.update(1, outcome.job)

            run(jobs, steps, advance)
        for outcome in outcomes:
            _say(outcome, quiet)
    else:

        def tell(outcome: Outcome) -> None:
            outcomes.append(outcome)
            _say(outcome, quiet)

        run(jobs, steps, tell)
    if any(outcome.failed for outcome in outcomes):
        raise click.exceptions.Exit(1)


def _say(outcome: Outcome, quiet: bool) -> None:
    for line in outcome.talk if quiet else outcome.lines:
        click.echo(line, err=True)


def _open_image(data: bytes) -> Any:
    """A Pillow image whose header has been read."""
    from PIL import Image, UnidentifiedImageError

    from .imaging import IMAGE_ERRORS

    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError("not an image of a known format") from error
    except IMAGE_ERRORS as error:
        raise ImageError(f"the image cannot be read: {error}") from error


def _load(image: Image.Image) -> None:
    from .imaging import load

    load(image)


def _image_format(target: str, wanted: str | None) -> str:
    from .imaging import format_of

    if wanted is not None:
        return wanted
    return "png" if target == "-" else format_of(target)


def _image_bytes(image: Any, format: str) -> bytes:
    from .imaging import save

    file = io.BytesIO()
    save(image, file, format)
    return file.getvalue()


def _summary(job: Job, before: int, after: int, bpp: float) -> str:
    return f"{job.source} -> {job.target}: {before} -> {after} bytes, {bpp:.4f} bpp"
