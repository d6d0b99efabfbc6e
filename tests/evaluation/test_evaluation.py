# SPDX-License-Identifier: Apache-2.0
"""The evaluation on small drawn images: who competes, measuring, keeping, averaging, equal bytes."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from vqcodec.evaluation import equal_bytes, measuring, metrics, tables
from vqcodec.evaluation import rivals as codecs
from vqcodec.evaluation.measuring import Cache, Measurement
from vqcodec.evaluation.rivals import Ours, Rival
from vqcodec.evaluation.workers import Workers

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
    result = measuring.measure(codec, image)
    pixels, decoded = np.asarray(image), np.asarray(codec.decode(data))
    assert result.size == len(data)
    assert result.psnr == metrics.psnr(pixels, decoded)
    assert result.ms_ssim == metrics.ms_ssim(pixels, decoded)
    assert result.ssimulacra2 == metrics.ssimulacra2(pixels, decoded)


def test_measure_without_what_small_images_do_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    result = measuring.measure(Halves(), drawing(160, 400))
    assert result.ms_ssim is None
    assert result.ssimulacra2 is not None
    assert measuring.measure(Halves(), drawing(20, 7)).ssimulacra2 is None
    monkeypatch.setattr(metrics, "has_ssimulacra2", lambda: False)
    assert measuring.measure(Halves(), drawing(160, 400)).ssimulacra2 is None


def test_measure_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="pixels into"):
        measuring.measure(Halves(), drawing(163, 170))  # an odd width loses a column


AVIFS = [pytest.param(f"AVIF {sampling}", marks=needs_avif) for sampling in ("4:2:0", "4:4:4")]


@pytest.mark.parametrize("name", ["JPEG", "WebP", *AVIFS, "JPEG XL"])
def test_rivals_trade_size_for_quality(name: str) -> None:
    image = drawing()
    results = [measuring.measure(Rival(name, quality), image) for quality in (10, 50, 90)]
    for lower, higher in zip(results, results[1:], strict=False):
        assert lower.size < higher.size
        assert lower.psnr < higher.psnr
        assert lower.ssimulacra2 is not None
        assert higher.ssimulacra2 is not None
        assert lower.ssimulacra2 < higher.ssimulacra2


def test_rivals_write_what_they_say() -> None:
    file = Image.open(io.BytesIO(Rival("JPEG", 50).encode(drawing())))
    assert file.format == "JPEG"
    assert file.info["progressive"]
    assert Image.open(io.BytesIO(Rival("WebP", 50).encode(drawing()))).format == "WEBP"
    assert Rival("JPEG XL", 50).encode(drawing())[:2] == b"\xff\x0a"


def test_jpeg_xl_takes_parts_of_a_quality() -> None:
    assert Rival("JPEG XL", 30.25).setting == "30.25"
    assert len({len(Rival("JPEG XL", q).encode(drawing())) for q in (80, 80.25, 80.5, 80.75)}) > 1


@needs_avif
def test_avif_chroma_samplings_differ() -> None:
    files = [Rival(f"AVIF {sampling}", 60).encode(drawing()) for sampling in ("4:2:0", "4:4:4")]
    assert len(files[0]) < len(files[1])


@pytest.mark.parametrize(
    ("name", "quality"), [("JPEG 2000", 50), ("JPEG", 0), ("WebP", 101), ("JPEG", 50.5), ("JPEG XL", 50.1)]
)
def test_wrong_rivals(name: str, quality: float) -> None:
    with pytest.raises(ValueError, match="choose from|takes qualities"):
        Rival(name, quality)


def test_a_rival_that_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(codecs.importlib, "import_module", missing)
    with pytest.raises(OSError, match="pillow-jxl-plugin"):
        codecs.library_version.__wrapped__("JPEG XL")


def test_ours_is_a_list_over_models_and_qualities(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def load_model(name: str, device: str) -> Any:
        return SimpleNamespace(encode=lambda image, **options: asked.append((name, options)) or b"file")

    monkeypatch.setattr("vqcodec.codec.load_model", load_model)
    points = codecs.ours(["a", "there/b.safetensors"], [None, 40], "cpu")
    assert [point.setting for point in points] == ["a", "a q40", "b", "b q40"]
    assert {point.name for point in points} == {codecs.OURS}
    assert [point.encode(drawing()) for point in points] == [b"file"] * 4
    usual = {"effort": 5, "tune": "eye", "fallback": False}
    expected = [("a", {"quality": None, **usual}), ("a", {"quality": 40, **usual})]
    assert asked == [*expected, *(("there/b.safetensors", options) for _, options in expected)]


def test_a_curve_for_every_effort_and_tune() -> None:
    points = codecs.ours(["a"], [10, 40], efforts=(5, 1), tunes=("eye", "ssim"))
    names = ["vqcodec", "vqcodec ssim", "vqcodec e1", "vqcodec e1 ssim"]
    assert [point.name for point in points] == [name for name in names for _ in range(2)]
    assert [point.setting for point in points][::2] == ["a q10", "a q10 ssim", "a q10 e1", "a q10 e1 ssim"]


def test_without_a_model_each_tune_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"eye": "plain", "psnr": "plain-psnr"}
    monkeypatch.setattr(codecs, "find", lambda model, tune: SimpleNamespace(name=found[tune]))
    points = codecs.ours([None], [10], tunes=("eye", "psnr"))
    assert [(point.name, point.model) for point in points] == [("vqcodec", "plain"), ("vqcodec psnr", "plain-psnr")]


def test_our_cache_key_names_model_quality_and_source(one_level_file: Path, other_file: Path) -> None:
    made_by = [Ours(str(one_level_file), device="cpu"), Ours(str(one_level_file), 3, "cpu"), Ours(str(other_file))]
    keys = {codec.cache_key for codec in made_by}
    assert len(keys) == 3
    assert all(codecs.source_version() in key for key in keys)


def test_source_version_follows_what_decides_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_PACKAGE", tmp_path)
    (tmp_path / "nets").mkdir()
    (tmp_path / "report").mkdir()
    seen = []
    for name in ("codec.py", "nets/a.py", "report/page.py", "cli.py"):
        (tmp_path / name).write_text("x = 1")
        seen.append(codecs.source_version.__wrapped__())
    assert len(set(seen[:2])) == 2
    assert set(seen[1:]) == {seen[1]}


def test_load_rgb_drops_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that would be copied" * 20
    drawing().save(tmp_path / "a.png", exif=exif, icc_profile=b"x" * 500)
    image = measuring.load_rgb(tmp_path / "a.png")
    assert image.info == {}
    assert Rival("WebP", 30).encode(image) == Rival("WebP", 30).encode(drawing())


def test_results_are_kept_by_pixels_codec_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, codec = tmp_path / "cache.jsonl", Halves(cache_key="a")
    keys = [Cache.key("hash", codec), Cache.key("other", codec), Cache.key("hash", replace(codec, cache_key="b"))]
    monkeypatch.setattr(metrics, "version", lambda: "another")
    keys.append(Cache.key("hash", codec))
    assert len(set(keys)) == 4
    assert Cache.key("hash", Halves()) is None

    cache = Cache(path)
    result = Measurement(100, 30.5, None, -2.5)
    cache.add(keys[0], result)
    cache.add(None, result)
    assert Cache(path).get(keys[0]) == result
    assert Cache(path).get(keys[1]) is None
    assert len(Cache(path)) == 1


def test_a_broken_off_line_is_no_loss(tmp_path: Path) -> None:
    path, result = tmp_path / "cache.jsonl", Measurement(100, 30.5, 0.9, 50.0)
    Cache(path).add("a", result)
    with path.open("a") as stream:
        stream.write('{"key": "b", "size')
    Cache(path).add("c", result)
    again = Cache(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (result, None, result)
    path.write_text('{"an older": "format"}\n')
    with pytest.raises(ValueError, match="line 1"):
        Cache(path)


def test_evaluate_and_summarise(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    rows = measuring.evaluate(folder, codecs.rivals(GRIDS), Cache(), progress=lambda *done: seen.append(done))
    assert seen == [(done, 12) for done in range(13)]
    row = rows[0]
    assert (row.dataset, row.image, row.codec, row.setting) == ("drawn", "0.png", "JPEG", "10")
    size = len(Rival("JPEG", 10).encode(drawing()))
    assert row.size == size
    assert row.bpp == pytest.approx(8 * size / (192 * 176))
    assert row.bits_per_dim == pytest.approx(row.bpp / 3)

    points = measuring.summarise(rows)
    assert [(p.codec, p.setting) for p in points] == [(name, str(q)) for name, grid in GRIDS.items() for q in grid]
    mine = [r for r in rows if (r.codec, r.setting) == ("WebP", "50")]
    point = next(p for p in points if (p.codec, p.setting) == ("WebP", "50"))
    assert point.images == 2
    assert point.psnr == pytest.approx((mine[0].psnr + mine[1].psnr) / 2)
    assert point.bpp == pytest.approx((mine[0].bpp + mine[1].bpp) / 2)
    assert point.ms_ssim is not None
    assert point.ms_ssim_db == pytest.approx(metrics.ms_ssim_db(point.ms_ssim))
    incomplete = measuring.summarise([mine[0], replace(mine[1], ssimulacra2=None)])[0]
    assert incomplete.ssimulacra2 is None
    assert incomplete.ms_ssim == point.ms_ssim


def test_evaluate_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    path, codec = tmp_path / "cache.jsonl", Halves(cache_key="a")

    def broken_off(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measuring.evaluate(folder, [codec], Cache(path), progress=broken_off)
    assert codec.calls == 1
    rows = measuring.evaluate(folder, [codec], Cache(path))
    assert codec.calls == 2
    assert measuring.evaluate(folder, [codec], Cache(path)) == rows
    assert codec.calls == 2


def test_several_processes_measure_the_same(folder: Path) -> None:
    grid = codecs.rivals({"JPEG": (10, 90)})
    with Workers(2) as workers:
        assert [threads for _, threads in workers.run(os.getenv, [("OMP_NUM_THREADS",)] * 2)] == ["1", "1"]
        rows = measuring.evaluate(folder, grid, Cache(), workers)
        with pytest.raises(FileNotFoundError):
            list(workers.run(measuring.measure_file, [(grid[0], folder / "none.png")]))
    assert rows == measuring.evaluate(folder, grid, Cache())


def test_workers_leave_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Workers(2):
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in os.environ
    with pytest.raises(ValueError, match="at least one"):
        Workers(0)


def test_evaluate_refuses_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no images"):
        measuring.evaluate(tmp_path, [], Cache())


def test_our_model(folder: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQCODEC_MODELS", str(tiny_models))
    rows = measuring.evaluate(folder, codecs.ours(["tiny"], device="cpu"), Cache())
    assert [(row.codec, row.setting) for row in rows] == [(codecs.OURS, "tiny")] * 2
    assert all(0 < row.bpp < 8 for row in rows)


def test_largest_within_is_the_best_that_fits() -> None:
    image = drawing()
    sizes = [len(Rival("JPEG", quality).encode(image)) for quality in range(1, 101)]
    for limit in (sizes[0], sizes[30], sizes[70] - 1):
        rival, data = equal_bytes.largest_within("JPEG", image, limit)
        assert rival.quality == max(q for q in range(1, 101) if sizes[q - 1] <= limit)
        assert data == rival.encode(image)
    assert equal_bytes.largest_within("JPEG", image, sizes[-1])[0].quality == 100
    rival, data = equal_bytes.largest_within("JPEG", image, sizes[0] - 1)
    assert rival.quality == 1
    assert len(data) > sizes[0] - 1


@needs_avif
def test_equal_bytes() -> None:
    image, ours = drawing(), Rival("WebP", 20)
    comparison = equal_bytes.compare_image("a.png", image, ours)
    assert comparison.data == ours.encode(image)
    original, mine, jpeg, webp, avif, jxl = comparison.shown
    assert (original.image, original.result) == (image, None)
    assert mine.result == measuring.measure(ours, image)
    assert (webp.setting, webp.result) == ("20", mine.result)  # against itself: the same file
    assert (jpeg.name, jxl.name) == ("JPEG", "JPEG XL")
    for shown in (jpeg, avif, jxl):
        assert shown.fits
        assert shown.result is not None
        assert shown.result.size <= len(comparison.data)
        assert shown.result == measuring.measure(Rival(shown.name, float(shown.setting)), image)
    other = next(name for name in ("AVIF 4:2:0", "AVIF 4:4:4") if name != avif.name)
    loser = equal_bytes.compare_image("a.png", image, ours, [[other]]).shown[-1]
    assert loser.result is not None
    assert avif.result is not None
    assert loser.result.psnr <= avif.result.psnr


def test_equal_bytes_says_when_a_rival_cannot_be_as_small() -> None:
    tiny = Halves()
    tiny.encode = lambda image: b"x" * 40  # type: ignore[method-assign]
    tiny.decode = lambda data: drawing()  # type: ignore[method-assign]
    comparison = equal_bytes.compare_image("a.png", drawing(), tiny, [["JPEG"], ["WebP"]])
    assert [shown.fits for shown in comparison.shown] == [True, True, False, False]
    assert [shown.setting for shown in comparison.shown[2:]] == ["1", "0"]


def test_csv(folder: Path, tmp_path: Path) -> None:
    rows = measuring.evaluate(folder, codecs.rivals({"JPEG": (10, 50)}), Cache())
    tables.write_csv(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 4
    assert list(table[0])[:4] == ["dataset", "image", "codec", "setting"]
    assert int(table[0]["size"]) == len(Rival("JPEG", 10).encode(drawing()))


def test_another_process_can_write_every_format(folder: Path):
    """Workers get codecs pickled, and must find the plugin themselves."""
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed (extra eval)")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        size = pool.submit(measuring.measure_file, Rival("JPEG XL", 50), folder / "0.png").result().size
    assert size == len(Rival("JPEG XL", 50).encode(drawing()))
