# SPDX-License-Identifier: Apache-2.0
"""The evaluation on small drawn images: measuring, caching, averaging, tables and the command line."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, features

from vqcodec import evaluation, metrics
from vqcodec.evaluation import Cache, Measurement, Point, Rival
from vqcodec.registry import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parent.parent
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
GRIDS = {"JPEG": (10, 50, 90), "WebP": (0, 50, 90)}


def drawing(width: int = 192, height: int = 176, shift: int = 0) -> Image.Image:
    """Circles on a colour ramp with a little noise."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x % 256, y % 256, (x + y + shift) % 256], axis=2)
    noise = np.random.default_rng(shift).integers(0, 12, ramp.shape)
    image = Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for i in range(6):
        draw.ellipse((i * 25, i * 17 + shift, i * 25 + 40, i * 17 + 30 + shift), fill=(40 * i, 200 - 30 * i, 90))
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "drawn"
    path.mkdir()
    for i in range(2):
        drawing(shift=10 * i).save(path / f"{i}.png")
    (path / "notes.txt").write_text("not an image")
    return path


@dataclass
class Halves:
    """A codec that stores a lossless file of every other column: its size and pixels are easily known."""

    name: str = "halves"
    setting: str = "only"
    cache_key: str | None = None
    calls: int = 0

    def encode(self, image: Image.Image) -> bytes:
        self.calls += 1
        buffer = io.BytesIO()
        image.resize((image.width // 2, image.height), Image.Resampling.NEAREST).save(buffer, "PNG")
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        small = Image.open(io.BytesIO(data))
        return small.resize((small.width * 2, small.height), Image.Resampling.NEAREST)


def test_measure_uses_the_bytes_and_the_decoded_pixels() -> None:
    image = drawing()
    codec = Halves()
    data = codec.encode(image)
    result = evaluation.measure(codec, image)
    pixels, decoded = np.asarray(image), np.asarray(codec.decode(data))
    assert result.size == len(data)
    assert result.psnr == metrics.psnr(pixels, decoded)
    assert result.ms_ssim == metrics.ms_ssim(pixels, decoded)
    assert result.encode_seconds > 0
    assert result.decode_seconds > 0


def test_measure_without_ms_ssim_on_small_images() -> None:
    assert evaluation.measure(Halves(), drawing(160, 400)).ms_ssim is None


def test_measure_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="pixels into"):
        evaluation.measure(Halves(), drawing(163, 170))  # an odd width loses a column


AVIFS = [pytest.param(f"AVIF {sampling}", marks=needs_avif) for sampling in ("4:2:0", "4:4:4")]


@pytest.mark.parametrize("name", ["JPEG", "WebP", *AVIFS])
def test_rivals_trade_size_for_quality(name: str) -> None:
    image = drawing()
    results = [evaluation.measure(Rival(name, quality), image) for quality in (10, 50, 90)]
    for lower, higher in zip(results, results[1:], strict=False):
        assert lower.size < higher.size
        assert lower.psnr < higher.psnr


def test_rivals_write_what_they_say() -> None:
    file = Image.open(io.BytesIO(Rival("JPEG", 50).encode(drawing())))
    assert file.format == "JPEG"
    assert file.info["progressive"]
    assert Image.open(io.BytesIO(Rival("WebP", 50).encode(drawing()))).format == "WEBP"


@needs_avif
def test_avif_chroma_samplings_differ() -> None:
    files = [Rival(f"AVIF {sampling}", 60).encode(drawing()) for sampling in ("4:2:0", "4:4:4")]
    assert len(files[0]) < len(files[1])


@pytest.mark.parametrize(("name", "quality"), [("JPEG 2000", 50), ("JPEG", 0), ("WebP", 101)])
def test_wrong_rivals(name: str, quality: int) -> None:
    with pytest.raises(ValueError, match="choose from|takes qualities"):
        Rival(name, quality)


def test_load_rgb_drops_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that would be copied" * 20
    drawing().save(tmp_path / "a.png", exif=exif, icc_profile=b"x" * 500)
    image = evaluation.load_rgb(tmp_path / "a.png")
    assert image.info == {}
    assert Rival("WebP", 30).encode(image) == Rival("WebP", 30).encode(drawing())


def test_cache_is_by_pixels_and_key(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    codec = Halves(cache_key="a")
    image = drawing()
    cache = Cache(path)
    first = cache.measure(codec, image, "hash")
    assert cache.measure(codec, image, "hash") == first
    assert codec.calls == 1
    cache.measure(codec, image, "other pixels")
    cache.measure(replace(codec, cache_key="b"), image, "hash")
    assert codec.calls == 2
    cache.save()
    assert Cache(path).measure(codec, image, "hash") == first
    assert codec.calls == 2
    assert len(json.loads(path.read_text())) == 3


def test_results_of_our_models_are_never_cached() -> None:
    codec, cache = Halves(), Cache()
    for _ in range(2):
        cache.measure(codec, drawing(), "hash")
    assert codec.calls == 2


def test_cache_key_changes_with_quality_and_sampling() -> None:
    keys = {codec.cache_key for codec in evaluation.rivals(GRIDS)}
    assert len(keys) == 6


def test_evaluate_and_summarise(folder: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    rows = evaluation.evaluate(folder, evaluation.rivals(GRIDS), Cache(tmp_path / "c.json"), seen.append)
    assert seen == ["0.png", "1.png"]
    assert len(rows) == 12
    assert (tmp_path / "c.json").exists()
    row = rows[0]
    assert (row.dataset, row.image, row.codec, row.setting) == ("drawn", "0.png", "JPEG", "10")
    size = len(Rival("JPEG", 10).encode(drawing()))
    assert row.size == size
    assert row.bpp == pytest.approx(8 * size / (192 * 176))
    assert row.bits_per_dim == pytest.approx(row.bpp / 3)

    points = evaluation.summarise(rows)
    assert [(p.codec, p.setting) for p in points] == [(name, str(q)) for name, grid in GRIDS.items() for q in grid]
    mine = [r for r in rows if (r.codec, r.setting) == ("WebP", "50")]
    point = next(p for p in points if (p.codec, p.setting) == ("WebP", "50"))
    assert point.images == 2
    assert point.psnr == pytest.approx((mine[0].psnr + mine[1].psnr) / 2)
    assert point.bpp == pytest.approx((mine[0].bpp + mine[1].bpp) / 2)
    assert point.ms_ssim is not None
    assert point.ms_ssim_db == pytest.approx(metrics.ms_ssim_db(point.ms_ssim))


def test_evaluate_refuses_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no images"):
        evaluation.evaluate(tmp_path, [], Cache())


def test_largest_within_is_the_best_that_fits() -> None:
    image = drawing()
    sizes = [len(Rival("JPEG", quality).encode(image)) for quality in range(1, 101)]
    for limit in (sizes[0], sizes[30], sizes[70] - 1):
        rival, data = evaluation.largest_within("JPEG", image, limit)
        assert rival.quality == max(q for q in range(1, 101) if sizes[q - 1] <= limit)
        assert data == rival.encode(image)
    assert evaluation.largest_within("JPEG", image, sizes[-1])[0].quality == 100
    rival, data = evaluation.largest_within("JPEG", image, sizes[0] - 1)
    assert rival.quality == 1
    assert len(data) > sizes[0] - 1


def point(codec: str, setting: str, bpp: float, psnr: float) -> Point:
    similarity = 1 - 10 ** (-psnr / 20)  # so that the MS-SSIM in dB is half the PSNR
    return Point("set", codec, setting, 2, bpp, bpp / 3, psnr, similarity, metrics.ms_ssim_db(similarity), 0.1, 0.1)


def curve(codec: str, factor: float) -> list[Point]:
    """Rates that double every 3 dB from ``factor`` at 24 dB: a line that pchip interpolates exactly."""
    return [point(codec, str(i), factor * 2.0**i, 24.0 + 3 * i) for i in range(4)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_compares_at_equal_rate_and_at_equal_quality() -> None:
    rivals: Sequence[Point] = curve("JPEG", 0.2) + curve("WebP", 4.0)
    lines = evaluation.markdown([*rivals, point("vqcodec", "m", 0.2, 27.0)]).splitlines()
    jpeg, webp = (cells(next(line for line in lines if line.startswith(f"| {name}"))) for name in ("JPEG", "WebP"))
    assert "**vqcodec m**" in "".join(lines)
    assert jpeg == ["JPEG", "24.00", f"{1 - 10**-1.2:.4f}", "0.400", "-50.0 %", "0.400", "-50.0 %"]
    assert webp == ["WebP", "-", "-", "8.000", "-97.5 %", "8.000", "-97.5 %"]  # 0.2 bpp is below its curve
    assert "BD-rate" not in "".join(lines)


def test_markdown_gives_the_bd_rate_of_several_models() -> None:
    text = evaluation.markdown(curve("JPEG", 0.2) + curve("vqcodec", 0.1)[:3])
    line = next(line for line in text[text.index("BD-rate") :].splitlines() if line.startswith("| JPEG"))
    assert cells(line) == ["JPEG", "-50.0 %", "24.00 to 30.00", "-50.0 %", "12.00 to 15.00"]


def test_markdown_without_ms_ssim_or_without_models() -> None:
    bare = [replace(p, ms_ssim=None, ms_ssim_db=None) for p in curve("JPEG", 0.2)]
    ours = replace(point("vqcodec", "m", 0.3, 27.0), ms_ssim=None, ms_ssim_db=None)
    assert "-25.0 %" in evaluation.markdown([*bare, ours])
    assert len(evaluation.markdown(bare).splitlines()) == 2 + 2 + 4


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate_tool", ROOT / "tools" / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_command_line(tool: ModuleType, folder: Path, tmp_path: Path) -> None:
    rows, means, plot = tmp_path / "rows.csv", tmp_path / "means.json", tmp_path / "rd.svg"
    options = ["--jpeg", "10,50,90", "--webp", "0,50,90", "--avif", ""]
    outputs = ["--csv", str(rows), "--json", str(means), "--plot", str(plot)]
    result = CliRunner().invoke(tool.main, [str(folder), *options, *outputs], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "| JPEG | 10 |" in result.stdout
    with rows.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 12
    assert list(table[0])[:4] == ["dataset", "image", "codec", "setting"]
    assert int(table[0]["size"]) == len(Rival("JPEG", 10).encode(drawing()))
    assert len(json.loads(means.read_text())) == 6
    assert plot.read_text().startswith("<?xml")


@pytest.mark.parametrize("arguments", [[], ["--picture", "x.png"], ["--jpeg", "a", "."], ["--crop", "1,2,3", "."]])
def test_wrong_command_lines(tool: ModuleType, arguments: list[str]) -> None:
    assert CliRunner().invoke(tool.main, arguments).exit_code == 2


def test_json_has_no_infinity(tool: ModuleType, tmp_path: Path) -> None:
    lossless = replace(point("JPEG", "x", 1.0, 30.0), psnr=float("inf"))
    tool.write_json(tmp_path / "a.json", [lossless])
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)[0]["psnr"] is None


@needs_avif
def test_strip_of_equal_bytes(tool: ModuleType) -> None:
    panels = tool.equal_bytes(drawing(), Rival("WebP", 20))
    assert [panel.lines[0].split(",")[0].split()[0] for panel in panels] == ["original", "WebP", "JPEG", "WebP", "AVIF"]
    assert panels[3].lines[0] == "WebP, quality 20"  # against itself: the same file
    assert panels[3].lines[1] == panels[1].lines[1]
    picture = tool.strip(panels, (10, 20, 60, 50), 2)
    assert picture.width == 5 * 120 + 4 * 8
    assert picture.height > 100
    left = picture.crop((0, 0, 120, 100)).resize((60, 50), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(left), np.asarray(drawing().crop((10, 20, 70, 70))))


def test_strip_says_when_a_rival_cannot_be_as_small(tool: ModuleType) -> None:
    tiny = Halves(name="tiny")
    tiny.encode = lambda image: b"x" * 40  # type: ignore[method-assign]
    tiny.decode = lambda data: drawing()  # type: ignore[method-assign]
    panels = tool.equal_bytes(drawing(), tiny)
    assert [panel.lines[2] for panel in panels[2:]] == ["its smallest file is larger"] * 3


def test_our_model(folder: Path) -> None:
    rows = evaluation.evaluate(folder, [evaluation.Ours(DEFAULT_MODEL)], Cache())
    assert [(row.codec, row.setting) for row in rows] == [(evaluation.OURS, DEFAULT_MODEL)] * 2
    for row in rows:
        assert isinstance(row, Measurement)
        assert 0 < row.bpp < 8
        assert row.psnr > 15
