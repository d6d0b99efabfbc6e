# SPDX-License-Identifier: Apache-2.0
"""What is shown: where the bits go, the strip, charts, tables and the page as text. The browser is another file's."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vqcodec.codec import Codec
from vqcodec.evaluation import metrics, rates
from vqcodec.evaluation.curves import QUALITIES, Curve
from vqcodec.evaluation.equal_bytes import compare_image
from vqcodec.evaluation.measuring import Point
from vqcodec.evaluation.rivals import Rival
from vqcodec.model.tiling import GROUP_TILES
from vqcodec.report import charts, page, pictures, plots, strip, tables
from vqcodec.report.bits import BitsMap, bits_map, code_length, level_maps
from vqcodec.sampling import sample_indices

PSNR, MS_SSIM, _ = QUALITIES
BITS = BitsMap(np.arange(24.0).reshape(4, 6), 8, (100.0, 176.0), (1.0, 2.5))


def curve(name: str, kind: str, factor: float, points: int = 4) -> Curve:
    """Rates that double every 3 dB from `factor` at 24 dB."""
    made = []
    for i in range(points):
        bpp, psnr = factor * 2.0**i, 24.0 + 3 * i
        similarity = 1 - 10 ** (-psnr / 20)
        decibels = metrics.ms_ssim_db(similarity)
        made.append(Point("set", name, str(10 * i), 2, bpp, bpp / 3, psnr, similarity, decibels, psnr - 26))
    return Curve(name, kind, tuple(made))  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "height"), [(64, 64), (150, 101), (64 * GROUP_TILES + 84, 30)])
def test_values_of_the_stream_find_their_places(tiny: Codec, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    indices = tiny.to_indices(pixels)
    by_level = level_maps(tiny, indices, 0, lambda symbols, _: symbols)
    for maps, expected in zip(by_level, indices.levels, strict=True):
        assert torch.equal(maps.long(), expected)


def test_places_where_nothing_is_coded_cost_nothing(staged: Codec) -> None:
    maps = sample_indices(staged, 70, 50, seed=5, tradeoff=77)
    coded = level_maps(staged, maps, 77, lambda symbols, _: torch.ones_like(symbols))
    by_level = level_maps(staged, maps, 77, lambda symbols, _: symbols)
    for level_indices, where, symbols in zip(maps.levels, coded, by_level, strict=True):
        assert torch.equal(symbols.long(), level_indices)  # what is not coded is 0
        assert where[0].all()
        assert 0 < where[1:].mean() < 1
    bits = bits_map(staged, maps, 77)
    for level, where, used in zip(staged.config.autoencoder.levels, coded, bits.stages, strict=True):
        first = [level.stage_maps(stage).start for stage in range(level.stages)]
        assert used == pytest.approx(float(where[first].sum(0).mean()))
    assert bits.levels != bits_map(staged, maps, 255).levels


def test_bits_map_sums_to_the_ideal_code_length(tiny: Codec, photo: NDArray[np.uint8]) -> None:
    height, width = photo.shape[:2]
    density = bits_map(tiny, tiny.to_indices(photo), 0)
    ideal = [level.ideal for level in rates.level_rates(tiny, [photo])]
    assert density.levels == pytest.approx(ideal, rel=1e-9)
    assert density.stages == (1.0, 2.0)
    assert density.bits.sum() == pytest.approx(sum(ideal), rel=1e-9)
    stride = tiny.config.autoencoder.levels[-1].stride
    assert density.stride == stride
    multiple = tiny.config.autoencoder.coarsest
    assert density.bits.shape == (
        -(-height // multiple) * multiple // stride,
        -(-width // multiple) * multiple // stride,
    )
    assert density.per_pixel.sum() * stride**2 == pytest.approx(sum(ideal), rel=1e-9)


def test_coarse_bits_are_spread_over_what_they_cover(tiny: Codec, photo: NDArray[np.uint8]) -> None:
    crop = np.ascontiguousarray(photo[:96, :80])
    indices = tiny.to_indices(crop)
    coarse, fine = (maps.sum(0).numpy() for maps in level_maps(tiny, indices, 0, code_length))
    bits = bits_map(tiny, indices, 0).bits
    times = fine.shape[0] // coarse.shape[0]
    for y, x in ((0, 0), (3, 1), (fine.shape[0] - 1, fine.shape[1] - 1)):
        assert bits[y, x] == pytest.approx(fine[y, x] + coarse[y // times, x // times] / times**2)


def test_code_length_by_hand() -> None:
    frequencies = torch.tensor([[1.0, 3.0, 4.0], [2.0, 1.0, 1.0]])
    assert code_length(torch.tensor([0, 0]), frequencies).tolist() == [3.0, 1.0]


def test_strip_of_equal_bytes(photo: NDArray[np.uint8]) -> None:
    image = Image.fromarray(photo[:120, :140])
    comparison = compare_image("cat.png", image, Rival("WebP", 20), [["JPEG"], ["WebP"]])
    labels = [strip.label(shown) for shown in comparison.shown]
    assert labels[0] == ("original", "140 x 120 pixels")
    assert labels[2][0].startswith("JPEG, quality ")
    assert labels[3] == labels[1]
    picture = strip.strip(comparison, (10, 20, 60, 50), 2)
    assert picture.width == 4 * 120 + 3 * 8
    assert picture.height > 100
    left = picture.crop((0, 0, 120, 100)).resize((60, 50), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(left), photo[20:70, 10:70])


def test_plots_name_every_curve(tmp_path: Path) -> None:
    sets = {"a": [curve("mine", "ours", 0.1), curve("JPEG", "rival", 0.2), curve("net", "published", 0.1)]}
    for suffix in ("png", "svg"):
        plots.plot(tmp_path / f"rd.{suffix}", sets, 1.0)
    assert Image.open(tmp_path / "rd.png").width == pytest.approx(3 * 4.3 * 150, abs=1)  # as Matplotlib rounds
    text = (tmp_path / "rd.svg").read_text()
    for name in ("mine", "JPEG", "net, published", "a: MS-SSIM, dB", "a: SSIMULACRA2"):
        assert f"<!-- {name} -->" in text


def test_ticks_are_round() -> None:
    assert charts.ticks(0, 1.5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert charts.ticks(23.1, 36.9) == [24, 26, 28, 30, 32, 34, 36]
    assert charts.ticks(-40.5, 85) == [-40, -20, 0, 20, 40, 60, 80]
    for high in np.geomspace(1e-3, 1e4, 50):
        assert 2 <= len(charts.ticks(0, float(high))) <= 10


def test_a_chart_places_its_points() -> None:
    ours, rival = curve("mine", "ours", 0.1), curve("JPEG", "rival", 0.2)
    drawn = charts.chart([ours, rival], PSNR, 1.0, "a <title>")
    assert "a &lt;title&gt;" in drawn
    spots = re.findall(r'translate\(([\d.]+) ([\d.]+)\)" data-value="([^"]+)"', drawn)
    data = {text.replace("&quot;", '"'): (float(x), float(y)) for x, y, text in spots}
    assert len(data) == 4 + 3  # the rival's last is beyond 1 bpp
    x, y = data['["mine, 0", "0.100 bpp", "24.00 dB"]']
    assert x == pytest.approx(charts.LEFT + 0.1 * (charts.WIDTH - charts.LEFT - charts.RIGHT), abs=0.06)
    other_x, other_y = data['["JPEG, quality 0", "0.200 bpp", "24.00 dB"]']
    assert other_x > x
    assert other_y == y
    assert data['["mine, 20", "0.400 bpp", "30.00 dB"]'][1] < y
    assert "(0.9369)" in charts.chart([ours], MS_SSIM, 1.0, "")
    assert charts.chart([rival], PSNR, 0.1, "") == ""  # nothing below 0.1 bpp


def test_tables_give_the_bd_rate_or_the_rate_at_equal_quality() -> None:
    text = tables.bd_rates(curve("mine", "ours", 0.04, 3), [curve("JPEG", "rival", 0.08)])
    assert "−50.0 %" in text
    assert "25.8 to 30.0 dB" in text
    assert "−0 to 4" in text
    rival = curve("JPEG", "rival", 0.2)
    one = curve("mine", "ours", 0.3, 1).points[0]
    assert "+50.0 %" in tables.equal_quality(one, [rival])
    assert "0.200" in tables.equal_quality(one, [rival])
    assert re.findall(r"<td>([\d.]+)</td>", tables.equal_rate(one, [rival]))[2] == f"{24 + 3 * np.log2(1.5):.2f}"
    assert tables.NONE in tables.equal_quality(one, [curve("JPEG", "rival", 0.2, 1)])


def case(image: Image.Image, name: str = "cat.png") -> pictures.Case:
    facts = [{"name": who, "setting": "", "fits": True, "bytes": 100} for who in ("original", "vqcodec")]
    sources = (pictures.lossless(image), pictures.lossless(image))
    return pictures.Case(name, tuple(facts), sources, *image.size, BITS, 40)


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))


def test_pictures_are_embedded_without_loss(photo: NDArray[np.uint8]) -> None:
    data = pictures.as_json(case(Image.fromarray(photo[:60, :70])), 0.5)
    assert np.array_equal(np.asarray(decoded(data["pictures"][1]["src"]).convert("RGB")), photo[:60, :70])
    assert (data["bits"]["width"], data["bits"]["height"]) == (48, 32)
    assert sum(data["bits"]["levels"]) == BITS.bits.sum()
    assert data["bits"]["stages"] == [1.0, 2.5]


def test_heat_rises_in_lightness_up_to_the_peak() -> None:
    image = Image.open(io.BytesIO(pictures.heat_png(np.linspace(0, 2, 65)[None], 1.0))).convert("RGB")
    assert image.size == (65, 1)
    assert image.getpixel((0, 0)) == tuple(bytes.fromhex(pictures.HEAT[0][1:]))
    assert {image.getpixel((x, 0)) for x in range(32, 65)} == {tuple(bytes.fromhex(pictures.HEAT[-1][1:]))}
    lightness = np.asarray(image.convert("L"))[0, :33].astype(int)
    assert (np.diff(lightness) > 0).all()


def test_one_peak_for_all_images() -> None:
    dense = pictures.Case("b", (), (), 8, 8, BitsMap(np.full((100, 100), 64.0), 8, (1.0,), (1.0,)), 1)
    assert pictures.peak_of([dense]) == 1.0
    assert pictures.peak_of([dense, case(Image.new("RGB", (8, 8)))]) == 1.0


@pytest.fixture(scope="module")
def html(photo: NDArray[np.uint8]) -> str:
    curves = [curve("mine", "ours", 0.1), curve("JPEG", "rival", 0.2), curve("</script>", "published", 0.1)]
    cases = [case(Image.fromarray(photo[:40, :40]), "</script>")]
    return page.page([page.Dataset("cats & dogs", curves, [])], cases, 1.0)


def test_page_needs_nothing_else(html: str) -> None:
    addresses: Sequence[str] = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert all(address.startswith("data:") or "." in address for address in addresses)
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", html)
    assert "@import" not in html
    assert "{{" not in html


def test_page_escapes_names(html: str) -> None:
    assert "cats &amp; dogs" in html
    assert "&lt;/script&gt;" in html
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["image"] == "</script>"


def test_page_without_pictures_has_no_viewer() -> None:
    text = page.page([page.Dataset("a", [curve("JPEG", "rival", 0.2)], [])], [], 1.0)
    assert 'id="viewer"' not in text
    assert "BD-rate</caption>" not in text


def test_a_part_that_is_missing_is_no_empty_page() -> None:
    assert page.fill("{{a}} {{b}}", {"a": "{{b}}", "b": "x"}) == "{{b}} x"
    with pytest.raises(KeyError):
        page.fill("{{c}}", {"a": ""})
