# SPDX-License-Identifier: Apache-2.0
"""An image as streams: at a weight of a bit, as the largest file of at most so many bytes, or as like the original as
asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vqcodec.encoder.choice import Chooser
from vqcodec.encoder.request import Request, lmbda_asked, scale
from vqcodec.encoder.target import LIKENESSES, reach, search
from vqcodec.errors import ImageError, VqcodecError
from vqcodec.format import container
from vqcodec.images import metrics
from vqcodec.images.types import Pixels
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.stream.reader import decompress
from vqcodec.stream.writer import compress


@dataclass(frozen=True, eq=False)
class Encoded:
    """Index maps of an image, their streams, and the trade-off that they were chosen for, 0 to 255."""

    maps: IndexMaps
    streams: list[bytes]
    tradeoff: int


def at(model: Model, chooser: Chooser, lmbda: float, rough: bool = False) -> Encoded:
    """Choose and compress at a weight of a bit.

    Args:
        model: whose indices they are.
        chooser: of the image.
        lmbda: the weight of a bit.
        rough: with the lowest effort.
    """
    maps = chooser.rough(lmbda) if rough else chooser.maps(lmbda)
    tradeoff = model.tradeoff(lmbda)
    return Encoded(maps, compress(model, maps, tradeoff), tradeoff)


def fitted(
    model: Model,
    chooser: Chooser,
    asked: Request,
    original: Pixels,
    pack: Callable[[Encoded], bytes],
    decoded: Callable[[IndexMaps, int], Pixels],
) -> Encoded:
    """Encode as asked: see `at`, `within` and `reaching`.

    Args:
        model: whose indices they are.
        chooser: of the image.
        asked: what was asked.
        original: uint8 [H, W, 3].
        pack: makes the file.
        decoded: makes the pixels of index maps at a trade-off.
    """
    target = asked.target(original.shape[0] * original.shape[1])
    if target is not None:
        return within(model, chooser, target, pack)
    if asked.aimed:
        return reaching(model, chooser, original, asked, decoded)
    return at(model, chooser, lmbda_asked(asked, model.config.lmbdas))


def within(model: Model, chooser: Chooser, target: float, pack: Callable[[Encoded], bytes]) -> Encoded:
    """Choose the largest file of at most `target` bytes that was made. Raises ImageError if none is so small.

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


def reaching(
    model: Model,
    chooser: Chooser,
    original: Pixels,
    asked: Request,
    decoded: Callable[[IndexMaps, int], Pixels],
) -> Encoded:
    """Choose the picture of the highest weight of a bit that is as like the original as asked. Raises ImageError if
    none is.

    Args:
        model: to encode with.
        chooser: of the image.
        original: uint8 [H, W, 3].
        asked: a PSNR or SSIMULACRA2.
        decoded: index maps and their trade-off -> uint8 [H, W, 3], as a decoder shows them.
    """
    scale(model.config.lmbdas)
    name = "psnr" if asked.psnr is not None else "ssimulacra2"
    measure, target = getattr(metrics, name), getattr(asked, name)
    if name == "ssimulacra2":
        _check_ssimulacra2(original)
    made: list[tuple[float, float, IndexMaps]] = []

    def likeness(lmbda: float) -> float:
        maps = chooser.maps(lmbda)
        made.append((lmbda, measure(original, decoded(maps, model.tradeoff(lmbda))), maps))
        return made[-1][1]

    def estimate(lmbda: float) -> float:
        return measure(original, decoded(chooser.rough(lmbda), model.tradeoff(lmbda)))

    reach(likeness, estimate, target, LIKENESSES[name], model.config.lmbdas)
    fitting = [(lmbda, maps) for lmbda, value, maps in made if value >= target]
    if not fitting:
        highest = max(value for _, value, _ in made)
        raise ImageError(f"a {name} of {target:g} is out of reach for this image: the highest reached is {highest:.2f}")
    lmbda, maps = max(fitting, key=lambda pair: pair[0])
    tradeoff = model.tradeoff(lmbda)
    return Encoded(maps, compress(model, maps, tradeoff), tradeoff)


def verify(model: Model, encoded: Encoded) -> None:
    """Read the streams and compare.

    Args:
        model: whose indices they are.
        encoded: with its streams.

    Raises: VqcodecError if the indices are others.
    """
    maps = encoded.maps
    if not maps.equal(decompress(model, encoded.streams, *maps.size, tradeoff=encoded.tradeoff)):
        raise VqcodecError("verification failed: the file would not decode to the indices that were encoded")


def _check_ssimulacra2(original: Pixels) -> None:
    if not metrics.has_ssimulacra2():
        raise ImageError('SSIMULACRA2 is not installed: pip install "vqcodec[eval]"')
    if min(original.shape[:2]) < metrics.SSIMULACRA2_MIN_SIDE:
        raise ImageError(f"SSIMULACRA2 needs sides of at least {metrics.SSIMULACRA2_MIN_SIDE} pixels")


def _chunk_size(words: bytes) -> int:
    """Bytes of a file that a stream adds to what it has without its words."""
    return len(container.stream_chunk(words)) - len(container.stream_chunk(b""))
