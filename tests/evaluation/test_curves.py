# SPDX-License-Identifier: Apache-2.0
"""Curves of means: reading, comparing, published ones, and the tables made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqcodec.evaluation import curves, metrics, tables
from vqcodec.evaluation.curves import QUALITIES, Curve
from vqcodec.evaluation.measuring import Point

PSNR, MS_SSIM, SSIMULACRA2 = QUALITIES


def point(codec: str, setting: str, bpp: float, psnr: float) -> Point:
    similarity = 1 - 10 ** (-psnr / 20)  # so that the MS-SSIM in dB is half the PSNR, SSIMULACRA2 twice
    return Point("set", codec, setting, 2, bpp, bpp / 3, psnr, similarity, metrics.ms_ssim_db(similarity), 2 * psnr)


def curve(codec: str, factor: float) -> list[Point]:
    """Rates that double every 3 dB from ``factor`` at 24 dB: a line that pchip interpolates exactly."""
    return [point(codec, str(i), factor * 2.0**i, 24.0 + 3 * i) for i in range(4)]


def test_curves_are_sorted_by_kind_and_rate() -> None:
    points = [*curve("WebP", 1.0)[::-1], *curve("JPEG", 1.0), point("vqcodec", "m", 0.5, 30.0)]
    drawn = curves.curves([*points, replace(points[0], dataset="another")], "set")
    assert [(c.name, c.kind) for c in drawn] == [("vqcodec", "ours"), ("JPEG", "rival"), ("WebP", "rival")]
    assert [p.setting for p in drawn[2].points] == ["0", "1", "2", "3"]
    assert curves.datasets([replace(points[0], dataset="another"), *points]) == ["another", "set"]


def test_a_curve_without_detours() -> None:
    points = (point("JPEG", "a", 0.2, 24), point("JPEG", "b", 0.3, 23), point("JPEG", "c", 0.4, 25))
    points += (replace(points[0], bpp=0.5, psnr=float("inf")), replace(points[0], bpp=0.6, ssimulacra2=None))
    curve = Curve("JPEG", "rival", points)
    assert curve.monotone(PSNR) == ([0.2, 0.4], [24, 25])
    assert [value for _, value in curve.values(SSIMULACRA2)] == [48, 46, 50, 48]


def test_comparisons_need_something_in_common() -> None:
    (ours,) = curves.curves(curve("vqcodec", 0.04)[:3], "set")
    (rival,) = curves.curves(curve("JPEG", 0.08), "set")
    delta = curves.bd_rate(ours, rival, PSNR)
    assert delta is not None
    least = 24 + 3 * np.log2(1.5)  # of ours, at 0.06 bpp: what is below does not count
    assert (delta.percent, delta.low, delta.high) == (pytest.approx(-50), pytest.approx(least), 30.0)
    low, high = (curves.curves(curve("JPEG", first), "set")[0] for first in (0.2, 0.4))
    delta = curves.bd_rate(low, high, PSNR)
    assert delta is not None
    assert (delta.percent, delta.low) == (pytest.approx(-50), 24.0)
    assert delta.high == pytest.approx(27 + 3 * np.log2(1.25))  # of the other, at 1 bpp
    assert curves.bd_rate(replace(ours, points=ours.points[:1]), rival, PSNR) is None
    equal = curves.at_equal_quality(ours.points[1], rival, SSIMULACRA2)
    assert equal is not None
    assert (equal.rate, equal.percent) == (pytest.approx(0.16), pytest.approx(-50))
    assert curves.at_equal_quality(replace(ours.points[0], psnr=20.0), rival, PSNR) is None


PUBLISHED = """codec,opt_metric,bpp,psnr_rgb,ms_ssim,source
net,mse,0.4,31,0.97,first
net,mse,0.2,29,0.95,first
net,mse,0.3,30.5,0.96,second
net,ms-ssim,0.2,,0.96,third
old,n/a,0.3,28,,fourth
"""


def test_published_curves(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(PUBLISHED)
    by_codec = curves.read_published(path, "set")
    assert [(c.name, c.kind) for c in by_codec] == [
        ("net mse", "published"),
        ("net ms-ssim", "published"),
        ("old", "published"),
    ]
    assert by_codec[0].monotone(PSNR) == ([0.2, 0.4], [29, 31])  # of the first source alone
    assert by_codec[1].monotone(PSNR) == ([], [])
    assert by_codec[1].monotone(MS_SSIM) == ([0.2], [pytest.approx(-10 * np.log10(0.04))])
    assert by_codec[2].values(MS_SSIM) == []
    assert [c.name for c in curves.read_published(path, "set", ["net mse", "old"])] == ["net mse", "old"]
    with pytest.raises(ValueError, match="no curve of new: choose from net, old"):
        curves.read_published(path, "set", ["net", "new"])
    path.write_text("codec,bpp\nx,much\n")
    with pytest.raises(ValueError, match="line 2"):
        curves.read_published(path, "set")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_compares_at_equal_rate_and_at_equal_quality() -> None:
    rivals: Sequence[Point] = curve("JPEG", 0.2) + curve("WebP", 4.0)
    lines = tables.markdown([*rivals, point("vqcodec", "m", 0.2, 27.0)]).splitlines()
    jpeg, webp = (cells(next(line for line in lines if line.startswith(f"| {name}"))) for name in ("JPEG", "WebP"))
    assert "**vqcodec m**" in "".join(lines)
    assert jpeg == ["JPEG", "24.00", f"{1 - 10**-1.2:.4f}", "48.0", *["-50.0 % (0.400)"] * 3]
    assert webp == ["WebP", "-", "-", "-", *["-97.5 % (8.000)"] * 3]  # 0.2 bpp is below its curve
    assert "BD-rate" not in "".join(lines)


def test_markdown_gives_the_bd_lmbda_of_several_points() -> None:
    text = tables.markdown(curve("JPEG", 0.08) + curve("vqcodec", 0.04)[:3])
    line = next(line for line in text[text.index("BD-rate") :].splitlines() if line.startswith("| JPEG"))
    ranges = ("25.75 to 30.00", "12.88 to 15.00", "51.5 to 60.0")
    assert cells(line) == ["JPEG", *(cell for over in ranges for cell in ("-50.0 %", over))]


def test_markdown_compares_our_curves_with_each_other() -> None:
    text = tables.markdown(curve("vqcodec", 0.04) + curve("vqcodec e1", 0.05))
    first, second = text[text.index("BD-rate of vqcodec (") :].split("BD-rate of vqcodec e1 (")
    assert "| vqcodec e1 | -20.0 %" in first
    assert "| vqcodec | +25.0 %" in second
    line = next(line for line in text.splitlines() if line.startswith("| vqcodec e1 |"))
    assert cells(line) == ["vqcodec e1", "-", "-", "-", *["-20.0 % (0.050)"] * 3]  # 0.04 bpp is below its curve


def test_markdown_without_ms_ssim_or_without_models() -> None:
    bare = [replace(p, ms_ssim=None, ms_ssim_db=None, ssimulacra2=None) for p in curve("JPEG", 0.2)]
    ours = replace(point("vqcodec", "m", 0.3, 27.0), ms_ssim=None, ms_ssim_db=None)
    assert "-25.0 %" in tables.markdown([*bare, ours])
    assert len(tables.markdown(bare).splitlines()) == 2 + 2 + 4


def test_json_has_no_infinity(tmp_path: Path) -> None:
    lossless = replace(point("JPEG", "x", 1.0, 30.0), psnr=float("inf"))
    tables.write_json(tmp_path / "a.json", [lossless])
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)[0]["psnr"] is None
