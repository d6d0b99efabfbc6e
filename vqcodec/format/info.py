# SPDX-License-Identifier: Apache-2.0
"""What a `.vq2` file holds and where its bytes went. Knows neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vqcodec.format import container


@dataclass(frozen=True)
class FileInfo:
    """A file, measured. Widths and heights are in pixels, sizes in bytes; `dataclasses.asdict` fits JSON.

    `bpp` is 8 * file_bytes / pixels, all bytes of the file counted; `bits_per_dim` divides that by the numbers that a
    pixel has: 1 in mode L, 2 in LA, 3 in RGB, 4 in RGBA. `level_bytes` are the index streams, `level_bits` the same in
    bits, the coarsest level first. These parts add up to `file_bytes`: header_bytes, metadata_bytes, alpha_bytes,
    lossless_bytes, the sum of level_bytes, and overhead_bytes (framing of the streams and chunks that readers skip).
    `metadata_bytes` in turn is icc_bytes + exif_bytes + xmp_bytes, each None where there is no such block. `rate` is
    the trade-off, 0 (the best pictures) to 255 (the smallest files), and 0 for a model that
    has no such range. A `lossless` file holds its picture itself, in few tones if it was a noisy scan: it has no model,
    levels, tiles and groups. `deep`: whether its streams were decoded, too (`damage.verify`), and not its checksums
    alone compared.
    """

    width: int
    height: int
    mode: str
    model_identity: str
    model_name: str | None
    file_bytes: int
    bpp: float
    bits_per_dim: float
    level_bits: tuple[int, ...]
    level_bytes: tuple[int, ...]
    header_bytes: int
    metadata_bytes: int
    alpha_bytes: int
    overhead_bytes: int
    icc_bytes: int | None
    exif_bytes: int | None
    xmp_bytes: int | None
    tile_size: int
    groups: int
    rate: int
    lossless: bool
    lossless_bytes: int
    deep: bool = False


def measured(data: bytes, model_name: Callable[[bytes], str | None] = lambda identity: None) -> FileInfo:
    """Measure a file; every checksum is checked.

    Args:
        data: its bytes.
        model_name: the name of the model of an identity, None if it is not installed.

    Raises `FormatError` if it is no undamaged `.vq2` file.
    """
    header = container.read_header(data)
    parts = container.layout(data)
    bpp = 8 * len(data) / (header.width * header.height)
    return FileInfo(
        width=header.width,
        height=header.height,
        mode=header.mode,
        model_identity=header.model.hex(),
        model_name=None if header.lossless else model_name(header.model),
        file_bytes=len(data),
        bpp=bpp,
        bits_per_dim=bpp / header.channels,
        level_bits=tuple(8 * size for size in parts.levels),
        level_bytes=parts.levels,
        header_bytes=parts.header,
        metadata_bytes=parts.icc + parts.exif + parts.xmp,
        alpha_bytes=parts.alpha,
        overhead_bytes=parts.framing + parts.ancillary,
        icc_bytes=parts.icc or None,
        exif_bytes=parts.exif or None,
        xmp_bytes=parts.xmp or None,
        tile_size=header.tile_size,
        groups=container.number_of_groups(header),
        rate=header.rate,
        lossless=header.lossless,
        lossless_bytes=parts.lossless,
    )


def describe(name: str, file: FileInfo) -> str:
    """Write what `vqcodec info` says of a file: lines of text.

    Args:
        name: of the file.
        file: what it holds.
    """
    model = "none, the picture is stored without loss"
    if not file.lossless:
        model = f"{file.model_name or 'not installed'} ({file.model_identity})"
    rows = [
        ("image", f"{file.width} x {file.height} pixels, {file.mode}"),
        ("model", model),
        ("file", f"{file.file_bytes} bytes, {file.bpp:.4f} bpp, {file.bits_per_dim:.4f} bits per dim"),
    ]
    if not file.lossless:
        rows.append(("trade-off", f"{file.rate} of 0 (best) to {container.MAX_RATE} (smallest) on the model's range"))
    rows.append(("header", f"{file.header_bytes} bytes"))
    blocks = (("ICC profile", file.icc_bytes), ("EXIF", file.exif_bytes), ("XMP", file.xmp_bytes))
    rows += [(label, f"{size} bytes") for label, size in blocks if size is not None]
    if file.alpha_bytes:
        rows.append(("alpha", f"{file.alpha_bytes} bytes"))
    if file.lossless:
        rows.append(("picture", f"{file.lossless_bytes} bytes"))
    for level, size in enumerate(file.level_bytes):
        rows.append((f"level {level}", f"{size} bytes, {8 * size} bits, {100 * size / file.file_bytes:.1f} %"))
    rows.append(("overhead", f"{file.overhead_bytes} bytes"))
    if not file.lossless:
        rows.append(("tiles", f"{file.tile_size} x {file.tile_size} pixels, {file.groups} group(s)"))
    unseen = "the picture was not opened" if file.lossless else "index streams and alpha were not decoded"
    rows.append(("checked", "every checksum, every index" if file.deep else f"every checksum; {unseen} (--deep)"))
    return "\n".join([name, *(f"  {label:<12}{text}" for label, text in rows)])
