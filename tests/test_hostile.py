# SPDX-License-Identifier: Apache-2.0
"""Every file of the hostile corpus gives the error that is expected of it, at once, whoever opens it."""

from __future__ import annotations

import io
import json
import time
import zlib

import pytest
from click.testing import CliRunner
from conftest import ROOT
from internals import load_module, load_npz
from PIL import Image

import vqcodec
import vqcodec.pillow_plugin  # noqa: F401
from vqcodec import VqcodecError
from vqcodec.cli import main
from vqcodec.model import registry

FOLDER = ROOT / "tests" / "hostile"
make = load_module(FOLDER / "make.py")
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
FILES = sorted(EXPECTED)
FOUND = json.loads(
    (FOLDER / "found.json").read_text()
)  # by tools/fuzz.py: errors that no other file of the corpus gives


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    monkeypatch.setenv("VQCODEC_MODELS", str(FOLDER / "models"))


def opened(data: bytes, name: str) -> Image.Image:
    if name.endswith(".safetensors"):
        vqcodec.Codec.load(registry.find(FOLDER / "found" / name), "cpu")
    return vqcodec.from_indices(load_npz(data)) if name.endswith(".npz") else vqcodec.decode(data, device="cpu")


def test_the_sources_are_sound():
    picture = opened((FOLDER / "source.vq2").read_bytes(), "source.vq2")
    assert picture.size == (21, 18)
    assert picture.tobytes() == opened((FOLDER / "source.npz").read_bytes(), "source.npz").tobytes()


def test_the_corpus_is_what_its_script_makes():
    made = {name: (error, data) for name, error, data in make.corpus()}
    assert {name: error for name, (error, _) in made.items()} == EXPECTED
    assert sorted(path.name for path in (FOLDER / "files").iterdir()) == FILES
    for name, (_, data) in made.items():
        assert (FOLDER / "files" / name).read_bytes() == data, name


@pytest.mark.parametrize("name", FILES + sorted(FOUND))
def test_the_error_is_the_expected_one(name):
    data = (FOLDER / ("found" if name in FOUND else "files") / name).read_bytes()
    start = time.process_time()
    with pytest.raises(VqcodecError) as caught:
        opened(data, name)
    assert time.process_time() - start < 2
    assert type(caught.value).__name__ == {**EXPECTED, **FOUND}[name]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_the_command_line_fails_in_one_line_and_writes_nothing(name, tmp_path):
    target = tmp_path / "out.png"
    command = "indices" if name.endswith(".npz") else "decode"
    result = CliRunner().invoke(main, [command, str(FOLDER / "files" / name), str(target), "--device", "cpu"])
    assert result.exit_code == 1
    assert result.stderr.startswith("vqcodec: error: ")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".vq2")])
def test_other_ways_of_opening_raise_nothing_else(name):
    data = (FOLDER / "files" / name).read_bytes()
    try:
        assert vqcodec.info(data).file_bytes == len(data)
    except VqcodecError:
        pass
    if name == "another-format.vq2":
        return  # a picture, to Pillow
    with pytest.raises((OSError, Image.DecompressionBombError)):  # Pillow's own
        Image.open(io.BytesIO(data)).load()


def test_a_profile_that_inflates_to_100_mib():
    packed = zlib.compress(bytes(100 << 20), 9)
    (_, head), *streams = make.split((FOLDER / "source.vq2").read_bytes())
    with pytest.raises(vqcodec.FormatError, match="over the limit"):
        opened(make.file_of([make.header(head[3:7], count=3), (b"C", packed), *streams]), "bomb.vq2")
