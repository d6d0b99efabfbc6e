# SPDX-License-Identifier: Apache-2.0
"""Mutated files with repaired checksums, by hypothesis: nothing but VqcodecError comes out, in any way of opening."""

from __future__ import annotations

import io
import random
import time

import pytest
from click.testing import CliRunner
from conftest import ROOT, load_tool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from internals import load_npz
from PIL import Image

import vqcodec
import vqcodec.pillow_plugin  # noqa: F401
from vqcodec import VqcodecError
from vqcodec.cli import main

fuzz = load_tool("fuzz")
FOLDER = ROOT / "tests" / "hostile"
SOURCE = (FOLDER / "source.vq2").read_bytes()
INDICES = (FOLDER / "source.npz").read_bytes()
FILES = [SOURCE, *(path.read_bytes() for path in sorted((FOLDER / "files").glob("*.vq2")))]
ARCHIVES = [INDICES, *(path.read_bytes() for path in sorted((FOLDER / "files").glob("*.npz")))]
SECONDS = 5  # of processor time for one file, on a slow machine

seeds = st.integers(0, 2**32 - 1)
often = settings(max_examples=1000, deadline=None, database=None, derandomize=True,
                 suppress_health_check=list(HealthCheck))  # fmt: skip
seldom = settings(often, max_examples=150)


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    monkeypatch.setenv("VQCODEC_MODELS", str(FOLDER / "models"))


def attempt(open_it) -> str:
    """Whatever it gives is fine, but for an error of another class and a wait. Returns the error's words, if any."""
    start, said = time.process_time(), ""
    try:
        open_it()
    except VqcodecError as error:
        said = str(error)
    assert "\n" not in said
    assert time.process_time() - start < SECONDS
    return said


@often
@given(st.sampled_from(FILES), seeds)
def test_containers_with_repaired_checksums(data, seed):
    changed = fuzz.mutated_container(data, random.Random(seed))
    attempt(lambda: vqcodec.decode(changed, device="cpu"))
    attempt(lambda: vqcodec.info(changed))


@often
@given(st.binary(max_size=200), st.integers(0, len(SOURCE)), st.integers(0, len(SOURCE)))
def test_any_bytes_in_the_middle_of_a_file(noise, start, stop):
    attempt(lambda: vqcodec.decode(SOURCE[:start] + noise + SOURCE[stop:], device="cpu"))


@often
@given(st.lists(st.tuples(st.sampled_from([b"H", b"C", b"A", b"I", b"Z", b"z"]), st.binary(max_size=40)), max_size=5))
def test_any_chunks_behind_a_sound_header(chunks):
    head = fuzz.chunks_of(SOURCE)[0][1]
    attempt(lambda: vqcodec.decode(fuzz.file_of([(b"H", head[:-1] + fuzz.varint(len(chunks))), *chunks])))


@often
@given(st.integers(0, 255), st.integers(0, 2**35 - 1), st.integers(0, 2**35 - 1), st.binary(min_size=2, max_size=2))
def test_any_header_on_sound_streams(first, width, height, tradeoffs):
    (_, head), *streams = fuzz.chunks_of(SOURCE)
    changed = bytes([first]) + fuzz.varint(width) + fuzz.varint(height) + head[3:7] + tradeoffs + b"\2"
    attempt(lambda: vqcodec.decode(fuzz.file_of([(b"H", changed), *streams]), device="cpu"))


@often
@given(st.binary(max_size=40), st.binary(max_size=120), st.integers(1, 60), st.integers(1, 60), st.integers(0, 255))
def test_any_streams(first, second, width, height, rate):
    (_, head), *_ = fuzz.chunks_of(SOURCE)
    groups = -(-(-(-width // 16) * -(-height // 16)) // 16)
    whole = [(b"I", first[: len(first) // 4 * 4]), (b"I", second[: len(second) // 4 * 4])]
    changed = head[:1] + bytes([width, height]) + head[3:7] + bytes([rate, head[8], 2])
    attempt(lambda: vqcodec.decode(fuzz.file_of([(b"H", changed), *whole * groups]), device="cpu"))


@often
@given(st.sampled_from(ARCHIVES), seeds, st.booleans())
def test_archives_with_repaired_checksums(data, seed, raw):
    rng = random.Random(seed)
    changed = fuzz.mutated_bytes(data, rng) if raw else fuzz.mutated_npz(data, rng)
    attempt(lambda: vqcodec.from_indices(load_npz(changed), device="cpu"))


@seldom
@given(st.sampled_from(FILES[:10]), seeds)
def test_the_command_line_with_repaired_checksums(tmp_path_factory, data, seed):
    folder = tmp_path_factory.mktemp("fuzz")
    source, target = folder / "in.vq2", folder / "out.png"
    source.write_bytes(fuzz.mutated_container(data, random.Random(seed)))
    result = CliRunner().invoke(main, ["decode", str(source), str(target), "--device", "cpu"])
    assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code in (0, 1)
    assert target.exists() == (result.exit_code == 0)
    if result.exit_code:
        assert result.stderr.splitlines()[-1].startswith("vqcodec: error: ")


@seldom
@given(st.sampled_from(FILES[:10]), seeds)
def test_pillow_with_repaired_checksums(data, seed):
    changed = fuzz.mutated_container(data, random.Random(seed))
    try:
        Image.open(io.BytesIO(changed)).load()
    except (OSError, Image.DecompressionBombError):
        pass


def test_the_mutators_repair_what_they_change():
    rng = random.Random(0)
    assert fuzz.file_of(fuzz.chunks_of(SOURCE)) == SOURCE
    assert load_npz(fuzz.archive_of(fuzz.members_of(INDICES))).width == 21
    files = [fuzz.mutated_container(SOURCE, rng) for _ in range(200)]
    said = {attempt(lambda file=file: vqcodec.decode(file, device="cpu")) for file in files}
    assert not any("checksum" in words for words in said)
    assert len({words.split(" ")[0] for words in said}) > 7  # they come far
