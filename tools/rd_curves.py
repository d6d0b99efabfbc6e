# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion of models beside JPEG, WebP, AVIF and JPEG XL on folders of images; needs the `eval` extra.

    python tools/rd_curves.py FOLDER --model NAME --cache rd.jsonl --csv rows.csv --json means.json --plot rd.svg
    python tools/rd_curves.py FOLDER --model NAME --cache rd.jsonl --html report.html
    python tools/rd_curves.py --model NAME --picture strip.png --image FILE --crop 100,80,220,220

Tables in Markdown go to stdout, progress to stderr. Rates are those of whole files in bytes. With --cache a run that
was broken off goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from vqcodec.cli.options import Numbers
from vqcodec.cli.tools import script_help
from vqcodec.encoder.request import DEFAULT_EFFORT, DEFAULT_TUNE, TUNES
from vqcodec.errors import VqcodecError
from vqcodec.evaluation import tables
from vqcodec.evaluation.curves import Curve, curves, read_published
from vqcodec.evaluation.equal_bytes import GROUPS, compare_file
from vqcodec.evaluation.measuring import Cache, Row, evaluate, smoothest, summarise
from vqcodec.evaluation.rivals import AVIF, RIVAL_GRIDS, Ours, ours, rivals
from vqcodec.evaluation.workers import Workers
from vqcodec.images.listing import images_of

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def counter(dataset: str) -> Callable[[int, int], None]:
    """Writes how far the work is, each time that another per cent is done."""
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        if 100 * done // max(total, 1) != last:
            last = 100 * done // max(total, 1)
            click.echo(f"{dataset}: {done} of {total}", err=True)

    return progress


def spread(items: Sequence[Path], number: int) -> list[Path]:
    """Take items evenly spread over a list, the first and the last among them.

    Args:
        items: the list.
        number: of items to take; all, if there are fewer.
    """
    if number >= len(items):
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, number - 1))] for i in range(number)]


def write_page(
    path: Path,
    by_dataset: dict[str, list[Curve]],
    rows: Sequence[Row],
    pictures: Sequence[tuple[Path, Ours, Sequence[Sequence[str]]]],
    max_bpp: float,
    workers: Workers,
) -> None:
    """Write the HTML page.

    Args:
        path: of the file.
        by_dataset: curves.
        rows: measurements.
        pictures: tasks of the viewer.
        max_bpp: right end of the curves.
        workers: to make pictures with.
    """
    from vqcodec.report.page import Dataset, page
    from vqcodec.report.pictures import case

    progress, cases = counter("pictures"), {}
    for number, result in workers.run(case, pictures):
        cases[number] = result
        progress(len(cases), len(pictures))
    sets = [Dataset(n, result, [row for row in rows if row.dataset == n]) for n, result in by_dataset.items()]
    path.write_text(page(sets, [cases[i] for i in range(len(cases))], max_bpp), encoding="utf-8")


@click.command(help=script_help(__doc__))
@click.argument("folders", nargs=-1, type=FOLDER)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Measure this model, a name or a path; several make a curve. Pictures show the first at its middle quality.",
)
@click.option(
    "-q",
    "--quality",
    "qualities",
    type=Numbers(),
    default=(),
    help="Set the models' qualities; their middle by default.",
)
@click.option(
    "-e", "--effort", "efforts", type=Numbers(), default=(DEFAULT_EFFORT,), help="Draw a curve for each effort."
)
@click.option(
    "--tune",
    "tunes",
    multiple=True,
    type=click.Choice(list(TUNES)),
    help="Draw a curve for each; repeatable. Without --model those of the tunes are measured.",
)
@click.option("--device", default="auto", show_default=True, help="Run the models on auto, cpu or cuda.")
@click.option("--jpeg", type=Numbers(), default=RIVAL_GRIDS["JPEG"], help="Set the qualities; '' leaves JPEG out.")
@click.option("--webp", type=Numbers(), default=RIVAL_GRIDS["WebP"], help="Set the qualities; '' leaves WebP out.")
@click.option(
    "--avif", type=Numbers(), default=RIVAL_GRIDS[AVIF[0]], help="Set the qualities of all its tunes and samplings."
)
@click.option("--jxl", type=Numbers(), default=RIVAL_GRIDS["JPEG XL"], help="Set the qualities; '' leaves JPEG XL out.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1), help="Use N processes.")
@click.option("--cache", type=FILE, help="Keep all results in this file of JSON lines.")
@click.option(
    "--smoothest",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Give tables for this part of each folder's images too, those with the smallest JPEG files.",
)
@click.option("--csv", "csv_path", type=FILE, help="Write a row an image, codec and setting.")
@click.option("--json", "json_path", type=FILE, help="Write the means.")
@click.option("--plot", "plot_path", type=FILE, help="Draw the curves (.png, .svg).")
@click.option(
    "--max-bpp", default=1.5, show_default=True, type=click.FloatRange(0, min_open=True), help="End the plot there."
)
@click.option(
    "--published", type=(str, EXISTING), help="Add published curves: name of a FOLDER, and CSV for its images."
)
@click.option(
    "--published-codec", multiple=True, help="Take this codec, or 'CODEC METRIC', of that file; all by default."
)
@click.option("--html", type=FILE, help="Write a page with all of it, which needs nothing else.")
@click.option(
    "--html-images",
    default=6,
    show_default=True,
    type=click.IntRange(0),
    help="Show N images of a folder in its viewer.",
)
@click.option("--html-image", multiple=True, help="Show this file in the viewer, instead of evenly spread ones.")
@click.option("--picture", type=FILE, help="Draw a strip at equal bytes.")
@click.option("--image", type=EXISTING, help="Draw the strip of this image.")
@click.option("--crop", type=Numbers(), help="Cut x,y,w,h out of it; all of it by default.")
@click.option("--scale", default=1, show_default=True, type=click.IntRange(1, 8), help="Magnify the strip.")
def main(**options: Any) -> None:
    _check(options)
    try:
        with Workers(options["jobs"] if options["folders"] else 1) as workers:
            run(options, workers)
    except (VqcodecError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _check(options: dict[str, Any]) -> None:
    """Refuse command lines that cannot mean anything."""
    if not options["folders"] and options["picture"] is None:
        raise click.UsageError("give a folder of images, or --picture")
    if options["picture"] is not None and not (options["models"] and options["image"]):
        raise click.UsageError("--picture needs --model and --image")
    if options["crop"] is not None and len(options["crop"]) != 4:
        raise click.UsageError("--crop takes four integers: x,y,w,h")
    names = [folder.resolve().name for folder in options["folders"]]
    if len(set(names)) < len(names):
        raise click.UsageError("two folders have the same name")
    if options["published"] and options["published"][0] not in names:
        raise click.UsageError(f"--published is for one of the folders: {', '.join(names)}")


def run(options: dict[str, Any], workers: Workers) -> None:
    """Do everything that was asked for.

    Args:
        options: of the command.
        workers: to measure with.
    """
    grids = {"JPEG": options["jpeg"], "WebP": options["webp"], "JPEG XL": options["jxl"]}
    grids |= dict.fromkeys(AVIF, options["avif"])
    qualities = [int(quality) for quality in options["qualities"]] or [None]
    efforts, tunes = [int(effort) for effort in options["efforts"]], options["tunes"] or (DEFAULT_TUNE,)
    models = options["models"] or (None,) * bool(options["tunes"])
    points = ours(models, qualities, options["device"], efforts, tunes)
    groups = [tuple(name for name in group if grids[name]) for group in GROUPS]
    groups = [group for group in groups if group]
    if options["folders"]:
        measure_folders(options, workers, points, shown(points, qualities), grids, groups)
    if options["picture"] is not None:
        from vqcodec.report.strip import strip

        strip(compare_file(options["image"], shown(points, qualities), groups), options["crop"], options["scale"]).save(
            options["picture"]
        )


def shown(points: Sequence[Ours], qualities: Sequence[int | None]) -> Ours | None:
    """Choose the first model at its middle quality, or the lower of two.

    Args:
        points: of ours, qualities of the first model first.
        qualities: of each model.
    """
    return points[(len(qualities) - 1) // 2] if points else None


def measure_folders(
    options: dict[str, Any],
    workers: Workers,
    points: list[Ours],
    pictured: Ours | None,
    grids: dict[str, Sequence[float]],
    groups: Sequence[Sequence[str]],
) -> None:
    """Measure, and write what was asked for.

    Args:
        options: of the command.
        workers: to measure with.
        points: of ours.
        pictured: the one that pictures show.
        grids: qualities of the rivals.
        groups: rivals of the pictures.
    """
    codecs, cache, rows = [*points, *rivals(grids)], Cache(options["cache"]), []
    for folder in options["folders"]:
        rows += evaluate(folder, codecs, cache, workers, counter(folder.resolve().name))
    points = summarise(rows)
    click.echo(tables.markdown(points))
    if options["smoothest"]:
        click.echo(tables.markdown(summarise(smoothest(rows, options["smoothest"]))))
    if options["csv_path"]:
        tables.write_csv(options["csv_path"], rows)
    if options["json_path"]:
        tables.write_json(options["json_path"], points)
    by_dataset = {folder.resolve().name: curves(points, folder.resolve().name) for folder in options["folders"]}
    if options["published"]:
        dataset, path = options["published"]
        by_dataset[dataset] += read_published(path, dataset, options["published_codec"])
    if options["plot_path"]:
        from vqcodec.report.plots import plot

        plot(options["plot_path"], by_dataset, options["max_bpp"])
    if options["html"]:
        pictures = [(path, pictured, groups) for path in viewed(options)] if pictured else []
        write_page(options["html"], by_dataset, rows, pictures, options["max_bpp"], workers)


def viewed(options: dict[str, Any]) -> list[Path]:
    """The images of the page's viewer."""
    folders = [images_of(folder) for folder in options["folders"]]
    names = options["html_image"]
    if not names:
        return [path for paths in folders for path in spread(paths, options["html_images"])]
    lost = set(names) - {path.name for paths in folders for path in paths}
    if lost:
        raise ValueError(f"there is no image {', '.join(sorted(lost))} in the folders")
    return [path for paths in folders for path in paths if path.name in names]


if __name__ == "__main__":
    main()
