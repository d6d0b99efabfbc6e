# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML file that needs nothing else, neither network nor other files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import vqcodec
from vqcodec.evaluation import metrics
from vqcodec.evaluation.curves import QUALITIES, Curve
from vqcodec.evaluation.measuring import Row
from vqcodec.evaluation.rivals import FORMATS, library_version
from vqcodec.report import charts, styles, tables
from vqcodec.report.pictures import HEAT, Case, as_json, peak_of


@dataclass(frozen=True)
class Dataset:
    """What the page says of one set of images. rows: of our codec and the rivals, as measured."""

    name: str
    curves: Sequence[Curve]
    rows: Sequence[Row]

    @property
    def images(self) -> int:
        return len({row.image for row in self.rows})


def page(sets: Sequence[Dataset], cases: Sequence[Case], max_bpp: float) -> str:
    """Make the HTML.

    Args:
        sets: curves and measurements of every dataset.
        cases: images of the viewer, none for a page without it.
        max_bpp: right end of the curves.
    """
    rivals = [c.name for c in sets[0].curves if c.kind == "rival"] if sets else []
    parts = {
        "head": head("vqcodec: rate and distortion"),
        "summary": _summary(sets),
        "datasets": "".join(_dataset(dataset, max_bpp) for dataset in sets),
        "viewer": viewer(cases) if cases else "",
        "method": _method(rivals),
        "scripts": file("charts.js") + (file("viewer.js") if cases else ""),
    }
    return fill(file("template.html"), parts)


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Replace each {{name}} by its part, as it is.

    Args:
        template: the text.
        parts: by name.

    Raises: KeyError on a name that is no part.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def file(name: str) -> str:
    """Read a file of the package, as text."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def head(title: str) -> str:
    """Write the head of a page that needs nothing else, and may load nothing. title: HTML."""
    return fill(file("head.html"), {"title": title, "colours": colours(), "style": file("style.css")}).rstrip()


def colours() -> str:
    """Write the curves' colours as CSS variables --NAME, and classes c-NAME that use them."""
    light, dark = ("".join(f"--{s.key}:{getattr(s, ground)};" for s in styles.ALL) for ground in ("light", "dark"))
    classes = "".join(f".c-{s.key}{{--c:var(--{s.key})}}" for s in styles.ALL)
    heat = f".heat-scale{{background:linear-gradient(90deg,{','.join(HEAT)})}}"
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}{heat}"


def _summary(sets: Sequence[Dataset]) -> str:
    models = dict.fromkeys(p.setting for s in sets for c in s.curves if c.kind == "ours" for p in c.points)
    number = "; ".join(f"{s.images} images of {escape(s.name)}" for s in sets)
    shown = f", {'models' if len(models) > 1 else 'model'} {escape(', '.join(models))}" if models else ""
    return f"vqcodec {escape(vqcodec.__version__)}{shown}. {number[:1].upper() + number[1:]}."


def _dataset(dataset: Dataset, max_bpp: float) -> str:
    ours, rivals = ([c for c in dataset.curves if c.kind == kind] for kind in ("ours", "rival"))
    blocks = []
    for curve in ours:
        if len(curve.points) > 1 or not rivals:
            blocks.append(tables.figures([curve]))
        if rivals:
            blocks.append(_against(curve, rivals))
    head = f"{escape(dataset.name)}, {dataset.images} images"
    panels = [
        charts.chart(dataset.curves, quality, max_bpp, f"{dataset.name}, {quality.label} over bits per pixel")
        for quality in QUALITIES
    ]
    every = "".join(
        tables.every_image([row for row in dataset.rows if (row.codec, row.setting) == (c.name, p.setting)], p.setting)
        for c in ours
        for p in c.points
    )
    return (
        f'<section class="dataset"><h2>{head}</h2>'
        f'<div class="charts">{charts.legend(dataset.curves)}<div class="panels">{"".join(panels)}</div></div>'
        f'<div class="tables">{"".join(blocks)}</div>'
        f"<details><summary>The values of the curves</summary>{tables.values(dataset.curves)}</details>"
        + (f"<details><summary>Ours on every image</summary>{every}</details>" if every else "")
        + "</section>"
    )


def _against(ours: Curve, rivals: Sequence[Curve]) -> str:
    """Our curve against the rivals': a BD-rate needs two points."""
    if len(ours.points) > 1:
        return tables.bd_rates(ours, rivals)
    return tables.equal_rate(ours.points[0], rivals) + tables.equal_quality(ours.points[0], rivals)


EQUAL_BYTES = """Each rival has the highest quality at which its file is no larger than ours for the same image; of
the two AVIF samplings the one with the better PSNR is shown. The pictures are what the decoders returned, embedded
without loss."""


def viewer(cases: Sequence[Case], heading: str = "At equal bytes", intro: str = EQUAL_BYTES) -> str:
    """Write the part of a page that shows pictures.

    Args:
        cases: images to show.
        heading: above them.
        intro: a paragraph of HTML.
    """
    peak = peak_of(cases)
    data = "".join(
        f'<script type="application/json" class="case" data-image="{escape(case.image)}">'
        f"{_script_json(as_json(case, peak))}</script>"
        for case in cases
    )
    return fill(file("viewer.html"), {"peak": f"{peak:.2f}", "data": data, "heading": heading, "intro": intro})


def _script_json(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _method(rivals: Sequence[str]) -> str:
    versions = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(FORMATS[name].words)}; {escape(library_version(name))}</dd>"
        for name in rivals
    )
    return f"<dl>{versions}<dt>metrics</dt><dd>version {escape(metrics.version())}</dd></dl>"
