# SPDX-License-Identifier: Apache-2.0
"""The files of PngSuite, drawn again: every depth, colour type, interlacing, filter, size, ancillary chunk and fault.

A name says what a file is: two letters and a digit for the feature, n or i for interlacing, a digit and a letter for
the colour type, two digits for the depth.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
KINDS = "0g01 0g02 0g04 0g08 0g16 2c08 2c16 3p01 3p02 3p04 3p08 4a08 4a16 6a08 6a16".split()
VALID = [
    *(f"bas{laced}{kind}" for laced in "ni" for kind in KINDS),
    *"bgai4a08 bgai4a16 bgan6a08 bgan6a16 bgbn4a08 bggn4a16 bgwn6a08 bgyn6a16".split(),
    *"ccwn2c08 ccwn3p08 cdfn2c08 cdhn2c08 cdsn2c08 cdun2c08 ch1n3p04 ch2n3p08 cm0n0g04 cm7n0g04 cm9n0g04".split(),
    *"cs3n2c16 cs3n3p08 cs5n2c08 cs5n3p08 cs8n2c08 cs8n3p08".split(),
    *"ct0n0g04 ct1n0g04 cten0g04 ctfn0g04 ctgn0g04 cthn0g04 ctjn0g04 ctzn0g04 exif2c08".split(),
    *(f"f0{i}n{kind}" for i in range(5) for kind in ("0g08", "2c08")), "f99n0g04",
    *(f"g{gamma}n{kind}" for gamma in ("03", "04", "05", "07", "10", "25") for kind in ("0g16", "2c08", "3p04")),
    *(f"oi{i}n{kind}" for i in (1, 2, 4, 9) for kind in ("0g16", "2c16")),
    *"pp0n2c16 pp0n6a08 ps1n0g08 ps1n2c16 ps2n0g08 ps2n2c16".split(),
    *(f"s{side:02}{laced}3p{1 if side < 5 else 2:02}" for side in range(1, 10) for laced in "in"),
    *(f"s{side}{laced}3p04" for side in range(32, 41) for laced in "in"),
    *"tbbn0g04 tbbn2c16 tbbn3p08 tbgn2c16 tbgn3p08 tbrn2c08 tbwn0g16 tbwn3p08 tbyn3p08 tm3n3p02".split(),
    *"tp0n0g08 tp0n2c08 tp0n3p08 tp1n3p08".split(),
    *"z00n2c08 z03n2c08 z06n2c08 z09n2c08".split(),
]  # fmt: skip
INVALID = "xc1n0g08 xc9n2c07 xcrn0g04 xcsn0g01 xd0n2c08 xd3n2c08 xd9n2c08 xdtn0g01 xhdn0g08 xlfn0g04".split()
INVALID += "xs1n0g01 xs2n0g01 xs4n0g01 xs7n0g01".split()


def chunk(name: bytes, data: bytes, fault: int = 0) -> bytes:
    """A chunk; fault: added to its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ fault)


def files() -> Iterator[tuple[str, bytes, bool]]:
    """Names, bytes, and whether they are valid."""
    for name in VALID:
        yield f"{name}.png", draw(name), True
    for name in INVALID:
        yield f"{name}.png", broken(name), False


def samples(width: int, height: int, kind: int, depth: int) -> NDArray[np.int64]:
    """Ramps: int64 [height, width, channels]."""
    y, x = np.mgrid[:height, :width]
    top = (1 << depth) - 1
    ramps = np.stack(
        [x * top // max(1, width - 1), y * top // max(1, height - 1), (x + y) * top // (width + height)], 2
    )
    if kind == 3:
        return ((x + y) % (1 << depth))[:, :, None]
    alpha = (x * top // max(1, width - 1))[:, :, None]
    return {0: ramps[:, :, :1], 2: ramps, 4: np.concatenate([ramps[:, :, 1:2], alpha], 2),
            6: np.concatenate([ramps, alpha], 2)}[kind]  # fmt: skip


def packed(values: NDArray[np.int64], depth: int, filters: tuple[int, ...]) -> bytes:
    """Rows with their filter bytes."""
    rows, before = b"", b""
    step = max(1, values.shape[2] * depth // 8)
    for number, row in enumerate(values):
        flat = row.ravel()
        if depth == 16:
            data = flat.astype(">u2").tobytes()
        elif depth == 8:
            data = flat.astype(np.uint8).tobytes()
        else:
            bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            data = np.packbits(bits.astype(np.uint8).ravel()).tobytes()
        kind = filters[number % len(filters)]
        rows += bytes([kind]) + filtered(kind, data, before or bytes(len(data)), step)
        before = data
    return rows


def filtered(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    """A row through one of the five filters."""
    left, corner = bytes(step) + row, bytes(step) + above
    result = []
    for i, value in enumerate(row):
        a, b, c = left[i], above[i], corner[i]
        near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
        result.append((value - (0, a, b, (a + b) // 2, near)[kind]) & 255)
    return bytes(result)


def image_data(values: NDArray[np.int64], depth: int, laced: bool, filters: tuple[int, ...]) -> bytes:
    """What IDAT chunks hold before they are compressed."""
    if not laced:
        return packed(values, depth, filters)
    passes = (values[top::down, left::across] for top, left, down, across in ADAM7)
    return b"".join(packed(part, depth, filters) for part in passes if part.size)


def parts(name: str) -> tuple[int, int, int, bool]:
    """Side, colour type, depth, and whether it is interlaced."""
    letter, kind, depth = name[3], int(name[4]), int(name[6:])
    side = int(name[1:3]) if re.match(r"s\d\d", name) else 32
    return side, kind, depth, letter == "i"


def header(side: int, kind: int, depth: int, laced: bool) -> bytes:
    return struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, laced)


def palette(depth: int) -> bytes:
    colours = 1 << depth
    return bytes(c for i in range(colours) for c in (i * 255 // max(1, colours - 1), 255 - i * 7 % 256, i * 37 % 256))


def draw(name: str) -> bytes:
    """A valid file."""
    side, kind, depth, laced = parts(name)
    filters = {"f0": (int(name[2]) if name[:2] == "f0" else 0,), "f9": (0, 1, 2, 3, 4)}.get(name[:2], (0,))
    data = image_data(samples(side, side, kind, depth), depth, laced, filters)
    level = int(name[2]) if name[0] == "z" else 6
    coded = zlib.compress(data, level)
    pieces = {"oi1": 1, "oi2": 2, "oi4": 4, "oi9": len(coded)}.get(name[:3], 1)
    size = -(-len(coded) // pieces)
    before, behind = ancillary(name, kind, depth)
    body = [chunk(b"IHDR", header(side, kind, depth, laced)), *before]
    if kind == 3:
        body.append(chunk(b"PLTE", palette(depth)))
    body += behind
    body += [chunk(b"IDAT", coded[i : i + size]) for i in range(0, len(coded), size)]
    return SIGNATURE + b"".join(body) + chunk(b"IEND", b"")


def ancillary(name: str, kind: int, depth: int) -> tuple[list[bytes], list[bytes]]:
    """The chunks before and behind a palette that a name stands for."""
    grey, top = kind in (0, 4), (1 << depth) - 1
    before, behind = [], []
    if name[0] == "g":
        gamma = {"03": 35000, "04": 45455, "05": 55556, "07": 70000, "10": 100000, "25": 250000}[name[1:3]]
        before.append(chunk(b"gAMA", struct.pack(">I", gamma)))
    if name[:3] == "ccw":
        before.append(chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)))
    if name[:2] == "cs":
        before.append(chunk(b"sBIT", bytes([int(name[2])] * (1 if kind == 0 else 3))))
    if name[:2] == "cd":
        across, down, unit = {"f": (1, 4, 0), "h": (4, 1, 0), "s": (1, 1, 0), "u": (1000, 1000, 1)}[name[2]]
        behind.append(chunk(b"pHYs", struct.pack(">IIB", across, down, unit)))
    if name[:2] == "ch":
        behind.append(chunk(b"hIST", struct.pack(f">{1 << depth}H", *range(1 << depth))))
    if name[:2] == "cm":
        behind.append(chunk(b"tIME", struct.pack(">HBBBBB", 2000, 1, 1, 12, 34, 56)))
    if name[:2] == "ct":
        behind += texts(name[2])
    if name.startswith("exif"):
        tag = struct.pack("<HHII", 274, 3, 1, 6)
        behind.append(chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0" + tag + bytes(4)))
    if name[:2] == "pp":
        before.append(chunk(b"PLTE", palette(8)))
    if name[:2] == "ps":
        wide = name[2] == "2"
        entries = b"".join(struct.pack(">4HH" if wide else ">4BH", i, 255 - i, 7, 255, i) for i in range(16))
        before.append(chunk(b"sPLT", b"suggested\0" + (b"\x10" if wide else b"\x08") + entries))
    if name[:2] == "bg" and name[2] != "a":
        behind.append(chunk(b"bKGD", struct.pack(">H" if grey else ">3H", *([top] * (1 if grey else 3)))))
    if name[0] == "t":
        one = 1 if grey else 3
        clear = b"\0\x80\xff" if kind == 3 else struct.pack(f">{one}H", *([0] * one))
        if name[:3] != "tp0":
            behind.append(chunk(b"tRNS", clear))
        if name[1] == "b":
            behind.append(chunk(b"bKGD", b"\0" if kind == 3 else struct.pack(f">{one}H", *([top] * one))))
    return before, behind


def texts(letter: str) -> list[bytes]:
    """Textual chunks: none, plain, compressed, international."""
    if letter == "0":
        return []
    if letter == "z":
        return [chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"PngSuite"))]
    if letter == "1":
        return [chunk(b"tEXt", b"Title\0PngSuite")]
    return [chunk(b"iTXt", b"Title\0\0\0en\0Titel\0" + f"Text {letter} ä".encode())]


def broken(name: str) -> bytes:
    """A file with a fault."""
    side, kind, depth, laced = 32, int(name[4]), min(8, int(name[6:]) + int(name[6:]) % 2 * (name[6:] == "07")), False
    fields = {"xc1": (1, 8), "xc9": (9, 8), "xd0": (2, 0), "xd3": (2, 3), "xd9": (2, 99)}
    said = fields.get(name[:3], (kind, depth))
    coded = zlib.compress(image_data(samples(side, side, kind, depth), depth, laced, (0,)))
    signature = SIGNATURE
    if name[:2] == "xs":
        place = int(name[2]) - 1
        signature = SIGNATURE[:place] + b"\0" + SIGNATURE[place + 1 :]
    if name.startswith("xcr"):
        signature = SIGNATURE.replace(b"\r\n", b"\r\r")
    if name.startswith("xlf"):
        signature = SIGNATURE.replace(b"\r\n", b"\n\n")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, said[1], said[0], 0, 0, 0), fault=name.startswith("xhd"))
    body = b"" if name.startswith("xdt") else chunk(b"IDAT", coded, fault=name.startswith("xcs"))
    return signature + head + body + chunk(b"IEND", b"")
