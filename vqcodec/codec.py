# SPDX-License-Identifier: Apache-2.0
"""Encode an image, and decode as its mirror. Read this first.

encode:  picture -> choose codes -> compress indices -> pack  -> .vq2
decode:  picture <- make pixels  <- decompress       <- unpack <- .vq2
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

from PIL import Image

from vqcodec.encoder import fallback as fallbacks
from vqcodec.encoder import fitting
from vqcodec.encoder.choice import chooser
from vqcodec.encoder.request import DEFAULT, DEFAULT_EFFORT, DEFAULT_TUNE, Request, lmbda_asked
from vqcodec.errors import ImageError, boundary
from vqcodec.format import container
from vqcodec.format.source import Source, contents
from vqcodec.images import imaging, opening, whole
from vqcodec.images.opening import ImageSource
from vqcodec.images.types import Pixels
from vqcodec.model import registry
from vqcodec.model.limits import DEFAULT_LIMITS, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import pick_device
from vqcodec.model.precision import exactly
from vqcodec.stream.indexcodec import IndexCodec
from vqcodec.stream.part import Part, Region


class Codec(IndexCodec):
    """A model, ready to encode and decode on one device."""

    @exactly
    def encode(
        self,
        image: ImageSource,
        *,
        quality: float | None = None,
        lmbda: float | None = None,
        size: int | None = None,
        bpp: float | None = None,
        effort: int = DEFAULT_EFFORT,
        tune: str = DEFAULT_TUNE,
        psnr: float | None = None,
        ssimulacra2: float | None = None,
        lossless: bool = False,
        fallback: bool = True,
        verify: bool = False,
        strip: bool = False,
    ) -> bytes:
        """Encode an image. At most one of quality (50 by default), lmbda, size, bpp, psnr and ssimulacra2.

        Args:
            image: a Pillow image, array (uint8 [H, W], [H, W, 3] or [H, W, 4]), path, bytes or open file.
            quality: 0 (small) to 100 (good).
            lmbda: weight of a bit, from 0: codes are chosen by squared error + lmbda * bits.
            size: bytes that the file may have at most.
            bpp: the same in bits per pixel.
            effort: 1 (fast) to 9 (small).
            tune: eye, psnr or ssim, see `encoder.request.Request`.
            psnr: dB that the picture shall have at least.
            ssimulacra2: the same by that measure; needs the extra `eval`.
            lossless: store the picture itself, whatever else is asked.
            fallback: store graphics so where that is smaller, or the model does them badly (`encoder.fallback`).
            verify: decode the indices again and compare.
            strip: leave out EXIF and XMP, and turn the picture as they say.

        Returns: the bytes of a .vq2 file. Raises what `vqcodec.encode` does.
        """
        asked = Request(quality, lmbda, size, bpp, effort, tune, psnr, ssimulacra2)
        picture = imaging.from_pil(opening.as_image(image), strip)
        if lossless:
            return whole.file(picture)
        height, width = picture.pixels.shape[:2]
        alpha = None if picture.alpha is None else imaging.encode_alpha(picture.alpha)

        def pack(encoded: fitting.Encoded) -> bytes:
            header = self.header(width, height, picture.mode, encoded.tradeoff)
            file = container.Container(header, tuple(encoded.streams), alpha, picture.icc, picture.exif, picture.xmp)
            return container.pack(file)

        def decoded(maps: IndexMaps, tradeoff: int) -> Pixels:
            return fallbacks.as_seen(self.from_indices(maps, tradeoff), picture.mode)

        choice = chooser(self, picture.pixels, asked)
        try:
            encoded = fitting.fitted(self, choice, asked, picture.pixels, pack, decoded)
        except ImageError as error:
            if not fallback:
                raise
            return fallbacks.rescued(picture, asked, error)
        if verify:
            fitting.verify(self, encoded)
        shown = partial(decoded, encoded.maps, encoded.tradeoff)
        data = pack(encoded)
        return fallbacks.chosen(picture, asked, self.config.lmbdas, data, shown) if fallback else data

    @boundary()
    def decode(
        self, data: Source, *, region: Region | None = None, preview: int = 1, limits: Limits = DEFAULT_LIMITS
    ) -> Image.Image:
        """Decode a `.vq2` file to an image with its metadata.

        Args:
            data: the file: its bytes, its path, or open.
            region: the part wanted; None: all of it. See `stream.part.Part`.
            preview: how many times smaller; 1: full size.
            limits: what decoding may cost.

        Raises: FormatError (damaged), ModelError (of another model), ImageError (over the limits), ValueError (region).
        """
        data = contents(data)
        head = container.read_header(data)
        part = Part(head.width, head.height, region, preview)
        part.check(limits, head.lossless)
        file = container.unpack(data)
        if file.lossless is not None:
            return part.of(whole.image(file))
        colours = part.pixels(self, file, limits)
        alpha = None if file.alpha is None else part.of_alpha(file.alpha)
        return imaging.to_pil(imaging.Picture(colours, alpha, head.mode, file.icc, file.exif, file.xmp))

    @exactly
    def to_indices(self, image: Pixels, asked: Request = DEFAULT) -> IndexMaps:
        """Choose the index maps of an image, which is padded by repeating its edge.

        Args:
            image: uint8 [H, W, 3].
            asked: a quality or a lmbda, and the effort.

        Raises: ModelError as `encode`, ValueError if a size is asked for.
        """
        if asked.sized:
            raise ValueError("index maps have no size: give a quality or a lmbda")
        return chooser(self, image, asked).maps(lmbda_asked(asked, self.config.lmbdas))


def load_model(name: str | os.PathLike[str] | None = None, device: str = "auto", tune: str = DEFAULT_TUNE) -> Codec:
    """Load an installed model, and keep it for the next call. Raises ModelError if there is none.

    Args:
        name: of the model, or path of a weights file; None: the default model of the tune.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        tune: eye, psnr or ssim.
    """
    return _load(registry.find(name, tune), pick_device(device))


def load_identity(identity: bytes, device: str = "auto") -> Codec:
    """Load the installed model with an identity, and keep it for the next call.

    Args:
        identity: 4 bytes.
        device: as of `load_model`.

    Raises: ModelError if there is none.
    """
    return _load(registry.find_identity(identity), pick_device(device))


@cache
def _load(model: registry.ModelFile, device: str) -> Codec:
    return Codec.load(model, device)


def encode(
    image: ImageSource, *, model: str | os.PathLike[str] | None = None, device: str = "auto", **options: Any
) -> bytes:
    """Encode an image with a model. Further options are those of `Codec.encode`.

    Args:
        image: as of `Codec.encode`.
        model: name or path; None: the default model of the tune.
        device: as of `load_model`.
    """
    return load_model(model, device, options.get("tune", DEFAULT_TUNE)).encode(image, **options)


def decode(data: Source, *, device: str = "auto", limits: Limits = DEFAULT_LIMITS, **part: Any) -> Image.Image:
    """Decode a `.vq2` file with the installed model that it names. Region and preview are those of `Codec.decode`.

    Args:
        data: the file: its bytes, its path, or open.
        device: as of `load_model`.
        limits: what decoding may cost.
    """
    data = contents(data)
    head = container.read_header(data)
    wanted = Part(head.width, head.height, part.get("region"), part.get("preview", 1))
    wanted.check(limits, head.lossless)  # ahead of loading the model
    if head.lossless:
        return wanted.of(whole.image(container.unpack(data)))
    return load_identity(head.model, device).decode(data, limits=limits, **part)
