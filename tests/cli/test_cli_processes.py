# SPDX-License-Identifier: Apache-2.0
"""Commands as processes: what they import, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import vq
from conftest import ROOT, drawn

import vqcodec
from vqcodec.format import container


def process(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=False, timeout=300, **options)


HEAVY = ("torch", "numpy", "PIL", "constriction", "safetensors")
IMPORTED = f"""
import sys
from vqcodec.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
"""


def test_info_and_models_import_neither_torch_nor_numpy(folder: Path) -> None:
    vq("encode", "a.png")
    for arguments in (["info", "a.vq2"], ["info", "a.vq2", "--json"], ["models"]):
        result = process(IMPORTED, *arguments, capture_output=True)
        assert b"tiny" in result.stdout
        assert result.stderr.strip() == b""


@pytest.mark.parametrize(
    ("arguments", "status", "imported", "message"),
    [
        (["--help"], 0, [], ""),
        (["encode", "--help"], 0, [], ""),
        (["encode", "missing.png"], 1, [], "missing.png: No such file"),
        (["encode", "missing.png", "gone.png", "-O", "out"], 1, [], "gone.png: No such file"),
        (["encode", "a.png", "there.vq2"], 1, [], "there.vq2: exists already"),
        (["encode", "a.png", "--model", "missing"], 1, [], "'missing' is not installed"),
        (["encode", "text"], 1, ["PIL"], "not an image"),
        (["decode", "missing.vq2"], 1, [], "missing.vq2: No such file"),
        (["decode", "text", "-O", "out"], 1, [], "not a .vq2 file"),
        (["decode", "foreign.vq2"], 1, [], "which is not installed"),
        (["indices", "missing.png", "a.npz"], 1, [], "missing.png: No such file"),
        (["sample", "there.vq2"], 1, [], "there.vq2: exists already"),
        (["sample", "s.png", "--like", "missing.png", "--keep", "top"], 1, [], "missing.png: No such file"),
        (["sample", "s.png", "--temperature", "11"], 2, [], "temperature"),
    ],
)
def test_paths_are_checked_before_torch_is_loaded(
    folder: Path, arguments: list[str], status: int, imported: list[str], message: str
) -> None:
    Path("text").write_text("neither image nor file")
    Path("there.vq2").write_bytes(b"precious")
    foreign = container.Container(container.Header(8, 8, "RGB", bytes(4)), (b"",))
    Path("foreign.vq2").write_bytes(container.pack(foreign))
    result = process(IMPORTED, *arguments, capture_output=True)
    *said, modules = result.stderr.decode().splitlines()
    assert result.returncode == status
    assert message in "\n".join(said)
    assert set(modules.split()) - {"numpy"} == set(imported)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("arguments", [["info", "a.vq2"], ["decode", "big.vq2", "-", "--format", "tiff"]])
def test_broken_pipe_is_quiet(folder: Path, arguments: list[str]) -> None:
    vq("encode", "a.png")
    drawn(200, 200).save("big.png")
    vq("encode", "big.png")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = process("from vqcodec.cli import main; main()", *arguments, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert result.returncode == 1
    assert result.stderr == b""


def test_version_and_module(folder: Path) -> None:
    assert vq("--version").stdout == f"vqcodec {vqcodec.__version__}\n"
    code = "import runpy, sys; sys.argv[0] = 'x'; runpy.run_module('vqcodec', run_name='__main__')"
    result = process(code, "info", "missing.vq2", capture_output=True)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [b"vqcodec: error: missing.vq2: No such file or directory"]
