# SPDX-License-Identifier: Apache-2.0
"""Man pages, the desktop, commands over scripts, the page of two pictures, pictures that fit."""

from __future__ import annotations

import configparser
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vqcodec.cli import man
from vqcodec.cli.group import COMMANDS, main
from vqcodec.cli.tools import TOOLS, Tool
from vqcodec.format.container import MAGIC


def vq(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and those below it, by what is typed to call them."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            yield from commands(child.loaded() if isinstance(child, Tool) else child, f"{name} {below}")


def test_every_help_has_examples() -> None:
    """Every command's, scripts' and those of groups too: lines that call it, and a text for every option."""
    names = []
    for name, command in commands(main, "vqcodec"):
        lines = inspect.cleandoc(command.help or "").split("\b\n", 1)[-1].splitlines()
        assert any(line.startswith(f"{name} ") for line in lines), name
        options = [param for param in command.params if isinstance(param, click.Option)]
        assert not [option.name for option in options if not option.help], name
        assert all(
            (option.help or "")[0].isupper() and (option.help or "").endswith((".", ")")) for option in options
        ), name
        names.append(name)
    assert {"vqcodec batch indices", "vqcodec train joint", "vqcodec rd"} <= set(names)
    assert len(names) > len(COMMANDS) + len(TOOLS)


def test_help_imports_no_torch() -> None:
    code = "import sys; from vqcodec.cli import main; main(['--help'], standalone_mode=False); "
    code += "print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[-1] == "False"
    for name in (*COMMANDS, *TOOLS):
        assert any(line.split()[:1] == [name] and len(line.split()) > 2 for line in lines), name


def test_scripts_are_commands() -> None:
    for name in TOOLS:
        result = vq(name, "--help")
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"Usage: main {name}")
    assert vq("train", "prior", "--nonsense").exit_code == 2


def test_man_pages(folder: Path) -> None:
    assert vq("man", "-O", "pages").exit_code == 0
    names = {path.name for path in Path("pages").iterdir()}
    assert {"vqcodec.1", "vqcodec-encode.1", "vqcodec-batch-encode.1", "vqcodec-train-joint.1"} <= names
    text = Path("pages/vqcodec-encode.1").read_text()
    assert re.search(r"^\.TH .*VQCODEC", text, re.MULTILINE)
    assert "vqcodec\\-encode \\- Encode images" in text
    for section in ("SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"):
        assert f".SH {section}\n" in text
    assert "\\-\\-target\\-size" in text
    assert "vqcodec encode photo.png small.vq2" in text
    assert man._escaped(".a\\b-c") == "\\&.a\\eb\\-c"
    assert vq("man", "-O", "pages").exit_code == 1  # exists
    if shutil.which("man"):
        checked = subprocess.run(
            ["man", "--warnings", "-l", "pages/vqcodec-encode.1"], capture_output=True, check=False
        )
        assert checked.stderr == b""


def test_desktop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "share"))
    assert vq("install-desktop").exit_code == 0
    root = ElementTree.parse("share/mime/packages/vqcodec.xml").getroot()
    space = {"m": "http://www.freedesktop.org/standards/shared-mime-info"}
    match = root.find(".//m:match", space)
    assert match is not None
    assert match.get("value", "").encode().decode("unicode_escape").encode("latin-1") == MAGIC
    entry = configparser.RawConfigParser()
    entry.read("share/thumbnailers/vqcodec.thumbnailer")
    command = entry["Thumbnailer Entry"]["exec"]
    assert vq("encode", "a.png", "-e", 1).exit_code == 0
    words = command.split(" decode ")[1].replace("%s", "16").replace("%i", "a.vq2").replace("%o", "t.png").split()
    assert vq("decode", *words).exit_code == 0
    assert Image.open("t.png").size == (16, 10)
    assert vq("install-desktop", "--remove").exit_code == 0
    assert not list(Path("share").rglob("*.xml"))


def test_a_page_of_two_pictures(folder: Path) -> None:
    assert vq("encode", "a.png", "-e", 1, "--no-fallback").exit_code == 0
    assert vq("encode", "a.png", "whole.vq2", "--lossless").exit_code == 0
    result = vq("compare", "a.png", "a.vq2", "-o", "page.html")
    assert result.exit_code == 0, result.output
    page = Path("page.html").read_text()
    assert "a.png and a.vq2" in page
    assert "{{" not in page
    assert '"psnr":' in page
    assert re.search(r"page.html: [\d.]+ dB, [\d.]+ bpp", result.output)
    assert "equal" in vq("compare", "a.png", "whole.vq2", "-f", "-o", "page.html").output
    assert "exists already" in vq("compare", "a.png", "a.vq2", "-o", "page.html").output
    result = vq("compare", "a.png", "b.png", "-o", "other.html")
    assert (result.exit_code, "different sizes" in result.output) == (1, True)


def test_pictures_that_fit(folder: Path) -> None:
    assert vq("encode", "a.png", "-e", 1, "--no-fallback").exit_code == 0
    for side, size in ((20, (20, 12)), (3, (3, 2)), (500, (40, 24))):
        assert vq("decode", "-f", "a.vq2", "fit.png", "--fit", side).exit_code == 0
        assert Image.open("fit.png").size == size
    assert vq("decode", "a.vq2", "x.png", "--fit", 9, "--preview", 2).exit_code == 2
