# SPDX-License-Identifier: Apache-2.0
"""The command line: `vqcodec encode|decode|info|models|sample`.

Data go to stdout, talk goes to stderr; the exit status is 0, 1 when something failed, 2 for wrong usage. What needs
torch, numpy or Pillow is imported inside the commands, so that `info` and `models` answer at once.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import __version__, files, registry
from .container import MAX_PIXELS, MAX_SIDE
from .errors import ImageError, VqcodecError
from .fileinfo import FileInfo, info
from .files import Job

_FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


class _Failure(click.ClickException):
    """An error that ends the command: one line on stderr, exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"vqcodec: error: {self.format_message()}", file=file or sys.stderr)


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


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@_directory
@_model
@click.option("--verify", is_flag=True, help="Decode the result and compare before it is written.")
@_force
@_device
@_quiet
def encode(
    paths: tuple[str, ...],
    output_dir: str | None,
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
    jobs = files.plan(paths, output_dir, ".vq2")
    if len(paths) == 2 and not output_dir and Path(paths[1]).suffix.lower() != ".vq2" and Path(paths[1]).is_file():
        raise click.UsageError(f"{paths[1]} is not a .vq2 file; for two inputs give -O DIR")

    from . import codec

    loaded = codec.load_model(model, device)

    def work(job: Job) -> str:
        started = time.perf_counter()
        files.check_target(job.target, force)
        source = files.read(job.source)
        image = _open_image(source)
        data = loaded.encode(image, verify=verify)
        files.write(job.target, data, force)
        return _summary(job, len(source), len(data), 8 * len(data) / (image.width * image.height), started)

    _run(jobs, work, quiet)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@_directory
@_format
@_force
@_device
@_quiet
def decode(
    paths: tuple[str, ...], output_dir: str | None, format: str | None, force: bool, device: str, quiet: bool
) -> None:
    """Decode .vq2 files.

    One file goes to OUTPUT, whose extension chooses the format, or to a PNG file of the same name. More than two
    names, or -O, make all of them inputs. `-` is stdin or stdout.
    """
    jobs = files.plan(paths, output_dir, _FORMATS[format or "png"])
    if len(paths) == 2 and not output_dir and Path(paths[1]).suffix.lower() == ".vq2":
        raise click.UsageError("the output of decode is an image; for two inputs give -O DIR")

    from . import codec

    def work(job: Job) -> str:
        started = time.perf_counter()
        written_as = _image_format(job.target, format)
        files.check_target(job.target, force)
        source = files.read(job.source)
        image = codec.decode(source, device=device)
        data = _image_bytes(image, written_as)
        files.write(job.target, data, force)
        return _summary(job, len(source), len(data), 8 * len(source) / (image.width * image.height), started)

    _run(jobs, work, quiet)


@main.command("info")
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one line a file.")
def info_command(paths: tuple[str, ...], as_json: bool) -> None:
    """Show what .vq2 files hold and where their bytes went."""

    def work(job: Job) -> str:
        found = info(files.read(job.source))
        text = json.dumps({"file": job.source, **asdict(found)}) if as_json else _describe_info(job.source, found)
        click.echo(text)
        return ""

    _run([Job(path, "") for path in paths], work, quiet=True)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of the table.")
def models(as_json: bool) -> None:
    """List the installed models with their measured figures."""
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


@main.command()
@click.argument("output", metavar="OUT")
@_model
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Draws the same image again; random by default.")
@click.option("--width", type=click.IntRange(1, MAX_SIDE), default=256, show_default=True, help="In pixels.")
@click.option("--height", type=click.IntRange(1, MAX_SIDE), default=256, show_default=True, help="In pixels.")
@_format
@_force
@_device
@_quiet
def sample(
    output: str,
    model: str | None,
    seed: int | None,
    width: int,
    height: int,
    format: str | None,
    force: bool,
    device: str,
    quiet: bool,
) -> None:
    """Draw an image from the model's prior."""
    if width * height > MAX_PIXELS:
        raise click.UsageError(f"{width}x{height} is over the limit of {MAX_PIXELS} pixels")
    number = secrets.randbelow(2**31) if seed is None else seed

    def work(job: Job) -> str:
        started = time.perf_counter()
        written_as = _image_format(job.target, format)
        files.check_target(job.target, force)

        from . import codec

        image = codec.load_model(model, device).sample(width, height, seed=number)
        files.write(job.target, _image_bytes(image, written_as), force)
        return f"{job.target}: {width}x{height}, seed {number}, {time.perf_counter() - started:.2f} s"

    _run([Job(output, output)], work, quiet)


def _run(jobs: list[Job], work: Callable[[Job], str], quiet: bool) -> None:
    """Do all jobs, whatever happens to each; exit with status 1 if one failed."""
    if len(jobs) > 1 and not quiet and sys.stderr.isatty():
        with click.progressbar(jobs, file=sys.stderr, item_show_func=lambda job: job and job.source) as bar:
            outcomes = [files.attempt(job, work) for job in bar]
        click.echo("\n".join(line for outcome in outcomes for line in outcome.lines), err=True)
    else:
        outcomes = []
        for job in jobs:
            outcome = files.attempt(job, work)
            outcomes.append(outcome)
            for line in outcome.talk if quiet else outcome.lines:
                click.echo(line, err=True)
    if any(outcome.failed for outcome in outcomes):
        raise click.exceptions.Exit(1)


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


def _summary(job: Job, before: int, after: int, bpp: float, started: float) -> str:
    seconds = time.perf_counter() - started
    return f"{job.source} -> {job.target}: {before} -> {after} bytes, {bpp:.4f} bpp, {seconds:.2f} s"


def _describe_info(name: str, found: FileInfo) -> str:
    """The text of `info` for one file."""
    rows = [
        ("image", f"{found.width} x {found.height} pixels, {found.mode}"),
        ("model", f"{found.model_name or 'not installed'} ({found.model_identity})"),
        ("file", f"{found.file_bytes} bytes, {found.bpp:.4f} bpp, {found.bits_per_dim:.4f} bits per dim"),
        ("header", f"{found.header_bytes} bytes"),
    ]
    blocks = (("ICC profile", found.icc_bytes), ("EXIF", found.exif_bytes), ("XMP", found.xmp_bytes))
    rows += [(label, f"{size} bytes") for label, size in blocks if size is not None]
    if found.alpha_bytes:
        rows.append(("alpha", f"{found.alpha_bytes} bytes"))
    for level, size in enumerate(found.level_bytes):
        rows.append((f"level {level}", f"{size} bytes, {8 * size} bits, {100 * size / found.file_bytes:.1f} %"))
    rows.append(("overhead", f"{found.overhead_bytes} bytes"))
    rows.append(("tiles", f"{found.tile_size} x {found.tile_size} pixels, {found.groups} group(s)"))
    return "\n".join([name, *(f"  {label:<12}{text}" for label, text in rows)])
