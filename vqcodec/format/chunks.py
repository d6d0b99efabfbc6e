# SPDX-License-Identifier: Apache-2.0
"""The pieces that a `.vq2` file is made of: numbers, chunks and deflated blocks, each writer beside its reader.

A reader takes from a binary file object and raises `FormatError` for anything that its writer does not write.
None of them believes a length before the bytes are there.
"""

from __future__ import annotations

import zlib
from typing import IO, NamedTuple

from vqcodec.errors import FormatError

MAX_METADATA = 64 << 20
"""Largest inflated size of one block of metadata, in bytes."""

_PIECE = 1 << 20


class Chunk(NamedTuple):
    """A chunk whose CRC was right: its type, payload, and the bytes that it takes in the file."""

    letter: str
    payload: bytes
    size: int


def write_varint(value: int) -> bytes:
    """LEB128 of a number below 2^35: seven bits a byte, the lowest first, the top bit set on all but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(file: IO[bytes]) -> tuple[int, bytes]:
    """Read a varint, and the 1 to 5 bytes that it took."""
    encoded = b""
    value = 0
    for shift in range(0, 35, 7):
        byte = take(file, 1)
        encoded += byte
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            if shift and not byte[0]:
                raise FormatError("a number is not written in its shortest form")
            return value, encoded
    raise FormatError("a number takes more than 5 bytes")


def write_chunk(letter: str, payload: bytes) -> bytes:
    """Make a whole chunk: type, length, payload, CRC-32 over the three.

    Args:
        letter: the type.
        payload: the bytes.
    """
    body = letter.encode("ascii") + write_varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(4, "little")


def read_chunk(file: IO[bytes], *, limit: int | None = None, stop: str = "") -> Chunk | None:
    """Read the next chunk.

    Args:
        file: of chunks.
        limit: bytes that its payload may have; None: any number.
        stop: types to stop at.

    Returns: None when its type is one of `stop`.
    """
    kind = take(file, 1)
    if kind.decode("latin-1") in stop:
        return None
    length, encoded = read_varint(file)
    if limit is not None and length > limit:
        raise FormatError(f"a chunk of {length} bytes is too long here")
    payload = take(file, length)
    crc = int.from_bytes(take(file, 4), "little")
    if zlib.crc32(payload, zlib.crc32(kind + encoded)) != crc:
        raise FormatError("the file is damaged: a checksum does not match")
    if not kind.isalpha():  # for bytes, isalpha() means an ASCII letter
        raise FormatError(f"chunk type {kind[0]} is no letter")
    return Chunk(kind.decode("ascii"), payload, 1 + len(encoded) + length + 4)


def deflate(block: bytes) -> bytes:
    """Compress a block of metadata by zlib."""
    if len(block) > MAX_METADATA:
        raise FormatError(f"{len(block)} bytes of metadata are over the limit of {MAX_METADATA}")
    return zlib.compress(block, 9)


def inflate(payload: bytes) -> bytes:
    """Decompress the block that `deflate` compressed; stops at `MAX_METADATA` bytes, whatever the payload claims."""
    inflater = zlib.decompressobj()
    try:
        block = inflater.decompress(payload, MAX_METADATA)
        # A block of exactly the limit may leave the end of its stream unread.
        rest = b"" if inflater.eof else inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise FormatError(f"a metadata block cannot be inflated: {error}") from error
    if rest:
        raise FormatError(f"a metadata block is over the limit of {MAX_METADATA} bytes")
    if not inflater.eof or inflater.unused_data:
        raise FormatError("a metadata block is incomplete or too long")
    return block


def take(file: IO[bytes], length: int) -> bytes:
    """Read exactly so many bytes; in pieces, so that a false length never allocates more than the file holds.

    Args:
        file: to read from.
        length: bytes to read.
    """
    pieces = []
    while length:
        piece = file.read(min(length, _PIECE))
        if not piece:
            raise FormatError("the file is truncated")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
