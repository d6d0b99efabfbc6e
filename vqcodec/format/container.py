# SPDX-License-Identifier: Apache-2.0
"""The `.vq2` file format: bytes to its parts and back. Knows neither torch nor numpy.

    File   := magic(89 56 51 32 0D 0A 1A 0A) Chunk*
    Chunk  := type u8 (ASCII letter) | length varint | payload | CRC-32 u32 of type, length and payload

    'H' header    version and mode u8 (low nibble: the version, 2; high: the mode) | width varint | height varint |
                  model identity 4 bytes | rate u8, the trade-off |
                  tiling u8 (low nibble: log2 of the tile's side in pixels; high: log2 of tiles per group) |
                  number of chunks that follow, varint; a lossless file (mode + 8) has no identity, rate and tiling
    'C' 'E' 'X'   ICC profile, EXIF, XMP: each at most once, deflated (zlib)
    'A' alpha     a PNG of mode L, there exactly when the mode has alpha
    'L' lossless  the whole picture, alpha too, in place of 'A' and 'I': a PNG file, or a VP8L bitstream (WebP)
    'I' indices   range coder words, u32 each: one stream a group and level, group by group, coarsest level first

Everything is little-endian; a varint is LEB128, minimal, at most 5 bytes; the chunks come in this order
and nothing may follow the last. An upper-case type is critical (a reader that does not know it refuses the
file); a lower-case one is skipped once its CRC is checked. Every group of
neighbouring tiles has one stream per level.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from vqcodec.errors import FormatError
from vqcodec.format.chunks import Chunk, deflate, inflate, read_chunk, read_varint, take, write_chunk, write_varint
from vqcodec.timing import timed

MAGIC = b"\x89VQ2\r\n\x1a\n"
VERSION = 2
MODES = ("L", "RGB", "LA", "RGBA")
"""Mode names, at the index that the header stores."""

MAX_SIDE = 65535
"""Largest width and height, in pixels."""
MAX_PIXELS = 1 << 28
"""Largest width times height, in pixels."""

MAX_RATE = 255
"""Largest `Header.rate`."""

_MAX_HEADER = 64
IDENTITY_BYTES = 4
"""Length of `Header.model`."""

_WORD = 4
METADATA = {"C": "icc", "E": "exif", "X": "xmp"}
_PICTURES = {"A": "alpha", "L": "lossless"}
_ORDER = "CEXALI"
_LOSSLESS = 8  # in the nibble of the mode


@dataclass(frozen=True)
class Header:
    """What the first chunk says.

    Width and height are in pixels; `mode` is one of `MODES`; `model` is the identity of the model, the first
    4 bytes of the SHA-256 of its weights file; `tile_size` is in pixels; `group_tiles` is the number of tiles
    that share one stream per level; these two are powers of two up to 2^15. `rate` is the
    trade-off: where the lmbda lies in the model's range, from 0, the lowest (the best pictures), to 255, the highest
    (the smallest files); prior and decoder know it. It is 0 for a model that has no such range. `lossless`: the
    file holds the picture itself and no indices; then `model` is empty and the last three say nothing.
    """

    width: int
    height: int
    mode: str
    model: bytes
    tile_size: int = 256
    group_tiles: int = 16
    rate: int = 0
    lossless: bool = False

    @property
    def channels(self) -> int:
        """Numbers that a pixel has, alpha included: 1 to 4."""
        return len(self.mode)

    @property
    def has_alpha(self) -> bool:
        """Whether the file carries an alpha channel."""
        return self.mode.endswith("A")


@dataclass(frozen=True)
class Container:
    """A whole file, taken apart.

    `streams[group * levels + level]` holds range coder words, little-endian u32s; `alpha` is a PNG file of
    mode L; the metadata blocks are as they were in the source image, None where there was none. A lossless file has
    `lossless`, the payload of its chunk, and neither streams nor alpha.
    """

    header: Header
    streams: tuple[bytes, ...]
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    lossless: bytes | None = None

    @property
    def levels(self) -> int:
        """Number of index maps that each group of tiles has."""
        return len(self.streams) // max(1, number_of_groups(self.header))


@dataclass(frozen=True)
class Head:
    """The part of a file that can be known without its streams: header and metadata."""

    header: Header
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


@dataclass(frozen=True)
class Layout:
    """Where the bytes of a file went; the fields add up to its size.

    `header` counts the magic and the header chunk; `icc`, `exif`, `xmp`, `alpha` and `lossless` whole chunks;
    `levels` the range coder words of each level over all groups; `framing` what surrounds those words; `ancillary`
    the chunks that this version skips.
    """

    header: int
    icc: int
    exif: int
    xmp: int
    alpha: int
    levels: tuple[int, ...]
    framing: int
    ancillary: int
    lossless: int = 0

    @property
    def total(self) -> int:
        """Size of the file in bytes."""
        parts = self.header, self.icc, self.exif, self.xmp, self.alpha, self.framing, self.ancillary, self.lossless
        return sum(parts) + sum(self.levels)


def number_of_groups(header: Header) -> int:
    """Number of tile groups of an image with this header, at least 1; 0 in a lossless file."""
    if header.lossless:
        return 0
    across = -(-header.width // header.tile_size)
    down = -(-header.height // header.tile_size)
    return -(-across * down // header.group_tiles)


@timed("input and output")
def pack(container: Container) -> bytes:
    """Write a file.

    Raises `FormatError` where the parts do not fit together or break a limit of the format, so that whatever
    this returns can be read by `unpack`.
    """
    header = container.header
    _check_header(header)
    _check_parts(container)
    chunks = []
    for letter, name in METADATA.items():
        block: bytes | None = getattr(container, name)
        if block is not None:
            chunks.append(write_chunk(letter, deflate(block)))
    if container.alpha is not None:
        chunks.append(write_chunk("A", container.alpha))
    if container.lossless is not None:
        chunks.append(write_chunk("L", container.lossless))
    chunks.extend(map(stream_chunk, container.streams))
    return b"".join([MAGIC, write_chunk("H", _header_payload(header, len(chunks))), *chunks])


def stream_chunk(words: bytes) -> bytes:
    """Make the chunk of an index stream. Raises `FormatError` unless it is whole words."""
    return write_chunk("I", _whole_words(words))


@timed("input and output")
def unpack(data: bytes) -> Container:
    """Read a file back, checking every byte of it.

    Raises `FormatError` for anything but a complete, undamaged file of a known version.
    """
    return _parse(data)[0]


def layout(data: bytes) -> Layout:
    """Count the bytes of a file by what they are for; reads and checks as `unpack` does."""
    return _parse(data)[1]


def read_header(source: bytes | IO[bytes]) -> Header:
    """Read the header alone, from the first bytes of a file or a file object that stands at its start.

    Raises `FormatError` if that is no readable header; nothing after it is looked at.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return _read_start(file).header


def read_head(source: bytes | IO[bytes]) -> Head:
    """Read header and metadata, checked, and stop before alpha and index streams.

    Raises `FormatError` if that part of the file is damaged.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    start = _read_start(file)
    blocks: dict[str, bytes] = {}
    for chunk in _read_chunks(file, start.chunks, stop="ALI"):
        _take_metadata(chunk, blocks)
    return Head(start.header, **blocks)


def read_start(source: IO[bytes]) -> tuple[Header, int, int]:
    """Read the header, the number of the chunks that follow it, and the bytes up to these. Raises `FormatError` as
    `read_header`."""
    start = _read_start(source)
    return start.header, start.chunks, start.size


class _Start(NamedTuple):
    header: Header
    chunks: int
    size: int


def _parse(data: bytes) -> tuple[Container, Layout]:
    """Container and layout of a file, both from one pass over it."""
    file = io.BytesIO(data)
    start = _read_start(file)
    header = start.header
    blocks: dict[str, bytes] = {}
    pictures: dict[str, bytes] = {}
    streams: list[bytes] = []
    sizes = {"C": 0, "E": 0, "X": 0, "A": 0, "L": 0, "I": 0, "": 0}
    for chunk in _read_chunks(file, start.chunks):
        if chunk.letter == "I":
            streams.append(_whole_words(chunk.payload))
        elif chunk.letter in _PICTURES:
            pictures[_PICTURES[chunk.letter]] = chunk.payload
        else:
            _take_metadata(chunk, blocks)
        sizes["" if chunk.letter.islower() else chunk.letter] += chunk.size
    if file.tell() != len(data):
        raise FormatError(f"{len(data) - file.tell()} bytes follow the last chunk")
    container = Container(header, tuple(streams), **pictures, **blocks)
    _check_parts(container)
    levels = container.levels
    words = tuple(sum(map(len, streams[level::levels])) for level in range(levels))
    parts = Layout(
        header=start.size, icc=sizes["C"], exif=sizes["E"], xmp=sizes["X"], alpha=sizes["A"],
        levels=words, framing=sizes["I"] - sum(words), ancillary=sizes[""], lossless=sizes["L"],
    )  # fmt: skip
    return container, parts


def _header_payload(header: Header, count: int) -> bytes:
    tiling = (header.tile_size.bit_length() - 1) | (header.group_tiles.bit_length() - 1) << 4
    mode = MODES.index(header.mode) | _LOSSLESS * header.lossless
    size = write_varint(header.width) + write_varint(header.height)
    coding = b"" if header.lossless else header.model + bytes([header.rate, tiling])
    return bytes([VERSION | mode << 4]) + size + coding + write_varint(count)


def _read_start(file: IO[bytes]) -> _Start:
    """Magic and header chunk, with the number of bytes that they take."""
    for expected in MAGIC:
        if file.read(1) != bytes([expected]):
            raise FormatError("not a .vq2 file")
    chunk = read_chunk(file, limit=_MAX_HEADER)
    if chunk is None or chunk.letter != "H":
        raise FormatError("the file does not begin with a header")
    payload = io.BytesIO(chunk.payload)
    first = take(payload, 1)[0]
    version, mode, lossless = first & 15, first >> 4 & ~_LOSSLESS, bool(first >> 4 & _LOSSLESS)
    if version == 1:
        raise FormatError(
            "the file is written in version 1 of the format by an early vqcodec, which this version no longer reads: "
            "decode it with that one"
        )
    if version != VERSION:
        raise FormatError(f"format version {version} is not known here: a newer vqcodec is needed")
    if mode >= len(MODES):
        raise FormatError(f"unknown image mode {mode}")
    width, _ = read_varint(payload)
    height, _ = read_varint(payload)
    header = Header(width, height, MODES[mode], b"", lossless=True)
    if not lossless:
        model = take(payload, IDENTITY_BYTES)
        rate, tiling = take(payload, 2)
        header = Header(width, height, MODES[mode], model, 1 << (tiling & 15), 1 << (tiling >> 4), rate)
    count, _ = read_varint(payload)
    if payload.read(1):
        raise FormatError("the header is longer than it should be")
    _check_header(header)
    return _Start(header, count, len(MAGIC) + chunk.size)


def _check_header(header: Header) -> None:
    if header.mode not in MODES:
        raise FormatError(f"mode {header.mode!r} is none of {', '.join(MODES)}")
    if not (1 <= header.width <= MAX_SIDE and 1 <= header.height <= MAX_SIDE):
        raise FormatError(f"{header.width}x{header.height} pixels: each side must be 1 to {MAX_SIDE}")
    if header.width * header.height > MAX_PIXELS:
        raise FormatError(f"{header.width}x{header.height} is over the limit of {MAX_PIXELS} pixels")
    if len(header.model) != (0 if header.lossless else IDENTITY_BYTES):
        raise FormatError(f"a model identity has {IDENTITY_BYTES} bytes, 0 without a model, not {len(header.model)}")
    if not 0 <= header.rate <= MAX_RATE:
        raise FormatError(f"the trade-off must be 0 to {MAX_RATE}, not {header.rate}")
    for name, value in ("tile size", header.tile_size), ("tiles per group", header.group_tiles):
        if value not in {1 << exponent for exponent in range(16)}:
            raise FormatError(f"{name} {value} is no power of two up to 2^15")


def _check_parts(container: Container) -> None:
    """Raise FormatError unless there is what the header promises, and nothing else."""
    header, number = container.header, len(container.streams)
    if header.lossless or container.lossless is not None:
        if not header.lossless or container.lossless is None or number or container.alpha is not None:
            raise FormatError("a lossless file has its picture in one chunk, any other file has no such chunk")
        return
    groups = number_of_groups(header)
    if number == 0 or number % groups:
        raise FormatError(f"{number} index streams for {groups} group{'s' * (groups > 1)} of tiles")
    if (container.alpha is not None) != header.has_alpha:
        alpha = "without" if container.alpha is None else "with"
        raise FormatError(f"mode {header.mode} {alpha} an alpha channel")


def _read_chunks(file: IO[bytes], count: int, stop: str = "") -> Iterator[Chunk]:
    """The `count` chunks after the header, in the order that the format asks for, up to a type in `stop`."""
    previous = ""
    for _ in range(count):
        chunk = read_chunk(file, stop=stop)
        if chunk is None:
            return
        if chunk.letter.isupper():
            if chunk.letter not in _ORDER:
                raise FormatError(f"chunk '{chunk.letter}' is not known here: a newer vqcodec is needed")
            repeated = chunk.letter == previous and chunk.letter != "I"
            if repeated or _ORDER.find(chunk.letter) < _ORDER.find(previous):
                raise FormatError(f"chunk '{chunk.letter}' is repeated or out of order")
            previous = chunk.letter
        yield chunk


def _take_metadata(chunk: Chunk, blocks: dict[str, bytes]) -> None:
    """Store the block of a metadata chunk under its name; leave any other chunk alone."""
    if chunk.letter in METADATA:
        blocks[METADATA[chunk.letter]] = inflate(chunk.payload)


def _whole_words(words: bytes) -> bytes:
    if len(words) % _WORD:
        raise FormatError(f"an index stream of {len(words)} bytes is not a whole number of words")
    return words
