# SPDX-License-Identifier: Apache-2.0
"""The command line: names, streams, overwriting, errors, exit codes, with the tiny model; then with the shipped one."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from commands import coded, identity, names, same_pixels, vq
from conftest import drawn
from PIL import Image

import vqcodec
from vqcodec import codec
from vqcodec.cli import main
from vqcodec.encoder import fitting
from vqcodec.errors import VqcodecError
from vqcodec.model import registry
from vqcodec.sampling import sample


def test_encode_and_decode_with_names(folder: Path) -> None:
    result = vq("encode", "a.png", "out.vq2")
    assert (result.exit_code, result.stdout) == (0, "")
    size = Path("out.vq2").stat().st_size
    assert f"-> {size} bytes, {8 * size / 960:.4f} bpp" in result.stderr
    assert vq("decode", "out.vq2", "out.tiff").exit_code == 0
    assert same_pixels("out.tiff", coded(drawn()))
    assert names(folder) == {"out.vq2", "out.tiff"}


def test_names_beside_the_input(folder: Path) -> None:
    (folder / "sub").mkdir()
    drawn().save("sub/c.d.png")
    assert vq("encode", "sub/c.d.png").exit_code == 0
    assert vq("decode", "sub/c.d.vq2", "--format", "webp").exit_code == 0
    assert sorted(os.listdir("sub")) == ["c.d.png", "c.d.vq2", "c.d.webp"]
    assert same_pixels("sub/c.d.webp", coded(drawn()))


def test_streams(folder: Path) -> None:
    encoded = vq("encode", "-", stdin=Path("a.png").read_bytes())
    assert encoded.exit_code == 0
    assert vqcodec.info(encoded.stdout_bytes).width == 40
    decoded = vq("decode", "-", stdin=encoded.stdout_bytes)
    with Image.open(io.BytesIO(decoded.stdout_bytes)) as image:
        assert image.format == "PNG"
        assert image.tobytes() == coded(drawn()).tobytes()
    to_file = vq("encode", "-", "named.vq2", stdin=Path("a.png").read_bytes())
    assert (to_file.exit_code, to_file.stdout) == (0, "")
    from_file = vq("decode", "named.vq2", "-", "--format", "tiff")
    with Image.open(io.BytesIO(from_file.stdout_bytes)) as image:
        assert image.format == "TIFF"


def test_no_overwriting_without_force(folder: Path) -> None:
    Path("a.vq2").write_bytes(b"precious")
    result = vq("encode", "a.png")
    assert (result.exit_code, Path("a.vq2").read_bytes()) == (1, b"precious")
    assert result.stderr == "vqcodec: error: a.vq2: exists already (-f overwrites it)\n"
    assert vq("encode", "a.png", "-f").exit_code == 0
    assert vqcodec.info("a.vq2").width == 40
    assert vq("decode", "a.vq2").exit_code == 1
    assert vq("decode", "a.vq2", "-f").exit_code == 0


def test_several_inputs_go_on_after_an_error(folder: Path) -> None:
    Path("broken.png").write_text("no image")
    result = vq("encode", "a.png", "broken.png", "missing.png", "b.png", "-O", "out/deep")
    assert result.exit_code == 1
    assert sorted(os.listdir("out/deep")) == ["a.vq2", "b.vq2"]
    errors = [line for line in result.stderr.splitlines() if "error" in line]
    assert len(errors) == 2
    assert errors[0].startswith("vqcodec: error: broken.png: ")
    assert errors[1] == "vqcodec: error: missing.png: No such file or directory"
    assert vq("decode", "out/deep/a.vq2", "out/deep/b.vq2", "-O", "back").exit_code == 0
    assert same_pixels("back/b.png", coded(drawn(30, 20)))
    assert same_pixels("back/a.png", coded(drawn()))


def test_more_than_two_names_are_inputs(folder: Path) -> None:
    drawn(9, 9).save("c.png")
    assert vq("encode", "a.png", "b.png", "c.png", "--quiet").stderr == ""
    assert names(folder) == {"c.png", "a.vq2", "b.vq2", "c.vq2"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["encode", "a.png", "b.png"],
        ["encode", "a.png", "b.png", "-f"],
        ["decode", "a.vq2", "b.vq2", "-f"],
        ["encode", "a.png", "sub/a.png", "-O", "out"],
        ["encode", "a.png", "b.png", "-"],
        ["encode", "a.png", "--device", "tpu"],
        ["decode", "a.vq2", "--format", "exe"],
        ["sample", "x.png", "--width", "0"],
        ["sample", "x.png", "--width", "65535", "--height", "65535"],
        ["no-such-command"],
        ["info"],
    ],
)
def test_wrong_usage_is_exit_2_and_writes_nothing(folder: Path, arguments: list[str]) -> None:
    before = Path("b.png").read_bytes()
    assert vq(*arguments).exit_code == 2
    assert names(folder) == set()
    assert Path("b.png").read_bytes() == before


def test_errors_are_one_line(folder: Path) -> None:
    vq("encode", "a.png")
    damaged = bytearray(Path("a.vq2").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path("damaged.vq2").write_bytes(damaged)
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:60])
    (folder / "directory").mkdir()
    Image.new("F", (3, 3)).save("float.tiff")
    for arguments in (
        ["decode", "damaged.vq2"],
        ["decode", "a.png"],
        ["decode", "a.vq2", "x.unknown"],
        ["decode", "a.vq2", "missing/x.png"],
        ["encode", "cut.png"],
        ["encode", "float.tiff"],
        ["encode", "directory"],
        ["encode", "b.png", "--model", "missing"],
        ["info", "damaged.vq2"],
    ):
        result = vq(*arguments)
        assert result.exit_code == 1, arguments
        assert result.stdout == ""
        assert result.stderr.startswith("vqcodec: error: "), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
    assert names(folder) == {"a.vq2", "damaged.vq2", "cut.png", "directory", "float.tiff"}


def test_warnings_are_one_line_each(folder: Path) -> None:
    for name in ("c.tiff", "d.tiff"):
        drawn().convert("CMYK").save(name)
    result = vq("encode", "c.tiff", "d.tiff", "-O", "out", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == "".join(
        f"vqcodec: warning: {name}: CMYK is converted to RGB\n" for name in ("c.tiff", "d.tiff")
    )


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    Path("a.vq2").write_bytes(b"precious")
    monkeypatch.setattr(os, "replace", refuse)
    result = vq("encode", "a.png", "-f")
    assert result.exit_code == 1
    assert "Permission denied" in result.stderr
    assert names(folder) == {"a.vq2"}
    assert Path("a.vq2").read_bytes() == b"precious"


@pytest.mark.skipif(os.name != "posix", reason="links and devices")
def test_links_devices_and_permissions(folder: Path) -> None:
    Path("real.vq2").write_bytes(b"old")
    os.chmod("real.vq2", 0o640)
    os.symlink("real.vq2", "link.vq2")
    assert vq("encode", "a.png", "link.vq2", "-f").exit_code == 0
    assert os.path.islink("link.vq2")
    assert vqcodec.info("real.vq2").width == 40
    assert os.stat("real.vq2").st_mode & 0o777 == 0o640
    assert vq("encode", "a.png", os.devnull).exit_code == 0
    assert not os.path.isfile(os.devnull)


def test_info(folder: Path) -> None:
    vq("encode", "a.png", "b.png", "-O", ".")
    text = vq("info", "a.vq2", "b.vq2").stdout
    assert "40 x 24 pixels, RGB" in text
    assert f"tiny ({identity()})" in text
    lines = vq("info", "--json", "a.vq2", "missing.vq2", "b.vq2")
    assert lines.exit_code == 1
    printed = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [(entry["file"], entry["width"]) for entry in printed] == [("a.vq2", 40), ("b.vq2", 30)]
    assert printed[0]["file_bytes"] == Path("a.vq2").stat().st_size
    assert "missing.vq2" in lines.stderr


def test_models(folder: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_models, "models")
    monkeypatch.setenv(registry.ENVIRONMENT, "models")
    card = {"title": "An untrained model", "figures": {"PSNR, dB": 31.25, "data": "none"}}
    Path("models/tiny.json").write_text(json.dumps(card))
    listed = json.loads(vq("models", "--json").stdout)
    entry = next(entry for entry in listed if entry["name"] == "tiny")
    assert entry == card | {"name": "tiny", "identity": identity(), "path": str(Path("models/tiny.safetensors"))}
    text = vq("models").stdout
    assert f"{identity()}  An untrained model" in text
    assert "PSNR, dB: 31.25" in text


def test_choosing_a_model(folder: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "not-there")
    assert "'not-there' is not installed" in vq("encode", "a.png").stderr
    assert vq("encode", "a.png", "--model", "tiny").exit_code == 0
    monkeypatch.setenv(registry.ENVIRONMENT, str(folder))
    assert vq("encode", "a.png", "path.vq2", "--model", tiny_models / "tiny.safetensors").exit_code == 0
    assert Path("path.vq2").read_bytes() == Path("a.vq2").read_bytes()
    missing = vq("decode", "a.vq2", "x.png")
    assert missing.exit_code == 1
    assert "not installed" in missing.stderr
    shutil.copy(tiny_models / "tiny.safetensors", "another-name.safetensors")
    assert vq("decode", "a.vq2", "x.png").exit_code == 0
    monkeypatch.setenv(registry.ENVIRONMENT, str(tiny_models))
    assert same_pixels("x.png", coded(drawn()))


def test_verify(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vq("encode", "a.png", "--verify").exit_code == 0
    real = fitting.decompress

    def wrong(*arguments: Any, **options: Any) -> Any:
        maps = real(*arguments, **options)
        maps.levels[0][0, 0, 0] ^= 1
        return maps

    monkeypatch.setattr(fitting, "decompress", wrong)
    assert vq("encode", "b.png").exit_code == 0
    result = vq("encode", "a.png", "c.vq2", "--verify")
    assert (result.exit_code, "verification failed" in result.stderr) == (1, True)
    assert names(folder) == {"a.vq2", "b.vq2"}


def test_sample(folder: Path) -> None:
    assert vq("sample", "s.png", "--seed", "7", "--width", "50", "--height", "30").exit_code == 0
    assert same_pixels("s.png", sample(codec.load_model("tiny"), 50, 30, seed=7))
    assert vq("sample", "s.png").exit_code == 1
    result = vq("sample", "s.png", "-f")
    seed = int(result.stderr.split("seed ")[1].split(",")[0])
    assert same_pixels("s.png", sample(codec.load_model("tiny"), seed=seed))


def test_progress_bar_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar over the files, the one inside a picture, and above them a failure when it happens."""
    assert "|" not in vq("encode", "a.png", "b.png", "-O", "out").stderr
    terminal = _Terminal()
    monkeypatch.setattr("vqcodec.cli.running.sys", type("Terminal", (), {"stderr": terminal}))
    monkeypatch.setattr("vqcodec.cli.running.PATIENCE", 0.0)
    vq("encode", "a.png", "missing.png", "b.png", "-O", "out", "-f")
    shown = terminal.getvalue()
    assert shown.index("missing.png: No such file") < shown.index("b.png -> ") < shown.index("2 of 3 files, 1 failed")
    assert "3/3" in shown
    assert "choosing codes" in shown


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_temperature_is_that_of_sampling() -> None:
    from vqcodec import sampling
    from vqcodec.cli.sample import MAX_TEMPERATURE

    assert MAX_TEMPERATURE == sampling.MAX_TEMPERATURE


def test_several_files_are_as_when_coded_alone(folder: Path) -> None:
    """Order of files and messages, with one that cannot be read, one that cannot be written and one with a warning."""
    sources = []
    for i in range(7):
        drawn(9 + i, 9).save(f"{i}.tiff")
        sources.append(f"{i}.tiff")
    Path("2.tiff").write_bytes(b"no image")
    drawn(13, 9).convert("CMYK").save("4.tiff")
    Path("5.vq2").write_bytes(b"precious")
    alone = [vq("encode", source, f"alone{i}.vq2") for i, source in enumerate(sources)]
    together = vq("encode", *sources)
    assert together.exit_code == 1
    messages = [line.split(" ")[0:3] for line in together.stderr.splitlines()]
    expected = [line.split(" ")[0:3] for result in alone for line in result.stderr.splitlines()]
    assert together.stderr.splitlines()[-1].startswith("5 of 7 files, 2 failed: ")
    assert len(messages) - 1 == len(expected) == 8
    first = ["0.tiff", "1.tiff", "vqcodec:", "3.tiff", "vqcodec:", "4.tiff", "vqcodec:", "6.tiff"]
    assert [line[0] for line in messages][:-1] == first
    assert "2.tiff" in together.stderr.splitlines()[2]
    assert together.stderr.splitlines()[4] == "vqcodec: warning: 4.tiff: CMYK is converted to RGB"
    assert "5.vq2: exists already" in together.stderr.splitlines()[6]
    for i in (0, 1, 3, 4, 6):
        assert Path(f"{i}.vq2").read_bytes() == Path(f"alone{i}.vq2").read_bytes()
    assert Path("5.vq2").read_bytes() == b"precious"
    Path("3.vq2").write_bytes(Path("3.vq2").read_bytes()[:-1])
    back = vq("decode", "0.vq2", "3.vq2", "1.vq2", "missing.vq2", "6.vq2", "-O", "back")
    assert back.exit_code == 1
    first = ["0.vq2", "vqcodec:", "1.vq2", "vqcodec:", "6.vq2"]
    assert [line.split(" ")[0] for line in back.stderr.splitlines()][:-1] == first
    assert sorted(os.listdir("back")) == ["0.png", "1.png", "6.png"]
    for i in (0, 1, 6):
        assert same_pixels(f"back/{i}.png", coded(drawn(9 + i, 9)))


def test_every_error_of_the_package_ends_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (*VqcodecError.__subclasses__(), MemoryError):

        def fail(*_: object, kind: type[Exception] = kind) -> None:
            raise kind("first\nsecond")

        monkeypatch.setattr(codec, "load_model", fail)
        result = vq("encode", "a.png")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith(("vqcodec: error: first second", "vqcodec: error: out of memory"))


def test_the_shipped_model_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn(70, 45).save("a.png")
    assert vq("encode", "a.png", "--verify", "--device", "cpu").exit_code == 0
    assert vq("decode", "a.vq2", "b.png", "--device", "cpu").exit_code == 0
    with Image.open("b.png") as image:
        assert (image.size, image.mode) == ((70, 45), "RGB")
        error = np.asarray(image, np.float64) - np.asarray(drawn(70, 45), np.float64)
    assert np.sqrt((error**2).mean()) < 30
    entry = json.loads(vq("info", "a.vq2", "--json").stdout)
    assert entry["model_name"] == registry.DEFAULT_MODEL
    assert vq("sample", "s.png", "--seed", "1", "--width", "32", "--height", "32", "--device", "cpu").exit_code == 0
    assert registry.DEFAULT_MODEL in vq("models").stdout


def test_quality_options_reach_the_encoder(folder: Path) -> None:
    image = Image.open("a.png")
    for name, options, asked in (
        ("q", ["-q", "10"], {"quality": 10}),
        ("lambda", ["--lambda", "0.5"], {"lmbda": 0.5}),
        ("effort", ["-q", "90", "-e", "1"], {"quality": 90, "effort": 1}),
        ("size", ["--target-size", "2kB"], {"size": 2000}),
        ("bpp", ["--target-bpp", "20"], {"bpp": 20}),
    ):
        assert vq("encode", "a.png", f"{name}.vq2", *options).exit_code == 0
        assert Path(f"{name}.vq2").read_bytes() == codec.encode(image, **asked)
    assert vq("indices", "a.png", "a.npz", "-q", "10", "-e", "2").exit_code == 0
    pixels = vqcodec.from_indices(vqcodec.indices.load("a.npz"))
    assert pixels.tobytes() == codec.decode(codec.encode(image, quality=10, effort=2)).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        ["-q", "101"], ["-q", "x"], ["-q", "nan"], ["--lambda", "inf"], ["--target-bpp", "inf"],
        ["-e", "0"], ["-e", "10"], ["--lambda", "-1"], ["--target-size", "0"],
        ["--target-size", "20 lb"], ["--target-size", "-3kB"], ["--target-bpp", "0"], ["-q", "3", "--target-bpp", "1"],
        ["--lambda", "1", "--target-size", "9kB"],
    ],
)  # fmt: skip
def test_wrong_quality_options(folder: Path, options: list[str]) -> None:
    result = vq("encode", "a.png", "out.vq2", *options)
    assert result.exit_code == 2
    assert not Path("out.vq2").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("20000", 20000), ("20kB", 20000), ("20 KB", 20000), ("20KiB", 20480), ("1.5MB", 1500000),
                       ("3k", 3000), ("7b", 7)],
)  # fmt: skip
def test_sizes_in_words(text: str, size: int) -> None:
    from vqcodec.cli.encode import parse_size

    context = click.Context(main)
    assert parse_size(context, main.params[0], text) == size


def test_a_size_that_cannot_be_reached(folder: Path) -> None:
    result = vq("encode", "a.png", "out.vq2", "--target-size", "50")
    assert result.exit_code == 1
    assert "too few" in result.stderr
    assert not Path("out.vq2").exists()
