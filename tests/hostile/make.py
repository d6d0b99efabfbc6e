# SPDX-License-Identifier: Apache-2.0
"""Write the corpus of hostile files beside this script: `python tests/hostile/make.py`. The same bytes every time.

New files, those that a fuzzer finds too, are added here by the smallest description that makes them.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "models" / "tiny.safetensors"
SOURCE = FOLDER / "source.vq2"  # a file of that model, 21x18 pixels, as it should be
INDICES = FOLDER / "source.npz"  # its indices

MAGIC = bytes.fromhex("89565132 0D0A1A0A")
WORD = bytes(4)
Chunks = list[tuple[bytes, bytes]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(4, "little")


def file_of(chunks: Chunks) -> bytes:
    return MAGIC + b"".join(chunk(*parts) for parts in chunks)


def header(
    identity: bytes,
    width: int = 21,
    height: int = 18,
    first: int = 0x12,
    rate: int = 0,
    tiling: int = 0x44,
    count: int = 2,
) -> tuple[bytes, bytes]:
    """A header chunk. first: version and mode."""
    return b"H", bytes([first]) + varint(width) + varint(height) + identity + bytes([rate, tiling]) + varint(count)


def split(data: bytes) -> Chunks:
    """The chunks of an undamaged file of chunks below 2^14 bytes."""
    chunks, at = [], len(MAGIC)
    while at < len(data):
        kind, length, size = data[at : at + 1], data[at + 1], 2
        if length > 127:
            length, size = length & 127 | data[at + 2] << 7, 3
        chunks.append((kind, data[at + size : at + size + length]))
        at += size + length + 4
    return chunks


def png(width: int, height: int, mode: int = 0) -> bytes:
    """A PNG file of one row of zeros, whatever it says. mode: PNG's colour type."""

    def part(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    head = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    body = part(b"IHDR", head) + part(b"IDAT", zlib.compress(bytes(width % 100 + 1), 0)) + part(b"IEND", b"")
    return bytes.fromhex("89504E47 0D0A1A0A") + body


def containers() -> Iterator[tuple[str, str, bytes]]:
    """Name, class of the error, and bytes of every .vq2 file."""
    source = SOURCE.read_bytes()
    (_, head), *streams = split(source)
    identity = head[3:7]
    sane = header(identity)
    assert sane[1] == head
    first, second = (payload for _, payload in streams)
    icc = (b"C", zlib.compress(b"profile", 0))

    def with_head(**fields: int) -> bytes:
        return file_of([header(identity, **fields), *streams])

    def with_chunks(*chunks: tuple[bytes, bytes], **fields: int) -> bytes:
        return file_of([header(identity, count=len(chunks), **fields), *chunks])

    def with_streams(a: bytes, b: bytes, **fields: int) -> bytes:
        return with_chunks((b"I", a), (b"I", b), **fields)

    format_errors = {
        "nothing": b"",
        "magic-only": MAGIC,
        "another-format": png(21, 18),
        "cut-in-the-header": source[:20],
        "cut-in-a-stream": source[:-9],
        "cut-by-a-byte": source[:-1],
        "a-byte-too-many": source + b"\0",
        "a-file-twice": source + source,
        "checksum-of-the-header": source[:10] + bytes([source[10] ^ 1]) + source[11:],
        "checksum-of-a-stream": source[:-5] + bytes([source[-5] ^ 128]) + source[-4:],
        "version-1": with_head(first=0x11),
        "version-3": with_head(first=0x13),
        "mode-4": with_head(first=0x42),
        "no-width": with_head(width=0),
        "no-height": with_head(height=0),
        "width-65536": with_head(width=65536),
        "pixels-over-2-28": with_head(width=65535, height=4097),
        "longest-varint": file_of([(b"H", head[:1] + b"\xff\xff\xff\xff\x7f" + head[2:]), *streams]),
        "varint-of-six-bytes": file_of([(b"H", head[:1] + b"\x95\x80\x80\x80\x80\x00" + head[2:]), *streams]),
        "varint-not-the-shortest": file_of([(b"H", head[:1] + b"\x95\x00" + head[2:]), *streams]),
        "header-too-long": file_of([(b"H", head + b"\0"), *streams]),
        "header-too-short": file_of([(b"H", head[:-1]), *streams]),
        "header-of-a-kilobyte": file_of([(b"H", head + bytes(1024)), *streams]),
        "no-header": file_of(streams),
        "two-headers": file_of([header(identity, count=3), sane, *streams]),
        "count-too-large": with_head(count=3),
        "count-too-small": with_head(count=1),
        "count-2-34": with_head(count=(1 << 35) - 1),
        "no-streams": with_chunks(),
        "three-streams": with_chunks(*streams, (b"I", b"")),
        "one-stream": with_chunks(streams[0]),
        "streams-swapped": with_chunks(streams[1], streams[0]),
        "stream-twice": with_chunks(streams[0], streams[0]),
        "stream-of-half-words": with_chunks((b"I", first + b"\0\0"), streams[1]),
        "length-beyond-the-file": source[: -len(second) - 5] + b"\xff\xff\xff\xff\x7f" + second,
        "unknown-critical": with_chunks((b"Z", b""), *streams),
        "type-no-letter": with_chunks((b"1", b""), *streams),
        "type-not-ascii": with_chunks((b"\xc4", b""), *streams),
        "skipped-with-a-bad-checksum": file_of([header(identity, count=3)]) + b"z\0\0\0\0\0" + source[-1:],
        "profile-twice": with_chunks(icc, icc, *streams),
        "profile-behind-streams": with_chunks(*streams, icc),
        "xmp-ahead-of-exif": with_chunks((b"X", icc[1]), (b"E", icc[1]), *streams),
        "profile-not-deflated": with_chunks((b"C", b"profile"), *streams),
        "profile-cut": with_chunks((b"C", icc[1][:-2]), *streams),
        "profile-with-a-tail": with_chunks((b"C", icc[1] + b"\0"), *streams),
        "profile-of-nothing": with_chunks((b"C", b""), *streams),
        "alpha-missing": with_chunks(*streams, first=0x32),
        "alpha-too-many": with_chunks((b"A", png(21, 18)), *streams),
        "alpha-no-png": with_chunks((b"A", b"alpha"), *streams, first=0x32),
        "alpha-cut": with_chunks((b"A", png(21, 18)[:50]), *streams, first=0x32),
        "alpha-of-another-size": with_chunks((b"A", png(22, 18)), *streams, first=0x32),
        "alpha-of-another-mode": with_chunks((b"A", png(21, 18, 2)), *streams, first=0x32),
        "alpha-of-65535x65535": with_chunks((b"A", png(65535, 65535)), *streams, first=0x32),
        "tiles-of-32768": with_head(tiling=0x4F),
        "tiles-of-a-pixel": with_head(tiling=0x40),
        "groups-of-32": with_head(tiling=0x54),
        "groups-of-32768": with_head(tiling=0xF4),
        "a-tile-a-group": with_head(tiling=0x04),
        "another-rate": with_head(rate=255),
        "another-size": with_head(width=48, height=48),
        "empty-streams": with_streams(b"", b""),
        "empty-streams-1000x1000": with_chunks(*[(b"I", b"")] * 498, width=1000, height=1000),
        "zeros": with_streams(WORD * 30, WORD * 90),
        "ones": with_streams(b"\xff" * 80, b"\xff" * 80),
        "a-spare-word": with_streams(first + WORD, second),
        "a-spare-word-at-the-end": with_streams(first, second + WORD),
        "a-word-too-few": with_streams(first, second[:-4]),
        "another-coding": with_streams(first[:-4] + bytes([first[-4] ^ 1]) + first[-3:], second),
        "streams-of-the-other-level": with_streams(second, first),
    }
    for name, data in format_errors.items():
        yield name, "FormatError", data
    yield "another-model", "ModelError", file_of([header(bytes(range(4))), *streams])
    yield "over-pillows-limit", "ImageError", with_head(width=65535, height=4000)


def arrays() -> dict[str, bytes]:
    """The members of `source.npz`, by name."""
    with zipfile.ZipFile(INDICES) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return file.getvalue()


def array(values: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=(1, 0))
    return file.getvalue()


def indices() -> Iterator[tuple[str, str, bytes]]:
    """Name, class of the error, and bytes of every .npz file."""
    source = arrays()
    level = np.load(io.BytesIO(source["level1.npy"]))
    long = np.arange(1 << 9, dtype=np.int64)

    def changed(**members: bytes) -> bytes:
        return zipped(source | {f"{name}.npy": data for name, data in members.items()})

    def text(value: str) -> bytes:
        return array(np.array(value))

    def shape(said: bytes) -> bytes:
        return source["level1.npy"].replace(str(level.shape).encode(), said)

    late = level.copy()
    late[0], late[-1] = 0, 1
    whole = changed()
    format_errors = {
        "no-zip": b"PK\x03\x04" + bytes(40),
        "empty-zip": zipped({}),
        "zip-cut": whole[:-30],
        "member-damaged": whole[:100] + bytes([whole[100] ^ 255]) + whole[101:],
        "a-level-missing": zipped({name: data for name, data in source.items() if name != "level1.npy"}),
        "bzip2": zipped(source, zipfile.ZIP_BZIP2),
        "pickled": changed(level1=source["level1.npy"].replace(b"'<u2'", b"'|O' ")),
        "floats": changed(level1=array(level.astype(np.float64))),
        "signed": changed(level1=array(level.astype(np.int16))),
        "big-endian": changed(level1=array(level.astype(">u2"))),
        "an-index-beyond-its-codes": changed(level1=array(np.full_like(level, 65535))),
        "an-index-behind-a-stop": changed(level1=array(late)),
        "a-map-too-few": changed(level1=array(level[:-1])),
        "shape-of-gigabytes": changed(level1=shape(b"(99999, 99999, 99999)")),
        "shape-longer-than-its-values": changed(level1=source["level1.npy"][:-2]),
        "shape-shorter-than-its-values": changed(level1=source["level1.npy"] + b"\0\0"),
        "width-negative": changed(width=array(np.int64(-21))),
        "width-least": changed(width=array(np.int64(-(2**63)))),
        "width-an-array": changed(width=array(long)),
        "width-text": changed(width=text("21")),
        "size-of-another-image": changed(width=array(np.int64(100))),
        "size-over-the-limit": changed(width=array(np.int64(60000)), height=array(np.int64(4000))),
        "strides-rising": changed(strides=array(np.array([4, 8]))),
        "strides-no-powers": changed(strides=array(np.array([9, 5]))),
        "strides-zero": changed(strides=array(np.array([0, 0]))),
        "a-level-more": changed(strides=array(np.array([16, 8, 4]))),
        "sixty-levels": changed(**{name: array(long[:60]) for name in (
            "strides", "codebooks", "codes", "dims", "stops", "products", "groups", "group_codes")}),
        "codebooks-2-62": changed(codebooks=array(np.array([1, 2**62]))),
        "groups-zero": changed(groups=array(np.array([1, 0]))),
        "codes-others": changed(codes=array(np.array([4096, 4096]))),
        "stop-2": changed(stops=array(np.array([2, 1]))),
        "identity-no-digits": changed(identity=text("g" * 8)),
        "identity-too-short": changed(identity=text("ab")),
        "model-of-control-characters": changed(model=text("a\x1b[2J")),
        "model-no-character": changed(model=text("ab").replace(b"a\0\0\0", b"\xff\xff\xff\xff")),
        "rate-256": changed(rate=array(np.int64(256))),
        "header-not-numpys": changed(width=source["width.npy"].replace(b"'descr'", b"'DESCR'")),
        "version-2": changed(width=source["width.npy"].replace(b"NUMPY\1", b"NUMPY\2")),
    }  # fmt: skip
    for name, data in format_errors.items():
        yield name, "FormatError", data
    yield "of-another-model", "ModelError", changed(identity=text("01234567"))


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """File name, class of the error, and bytes of all of them."""
    for name, error, data in containers():
        yield f"{name}.vq2", error, data
    for name, error, data in indices():
        yield f"{name}.npz", error, data


def main() -> None:
    expected = {}
    (FOLDER / "files").mkdir(exist_ok=True)
    for name, error, data in corpus():
        (FOLDER / "files" / name).write_bytes(data)
        expected[name] = error
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
