# SPDX-License-Identifier: Apache-2.0
"""The file format: round trips, damage of every kind, and what it costs in bytes."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace

import pytest

from vqcodec.errors import FormatError
from vqcodec.format import chunks, container
from vqcodec.format.container import Container, Header
from vqcodec.format.info import describe
from vqcodec.model.info import info

IDENTITY = bytes(range(4))
HEADER = Header(500, 300, "RGB", IDENTITY)
PLAIN = Container(HEADER, (b"\x01\x02\x03\x04" * 3, b"\x05\x06\x07\x08" * 5))
FULL = Container(
    Header(257, 70, "RGBA", IDENTITY, 64, 4, 200),
    tuple(bytes([n]) * 4 * n for n in range(6)),
    alpha=b"\x89PNG of some kind",
    icc=b"profile" * 20,
    exif=b"Exif\0\0MM\0*",
    xmp=b"<x/>",
)


def rebuilt(*parts: bytes) -> bytes:
    """A file from hand-made chunks after the header of `PLAIN`."""
    payload = container._header_payload(HEADER, len(parts))
    return container.MAGIC + chunks.write_chunk("H", payload) + b"".join(parts)


def stream(words: bytes = b"abcd") -> bytes:
    return chunks.write_chunk("I", words)


def header_file(payload: bytes) -> bytes:
    return container.MAGIC + chunks.write_chunk("H", payload)


@pytest.mark.parametrize("whole", [PLAIN, FULL], ids=["plain", "full"])
def test_round_trip(whole: Container) -> None:
    data = container.pack(whole)
    assert container.unpack(data) == whole
    assert container.read_header(data) == whole.header
    assert container.pack(container.unpack(data)) == data


@pytest.mark.parametrize("mode", container.MODES)
@pytest.mark.parametrize("size", [(1, 1), (65535, 1), (1, 65535), (16384, 16384)])
def test_headers(mode: str, size: tuple[int, int]) -> None:
    header = Header(*size, mode, IDENTITY, 32768, 32768)
    data = container.pack(Container(header, (b"",), alpha=b"a" if mode.endswith("A") else None))
    assert container.read_header(data[:64]) == header
    assert container.unpack(data).header == header


def test_head_reads_metadata_and_stops_before_the_rest() -> None:
    data = container.pack(FULL)
    cut = data[: data.index(FULL.alpha or b"")]
    head = container.read_head(io.BytesIO(cut))
    assert (head.header, head.icc, head.exif, head.xmp) == (FULL.header, FULL.icc, FULL.exif, FULL.xmp)
    assert container.read_head(container.pack(PLAIN)).exif is None


def test_head_of_a_file_that_gives_few_bytes_at_a_time_and_cannot_seek() -> None:
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 3))

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

    assert container.read_head(Pipe(container.pack(FULL))).icc == FULL.icc


@pytest.mark.parametrize("whole", [PLAIN, FULL], ids=["plain", "full"])
def test_every_changed_byte_is_noticed(whole: Container) -> None:
    data = container.pack(whole)
    for position in range(len(data)):
        for change in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= change
            with pytest.raises(FormatError):
                container.unpack(bytes(damaged))


@pytest.mark.parametrize("whole", [PLAIN, FULL], ids=["plain", "full"])
def test_every_truncation_is_noticed(whole: Container) -> None:
    data = container.pack(whole)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            container.unpack(data[:length])


def test_trailing_bytes() -> None:
    with pytest.raises(FormatError, match="1 bytes follow"):
        container.unpack(container.pack(PLAIN) + b"\0")
    with pytest.raises(FormatError, match="follow"):
        container.unpack(container.pack(PLAIN) + stream())


def test_overhead_is_at_most_48_bytes() -> None:
    header = Header(6000, 4000, "RGB", IDENTITY)
    streams = tuple(bytes(length) for length in (4_000, 12_000, 60_000))  # a group of 16 tiles
    assert len(container.pack(Container(header, streams * container.number_of_groups(header)))) <= (
        26 + 1 + container.number_of_groups(header) * (22 + sum(map(len, streams)))
    )
    header = Header(768, 512, "RGB", IDENTITY)
    assert len(container.pack(Container(header, streams))) - sum(map(len, streams)) <= 48


@pytest.mark.parametrize("whole", [PLAIN, FULL], ids=["plain", "full"])
def test_layout_adds_up(whole: Container) -> None:
    data = container.pack(whole)
    parts = container.layout(data)
    assert parts.total == len(data)
    assert sum(parts.levels) == sum(map(len, whole.streams))
    assert len(parts.levels) == whole.levels


def test_layout_counts_levels_over_groups() -> None:
    assert container.number_of_groups(FULL.header) == 3  # 5 x 2 tiles of 64 pixels, 4 to a group
    assert FULL.levels == 2
    assert container.layout(container.pack(FULL)).levels == (0 + 8 + 16, 4 + 12 + 20)


@pytest.mark.parametrize(
    "hostile",
    [b"", b"\x80", b"\x80\x00", b"\xff\x00", b"\x80\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff\xff", b"\x80" * 1000],
)
def test_hostile_numbers(hostile: bytes) -> None:
    with pytest.raises(FormatError):
        chunks.read_varint(io.BytesIO(hostile))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**32, 2**35 - 1])
def test_numbers(value: int) -> None:
    encoded = chunks.write_varint(value)
    assert chunks.read_varint(io.BytesIO(encoded + b"\x01")) == (value, encoded)


def test_a_false_length_allocates_nothing() -> None:
    class Watched(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            self.largest = max(self.largest, size or 0)
            return super().read(size)

    data = rebuilt()[:-1]
    file = Watched(rebuilt(b"C" + chunks.write_varint(2**35 - 1) + b"x" * 100))
    with pytest.raises(FormatError, match="truncated"):
        container.read_head(file)
    assert 0 < file.largest <= 1 << 20
    with pytest.raises(FormatError, match="too long"):
        container.read_header(container.MAGIC + b"H" + chunks.write_varint(2**30) + data)


def test_inflating_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_METADATA", 1000)
    assert chunks.inflate(zlib.compress(b"\0" * 1000)) == b"\0" * 1000
    with pytest.raises(FormatError, match="over the limit"):
        chunks.inflate(zlib.compress(b"\0" * 1001))
    with pytest.raises(FormatError, match="over the limit"):
        chunks.deflate(b"\0" * 1001)


@pytest.mark.parametrize(
    "payload", [b"", b"no zlib", zlib.compress(b"x" * 100)[:-1], zlib.compress(b"x") + b"more", zlib.compress(b"")[:3]]
)
def test_broken_metadata(payload: bytes) -> None:
    data = rebuilt(chunks.write_chunk("X", payload), stream())
    for read in (container.unpack, container.read_head):
        with pytest.raises(FormatError, match="metadata"):
            read(data)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "0 index streams"),
        ([stream(b"abc")], "whole number of words"),
        ([b"I\x84\x00abcd" + zlib.crc32(b"I\x84\x00abcd").to_bytes(4, "little")], "shortest"),
        ([chunks.write_chunk("Q", b""), stream()], "'Q' is not known"),
        ([chunks.write_chunk("H", b""), stream()], "'H' is not known"),
        ([chunks.write_chunk("1", b""), stream()], "no letter"),
        ([chunks.write_chunk("A", b"png"), stream()], "with an alpha"),
        ([stream(), chunks.write_chunk("C", zlib.compress(b"late"))], "out of order"),
        ([chunks.write_chunk(x, zlib.compress(b"x")) for x in "EC"] + [stream()], "out of order"),
        ([chunks.write_chunk(x, zlib.compress(b"x")) for x in "EE"] + [stream()], "repeated"),
    ],
)
def test_wrong_chunks(parts: list[bytes], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        container.unpack(rebuilt(*parts))


def test_lower_case_chunks_are_skipped() -> None:
    data = rebuilt(chunks.write_chunk("q", b"later"), stream(), chunks.write_chunk("q", b""), stream())
    assert container.unpack(data).streams == (b"abcd", b"abcd")
    assert container.layout(data).ancillary == 6 + 5 + 6
    assert container.layout(data).total == len(data)


def test_chunk_count_must_match() -> None:
    payload = container._header_payload(HEADER, 2**35 - 1)
    with pytest.raises(FormatError, match="truncated"):
        container.unpack(header_file(payload) + stream())


@pytest.mark.parametrize("first", [0x03, 0x42], ids=["version", "mode"])
def test_unknown_header_values(first: int) -> None:
    payload = bytearray(container._header_payload(HEADER, 1))
    assert payload[0] == 0x12  # version 2, mode RGB
    payload[0] = first
    with pytest.raises(FormatError, match="version 3|mode 4"):
        container.read_header(header_file(bytes(payload)))


def test_version_1_is_refused_with_advice() -> None:
    old = bytes([1, 1]) + b"\xf4\x03\xac\x02" + bytes(8) + bytes([0x48, 2])  # 500 x 300, as version 1 wrote it
    for read in (container.read_header, container.read_head, container.unpack):
        with pytest.raises(FormatError, match="version 1 .* no longer reads: decode it with that one"):
            read(header_file(old))


@pytest.mark.parametrize("rate", [0, 1, 127, 255])
def test_the_tradeoff(rate: int) -> None:
    data = container.pack(replace(PLAIN, header=replace(HEADER, rate=rate)))
    assert container.read_header(data).rate == container.unpack(data).header.rate == rate
    assert (info(data).rate, f"trade-off   {rate} of" in describe("a.vq2", info(data))) == (rate, True)


def test_header_of_wrong_length() -> None:
    payload = container._header_payload(HEADER, 1)
    for wrong in (payload + b"\0", payload[:-1], b""):
        with pytest.raises(FormatError):
            container.read_header(header_file(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(PLAIN, header=replace(HEADER, width=0)),
        replace(PLAIN, header=replace(HEADER, height=65536)),
        replace(PLAIN, header=replace(HEADER, width=16385, height=16385, tile_size=32768)),
        replace(PLAIN, header=replace(HEADER, mode="CMYK")),
        replace(PLAIN, header=replace(HEADER, model=b"short")),
        replace(PLAIN, header=replace(HEADER, tile_size=100)),
        replace(PLAIN, header=replace(HEADER, group_tiles=0)),
        replace(PLAIN, header=replace(HEADER, rate=-1)),
        replace(PLAIN, header=replace(HEADER, rate=256)),
        replace(PLAIN, header=replace(HEADER, mode="LA")),
        replace(PLAIN, alpha=b"png"),
        replace(PLAIN, streams=()),
        replace(PLAIN, streams=(b"abc",)),
        replace(FULL, streams=FULL.streams[:-1]),
    ],
)
def test_pack_refuses_what_unpack_would(wrong: Container) -> None:
    with pytest.raises(FormatError):
        container.pack(wrong)


@pytest.mark.parametrize("data", [b"", b"\x89VQ2", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"GIF89a"])
def test_other_files(data: bytes) -> None:
    for read in (container.unpack, container.read_header, container.read_head):
        with pytest.raises(FormatError, match="not a .vq2 file"):
            read(data)
