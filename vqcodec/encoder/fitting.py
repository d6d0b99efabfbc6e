# SPDX-License-Identifier: Apache-2.0
"""An image as streams: at a weight of a bit, or as the largest file of at most so many bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vqcodec.encoder.choice import Chooser
from vqcodec.encoder.request import scale
from vqcodec.encoder.target import search
from vqcodec.errors import ImageError
from vqcodec.format import container
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.stream.writer import compress


@dataclass(frozen=True, eq=False)
class Encoded:
    """Index maps of an image, their streams, and the trade-off that they were chosen for, 0 to 255."""

    maps: IndexMaps
    streams: list[bytes]
    tradeoff: int


def at(model: Model, chooser: Chooser, lmbda: float, rough: bool = False) -> Encoded:
    """Choose and compress at a weight of a bit. rough: with the lowest effort."""
    maps = chooser.rough(lmbda) if rough else chooser.maps(lmbda)
    tradeoff = model.tradeoff(lmbda)
    return Encoded(maps, compress(model, maps, tradeoff), tradeoff)


def within(model: Model, chooser: Chooser, target: float, pack: Callable[[Encoded], bytes]) -> Encoded:
    """The largest file of at most `target` bytes that was made. Raises ImageError if none is so small.

    Args:
        model: to encode with.
        chooser: of the image.
        target: bytes.
        pack: makes the file, metadata and all.
    """
    scale(model.config.lmbdas)
    empty = [b""] * (len(model.groups(*chooser.size)) * len(model.priors))
    fixed = len(pack(Encoded(IndexMaps((), *chooser.size), empty, 0)))  # metadata and all, packed once
    made: list[tuple[int, Encoded]] = []

    def size(encoded: Encoded) -> int:
        return fixed + sum(map(_chunk_size, encoded.streams))

    def estimate(lmbda: float) -> int:
        return size(at(model, chooser, lmbda, rough=True))

    def make(lmbda: float) -> int:
        encoded = at(model, chooser, lmbda)
        made.append((size(encoded), encoded))
        return made[-1][0]

    search(make, estimate, target, model.config.lmbdas, fixed)
    fitting = [(length, encoded) for length, encoded in made if length <= target]
    if not fitting:
        smallest = min((length for length, _ in made), default=fixed)
        raise ImageError(f"{target:.0f} bytes are too few for this image: the least that was reached is {smallest}")
    return max(fitting, key=lambda pair: pair[0])[1]


def _chunk_size(words: bytes) -> int:
    """Bytes of a file that a stream adds to what it has without its words."""
    return len(container.stream_chunk(words)) - len(container.stream_chunk(b""))
