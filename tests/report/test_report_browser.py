# SPDX-License-Identifier: Apache-2.0
"""The page in a browser: what a hand, a finger and a keyboard do, on a wide and a narrow screen, light and dark."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vqcodec.evaluation.curves import Curve
from vqcodec.evaluation.measuring import Point
from vqcodec.report import pictures
from vqcodec.report.bits import BitsMap
from vqcodec.report.page import Dataset, page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 150, 100
MOST = 16  # the viewer's largest zoom


def curve(name: str, kind: str, factor: float, points: int = 3) -> Curve:
    values = [(factor * 2.0**i, 26.0 + 3 * i) for i in range(points)]
    made = [
        Point("set", name, str(i), 2, r, r / 3, q, 1 - 10 ** (-q / 20), q / 2, q) for i, (r, q) in enumerate(values)
    ]
    return Curve(name, kind, tuple(made))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shown(photo: Pixels) -> list[Pixels]:
    """The pictures of the viewer's first image: uint8 [100, 150, 3], very different from each other."""
    crop = Image.fromarray(photo[90 : 90 + HEIGHT, 120 : 120 + WIDTH])
    return [np.asarray(image) for image in (crop, ImageOps.invert(crop), ImageOps.mirror(crop))]


@pytest.fixture(scope="module")
def file(shown: list[Pixels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    def case(name: str, images: list[Image.Image]) -> pictures.Case:
        facts = [{"name": "original", "setting": "", "fits": True}]
        for i, (who, fits) in enumerate((("vqcodec", True), ("JPEG", False))):
            figures = {"bytes": 1234 + i, "psnr": 30.25, "ms_ssim": 0.9876, "ssimulacra2": -1.5}
            facts.append({"name": who, "setting": f"quality {i}", "fits": fits, **figures})
        bits = BitsMap(np.arange(13.0 * 20).reshape(13, 20), 8, (3670.0, 30000.0), (1.5, 3.25))
        sources = tuple(pictures.lossless(image) for image in images)
        return pictures.Case(name, tuple(facts), sources, *images[0].size, bits, 4250)

    images = [Image.fromarray(pixels) for pixels in shown]
    cases = [case("first.png", images), case("second.png", [image.rotate(90, expand=True) for image in images])]
    curves = [curve("vqcodec", "ours", 0.1), curve("JPEG", "rival", 0.2), curve("net", "published", 0.05)]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page([Dataset("cats", curves, [])], cases, 1.0), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
        try:
            launched = playwright.chromium.launch(executable_path=BROWSER, args=options)
        except sync_api.Error as error:
            pytest.skip(f"{BROWSER} does not start: {error}")
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page; afterwards nothing may have been said on the console or asked of the network."""
    contexts, wrong = [], []

    def open_page(width: int = 1280, scheme: str = "light", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda r: r.url.startswith(("data:", file.as_uri())) or wrong.append(r.url))
        tab.goto(file.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def boxes(page: Any) -> list[dict[str, float]]:
    """Where the two pictures and the map's frame are."""
    elements = ("#view-stage .pane.left img", "#view-stage .pane.right img", "#view-stage .cut")
    return [page.locator(element).evaluate("e => e.getBoundingClientRect().toJSON()") for element in elements]


def sampled(page: Any) -> Pixels:
    """The stage as it is seen, at the largest zoom in the upper left corner: a place in each pixel of the image, not
    its middle, so that smooth enlargement would show."""
    page.locator("#view-stage").scroll_into_view_if_needed()
    box = page.locator("#view-stage").bounding_box()
    clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"))
    return pixels[3 * MOST // 4 :: MOST, 3 * MOST // 4 :: MOST]


def into_the_corner(page: Any) -> None:
    """Enlarge as far as it goes, to the upper left corner, without labels over it."""
    page.add_style_tag(content=".tag, .divider { visibility: hidden }")
    page.focus("#view-stage")
    for key, times in (("+", 20), ("ArrowUp", 30), ("ArrowLeft", 40)):
        for _ in range(times):
            page.keyboard.press(key)


def test_hover_and_keys_read_the_values(opened: Callable[..., Any]) -> None:
    page = opened()
    chart = page.locator(".chart").first
    tip = chart.locator(".tip")
    assert not tip.is_visible()
    mark = chart.locator("g.c-jpeg .point").nth(1).bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2 + 3, mark["y"] + mark["height"] / 2)
    assert tip.inner_text() == "JPEG, quality 1\n0.400 bpp, 29.00 dB"
    assert tip.bounding_box()["y"] + tip.bounding_box()["height"] < mark["y"] + 1
    page.mouse.move(5, 5)
    assert not tip.is_visible()

    chart.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("vqcodec, 0\n0.100 bpp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert tip.inner_text().startswith("JPEG, quality 1\n")
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_legend_hides_a_curve_everywhere(opened: Callable[..., Any]) -> None:
    page = opened()
    key, lines = page.locator(".key", has_text="JPEG"), page.locator("g.c-jpeg .line")
    assert [line.is_visible() for line in lines.all()] == [True] * 3
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    assert [line.is_visible() for line in lines.all()] == [False] * 3
    chart = page.locator(".chart").first
    chart.locator("svg").focus()
    for key_name in ("ArrowRight", "ArrowDown"):
        page.keyboard.press(key_name)
    assert chart.locator(".tip").inner_text().startswith("net, published")
    key.click()
    assert lines.first.is_visible()


def test_divider_shows_the_exact_pixels_of_both(opened: Callable[..., Any], shown: list[Pixels]) -> None:
    page = opened()
    into_the_corner(page)
    seen = sampled(page)
    rows, columns = seen.shape[:2]
    left, right = (pixels[:rows, :columns] for pixels in shown[:2])
    half = columns // 2
    assert np.array_equal(seen[:, : half - 1], left[:, : half - 1])
    assert np.array_equal(seen[:, half + 1 :], right[:, half + 1 :])

    page.focus("#view-split")
    page.keyboard.press("Home")
    assert np.array_equal(sampled(page), right)
    page.keyboard.press("End")
    assert np.array_equal(sampled(page), left)
    page.focus("#view-stage")
    page.keyboard.press("Shift+Digit3")
    assert np.array_equal(sampled(page), shown[2][:rows, :columns])
    assert page.locator("#view-left").input_value() == "2"
    assert page.locator("#view-facts tr.chosen").all_inner_texts()[0].startswith("vqcodec")


def test_divider_follows_the_mouse_and_the_arrows(opened: Callable[..., Any]) -> None:
    page = opened()
    stage = page.locator("#view-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()

    def split() -> float:
        style = page.locator(".pane.right").evaluate("e => e.style.clipPath")
        return float(re.findall(r"([\d.]+)%", style)[0])

    assert split() == 50
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    assert split() == pytest.approx(25, abs=0.5)
    assert float(page.locator("#view-split").input_value()) == pytest.approx(25, abs=0.5)
    page.keyboard.press("ArrowRight")
    assert split() == pytest.approx(27, abs=0.5)


def test_all_pictures_zoom_and_move_together(opened: Callable[..., Any]) -> None:
    page = opened()
    stage = page.locator("#view-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    at = (box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    page.click("#view-bits")
    seen = [boxes(page)]

    def note() -> None:
        now = boxes(page)
        assert now[0] == now[1] == now[2]
        assert now[0] != seen[-1][0]
        seen.append(now)

    def under_the_mouse() -> tuple[float, float]:
        """Place on the picture, in shares of its sides."""
        now = boxes(page)[0]
        return (at[0] - now["x"]) / now["width"], (at[1] - now["y"]) / now["height"]

    assert seen[0][0] == seen[0][1] == seen[0][2]
    page.mouse.move(*at)
    spot = under_the_mouse()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function("document.getElementById('view-stage').classList.contains('enlarged')")
    note()
    assert under_the_mouse() == pytest.approx(spot, abs=0.002)
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] - 40, at[1] - 30, steps=2)
    page.mouse.up()
    note()
    assert seen[-2][0]["x"] - seen[-1][0]["x"] == pytest.approx(40, abs=1)
    page.keyboard.press("+")
    note()
    page.keyboard.press("ArrowDown")
    note()
    page.click("#view-one")
    note()
    assert seen[-1][0]["width"] == pytest.approx(WIDTH)
    page.select_option("#view-image", "1")
    note()
    assert boxes(page)[0]["height"] > boxes(page)[0]["width"]


def test_flicker_changes_between_the_two(opened: Callable[..., Any], shown: list[Pixels]) -> None:
    page = opened()
    into_the_corner(page)
    page.keyboard.press("f")
    rows, columns = sampled(page).shape[:2]
    assert np.array_equal(sampled(page), shown[1][:rows, :columns])
    page.keyboard.press("Space")
    assert np.array_equal(sampled(page), shown[0][:rows, :columns])
    assert page.locator("#view-flicker").get_attribute("aria-pressed") == "true"


def test_bits_lie_over_the_picture(opened: Callable[..., Any]) -> None:
    page = opened()
    assert not page.locator(".pane.heat").is_visible()
    page.focus("#view-stage")
    page.keyboard.press("b")
    assert page.locator(".pane.heat").is_visible()
    text = page.locator("#view-bits-text").inner_text().replace("\u202f", " ")
    assert "33 670 bits, 4 209 bytes (level 0: 10.9 %, level 1: 89.1 %)" in text
    assert "Stages that a position uses, on average: 1.50 at level 0, 3.25 at level 1." in text
    assert "have 4 250 bytes, the file 1 234" in text
    size = page.locator(".heat img").evaluate("e => [e.naturalWidth, e.naturalHeight, e.style.width, e.style.height]")
    assert size == [20, 13, "160px", "104px"]
    cut = page.locator(".cut").evaluate("e => [e.offsetWidth, e.offsetHeight]")
    assert cut == [WIDTH, HEIGHT]  # what lies beyond the image is not shown
    page.locator("#view-strength").fill("100")
    into_the_corner(page)
    first = sampled(page)[:8, :8].reshape(-1, 3)
    assert {tuple(value) for value in first} == {tuple(bytes.fromhex(pictures.HEAT[0][1:]))}


def test_facts_stand_beside_the_pictures(opened: Callable[..., Any]) -> None:
    page = opened()
    rows = [re.split(r"[\s]*[\n\t]+", text) for text in page.locator("#view-facts tr").all_inner_texts()]
    assert [row[0].split()[0] for row in rows] == ["original", "vqcodec", "JPEG"]
    assert "left" in rows[0][0]
    assert "right" in rows[1][0]
    assert rows[1][-4:] == ["1\u202f234", "30.25", "0.9876", "−1.5"]
    assert "no smaller file" in page.locator("#view-facts tr").nth(2).inner_text()


def test_fingers_zoom(opened: Callable[..., Any]) -> None:
    page = opened(360, has_touch=True, is_mobile=True)
    stage = page.locator("#view-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    before = boxes(page)[0]["width"]
    for kind, apart in (("touchStart", 20), ("touchMove", 35), ("touchMove", 60)):
        touches = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    now = boxes(page)
    assert now[0]["width"] == pytest.approx(3 * before, rel=0.05)
    assert now[0] == now[1]


def test_nothing_is_wider_than_a_phone(opened: Callable[..., Any]) -> None:
    page = opened(360)
    for summary in page.locator("summary").all():
        summary.click()
    page.click("#view-bits")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.click("#view-flicker")
    for control in page.locator("button, select, input, .stage, .chart").all():
        box = control.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    mark = page.locator(".chart .point").last.bounding_box()
    page.locator(".chart").last.scroll_into_view_if_needed()
    mark = page.locator(".chart").last.locator("g.ours .point").last.bounding_box()
    page.mouse.move(mark["x"] + 2, mark["y"] + 2)
    tip = page.locator(".chart").last.locator(".tip").bounding_box()
    assert tip["x"] + tip["width"] <= 360


def test_dark_mode_changes_the_colours(opened: Callable[..., Any]) -> None:
    colours = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    line = "e => getComputedStyle(e).stroke"

    def lightness(colour: str) -> float:
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / (3 * 255)

    pages = {scheme: opened(scheme=scheme) for scheme in ("light", "dark")}
    (light_ground, light_ink), (dark_ground, dark_ink) = (p.eval_on_selector("body", colours) for p in pages.values())
    assert lightness(light_ground) > 0.95 > 0.2 > lightness(light_ink)
    assert lightness(dark_ground) < 0.15 < 0.85 < lightness(dark_ink)
    for key in ("ours", "jpeg"):
        light, dark = (p.eval_on_selector(f"g.c-{key} .line", line) for p in pages.values())
        assert lightness(light) < lightness(dark)


def test_without_scripts_the_figures_are_there(opened: Callable[..., Any]) -> None:
    page = opened(java_script_enabled=False)
    assert "The viewer needs JavaScript" in page.locator("noscript").inner_text()
    assert "−50.0 %" in page.locator(".tables").inner_text()
    assert page.locator("g.c-ours .line").first.is_visible()
    assert not page.locator(".view").is_visible()
