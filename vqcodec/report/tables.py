# SPDX-License-Identifier: Apache-2.0
"""The page's tables, as HTML that reads without its script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from vqcodec.evaluation import metrics
from vqcodec.evaluation.curves import BD_RANGE, QUALITIES, Curve, Quality, at_equal_quality, bd_rate
from vqcodec.evaluation.measuring import Point, Row
from vqcodec.report.styles import styles_of

THIRD = "SSIMU&shy;LACRA2"
NONE = '<span class="muted" title="no value">–</span>'


def table(
    caption: str, note: str, heads: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()
) -> str:
    """Write HTML cells under heads; the first cell of a row is its head.

    Args:
        caption: of the table.
        note: under the caption.
        heads: of the columns.
        rows: cells.
        classes: of the rows.
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = ""
    for i, (first, *rest) in enumerate(rows):
        attribute = f' class="{classes[i]}"' if i < len(classes) and classes[i] else ""
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        body += f'<tr{attribute}><th scope="row">{first}</th>{cells}</tr>'
    said = f'<span class="note">{note}</span>' if note else ""
    return (
        f'<div class="scroll"><table><caption>{caption}{said}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def percent(value: float) -> str:
    """Write a percentage with a sign and a true minus."""
    return signed(f"{value:+.1f}") + " %"


def signed(text: str) -> str:
    return text.replace("-", "−")


def number(value: float | None, digits: int) -> str:
    """Write a value with its minus sign, or that there is none.

    Args:
        value: a number.
        digits: after the point.
    """
    return NONE if value is None else signed(f"{value:.{digits}f}")


def figures(ours: Sequence[Curve]) -> str:
    """Our points."""
    heads = ["model", "bpp", "bits per dim", "PSNR, dB", "MS-SSIM", THIRD]
    return table("Ours", "", heads, [[_who(point), *_values(point)] for curve in ours for point in curve.points])


def equal_rate(point: Point, rivals: Sequence[Curve]) -> str:
    """Write a table of one of our points, and what each rival reaches with as many bits.

    Args:
        point: of ours.
        rivals: their curves.
    """
    rows = [[_who(point), number(point.psnr, 2), number(point.ms_ssim, 4), number(point.ssimulacra2, 1)]]
    for rival, name in zip(rivals, names(rivals), strict=True):
        psnr, decibels, third = (rival.read(metrics.quality_at_rate, quality, point.bpp) for quality in QUALITIES)
        similarity = None if decibels is None else metrics.ms_ssim_of_db(decibels)
        rows.append([name, number(psnr, 2), number(similarity, 4), number(third, 1)])
    note = f"All at our rate: {point.bpp:.3f} bits per pixel, {point.bits_per_dim:.4f} bits per dim."
    return table("Quality at equal rate", note, ["codec", "PSNR, dB", "MS-SSIM", THIRD], rows, ["ours"])


def _who(point: Point) -> str:
    return f'<span class="own">{escape(point.codec)}</span> <span class="whole">{escape(point.setting)}</span>'


def _values(point: Point, dims: bool = True) -> list[str]:
    rates = [f"{point.bpp:.3f}", f"{point.bits_per_dim:.4f}"]
    return [
        *rates[: 2 if dims else 1],
        number(point.psnr, 2),
        number(point.ms_ssim, 4),
        number(point.ssimulacra2, 1),
    ]


def bd_rates(ours: Curve, rivals: Sequence[Curve]) -> str:
    """Write a table of BD-rates against every rival, with the range of quality that each speaks of.

    Args:
        ours: one of our curves.
        rivals: their curves.
    """

    def cell(rival: Curve, quality: Quality) -> str:
        delta = bd_rate(ours, rival, quality)
        if delta is None:
            return NONE
        low, high = (signed(f"{v:.{1 if quality.unit else 0}f}") for v in (delta.low, delta.high))
        unit = f" {quality.unit}" if quality.unit else ""
        return f'{percent(delta.percent)}<span class="sub">{low} to {high}{unit}</span>'

    note = (
        f"{escape(ours.name)}, {len(ours.points)} points, between {BD_RANGE[0]:g} and {BD_RANGE[1]:g} bits per pixel; "
        "below, the range of quality it holds for. "
        "Negative: we need fewer bits."
    )
    return _against("BD-rate", note, rivals, cell)


def equal_quality(point: Point, rivals: Sequence[Curve]) -> str:
    """Write a table of what each rival needs for the quality of one of our points.

    Args:
        point: of ours.
        rivals: their curves.
    """

    def cell(rival: Curve, quality: Quality) -> str:
        equal = at_equal_quality(point, rival, quality)
        return NONE if equal is None else f'{percent(equal.percent)}<span class="sub">{equal.rate:.3f}</span>'

    note = (
        "By how much our rate differs from the rival’s at our quality; below, the rival’s, bits per pixel. "
        "Negative: we need fewer bits."
    )
    return _against("Rate at equal quality", note, rivals, cell)


def _against(caption: str, note: str, rivals: Sequence[Curve], cell: Callable[[Curve, Quality], str]) -> str:
    """A row for every rival, a cell for every measure of quality."""
    rows = [
        [name, *(cell(rival, quality) for quality in QUALITIES)]
        for rival, name in zip(rivals, names(rivals), strict=True)
    ]
    return table(caption, note, ["against", "PSNR", "MS-SSIM", THIRD], rows)


def values(curves: Sequence[Curve]) -> str:
    """Every point of every curve."""
    rows, classes = [], []
    for curve, name in zip(curves, names(curves), strict=True):
        for point in curve.points:
            note = "published" if curve.kind == "published" else escape(point.setting)
            rows.append([f'{name} <span class="muted">{note}</span>', *_values(point, dims=False)])
            classes.append("ours" if curve.kind == "ours" else "")
    return table("Means over the images", "", ["codec", "bpp", "PSNR, dB", "MS-SSIM", THIRD], rows, classes)


def every_image(rows: Sequence[Row], name: str) -> str:
    """Write a table of our figures on each image.

    Args:
        rows: measurements.
        name: of our codec.
    """
    heads = ["image", "bytes", "bpp", "PSNR, dB", "MS-SSIM", THIRD]
    cells = [
        [
            escape(row.image),
            f"{row.size:,}".replace(",", "\u202f"),
            f"{row.bpp:.3f}",
            number(row.psnr, 2),
            number(row.ms_ssim, 4),
            number(row.ssimulacra2, 1),
        ]
        for row in rows
    ]
    return table(escape(name), "", heads, cells)


def names(curves: Sequence[Curve]) -> list[str]:
    """Write the names of curves with a dot in their colour."""
    return [
        f'<span class="dot c-{style.key}"></span>{escape(curve.name)}'
        for curve, style in zip(curves, styles_of(curves), strict=True)
    ]
