# SPDX-License-Identifier: Apache-2.0
"""The tool as it is called: files that it writes, going on, refusing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import load_tool
from numpy.typing import NDArray
from PIL import Image

from vqcodec.evaluation import measuring
from vqcodec.evaluation import rivals as codecs

RIVALS = ["--jpeg", "10,50,90", "--webp", "0,50,90", "--avif", "", "--jxl", "", "--jobs", "1"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("rd_curves")


@pytest.fixture
def folder(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    path = tmp_path / "cats"
    path.mkdir()
    for i in range(2):
        Image.fromarray(photo[20 * i : 20 * i + 170, 130:300]).save(path / f"{i}.png")
    return path


def call(tool: ModuleType, *arguments: str | Path) -> Result:
    return CliRunner().invoke(tool.main, list(map(str, arguments)), catch_exceptions=False)


def test_files_of_the_rivals(tool: ModuleType, folder: Path, tmp_path: Path) -> None:
    rows, means, plot = tmp_path / "rows.csv", tmp_path / "means.json", tmp_path / "rd.svg"
    result = call(tool, folder, *RIVALS, "--csv", rows, "--json", means, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "| JPEG | 10 |" in result.stdout
    assert "cats: 12 of 12" in result.stderr
    with rows.open(newline="") as stream:
        assert [line["codec"] for line in csv.DictReader(stream)] == [*["JPEG"] * 3, *["WebP"] * 3] * 2
    assert [point["setting"] for point in json.loads(means.read_text())] == ["10", "50", "90", "0", "50", "90"]
    assert plot.read_text().startswith("<?xml")


def test_models_page_and_going_on(
    tool: ModuleType, folder: Path, tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQCODEC_MODELS", str(tiny_models))
    published, page, cache = tmp_path / "published.csv", tmp_path / "report.html", tmp_path / "cache.jsonl"
    published.write_text("codec,bpp,psnr_rgb\nnet,0.1,20\nnet,1.0,30\n")
    options = ["--model", "tiny", "--device", "cpu", "--cache", cache]
    first = call(tool, folder, *RIVALS, *options)
    assert first.exit_code == 0, first.output
    assert "| **vqcodec tiny** |" in first.stdout

    def refuse(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(measuring, "measure", refuse)
    outputs = ["--html", page, "--html-image", "1.png", "--published", "cats", published]
    second = call(tool, folder, *RIVALS, *options, *outputs)
    assert second.exit_code == 0, second.output
    assert second.stdout == first.stdout
    text = page.read_text(encoding="utf-8")
    assert text.count('class="case"') == 1
    assert 'data-image="1.png"' in text
    assert 'net<span class="muted">, published' in text


def test_picture(
    tool: ModuleType, tmp_path: Path, tiny_models: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQCODEC_MODELS", str(tiny_models))
    image, strip = tmp_path / "cat.png", tmp_path / "strip.png"
    Image.fromarray(photo[:120, :140]).save(image)
    options = ["--model", "tiny", "--image", image, "--avif", "", "--jxl", "", "--crop", "10,20,60,50"]
    result = call(tool, "--picture", strip, *options, "--scale", "2")
    assert result.exit_code == 0, result.output
    assert Image.open(strip).width == 4 * 120 + 3 * 8
    result = call(tool, "--picture", strip, *options[:-1], "100,20,60,50")
    assert result.exit_code == 1
    assert "does not lie within" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--picture", "x.png"],
        ["--jpeg", "a", "."],
        ["--crop", "1,2,3", "."],
        [".", "."],
        [".", "--published", "another", __file__],
        [".", "--jobs", "0"],
    ],
)
def test_wrong_command_lines(tool: ModuleType, arguments: list[str]) -> None:
    assert CliRunner().invoke(tool.main, arguments).exit_code == 2


def test_what_is_not_there_is_said(tool: ModuleType, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in ([tmp_path / "empty"], [folder, "--model", "no-such-model"]):
        result = call(tool, *arguments, *RIVALS)
        assert result.exit_code == 1
        assert result.output.splitlines()[-1].startswith("Error: ")


def test_spread_takes_both_ends(tool: ModuleType) -> None:
    paths = [Path(str(i)) for i in range(10)]
    assert tool.spread(paths, 4) == [paths[i] for i in (0, 3, 6, 9)]
    assert tool.spread(paths, 1) == paths[:1]
    assert tool.spread(paths, 0) == []
    assert tool.spread(paths, 99) == paths


def test_pictures_show_the_first_model_at_its_middle_quality(tool: ModuleType) -> None:
    settings = codecs.ours(["a", "b"], [0, 20, 40, 60])
    assert tool.shown(settings, [0, 20, 40, 60]) == settings[1]
    assert tool.shown(codecs.ours(["a", "b"]), [None]).model == "a"
    assert tool.shown([], [None]) is None
