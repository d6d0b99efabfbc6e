# SPDX-License-Identifier: Apache-2.0
"""Compare models with JPEG, WebP and AVIF on folders of images; needs the ``eval`` extra.

    python tools/evaluate.py FOLDER --model NAME --cache rivals.json --csv rows.csv --json means.json --plot rd.png
    python tools/evaluate.py --model NAME --picture strip.png --image FILE --crop 100,80,220,220

Tables in Markdown go to stdout, progress to stderr. Rates are those of whole files in bytes.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vqcodec import evaluation, metrics
from vqcodec.evaluation import OURS, RIVAL_GRIDS, Codec, Measurement, Ours, Point, Row

COLOURS = {OURS: "#c2185b", "JPEG": "#6b7280", "WebP": "#1d6fb8", "AVIF 4:2:0": "#d97706", "AVIF 4:4:4": "#15803d"}


FILE = click.Path(dir_okay=False, path_type=Path)


class Grid(click.ParamType):
    """Comma-separated integers; the empty string is the empty grid."""

    name = "n,n,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(item) for item in value.split(",") if item.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of integers", param, ctx)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """A line an image, codec and setting: which image first, then what was measured on it."""
    names = [f.name for f in fields(Row)]
    measured = [f.name for f in fields(Measurement)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names[len(measured) :] + measured)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def write_json(path: Path, points: Sequence[Point]) -> None:
    """Means as a list of objects; infinity (a lossless codec) becomes null, as JSON has none."""
    means = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in item.items()}
        for item in (asdict(point) for point in points)
    ]
    path.write_text(json.dumps(means, indent=2) + "\n", encoding="utf-8")


def plot(path: Path, points: Sequence[Point], max_bpp: float) -> None:
    """Rate-distortion curves, a row of two panels (PSNR, MS-SSIM in dB) a dataset; the suffix chooses the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 11, "svg.hashsalt": "vqcodec"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    datasets = list(dict.fromkeys(point.dataset for point in points))
    figure, panels = plt.subplots(len(datasets), 2, figsize=(11, 4.6 * len(datasets)), squeeze=False)
    for dataset, row in zip(datasets, panels, strict=True):
        by_codec = evaluation.curves(points, dataset)
        for axes, quality, label in zip(row, ("psnr", "ms_ssim_db"), ("PSNR, dB", "MS-SSIM, dB"), strict=True):
            draw_panel(axes, by_codec, quality, max_bpp)
            axes.set(title=f"{dataset}: {label}", xlabel="bits per pixel (whole file)", xlim=(0, max_bpp))
    figure.tight_layout(w_pad=2.0)
    figure.savefig(path, dpi=150, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def draw_panel(axes: Any, by_codec: dict[str, list[Point]], quality: str, max_bpp: float) -> None:
    """Curves of one panel up to ``max_bpp``, each named in its colour at its right end."""
    from matplotlib.patheffects import withStroke

    ends: list[tuple[float, float, str, str]] = []
    lowest, highest = math.inf, -math.inf
    for name, curve in by_codec.items():
        shown = [(p.bpp, getattr(p, quality)) for p in curve if getattr(p, quality) is not None]
        if not shown or shown[0][0] > max_bpp:
            continue
        rates, values = np.array(shown).T
        own = name not in RIVAL_GRIDS
        colour = COLOURS.get(name, COLOURS[OURS])
        style = {"lw": 2.4, "ms": 8, "zorder": 3} if own else {"lw": 1.6, "ms": 3.5, "zorder": 2}
        axes.plot(rates, values, "o-", color=colour, **style)
        end = min(max_bpp, rates[-1])
        at_end = float(np.interp(end, rates, values))
        ends.append((at_end, end, name, colour))
        lowest, highest = min(lowest, values[0]), max(highest, at_end)
    if not ends:
        return
    margin = 0.06 * (highest - lowest) or 1.0
    axes.set_ylim(lowest - margin, highest + margin)
    axes.grid(color="#e5e7eb", lw=0.8)
    gap, below = 1.0 * margin, -math.inf
    for value, end, name, colour in sorted(ends):
        below = max(value, below + gap)  # names of curves that end close together are moved apart upwards
        text = axes.annotate(name, (end, below), (7, 0), textcoords="offset points", va="center", annotation_clip=False)
        text.set(color=colour, weight="normal" if name in RIVAL_GRIDS else "bold")
        text.set_path_effects([withStroke(linewidth=4, foreground="white")])  # ours may lie over other curves


@dataclass(frozen=True)
class Panel:
    """One picture of the strip and the lines of text under it."""

    image: Image.Image
    lines: tuple[str, ...]


def equal_bytes(image: Image.Image, ours: Codec) -> list[Panel]:
    """The original, our reconstruction, and the rivals at the best quality that fits into as many bytes.

    Of the two AVIF samplings the one with the better PSNR is taken.
    """
    pixels = np.asarray(image)

    def panel(name: str, setting: str, data: bytes, decoded: Image.Image, note: str) -> tuple[float, Panel]:
        value = metrics.psnr(pixels, np.asarray(decoded))
        lines = (f"{name}, {setting}", f"{len(data):,} bytes, {value:.2f} dB", note)
        return value, Panel(decoded, lines)

    data = ours.encode(image)
    bpp = metrics.bits_per_pixel(len(data), *image.size)
    panels = [
        Panel(image, ("original", f"{image.width} x {image.height} pixels", "")),
        panel(ours.name, ours.setting, data, ours.decode(data), f"{bpp:.3f} bits per pixel")[1],
    ]
    for group in (("JPEG",), ("WebP",), ("AVIF 4:2:0", "AVIF 4:4:4")):
        candidates = []
        for name in group:
            rival, file = evaluation.largest_within(name, image, len(data))
            fits = len(file) <= len(data)
            note = "" if fits else "its smallest file is larger"
            candidates.append((fits, *panel(name, f"quality {rival.setting}", file, rival.decode(file), note)))
        panels.append(max(candidates, key=lambda c: c[:2])[2])
    return panels


def strip(panels: Sequence[Panel], crop: tuple[int, int, int, int], scale: int) -> Image.Image:
    """Crops (x, y, width, height in pixels of the image) side by side, magnified, each over its label."""
    x, y, width, height = crop
    right, bottom = panels[0].image.size
    if not (0 <= x < x + width <= right and 0 <= y < y + height <= bottom):
        raise click.UsageError(f"the crop {crop} does not lie within {right}x{bottom} pixels")
    wide, high = width * scale, height * scale
    size = max(12, wide // 15)  # of the letters: three lines fit the width
    gap, line = 8, round(1.35 * size)
    lines = max(sum(bool(text) for text in panel.lines) for panel in panels)
    canvas = Image.new("RGB", (len(panels) * (wide + gap) - gap, high + gap + lines * line), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size)
    for i, panel in enumerate(panels):
        part = panel.image.crop((x, y, x + width, y + height)).resize((wide, high), Image.Resampling.NEAREST)
        left = i * (wide + gap)
        canvas.paste(part, (left, 0))
        for j, text in enumerate(panel.lines):
            draw.text((left, high + gap + j * line), text, fill="#111827", font=font)
    return canvas


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", "models", multiple=True, help="Model to evaluate; several make a curve.")
@click.option("--jpeg", type=Grid(), default=RIVAL_GRIDS["JPEG"], help="Qualities; '' leaves JPEG out.")
@click.option("--webp", type=Grid(), default=RIVAL_GRIDS["WebP"], help="Qualities; '' leaves WebP out.")
@click.option("--avif", type=Grid(), default=RIVAL_GRIDS["AVIF 4:2:0"], help="Qualities of both samplings.")
@click.option("--cache", type=FILE, help="JSON file that keeps the rivals' results.")
@click.option("--csv", "csv_path", type=FILE, help="Write a row an image.")
@click.option("--json", "json_path", type=FILE, help="Write the means.")
@click.option("--plot", "plot_path", type=FILE, help="Draw the curves (.png, .svg).")
@click.option("--max-bpp", default=1.5, show_default=True, help="Right end of the plot.")
@click.option("--picture", type=FILE, help="Draw a strip at equal bytes.")
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Image of the strip.")
@click.option("--crop", type=Grid(), help="x,y,w,h of the strip; the whole image by default.")
@click.option("--scale", default=1, show_default=True, type=click.IntRange(1, 8), help="Magnification of the strip.")
def main(
    folders: tuple[Path, ...],
    models: tuple[str, ...],
    jpeg: tuple[int, ...],
    webp: tuple[int, ...],
    avif: tuple[int, ...],
    cache: Path | None,
    csv_path: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
    max_bpp: float,
    picture: Path | None,
    image: Path | None,
    crop: tuple[int, ...] | None,
    scale: int,
) -> None:
    """Compare models with JPEG, WebP and AVIF on FOLDERS of images."""
    if not folders and picture is None:
        raise click.UsageError("give a folder of images, or --picture")
    if picture is not None and (not models or image is None):
        raise click.UsageError("--picture needs --model and --image")
    if crop is not None and len(crop) != 4:
        raise click.UsageError("--crop takes four integers: x,y,w,h")
    ours: list[Codec] = [Ours(model) for model in models]
    if folders:
        grids = {"JPEG": jpeg, "WebP": webp, "AVIF 4:2:0": avif, "AVIF 4:4:4": avif}
        codecs = ours + evaluation.rivals(grids)
        store = evaluation.Cache(cache)
        rows = [
            row
            for folder in folders
            for row in evaluation.evaluate(folder, codecs, store, lambda name: click.echo(name, err=True))
        ]
        points = evaluation.summarise(rows)
        click.echo(evaluation.markdown(points))
        if csv_path:
            write_csv(csv_path, rows)
        if json_path:
            write_json(json_path, points)
        if plot_path:
            plot(plot_path, points, max_bpp)
    if picture is not None and image is not None:
        original = evaluation.load_rgb(image)
        x, y, width, height = crop or (0, 0, *original.size)
        strip(equal_bytes(original, ours[0]), (x, y, width, height), scale).save(picture)


if __name__ == "__main__":
    main()
