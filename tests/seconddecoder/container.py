# SPDX-License-Identifier: Apache-2.0
"""Reads the container of a `.vq2` file: docs/format.md, "File", "Header" and "What a decoder must do with it"."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

MAGIC = bytes.fromhex("89565132 0D0A1A0A")
ORDER = "CEXAI"
MODES = ("L", "RGB", "LA", "RGBA")


@dataclass(frozen=True)
class File:
    """width, height: pixels. tile_size: pixels; group_tiles: tiles of a group. streams: by group, then by level."""

    width: int
    height: int
    mode: str
    model: bytes
    rate: int
    tile_size: int
    group_tiles: int
    streams: tuple[bytes, ...]


class Bytes:
    """Takes numbers off the front of some bytes. Raises ValueError where there are too few of them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise ValueError("the file is cut")
        self.at += length
        return self.data[self.at - length : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for i in range(5):
            byte = self.byte()
            value |= (byte & 127) << 7 * i
            if byte < 128:
                if i and not byte:
                    raise ValueError("a varint is not in its shortest form")
                return value
        raise ValueError("a varint has more than 5 bytes")


def read(data: bytes) -> File:
    """The bytes of a file -> its parts. Raises ValueError on anything but a whole file of version 2."""
    file = Bytes(data)
    if file.take(8) != MAGIC:
        raise ValueError("no .vq2 file")
    letter, payload = _chunk(file)
    if letter != "H":
        raise ValueError("no header")
    head = Bytes(payload)
    version_mode = head.byte()
    if version_mode & 15 != 2 or version_mode >> 4 > 3:
        raise ValueError("not version 2, or an unknown mode")
    width, height = head.varint(), head.varint()
    if not (0 < width < 65536 and 0 < height < 65536 and width * height <= 1 << 28):
        raise ValueError("a size beyond the limits")
    model, rate, tiling, count = head.take(4), head.byte(), head.byte(), head.varint()
    if head.left:
        raise ValueError("a longer header")
    mode = MODES[version_mode >> 4]
    streams = _streams(file, count, "A" in mode)
    return File(width, height, mode, model, rate, 1 << (tiling & 15), 1 << (tiling >> 4), streams)


def _chunk(file: Bytes) -> tuple[str, bytes]:
    """The next chunk: its type and its payload."""
    start = file.at
    kind = file.take(1)
    payload = file.take(file.varint())
    if zlib.crc32(file.data[start : file.at]) != int.from_bytes(file.take(4), "little"):
        raise ValueError("a checksum does not match")
    if not kind.isalpha():
        raise ValueError("a type that is no letter")
    return kind.decode("ascii"), payload


def _streams(file: Bytes, count: int, alpha: bool) -> tuple[bytes, ...]:
    """The words of all index streams, from the chunks behind the header; all others are only checked."""
    letters, streams = "", []
    for _ in range(count):
        letter, payload = _chunk(file)
        if letter.islower():
            continue
        if letter not in ORDER:
            raise ValueError(f"an unknown critical chunk, {letter}")
        letters += letter
        if letter == "I":
            stream = Bytes(payload)
            if stream.left % 4:
                raise ValueError("a stream of no whole words")
            streams.append(stream.take(stream.left))
    if file.left:
        raise ValueError("bytes behind the last chunk")
    once = letters.rstrip("I")
    if "".join(sorted(once, key=ORDER.find)) != once or len(set(once)) != len(once) or ("A" in once) != alpha:
        raise ValueError("chunks out of order, repeated, or an alpha channel where the mode has none")
    return tuple(streams)
