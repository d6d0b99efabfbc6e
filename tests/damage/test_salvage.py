# SPDX-License-Identifier: Apache-2.0
"""What is left of damaged files: groups that are whole, coarse levels, numbers of streams, losses told."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, load_tool, staged_codec
from numpy.typing import NDArray
from PIL import Image

import vqcodec
from vqcodec.cli import main
from vqcodec.codec import Codec
from vqcodec.damage.salvage import GREY
from vqcodec.format import container
from vqcodec.format.container import stream_chunk
from vqcodec.format.remains import remains
from vqcodec.images import metrics
from vqcodec.model import tiling

fuzz = load_tool("fuzz")


@pytest.fixture
def coded(tiny: Codec, tiny_folder: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file with alpha and metadata of 12 groups, a tile each, of two levels."""
    monkeypatch.setattr(tiling, "GROUP_TILES", 1)
    image = Image.fromarray(photo[:180, :240])
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.info["xmp"] = b"<x:xmpmeta/>"
    return tiny.encode(image, effort=1)


def spans(data: bytes) -> list[tuple[int, int]]:
    """Where each chunk behind the header begins and ends."""
    _, _, at = container.read_start(open_bytes(data))
    out = []
    for kind, payload in fuzz.chunks_of(data)[1:]:
        size = 5 + len(fuzz.varint(len(payload))) + len(payload)
        assert data[at : at + 1] == kind
        out.append((at, at + size))
        at += size
    return out


def open_bytes(data: bytes) -> object:
    import io

    return io.BytesIO(data)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


def off(left: vqcodec.Salvaged, data: bytes) -> NDArray[np.int64]:
    """Largest difference of each pixel's colour, [H, W]."""
    whole = np.asarray(vqcodec.decode(data)).astype(int)
    return np.abs(np.asarray(left.image).astype(int) - whole)[:, :, :3].max(2)


def test_a_sound_file_has_no_losses(coded: bytes) -> None:
    left = vqcodec.salvage(coded)
    assert left.losses == ()
    assert left.image.tobytes() == vqcodec.decode(coded).tobytes()


@pytest.mark.parametrize("level", [0, 1])
def test_a_stream_that_is_lost(coded: bytes, level: int) -> None:
    """Group 5 of 12: what is far from it is as ever."""
    start, end = spans(coded)[2 + 5 * 2 + level]
    damaged = flipped(coded, (start + end) // 2)
    with pytest.raises(vqcodec.FormatError):
        vqcodec.decode(damaged)
    left = vqcodec.salvage(damaged)
    (loss,) = left.losses
    assert (loss.what, loss.levels) == ("pixels", level)
    assert loss.region is not None
    x, y, width, height = loss.region
    assert (width, height) == (64, min(64, 180 - y))
    there = np.zeros((180, 240), bool)
    there[max(0, y - 48) : y + height + 48, max(0, x - 48) : x + width + 48] = True
    assert off(left, coded)[~there].max() <= 1
    box = np.asarray(left.image)[y : y + height, x : x + width]
    assert (box[:, :, :3] == GREY).all() == (level == 0)
    assert (box[:, :, 3] == np.asarray(vqcodec.decode(coded))[y : y + height, x : x + width, 3]).all()
    assert left.image.info["xmp"] == b"<x:xmpmeta/>"


def test_frames_and_headers_are_mended(coded: bytes) -> None:
    chunks = spans(coded)
    at = chunks[7][0]
    for position in (at, at + 1, 0, 3, 9, 10, 12, chunks[0][0] - 1):
        damaged = flipped(coded, position)
        left = vqcodec.salvage(damaged)
        assert [loss.what for loss in left.losses] == ["metadata"], position
        assert "nothing is lost" in left.losses[0].text
        assert off(left, coded).max() <= 1
    with pytest.raises(vqcodec.FormatError, match="header"):
        vqcodec.salvage(flipped(flipped(coded, 10), 14))
    with pytest.raises(vqcodec.FormatError, match="header"):
        vqcodec.salvage(b"nothing of the kind" * 100)


def test_streams_keep_their_numbers(coded: bytes) -> None:
    """Cut out, put in, two chunks together: those before and behind are where they were."""
    chunks = spans(coded)
    whole = {i: coded[start:end] for i, (start, end) in enumerate(chunks)}
    a, b = chunks[8]
    cases = {
        "cut out": (coded[: a + 9] + coded[a + 16 :], {8}),
        "put in": (coded[: a + 9] + b"seven!!" + coded[a + 9 :], {8}),
        "three at once": (coded[: a + 5] + bytes(7) + coded[chunks[10][1] - 3 :], {8, 9, 10}),
        "cut at the end": (coded[: chunks[20][0] + 5], set(range(20, 26))),
        "cut between chunks": (coded[: chunks[20][0]], set(range(20, 26))),
        "noise behind": (coded + b"12345", set()),
    }
    for name, (damaged, lost) in cases.items():
        left = remains(damaged)
        assert left.count == len(chunks) == 26
        assert set(left.chunks) == set(whole) - lost, name
        for i, chunk in left.chunks.items():
            assert chunk.payload in whole[i]
            assert chunk.size == len(whole[i])
        assert vqcodec.salvage(damaged).image.size == (240, 180)


def test_alpha_and_metadata(coded: bytes) -> None:
    chunks = spans(coded)
    for i, what in ((0, "metadata"), (1, "alpha")):
        left = vqcodec.salvage(flipped(coded, chunks[i][1] - 6))
        assert [loss.what for loss in left.losses] == [what]
        assert off(left, coded).max() <= 1
        assert ("xmp" in left.image.info) == (what == "alpha")
        assert (np.asarray(left.image)[:, :, 3] == 255).all() == (what == "alpha")


def test_wrong_indices_behind_right_checksums(coded: bytes) -> None:
    file = container.unpack(coded)
    spoiled = [*file.streams]
    spoiled[3] = bytes(len(spoiled[3]))
    spoiled[4] = b""
    left = vqcodec.salvage(container.pack(replace(file, streams=tuple(spoiled))))
    assert [loss.levels for loss in left.losses] == [1, 0]


def test_the_coarse_levels_of_shipped_models(photo: NDArray[np.uint8]) -> None:
    """The finest stream is lost, or all but the coarsest: a picture all the same."""
    image = Image.fromarray(photo[:128, 100:228])
    for name, floors in (("vq2-light", (22, 17)), ("vq2-base", (19,))):
        data = vqcodec.encode(image, model=name, effort=1, quality=60, fallback=False)
        starts = [start for start, _ in spans(data)]
        for start, floor in zip(reversed(starts), floors, strict=False):
            left = vqcodec.salvage(data[:start])
            assert left.losses[0].levels == starts.index(start)
            assert metrics.psnr(np.asarray(image), np.asarray(left.image)) > floor
    with pytest.raises(vqcodec.FormatError, match="no index stream"):
        vqcodec.salvage(data[: starts[0]])


def test_levels_that_stop_need_no_preview(photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    codec = staged_codec("seven")
    monkeypatch.setattr("vqcodec.codec.load_identity", lambda identity, device: codec)
    monkeypatch.setattr("vqcodec.model.preview.make", None)
    data = codec.encode(Image.fromarray(photo[:60, :70]), effort=1)
    assert [loss.levels for loss in vqcodec.salvage(data[:-1]).losses] == [1, 1][:1]


def test_a_lossless_file(photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcodec.images.whole.features.check", lambda name: False)  # a PNG file
    image = Image.fromarray(photo[:100, :100])
    image.info["xmp"] = b"<x:xmpmeta/>"
    data = vqcodec.encode(image, lossless=True)
    left = vqcodec.salvage(data[: len(data) * 2 // 3])
    assert [loss.what for loss in left.losses] == ["picture"]
    assert left.image.info["xmp"] == b"<x:xmpmeta/>"
    assert (np.asarray(left.image)[:40] == np.asarray(image)[:40]).all()
    with pytest.raises(vqcodec.FormatError, match="nothing is left"):
        vqcodec.salvage(data[: spans(data)[1][0] + 9])


def test_decode_and_the_command_line(coded: bytes) -> None:
    damaged = coded[:-2]
    with pytest.warns(vqcodec.DamageWarning, match="blurred"):
        image = vqcodec.decode(damaged, best_effort=True)
    assert len(image.info["losses"]) == 1
    with pytest.warns(vqcodec.DamageWarning):
        assert vqcodec.decode([damaged], best_effort=True, region=(0, 0, 9, 8))[0].size == (9, 8)
    assert "losses" not in vqcodec.decode(coded, best_effort=True).info
    with pytest.raises(vqcodec.FormatError):
        vqcodec.decode(damaged)

    for name, data in (("good", coded), ("bad", damaged), ("none", b"no file")):
        Path(f"{name}.vq2").write_bytes(data)
    run = CliRunner().invoke
    assert run(main, ["decode", "bad.vq2", "a.png"]).exit_code == 1
    result = run(main, ["decode", "--best-effort", "bad.vq2", "a.png"])
    assert result.exit_code == 3
    assert result.stderr.startswith("vqcodec: warning: bad.vq2: the file is damaged: ")
    assert Image.open("a.png").size == (240, 180)
    assert run(main, ["decode", "--best-effort", "good.vq2", "b.png"]).exit_code == 0
    result = run(main, ["decode", "--best-effort", "bad.vq2", "good.vq2", "-O", "out", "--preview", "4"])
    assert (result.exit_code, result.stderr.splitlines()[-1].split(":")[0]) == (3, "2 of 2 files, 1 damaged")
    assert Image.open("out/bad.png").size == (60, 45)
    assert run(main, ["decode", "--best-effort", "-f", "bad.vq2", "none.vq2", "-O", "out"]).exit_code == 1


def test_nothing_but_errors_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = ROOT / "tests" / "hostile"
    monkeypatch.setenv("VQCODEC_MODELS", str(hostile / "models"))
    source, rng, pictures = (hostile / "source.vq2").read_bytes(), random.Random(0), 0
    limits = vqcodec.Limits(pixels=1 << 16, memory=1 << 30, seconds=10)
    for i in range(100):
        mutate = (fuzz.mutated_bytes, fuzz.mutated_container)[i % 2]
        try:
            pictures += bool(vqcodec.salvage(mutate(source, rng), limits=limits).losses)
        except vqcodec.VqcodecError:
            pass
    assert pictures > 20


def test_the_search_for_chunks_is_bounded(coded: bytes) -> None:
    """Many places that claim long chunks: hashed no more than a multiple of the file."""
    start = spans(coded)[2][0]
    noise = (b"I" + fuzz.varint(20_000)) * 6_000
    damaged = coded[:start] + noise + stream_chunk(b"")
    assert len(remains(damaged).chunks) >= 2
