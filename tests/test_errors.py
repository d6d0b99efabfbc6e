# SPDX-License-Identifier: Apache-2.0
"""One boundary: every way in raises errors of the package, or Pillow's, whatever happens below."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import drawn
from PIL import Image

import vqcodec
import vqcodec.pillow_plugin
from vqcodec import OutOfMemoryError, UnexpectedError, VqcodecError, indices, sampling
from vqcodec.batch.failures import kind_of
from vqcodec.cli import main
from vqcodec.errors import boundary, is_out_of_memory
from vqcodec.format import container
from vqcodec.images import files
from vqcodec.model import model

TORCH = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


def refused_by_numpy() -> Exception:
    """NumPy's own error: more than any address space holds."""
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    return caught.value


MEMORY = [
    MemoryError(),
    RuntimeError(TORCH),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    refused_by_numpy(),
]


@pytest.fixture
def coded(folder: Path) -> bytes:
    """A file of the tiny model, which is installed."""
    return vqcodec.encode(drawn(), effort=1)


def entries(data: bytes) -> dict[str, Callable[[], object]]:
    """All ways in that decode or encode."""
    image = drawn()
    held = vqcodec.to_indices(data)
    codec = vqcodec.load_model()
    return {
        "encode": lambda: vqcodec.encode(image, effort=1),
        "encode a list": lambda: vqcodec.encode([image], effort=1),
        "decode": lambda: vqcodec.decode(data),
        "decode a region": lambda: vqcodec.decode(data, region=(0, 0, 8, 8)),
        "verify": lambda: vqcodec.verify(data),
        "to_indices": lambda: vqcodec.to_indices(data),
        "to_vq2": lambda: indices.to_vq2(held),
        "sample": lambda: sampling.sample(codec, 16, 16),
        "Codec.encode": lambda: codec.encode(image, effort=1),
        "Codec.decode": lambda: codec.decode(data),
    }


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_no_memory_is_one_error_everywhere(coded: bytes, error: Exception, monkeypatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    ways = entries(coded)
    monkeypatch.setattr("vqcodec.exact.network.IntegerPrior.condition", fail)
    for way in ways.values():
        with pytest.raises(OutOfMemoryError, match="out of memory"):
            way()
    with pytest.raises(OSError, match="out of memory"):  # of Pillow
        Image.open(io.BytesIO(coded)).load()
    with pytest.raises(OSError, match="out of memory"):
        drawn().save(io.BytesIO(), "VQ2", effort=1)
    Path("a.vq2").write_bytes(coded)
    for command in (["decode", "a.vq2", "x.png"], ["verify", "a.vq2"], ["encode", "a.png", "x.vq2"]):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.stderr
        assert "out of memory" in result.stderr
    assert is_out_of_memory(error)
    assert kind_of(error) == "memory"
    assert not Path("x.png").exists()


def test_what_nobody_foresaw_is_one_error_too(coded: bytes, monkeypatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError("seven\nlines")

    ways = entries(coded)
    monkeypatch.setattr("vqcodec.exact.network.IntegerPrior.condition", fail)
    for way in ways.values():
        with pytest.raises(UnexpectedError, match="unexpected ZeroDivisionError: seven lines") as caught:
            way()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(OSError, match="unexpected"):
        Image.open(io.BytesIO(coded)).load()
    with pytest.raises(SyntaxError):
        vqcodec.pillow_plugin.Vq2ImageFile(io.BytesIO(coded[:20]))
    monkeypatch.setattr(container, "read_head", fail)
    with pytest.raises(SyntaxError):
        vqcodec.pillow_plugin.Vq2ImageFile(io.BytesIO(coded))


def test_batches_go_on_after_anything(coded: bytes, monkeypatch) -> None:
    calls: list[int] = []
    condition = model.IntegerPrior.condition

    def sometimes(self: object, *arguments: object) -> object:
        calls.append(1)
        if len(calls) in (1, 2):
            raise (MemoryError(), ZeroDivisionError())[len(calls) - 1]
        return condition(self, *arguments)

    for name in ("a", "b", "c"):
        Path(f"{name}.vq2").write_bytes(coded)
    monkeypatch.setattr(model.IntegerPrior, "condition", sometimes)
    result = CliRunner().invoke(main, ["decode", "a.vq2", "b.vq2", "c.vq2", "-O", "out"])
    assert result.exit_code == 1
    assert [line.split(": ")[2:4] for line in result.stderr.splitlines()[:2]] == [
        ["a.vq2", "out of memory"],
        ["b.vq2", "unexpected ZeroDivisionError"],
    ]
    assert [path.name for path in Path("out").iterdir()] == ["c.png"]


def test_mistakes_of_the_calling_program_stay_what_they_are(coded: bytes) -> None:
    with pytest.raises(ValueError, match="not inside"):
        vqcodec.decode(coded, region=(0, 0, 999, 1))
    with pytest.raises(TypeError):
        vqcodec.decode(3.5)
    with pytest.raises(FileNotFoundError):
        vqcodec.decode("nothing.vq2")
    with pytest.raises(KeyboardInterrupt), boundary():
        raise KeyboardInterrupt
    with pytest.raises(UserWarning), boundary():
        raise UserWarning("as an error")
    with pytest.raises(vqcodec.FormatError), boundary():
        raise vqcodec.FormatError("out of memory is only what its text says")


def test_a_panic_of_rust_is_caught() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(VqcodecError, match="unexpected PanicException"), boundary():
        raise panic("index out of range")
    assert "VQCODEC_DEBUG" in files.describe(UnexpectedError("unexpected X: y"), "a.vq2")


def test_limits_of_pillow_and_the_command_line(coded: bytes) -> None:
    Path("a.vq2").write_bytes(coded)
    for option in (["--max-pixels", "100"], ["--max-memory", "1kB"], ["--max-seconds", "1e-9"]):
        for command in (["decode", "a.vq2", "x.png"], ["verify", "a.vq2"], ["info", "--deep", "a.vq2"]):
            result = CliRunner().invoke(main, [*command, *option])
            assert result.exit_code == 1, command
            assert "limit" in result.stderr
    try:
        vqcodec.pillow_plugin.register(vqcodec.Limits(pixels=100))
        with pytest.raises(OSError, match="limit"):
            Image.open("a.vq2").load()
    finally:
        vqcodec.pillow_plugin.register()
    with Image.open("a.vq2") as opened:
        opened.limits = vqcodec.Limits(memory=1000)
        with pytest.raises(OSError, match="limit"):
            opened.load()
    assert Image.open("a.vq2").convert("L").size == (40, 24)


def test_verify_and_info_look_at_the_streams(coded: bytes) -> None:
    file = container.unpack(coded)
    first = file.streams[0]
    spoiled = container.pack(replace(file, streams=(bytes([first[0] ^ 1]) + first[1:], *file.streams[1:])))
    assert vqcodec.info(spoiled).file_bytes == len(coded)  # its checksums are right
    with pytest.raises(vqcodec.FormatError):
        vqcodec.verify(spoiled)
    alpha = drawn()
    alpha.putalpha(128)
    held = container.unpack(vqcodec.encode(alpha, effort=1))
    with pytest.raises(vqcodec.FormatError, match="alpha"):
        vqcodec.verify(container.pack(replace(held, alpha=held.alpha[:50])))
    whole = vqcodec.encode(drawn(), lossless=True)
    assert (vqcodec.verify(whole).deep, vqcodec.info(whole).deep) == (True, False)
    with pytest.raises(vqcodec.FormatError):
        vqcodec.verify(container.pack(replace(container.unpack(whole), lossless=b"\x2f")))

    Path("good.vq2").write_bytes(coded)
    Path("bad.vq2").write_bytes(spoiled)
    plain = CliRunner().invoke(main, ["info", "good.vq2", "bad.vq2"])
    assert plain.exit_code == 0
    assert plain.stdout.count("not decoded (--deep)") == 2
    deep = CliRunner().invoke(main, ["info", "--deep", "good.vq2", "bad.vq2", "--json"])
    assert deep.exit_code == 1
    assert [json.loads(line)["deep"] for line in deep.stdout.splitlines()] == [True]
    result = CliRunner().invoke(main, ["verify", "bad.vq2", "good.vq2"])
    assert result.exit_code == 1
    bad, good = result.stderr.splitlines()
    assert bad.startswith("vqcodec: error: bad.vq2: ")
    assert good.startswith(f"good.vq2: sound, 40 x 24 pixels, {len(coded)} bytes")
    assert CliRunner().invoke(main, ["verify", "--quiet", "good.vq2"]).stderr == ""
