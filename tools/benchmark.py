# SPDX-License-Identifier: Apache-2.0
"""Time and memory of encoding and decoding by size of the image, threads and device, beside JPEG, WebP and AVIF.

    python tools/benchmark.py --quick
    python tools/benchmark.py --image PHOTO --threads 1,2 --json benchmark.json --plot benchmark.svg > benchmark.md

The Markdown goes to stdout, progress to stderr; the plot needs the ``eval`` extra. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from PIL import Image

from vqcodec.benchmark import growth, plots, report, timings
from vqcodec.benchmark.contenders import RIVALS, Contender, Ours, Pillow, within
from vqcodec.benchmark.macs import count
from vqcodec.benchmark.timings import Plan
from vqcodec.cli.options import Numbers
from vqcodec.codec import load_model
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.markdown import table

SIZES = (0.1, 0.4, 1.0, 2.0, 6.0, 12.0, 24.0)
QUICK = (0.05, 0.1, 0.2)
FILE = click.Path(dir_okay=False, path_type=Path)
MATCHED_FROM = 0.3  # megapixels: at the first size from there on, the others' quality is chosen


def rivals(names: tuple[str, ...], ours: Ours, source: Image.Image, plan: Plan) -> list[Contender]:
    """Choose what to compare with.

    Args:
        names: with a quality as in JPEG=75, or without: then with as many bytes as ours at a middling size.
        ours: our codec.
        source: of the pictures.
        plan: for its sizes.
    """
    reference = timings.picture(source, next((size for size in plan.sizes if size >= MATCHED_FROM), plan.sizes[-1]))
    results: list[Contender] = []
    limit = None
    for entry in names:
        name, _, quality = entry.partition("=")
        if name not in RIVALS or (quality and not (quality.isdigit() and 1 <= int(quality) <= 100)):
            raise click.UsageError(f"--rival {entry}: give one of {', '.join(RIVALS)}, or with a quality as in JPEG=75")
        if quality:
            results.append(Pillow(name, int(quality)))
        else:
            limit = len(ours.encode(reference)) if limit is None else limit
            results.append(within(name, reference, limit))
    return results


def counted(models: Sequence[str | None]) -> str:
    """A Markdown table of the multiply-accumulates of models."""
    rows = []
    for model in models:
        codec = load_model(model, "cpu")
        results = count(codec)
        cells = (results.encoder, results.decoder, results.trunk, results.stacks)
        rows.append([codec.name, *(f"{number / 1000:.1f}" for number in cells)])
    return table(["kMAC a pixel", "encoder", "decoder", "priors: trunk", "priors: all stages"], rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Time this model, a name or a weights file; repeatable. The default model if none.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    default=("cpu",),
    type=click.Choice(["cpu", "cuda"]),
    help="Compute there; repeatable.",
)
@click.option(
    "--threads",
    type=Numbers(int, above=0, empty=False),
    default=(1,),
    help="Try these numbers of threads, as in 1,2; 1 by default.",
)
@click.option(
    "--sizes",
    type=Numbers(float, above=0, empty=False),
    default=SIZES,
    help="Set the sizes in megapixels, as in 0.1,1,6; up to 24 by default.",
)
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Take the median of N runs.")
@click.option("--seconds", default=20.0, show_default=True, help="Start no run after N seconds.")
@click.option("--quick", is_flag=True, help="Measure three small sizes, one run each: about a minute.")
@click.option(
    "--processes/--no-processes", default=True, help="Measure whole processes and their memory as well (default)."
)
@click.option(
    "--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Cut the pictures from this one."
)
@click.option(
    "--rival",
    "names",
    multiple=True,
    default=tuple(RIVALS),
    help="Compare with JPEG, WebP or AVIF; or JPEG=75 for a quality.",
)
@click.option("--macs", is_flag=True, help="Count multiply-accumulates a pixel, and time nothing.")
@click.option("--json", "json_path", type=FILE, help="Write everything to this file.")
@click.option("--plot", "plot_path", type=FILE, help="Draw a plot (.svg, .png).")
def main(
    models: tuple[str, ...],
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    sizes: tuple[float, ...],
    runs: int,
    seconds: float,
    quick: bool,
    processes: bool,
    image: Path | None,
    names: tuple[str, ...],
    macs: bool,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Measure time and memory of encoding and decoding, beside JPEG, WebP and AVIF.

    The tables, in Markdown, go to stdout, progress to stderr. Nothing else should run meanwhile.

    \b
    python tools/benchmark.py --quick                                a minute
    python tools/benchmark.py --threads 1,2 --sizes 1,6,24 --json b.json --plot b.svg
    """
    plan = Plan(
        QUICK if quick else tuple(sorted(set(sizes))),
        tuple(sorted(set(threads))),
        1 if quick else runs,
        seconds,
        processes,
    )
    source = timings.drawn() if image is None else Image.open(image)
    try:
        if macs:
            click.echo(counted(models or (None,)))
            return
        ours = [Ours(model, device) for device in devices for model in models or (None,)]
        contenders = [*ours, *rivals(names, ours[0], source, plan)]
        results = timings.benchmark(contenders, source, plan, lambda line: click.echo(line, err=True))
    except VqcodecError as error:
        raise click.ClickException(str(error)) from error
    grown = growth.growths(results)
    click.echo(report.markdown(results, grown))
    if json_path:
        text = json.dumps(report.as_json(plan, results, grown), indent=2)
        json_path.write_text(text + "\n", encoding="utf-8")
    if plot_path:
        plots.plot(plot_path, results, grown)


if __name__ == "__main__":
    main()
