# SPDX-License-Identifier: Apache-2.0
"""The picture that is left of a damaged file, and what is lost of it.

Groups of tiles do not depend on each other, and coarse levels not on fine ones. What is whole is decoded; where fine
levels are lost, the coarser ones give a blurred picture; where all are, it is grey.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from vqcodec import codec
from vqcodec.config import PREVIEW_SCALES
from vqcodec.errors import FormatError, boundary
from vqcodec.format import container
from vqcodec.format.remains import Remains, remains
from vqcodec.format.source import Source, contents
from vqcodec.images import imaging, whole
from vqcodec.images.imaging import Picture
from vqcodec.images.types import Pixels
from vqcodec.model import pixels, preview
from vqcodec.model.limits import DEFAULT_LIMITS, Limits
from vqcodec.stream import salvage as streams
from vqcodec.stream.part import Region

if TYPE_CHECKING:
    from vqcodec.model.maps import IndexMaps
    from vqcodec.model.model import Model


GREY = 128
"""Of what is lost altogether, in all channels."""

_BLOCKS = {"C": "ICC profile", "E": "EXIF", "X": "XMP"}
_truncated = threading.Lock()  # Pillow's setting is one for all threads


class Loss(NamedTuple):
    """Something that is lost.

    Args:
        what: pixels, picture (of a lossless file), alpha, or metadata.
        text: a sentence about it.
        region: x, y, width and height of the pixels that it is about; None for all, or for what is none.
        levels: of pixels, how many are left there; 0: they are grey.
    """

    what: str
    text: str
    region: Region | None = None
    levels: int = 0


@dataclass(frozen=True, eq=False)
class Salvaged:
    """What is left of a file: a picture as `vqcodec.decode` gives it, and all that is lost. Without losses it is the
    picture itself."""

    image: Image.Image
    losses: tuple[Loss, ...] = ()


@boundary()
def salvage(source: Source, *, device: str = "auto", limits: Limits = DEFAULT_LIMITS) -> Salvaged:
    """Decode what is left of a damaged file.

    Args:
        source: a .vq2 file: its path, its bytes, or an open binary file.
        device: auto (a GPU if there is one), cpu or cuda.
        limits: what it may cost.

    Returns: the picture, and what is lost of it.

    Raises:
        FormatError: the header cannot be read, or no part of the picture is left.
        ModelError: its model is not installed.
        ImageError: it would cost more than the limits.
        OSError: it cannot be read.
    """
    data = contents(source)
    try:
        return Salvaged(codec.decode(data, device=device, limits=limits))
    except FormatError:
        left = remains(data)
    head = left.header
    limits.check_pixels(head.width, head.height)
    losses: list[Loss] = []
    if head.lossless:
        picture = _lossless(left, losses)
    else:
        picture = _of_model(left, codec.load_identity(head.model, device), limits, losses)
    blocks = _metadata(left, losses)
    picture = replace(picture, icc=blocks.get("icc"), exif=blocks.get("exif"), xmp=blocks.get("xmp"))
    if not losses:
        losses.append(Loss("metadata", "the file was damaged where nothing depends on it: nothing is lost"))
    return Salvaged(imaging.to_pil(picture), tuple(losses))


def _metadata(left: Remains, losses: list[Loss]) -> dict[str, bytes]:
    """The blocks that are left, by field of `Picture`."""
    blocks, lost = left.metadata()
    losses.extend(Loss("metadata", f"the {_BLOCKS[letter]} is lost") for letter in lost)
    return blocks


def _lossless(left: Remains, losses: list[Loss]) -> Picture:
    """The picture of a lossless file, whose pixels may be wrong from the damage on."""
    last = left.count - 1
    _count_metadata(left, last, losses)
    payload = left.chunks[last].payload if last in left.chunks else left.damaged.get(last, b"")
    text = "the picture's checksum does not match: below the damage it is black or wrong"
    with _truncated:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            picture = whole.decode(payload, left.header)
        except FormatError as error:
            raise FormatError("nothing is left of the picture, which is stored without loss in one piece") from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    if last not in left.chunks:
        losses.append(Loss("picture", text, (0, 0, left.header.width, left.header.height)))
    return picture


def _of_model(left: Remains, model: Model, limits: Limits, losses: list[Loss]) -> Picture:
    """The picture of the streams that are left."""
    head, levels = left.header, len(model.priors)
    first = left.count - container.number_of_groups(head) * levels
    if first < 0:
        raise FormatError(f"{left.count} chunks are too few for the tiles of {head.width}x{head.height} pixels")
    _count_metadata(left, first - head.has_alpha, losses)
    held = {number - first: chunk.payload for number, chunk in left.chunks.items() if chunk.letter == "I"}
    maps, intact = streams.read(model, head, held, limits)
    if not any(intact):
        raise FormatError("no index stream is left that says anything")
    shown = _shown(model, maps, intact, head, losses)
    alpha = None
    if head.has_alpha:
        alpha = _alpha(left, first - 1, losses)
    return Picture(shown, alpha, head.mode)


def _count_metadata(left: Remains, number: int, losses: list[Loss]) -> None:
    """Report the blocks of metadata that are lost, of so many at the begin of the file."""
    lost = number - sum(position < number for position in left.chunks)
    if lost > 0:
        losses.append(Loss("metadata", f"{lost} block{'s' * (lost > 1)} of metadata lost: ICC profile, EXIF or XMP"))


def _alpha(left: Remains, number: int, losses: list[Loss]) -> Pixels:
    """The alpha channel, uint8 [H, W]; opaque if it is lost."""
    chunk, head = left.chunks.get(number), left.header
    try:
        if chunk is not None and chunk.letter == "A":
            return imaging.decode_alpha(chunk.payload, head.width, head.height)
    except FormatError:
        pass
    losses.append(Loss("alpha", "the alpha channel is lost: the picture is opaque"))
    return np.full((head.height, head.width), 255, np.uint8)


def _shown(model: Model, maps: IndexMaps, intact: list[int], head: container.Header, losses: list[Loss]) -> Pixels:
    """Pixels, uint8 [H, W, 3], of groups of which so many levels are left each."""
    configs, side = model.config.autoencoder.levels, model.tile_size
    tiling = model.tiling(0, head.width, head.height, head.group_tiles)
    made = pixels.make(model, maps, head.rate)
    small: dict[int, Pixels] = {}
    for levels, part in zip(intact, tiling.groups, strict=True):
        if levels == len(configs):
            continue
        boxes = []
        for tile in tiling.sequence[part]:
            row, column = divmod(tile, tiling.grid[1])
            boxes.append((column * side, row * side, min(head.width, (column + 1) * side),
                          min(head.height, (row + 1) * side)))  # fmt: skip
        for left, top, right, bottom in boxes:
            area = slice(top, bottom), slice(left, right)
            if not levels:
                made[area] = GREY
            elif not all(level.stop for level in configs[levels:]):  # whose index 0 is a code like any other
                if levels not in small:
                    small[levels] = _blurred(model, maps, levels, head.rate)
                made[area] = small[levels][area]
        losses.append(_loss(boxes, levels, len(configs)))
    return made


def _loss(boxes: list[tuple[int, int, int, int]], levels: int, of: int) -> Loss:
    """What became of a group of tiles."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    left, top, right, bottom = min(lefts), min(tops), max(rights), max(bottoms)
    where = f"{right - left}x{bottom - top} pixels at {left},{top}"
    text = f"{where} are blurred: {of - levels} of {of} levels lost" if levels else f"{where} are lost, and grey"
    return Loss("pixels", text, (left, top, right - left, bottom - top), levels)


def _blurred(model: Model, maps: IndexMaps, levels: int, tradeoff: int) -> Pixels:
    """The picture of the coarsest levels alone, at full size."""
    config = model.config.autoencoder
    scales = [scale for scale in PREVIEW_SCALES if preview.level_for(config, scale) == levels - 1]
    if not scales:
        return np.full((maps.height, maps.width, 3), GREY, np.uint8)
    scale = min(scales)
    small = Image.fromarray(preview.make(model, maps, scale, tradeoff))
    size = small.width * scale, small.height * scale
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))[: maps.height, : maps.width]
