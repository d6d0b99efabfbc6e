# SPDX-License-Identifier: Apache-2.0
"""`vqcodec batch`: collections."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vqcodec.cli.group import main
from vqcodec.cli.options import (
    FORMATS,
    device_option,
    effort_option,
    force_option,
    format_option,
    lambda_option,
    model_option,
    quality_option,
    quiet_option,
    target_bpp_option,
    target_psnr_option,
    tune_option,
)
from vqcodec.cli.progress import Progress
from vqcodec.images.files import put_line

if TYPE_CHECKING:
    from vqcodec.batch.tasks import Task

F = TypeVar("F", bound=Callable[..., Any])


@main.group()
def batch() -> None:
    """Encode, decode, verify or index collections, from a folder to a cluster.

    SOURCE is a folder with all that is below it, a list file (.txt) with a name on every line, a tar or Parquet file,
    or a pattern of names in quotes; DEST a folder for the results. Either may be a URL: s3://bucket/name.

    A manifest in DEST remembers what was done. A second run does what is missing, what has changed, and what may go
    well now; a picture that cannot be read stops nothing.

    \b
    vqcodec batch encode photos coded          a tree of folders
    vqcodec batch encode -j 8 photos coded     in eight processes
    vqcodec batch decode coded back
    """


def collection(command: F) -> F:
    """Add the arguments and options that all commands of the group have."""
    options = (
        click.argument("source", metavar="SOURCE"),
        click.argument("dest", metavar="DEST"),
        click.option(
            "--glob", "pattern", default="", metavar="PATTERN", help="Take these names only, as in '**/*.jpg'."
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Choose where the work is done.",
        ),
        click.option(
            "-j", "--jobs", type=click.IntRange(0), metavar="N", help="Use N processes; by default one a core."
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            metavar="N",
            help="Use N threads in each process; by default the cores divided.",
        ),
        click.option("--address", metavar="HOST:PORT", help="Use this Ray cluster; auto: the one of this machine."),
        click.option(
            "--num-gpus",
            type=click.IntRange(1),
            metavar="N",
            help="Use N GPUs of a Ray cluster, with a model on each.",
        ),
        click.option("--retry-failed", is_flag=True, help="Try damaged ones again, too."),
        click.option(
            "--column", default="", metavar="NAME", help="Take the pictures from this column of Parquet files."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as a JSON object on stdout."),
        force_option,
        device_option,
        quiet_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


shards = (
    click.option(
        "--to",
        type=click.Choice(["folder", "tar", "parquet"]),
        default="folder",
        show_default=True,
        help="Store the results in this form.",
    ),
    click.option(
        "--per-shard", type=click.IntRange(1), default=256, show_default=True, help="Put N results in each shard."
    ),
)


def sharded(command: F) -> F:
    """Add the options of commands whose results may be shards."""
    for option in reversed(shards):
        command = option(command)
    return command


@batch.command("encode")
@collection
@sharded
@quality_option
@target_bpp_option
@target_psnr_option
@lambda_option
@effort_option
@tune_option
@click.option("--lossless", is_flag=True, help="Store the pictures themselves, as WebP or PNG.")
@click.option("--no-fallback", is_flag=True, help="Never store the pictures themselves unless asked to.")
@model_option
def encode(
    quality: float | None,
    target_bpp: float | None,
    target_psnr: float | None,
    lmbda: float | None,
    effort: int,
    tune: str,
    lossless: bool,
    no_fallback: bool,
    model: str | None,
    device: str,
    **named: Any,
) -> None:
    """Encode the pictures of SOURCE.

    \b
    vqcodec batch encode photos coded                    a tree of folders
    vqcodec batch encode --glob '*.jpg' -q 70 photos coded
    vqcodec batch encode photos.tar coded --to tar       from a tar file to tar files
    vqcodec batch encode --retry-failed photos coded     once more, damaged ones too
    """
    if sum(asked is not None for asked in (quality, lmbda, target_bpp, target_psnr)) + lossless > 1:
        raise click.UsageError("give one of --quality, --lambda, --lossless and the targets")

    from vqcodec.batch.collection import encode_task

    task = encode_task(
        model=model,
        device=device,
        quality=quality,
        bpp=target_bpp,
        psnr=target_psnr,
        lmbda=lmbda,
        effort=effort,
        tune=tune,
        lossless=lossless,
        fallback=not no_fallback,
    )
    run_task(task, **named)


@batch.command("decode")
@collection
@sharded
@format_option
@click.option(
    "-q",
    "--quality",
    type=click.IntRange(1, 100),
    help="Set the quality of JPEG (95), AVIF (90), WebP (without loss) or JXL.",
)
def decode(format: str | None, quality: int | None, device: str, **named: Any) -> None:
    """Decode the .vq2 files of SOURCE.

    \b
    vqcodec batch decode coded back                      PNG files
    vqcodec batch decode coded back --format jpeg -q 90
    """
    from vqcodec.batch.tasks import DecodeTask

    format = format or "png"
    run_task(DecodeTask(format, FORMATS[format], quality, device), **named)


@batch.command("verify")
@collection
def verify(device: str, **named: Any) -> None:
    """Decode the .vq2 files of SOURCE and write nothing but the manifest in DEST.

    \b
    vqcodec batch verify coded checked           a line for each damaged file
    vqcodec batch verify coded checked --json    for programs
    """
    from vqcodec.batch.tasks import VerifyTask

    run_task(VerifyTask(device), **named)


@batch.command("indices")
@collection
@sharded
@quality_option
@lambda_option
@effort_option
@model_option
def indices(
    quality: float | None, lmbda: float | None, effort: int, model: str | None, device: str, **named: Any
) -> None:
    """Write the indices of the pictures or .vq2 files of SOURCE.

    A folder gets .npz files, as `vqcodec indices` writes them. A .vq2 file that holds its picture without loss has no
    indices, and is a failure.

    \b
    vqcodec batch indices photos codes                   .npz files
    vqcodec batch indices coded codes --to parquet       of .vq2 files, to Parquet
    """
    if quality is not None and lmbda is not None:
        raise click.UsageError("give one of --quality and --lambda")

    from vqcodec.batch.tasks import IndicesTask, model_name

    run_task(IndicesTask(model_name(model, device), quality, lmbda, effort), **named)


def run_task(
    task: Task,
    source: str,
    dest: str,
    pattern: str,
    engine: str,
    address: str | None,
    num_gpus: int | None,
    jobs: int | None,
    threads: int | None,
    retry_failed: bool,
    as_json: bool,
    force: bool,
    quiet: bool,
    column: str,
    to: str = "folder",
    per_shard: int = 256,
) -> None:
    """Do a task with a collection and say how it went; exit with status 1 if a picture failed.

    Args:
        task: what is done to every picture.
        source: of the pictures.
        dest: of the results.
        pattern: of names to take; empty: all pictures.
        engine: local or ray.
        address: of a Ray cluster.
        num_gpus: of a Ray cluster.
        jobs: processes; None: one a core.
        threads: of each process; None: the cores divided.
        retry_failed: try damaged ones again.
        as_json: print the summary as a JSON object.
        force: overwrite what exists.
        quiet: say nothing on stderr.
        column: of Parquet files, that holds the pictures; empty: the only one that fits.
        to: folder, tar or parquet.
        per_shard: results in a tar or Parquet file.
    """
    from vqcodec.batch import storage
    from vqcodec.batch.collection import engine_called
    from vqcodec.batch.running import Asked, run
    from vqcodec.batch.sinks import sink as sink_called
    from vqcodec.batch.sources import source as source_of
    from vqcodec.batch.summary import Summary
    from vqcodec.batch.worker import Job

    collection = source_of(source, task.sources, pattern, column)
    sink = sink_called(to, storage.absolute(dest), task.suffix, task.name == "indices")
    if engine == "local" and (address or num_gpus):
        raise click.UsageError("--address and --num-gpus are of --engine ray")
    runner, threads = engine_called(
        engine, jobs, threads, (storage.absolute(source), sink.folder), address, num_gpus or 0
    )
    summary = Summary()
    with Progress(collection, summary, quiet) as progress:
        try:
            asked = Asked(retry_failed, force, per_shard)
            run(collection, Job(task, sink, threads, column), runner, asked, progress.report, summary)
        finally:
            summary.clock()
            if not quiet:
                progress.say(str(summary))
    if as_json:
        put_line(json.dumps(summary.to_dict()))
    if summary.failed:
        raise click.exceptions.Exit(1)
