# SPDX-License-Identifier: Apache-2.0
"""`vqcodec.encode` and `vqcodec.decode`: images and files of any origin, one or several."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

from vqcodec.batch.overlap import one_ahead
from vqcodec.errors import DamageWarning, boundary
from vqcodec.format.source import Source, is_source
from vqcodec.model.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import os

    from PIL import Image
    from typing_extensions import Unpack

    from vqcodec.images.opening import ImageSource


class Options(TypedDict, total=False):
    """The options of `Codec.encode`, and the model (a name or a path) and device (auto, cpu, cuda) to do it."""

    quality: float | None
    lmbda: float | None
    size: int | None
    bpp: float | None
    effort: int
    tune: str
    psnr: float | None
    ssimulacra2: float | None
    lossless: bool
    fallback: bool
    model: str | os.PathLike[str] | None
    device: str
    verify: bool
    strip: bool


@overload
def encode(image: ImageSource, **options: Unpack[Options]) -> bytes: ...  # type: ignore[overload-overlap]  # a str is iterable, and one source
@overload
def encode(image: Iterable[ImageSource], **options: Unpack[Options]) -> list[bytes]: ...
@boundary()
def encode(image: ImageSource | Iterable[ImageSource], **options: Unpack[Options]) -> bytes | list[bytes]:
    """Encode an image, or several.

    At most one of quality, lmbda, size, bpp, psnr and ssimulacra2; none of them is quality 50.

    Args:
        image: a Pillow image; a numpy array, uint8 [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGBA); the path, the
            bytes or an open binary file of an image; or a list (or any iterable) of these: the pixels of the next one
            are then read while one is encoded.
        quality: 0 (small) to 100 (good).
        size: bytes that the file may have at most.
        bpp: the same in bits per pixel.
        psnr: dB that the picture shall have at least.
        ssimulacra2: the same by that measure, up to 100; needs the extra `eval`.
        lmbda: weight of a bit against squared error, from 0; for experiments.
        effort: 1 (fast) to 9 (small), 5 by default.
        tune: "eye" (the default); "psnr", by a model that was trained for squared error; or "ssim", which moves bits to
            smooth places.
        lossless: store the picture itself.
        fallback: store graphics so where that is smaller or the model does them badly; on by default.
        verify: decode the indices again and compare.
        strip: leave out EXIF and XMP, and turn the picture as they say; the ICC profile stays.
        model: name of an installed model, or path of a weights file; None: the default model of the tune.
        device: auto (the default: a GPU if there is one), cpu or cuda.

    Returns: the bytes of a `.vq2` file, with EXIF, ICC profile and XMP of the image; or a list of such.

    Raises:
        ImageError: the image cannot be read or encoded, or not as small or as alike as asked.
        ModelError: the model is not installed or no model, or has a single quality and another is asked for.
        ExactnessError: the device does not compute the prior exactly.
        OSError: the file of the image cannot be read.
        OutOfMemoryError: there is not enough memory.
        TypeError: an option has another name or type, or the image is nothing of the kind.
        ValueError: an option is out of its range, or two exclude each other.
    """
    from concurrent.futures import ThreadPoolExecutor

    from vqcodec import codec
    from vqcodec.images import imaging, opening

    _check_names("encode", options, Options)
    if is_source(image) or hasattr(image, "__array_interface__") or not isinstance(image, Iterable):
        return codec.encode(cast("ImageSource", image), **options)

    def read(image: ImageSource) -> Image.Image:
        opened = opening.as_image(image)
        imaging.load(opened)
        return opened

    with ThreadPoolExecutor(1) as reader:
        return [
            codec.encode(ready, **options) for ready in one_ahead(cast("Iterable[ImageSource]", image), read, reader)
        ]


class Wanted(TypedDict, total=False):
    """What of each file is decoded, as of `Codec.decode`, with which limits, and where: auto, cpu or cuda."""

    device: str
    limits: Limits
    region: tuple[int, int, int, int] | None
    preview: int
    best_effort: bool


@overload
def decode(data: Source, **options: Unpack[Wanted]) -> Image.Image: ...  # type: ignore[overload-overlap]  # a str is iterable, and one source
@overload
def decode(data: Iterable[Source], **options: Unpack[Wanted]) -> list[Image.Image]: ...
@boundary()
def decode(data: Source | Iterable[Source], **options: Unpack[Wanted]) -> Image.Image | list[Image.Image]:
    """Decode a file, or several, each with the installed model that it names.

    Args:
        data: a `.vq2` file: its path, its bytes (bytes, bytearray, memoryview), or an open binary file; or a list (or
            any iterable) of these.
        region: x, y, width and height in pixels of the part that is wanted; all by default.
        preview: 2, 4, 8, 16 or 32 for a picture so many times smaller, from the coarse levels; 1 by default.
        limits: what each file may cost, a `vqcodec.Limits`.
        best_effort: decode what is left of damaged files, too: `info["losses"]` of such a picture has a sentence for
            each loss, which is warned of as well (`DamageWarning`). See `vqcodec.salvage`.
        device: auto (the default: a GPU if there is one), cpu or cuda.

    Returns: a Pillow image of mode L, RGB, LA or RGBA, its metadata in `info`; or a list of them.

    Raises:
        FormatError: it is no `.vq2` file, or damaged.
        ModelError: the model that it names is not installed.
        ImageError: it would cost more than the limits.
        ExactnessError: the device does not compute the prior exactly.
        OSError: the file cannot be read.
        OutOfMemoryError: there is not enough memory.
        TypeError: an option has another name or type, or the data are nothing of the kind.
        ValueError: the region is not inside the picture, or there is no such preview.
    """
    from vqcodec import codec

    _check_names("decode", options, Wanted)
    wanted = dict(options)
    decode_one: Callable[..., Image.Image] = _best_effort if wanted.pop("best_effort", False) else codec.decode
    if is_source(data) or not isinstance(data, Iterable):
        return decode_one(cast(Source, data), **wanted)
    return [decode_one(one, **wanted) for one in cast("Iterable[Source]", data)]


def _best_effort(data: Source, *, device: str = "auto", limits: Limits = DEFAULT_LIMITS, **wanted: Any) -> Image.Image:
    """What is left of a file, or a part of that."""
    from vqcodec.damage.salvage import salvage
    from vqcodec.stream.part import Part

    left = salvage(data, device=device, limits=limits)
    image = Part(*left.image.size, wanted.get("region"), wanted.get("preview", 1)).of(left.image)
    if left.losses:
        texts = [loss.text for loss in left.losses]
        image.info["losses"] = texts
        warnings.warn(f"the file is damaged: {'; '.join(texts)}", DamageWarning, stacklevel=5)
    return image


def _check_names(function: str, options: Mapping[str, object], known: type) -> None:
    """Raise `TypeError` for an option that there is not, before a model is loaded."""
    names = sorted(known.__annotations__)
    for name in options.keys() - set(names):
        raise TypeError(f"{function}() has no option {name!r}: it has {', '.join(names)}")
