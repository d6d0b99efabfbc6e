# SPDX-License-Identifier: Apache-2.0
"""What is left of a damaged file: every chunk whose checksum is right, and which one of the file it is.

Knows neither torch nor numpy. After damage the next sound chunk is searched for. A chunk whose payload alone is damaged
counts as one that is lost; where an unknown number of chunks is missing, those behind are numbered from the end.
"""

from __future__ import annotations

import io
import string
from dataclasses import dataclass, field

from vqcodec.errors import FormatError
from vqcodec.format import container
from vqcodec.format.chunks import Chunk, inflate, read_chunk, read_varint, write_chunk, write_varint
from vqcodec.format.container import MAGIC, METADATA, Header

_LETTERS = "CEXALI"
_HEADER = 38  # bytes that magic and header chunk have at most
_SEARCHED = 32  # times the length of a file: so many bytes are hashed in search of a chunk
_CRC = 4


@dataclass
class Remains:
    """What is left.

    Args:
        header: as it is, or with one byte put right.
        count: of the chunks that follow the header.
        mended: whether a byte of the header, or the frame of a chunk, had to be put right.
        chunks: by position behind the header, those that are sound.
        damaged: by position, payloads of chunks whose checksum does not match, as far as they go.
    """

    header: Header
    count: int
    mended: bool = False
    chunks: dict[int, Chunk] = field(default_factory=dict)
    damaged: dict[int, bytes] = field(default_factory=dict)

    def metadata(self) -> tuple[dict[str, bytes], list[str]]:
        """Inflate the sound chunks of metadata.

        Returns: the blocks by field of `container.Head`; the letters of those that are sound and cannot be inflated.
        """
        blocks, lost = {}, []
        for chunk in self.chunks.values():
            if chunk.letter in METADATA:
                try:
                    blocks[METADATA[chunk.letter]] = inflate(chunk.payload)
                except FormatError:
                    lost.append(chunk.letter)
        return blocks, lost


@dataclass
class _Piece:
    """A chunk, sound or not; or a number of chunks that nobody knows."""

    chunk: Chunk | None = None
    payload: bytes = b""
    known: bool = True


def remains(data: bytes) -> Remains:
    """Take a damaged file apart. Raises `FormatError` if its header cannot be read, with one byte put right neither."""
    left, at = _header(data)
    pieces, whole = _pieces(data, at, left)
    numbered = list(enumerate(pieces))
    unknown = [i for i, piece in numbered if not piece.known]
    if unknown:
        first, last = unknown[0], unknown[-1]
        behind = [(left.count - len(pieces) + i, piece) for i, piece in numbered[last + 1 :]] if whole else []
        numbered = numbered[:first] + [pair for pair in behind if pair[0] >= first]
    for number, piece in numbered:
        if number < left.count and piece.chunk is not None:
            left.chunks[number] = piece.chunk
        elif number < left.count:
            left.damaged[number] = piece.payload
    return left


def _header(data: bytes) -> tuple[Remains, int]:
    """Header and number of chunks, and where the first of these begins."""
    head = MAGIC + data[len(MAGIC) : _HEADER]
    if (sound := _start(head)) is not None:
        return Remains(*sound[:2], mended=not data.startswith(MAGIC)), sound[2]
    for i in range(len(MAGIC), len(head)):
        for byte in range(256):
            if (sound := _start(head[:i] + bytes([byte]) + head[i + 1 :])) is not None:
                return Remains(*sound[:2], mended=True), sound[2]
    raise FormatError("the header cannot be read, and without it nothing can")


def _start(head: bytes) -> tuple[Header, int, int] | None:
    """Header, number of chunks and where they begin; None if the checksum does not match or it is no header."""
    chunk = _sound(head, len(MAGIC))
    if chunk is None or chunk.letter != "H":
        return None
    try:
        return container.read_start(io.BytesIO(head))
    except FormatError:
        return None


def _pieces(data: bytes, at: int, left: Remains) -> tuple[list[_Piece], bool]:
    """All that follows the header, and whether it goes to the end of the file."""
    pieces: list[_Piece] = []
    budget = _SEARCHED * len(data)
    while at < len(data) and len(pieces) < left.count:
        chunk = _sound(data, at)
        if chunk is not None:
            pieces.append(_Piece(chunk))
            at += chunk.size
            continue
        payload, end = _claimed(data, at)
        if end == len(data) or (end < len(data) and _sound(data, end) is not None):
            chunk = _framed_anew(data[at:end])
            left.mended |= chunk is not None
            pieces.append(_Piece(chunk, payload))
            at = end
            continue
        after, budget = _search(data, at + 1, budget)
        if after is None:
            pieces.append(_Piece(payload=payload))  # cut, or damaged to the end
            return pieces, False
        chunk = _framed_anew(data[at:after])
        left.mended |= chunk is not None
        one = chunk is not None or _payload_size(after - at) is not None
        pieces.append(_Piece(chunk, known=one))
        at = after
    return pieces, at == len(data)


def _sound(data: bytes, at: int) -> Chunk | None:
    """The chunk that begins there, None if there is none."""
    if at >= len(data) or chr(data[at]) not in string.ascii_letters:
        return None
    _, end = _claimed(data, at)
    if end > len(data):
        return None
    try:
        return read_chunk(io.BytesIO(data[at:end]))
    except FormatError:
        return None


def _claimed(data: bytes, at: int) -> tuple[bytes, int]:
    """The payload of a chunk by the length that it claims, and where it would end."""
    try:
        length, encoded = read_varint(io.BytesIO(data[at + 1 : at + 6]))
    except FormatError:
        return b"", len(data) + 1
    start = at + 1 + len(encoded)
    return data[start : start + length], start + length + _CRC


def _search(data: bytes, at: int, budget: int) -> tuple[int | None, int]:
    """Where the next sound chunk begins, and what is left of the bytes that may be hashed."""
    for start in range(at, len(data)):
        if chr(data[start]) not in _LETTERS:
            continue
        _, end = _claimed(data, start)
        if end > len(data):
            continue
        budget -= end - start
        if budget < 0:
            return None, budget
        if _sound(data, start) is not None:
            return start, budget
    return None, budget


def _payload_size(size: int) -> int | None:
    """The length of the payload of an index stream's chunk of that size; None if there is none."""
    for bytes_of_length in range(1, 6):
        length = size - 1 - bytes_of_length - _CRC
        if length >= 0 and len(write_varint(length)) == bytes_of_length:
            return length if length % 4 == 0 else None
    return None


def _framed_anew(damaged: bytes) -> Chunk | None:
    """The chunk whose letter or length is damaged and nothing else."""
    length = len(damaged) - 2 - _CRC
    while length >= 0 and 1 + len(write_varint(length)) + length + _CRC > len(damaged):
        length -= 1
    if length < 0 or 1 + len(write_varint(length)) + length + _CRC != len(damaged):
        return None
    payload = damaged[-_CRC - length : -_CRC]
    for letter in _LETTERS:
        if write_chunk(letter, payload)[-_CRC:] == damaged[-_CRC:]:
            return Chunk(letter, payload, len(damaged))
    return None
