# SPDX-License-Identifier: Apache-2.0
"""Bits per dimension of images under a model, image by image and over a set: records for CSV and JSON, and tables.

A codec's rates are those of files, 8 * bytes / (width * height * channels): the dimensions are the numbers that the
image has, channels being 1 for grey (L), 2 for grey with alpha (LA), 3 for RGB and 4 for RGBA. Whatever no file holds
says "estimate" in its name, and "bound" where it is one. A VAE makes no files: all of its figures are such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

from vqcodec.evaluation.markdown import table
from vqcodec.evaluation.rates import FileRates, LevelRates, Tally, total
from vqcodec.vae.model import VAEFigures, mean_figures

Record = dict[str, Any]
STEPS = ("raw", "order0", "ideal")  # fields of `LevelRates`; then the stream, which is in the file


def level_names(number: int) -> list[str]:
    """Names of the levels, the coarsest first."""
    return ["top", *(f"middle{i}" for i in range(1, number - 1)), "bottom"] if number > 1 else ["indices"]


def parts(file: FileRates) -> dict[str, int]:
    """Say where the bytes of a file are; they add up to its size.

    By level: the range coder words. `header_and_checksums`: magic and header, and what frames the words (type, length
    and CRC of each chunk). `metadata`: ICC profile, EXIF and XMP; `alpha`: both with their own framing.
    """
    p = file.parts
    others = {
        "header_and_checksums": p.header + p.framing + p.ancillary,
        "metadata": p.icc + p.exif + p.xmp,
        "alpha": p.alpha,
    }
    return dict(zip(level_names(len(p.levels)), p.levels, strict=True)) | others


def record(file: FileRates) -> Record:
    """Describe one image as flat, ordered columns."""
    head = file.header
    row: Record = {"image": file.name, "width": head.width, "height": head.height, "mode": head.mode}
    row |= {"channels": head.channels, "file_bytes": file.size, "bpp": file.bpp}
    row |= {"bits_per_dim": file.bits_per_dim} | {f"{name}_bytes": size for name, size in parts(file).items()}
    for name, tally in zip(level_names(len(file.tallies)), file.tallies, strict=True):
        row |= {f"{name}_{key}": value for key, value in level_record(tally.rates()).items()}
    return row


def level_record(level: LevelRates) -> Record:
    """Bits of a level by step, each with its kind in its name."""
    row: Record = {"index_count": level.indices, "stages_per_position": level.stages}
    row |= {f"{step}_bits_estimate": getattr(level, step) for step in STEPS}
    row["ideal_bits_per_index_estimate"] = level.ideal / level.indices
    row["ideal_nats_per_index_estimate"] = level.ideal / level.indices * math.log(2)
    row["float_ideal_bits_estimate"] = level.floating
    return row | {"stream_bits": level.stream}


def summary(files: Sequence[FileRates]) -> Record:
    """Sum up a set of images: rates over images, bytes and bits over the whole set.

    Order-0 entropies are under one table per index map for the whole set. `float`: the cost of rounding, over the
    images that the float network could take; None where there is none.
    """
    worst = max(files, key=lambda file: file.bits_per_dim)
    by_part = [parts(file) for file in files]
    return {
        "images": len(files),
        "pixels": sum(file.pixels for file in files),
        "bpp": spread([file.bpp for file in files]),
        "bits_per_dim": spread([file.bits_per_dim for file in files]),
        "worst_image": worst.name,
        "file_bytes": sum(file.size for file in files),
        "part_bytes": {name: sum(part[name] for part in by_part) for name in by_part[0]},
        "levels": dict(zip(level_names(len(files[0].tallies)), map(level_record, set_rates(files)), strict=True)),
        "float": rounding_cost(files),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Work out mean, median and worst, which is the largest."""
    return {"mean": fmean(values), "median": median(values), "worst": max(values)}


def set_rates(files: Sequence[FileRates]) -> list[LevelRates]:
    """Rates by level over all images."""
    return [total(level).rates() for level in zip(*(file.tallies for file in files), strict=True)]


def rounding_cost(files: Sequence[FileRates]) -> Record | None:
    """Measure what the integer prior costs against the same network in float."""
    tallies = [tally for file in files for tally in file.tallies]
    those = [tally for tally in tallies if tally.floating is not None]
    if not those:
        return None
    integer, floating = sum(t.ideal for t in those), sum(_known(t) for t in those)
    return {
        "images": sum(file.tallies[0].floating is not None for file in files),
        "integer_ideal_bits_estimate": integer,
        "float_ideal_bits_estimate": floating,
        "cost_percent_estimate": 100 * (integer / floating - 1),
    }


def _known(tally: Tally) -> float:
    assert tally.floating is not None
    return tally.floating


def text(title: str, files: Sequence[FileRates]) -> str:
    """Write Markdown: the rates of the files, where their bytes are, and what each step of the coding saves.

    Args:
        title: heading of the tables.
        files: measured ones.
    """
    sums = summary(files)
    shown = {name: size for name, size in sums["part_bytes"].items() if size} | {"file": sums["file_bytes"]}
    names = [name.replace("_", " ") for name in shown]
    sizes = [[str(size), f"{100 * size / sums['file_bytes']:.2f} %"] for size in shown.values()]
    rates = [[f"{sums[rate][which]:.4f}" for rate in ("bpp", "bits_per_dim")] for which in ("mean", "median", "worst")]
    return "\n\n".join(
        [
            f"## {title}: {len(files)} images, {sums['pixels']} pixels",
            "From the bytes of the files:",
            _named(["", "bpp", "bits per dim"], ["mean", "median", f"worst: {sums['worst_image']}"], rates),
            _named(["part", "bytes", "share"], names, sizes),
            *_step_tables(files, sums),
        ]
    )


def _step_tables(files: Sequence[FileRates], sums: Record) -> list[str]:
    """Bits per index by level, and bits per pixel saved or added by each step."""
    levels = set_rates(files)
    names = [*level_names(len(levels)), "all"]
    pixels, whole = sums["pixels"], 8 * sums["file_bytes"]
    everything = [levels, *([level] for level in levels)]

    def per_index(value: Callable[[LevelRates], float]) -> list[str]:
        return [f"{sum(map(value, some)) / sum(v.indices for v in some):.4f}" for some in (*everything[1:], levels)]

    rows = {
        "raw, log2 of the codes (estimate)": per_index(lambda v: v.raw),
        "order-0 entropy (estimate)": per_index(lambda v: v.order0),
        "ideal code of the prior (estimate)": per_index(lambda v: v.ideal),
        "the same in nats (estimate)": per_index(lambda v: v.ideal * math.log(2)),
        "streams in the files": per_index(lambda v: v.stream),
    }
    raw, order0, ideal = (sum(getattr(v, step) for v in levels) for step in STEPS)
    stream = sum(v.stream for v in levels)
    gains = {
        "codes are not equally frequent: order-0 against raw (estimate)": (order0, raw),
        "what the prior knows: ideal against order-0 (estimate)": (ideal, order0),
        "range coder and whole words: stream against ideal (estimate)": (stream, ideal),
        "header, checksums, metadata, alpha: files against streams": (whole, stream),
    }
    cells = [[f"{(new - old) / pixels:+.5f}", f"{100 * (new / old - 1):+.3f} %"] for new, old in gains.values()]
    used = ", ".join(f"{name} {level.stages:.2f}" for name, level in zip(names, levels, strict=False))
    tables = [
        f"Stages that a position uses, on average: {used}.",
        "Bits per index:",
        _named(["", *names], list(rows), list(rows.values())),
        "What each step saves (-) or costs (+):",
        _named(["step", "bits per pixel", "change"], list(gains), cells),
    ]
    if (cost := sums["float"]) is not None:
        tables.append(
            f"Rounding to integers costs {cost['cost_percent_estimate']:+.3f} % of the ideal code of the same network "
            f"in float (estimate, {cost['images']} images)."
        )
    return tables


def vae_record(name: str, width: int, height: int, figures: VAEFigures) -> Record:
    """Flatten an image's figures under a VAE to columns: bits per dim of its pixels, cut to multiples of the stride.

    Args:
        name: of the image.
        width: in pixels.
        height: in pixels.
        figures: of the image.
    """
    row: Record = {"image": name, "width": width, "height": height, "mode": "RGB", "channels": 3}
    return row | _vae_columns(figures)


def vae_summary(images: Sequence[tuple[str, VAEFigures]]) -> Record:
    """Sum up a set of images, with their names, under a VAE."""
    figures = [figure for _, figure in images]
    return {
        "images": len(figures),
        "elbo_bits_per_dim_bound_estimate": spread([figure.elbo for figure in figures]),
        "worst_image": max(images, key=lambda pair: pair[1].elbo)[0],
        "means": _vae_columns(mean_figures(figures)),
    }


def _vae_columns(figures: VAEFigures) -> Record:
    return {
        "elbo_bits_per_dim_bound_estimate": figures.elbo,
        "reconstruction_bits_per_dim_estimate": figures.reconstruction,
        "kl_bits_per_dim_estimate": figures.kl,
        "importance_weighted_bits_per_dim_bound_estimate": figures.importance_weighted,
    }


def vae_text(title: str, images: Sequence[tuple[str, VAEFigures]]) -> str:
    """Write Markdown for a VAE.

    Args:
        title: heading of the tables.
        images: names and figures.
    """
    sums, means = vae_summary(images), mean_figures([figure for _, figure in images])
    spreads = sums["elbo_bits_per_dim_bound_estimate"]
    names = [
        "bound, mean (estimate)",
        "bound, median (estimate)",
        f"bound, worst: {sums['worst_image']} (estimate)",
        "reconstruction, mean (estimate)",
        "KL, mean (estimate)",
    ]
    values = [spreads["mean"], spreads["median"], spreads["worst"], means.reconstruction, means.kl]
    if means.importance_weighted is not None:
        names.append("importance-weighted bound, mean (estimate)")
        values.append(means.importance_weighted)
    return "\n\n".join(
        [
            f"## {title}: {len(images)} images",
            "A VAE makes no files. Its ELBO, reconstruction + KL, bounds what lossless coding would take (estimate):",
            _named(["", "bits per dim (estimate)"], names, [[f"{value:.4f}"] for value in values]),
        ]
    )


def _named(head: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column holds names."""
    return table(head, [[name, *row] for name, row in zip(names, cells, strict=True)])
