# SPDX-License-Identifier: Apache-2.0
"""Pillow plugin: `import vqcodec.pillow_plugin`, then `Image.open("x.vq2")` and `image.save("x.vq2")`.

Opening reads the header and the metadata; torch is imported when pixels are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

from vqcodec.config import PREVIEW_SCALES
from vqcodec.errors import FormatError, VqcodecError, boundary
from vqcodec.format import container
from vqcodec.model.limits import DEFAULT_LIMITS, Limits

FORMAT = "VQ2"
EXTENSION = ".vq2"
MIME = "image/x-vq2"

_METADATA = ("exif", "icc_profile", "xmp")


@contextmanager
def _pillows(kind: type[Exception] = OSError) -> Iterator[None]:
    """Raise what Pillow's users expect in place of the package's own errors."""
    try:
        with boundary():
            yield
    except VqcodecError as error:
        raise kind(str(error)) from error


def _head(file: IO[bytes]) -> container.Head:
    """Header and metadata; of a damaged file what is left of them, if that is asked for."""
    start = file.tell()
    try:
        return container.read_head(file)
    except FormatError:
        if not ImageFile.LOAD_TRUNCATED_IMAGES:
            raise
    from vqcodec.format.remains import remains

    file.seek(start)
    left = remains(file.read())
    return container.Head(left.header, **left.metadata()[0])


def _losses(image: Image.Image) -> dict[str, Any]:
    """What is said of a picture from a damaged file."""
    return {name: said for name, said in image.info.items() if name == "losses"}


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


class Vq2ImageFile(ImageFile.ImageFile):
    """A `.vq2` file: size, mode and metadata at once, the pixels at `load()`.

    `load()` raises `OSError` if the file is damaged or its model is not installed; `verify()` raises `OSError` if a
    checksum does not match, and needs no model: it does not decode the streams, as `vqcodec.verify` does. `limits` is
    what `load()` may cost, by default that of `register`.

    Where `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` is set, what is left of a damaged file is opened and loaded, as by
    `vqcodec.salvage`: `info["losses"]` has a sentence for each loss, and `DamageWarning` is given.
    """

    format = FORMAT
    format_description = "vqcodec image"
    n_frames = 1
    is_animated = False
    limits = DEFAULT_LIMITS
    _start = 0
    _lossless = False
    _scale = 1
    _decoded = True  # also of what unpickling makes

    def _open(self) -> None:
        file = self._file()
        self._start = file.tell()
        self._decoded = False
        with _pillows(SyntaxError):
            head = _head(file)
        self._size = (head.header.width, head.header.height)
        self._mode = head.header.mode
        blocks = {"icc_profile": head.icc, "exif": head.exif, "xmp": head.xmp}
        self.info.update({name: block for name, block in blocks.items() if block is not None})
        self._lossless = head.header.lossless

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Have `load()` make a small picture from the coarse levels alone: a half, a quarter and so on.

        `thumbnail()` calls it.

        Args:
            mode: not used: the mode stays.
            size: least width and height.

        Returns: mode and box, as Pillow's JPEG plugin does; None if the pixels are there already.
        """
        if self._decoded or self._scale > 1 or size is None:
            return None
        width, height = self._size
        most = min(width // max(1, size[0]), height // max(1, size[1]))
        self._scale = max((scale for scale in PREVIEW_SCALES if scale <= most), default=1)
        self._size = -(-width // self._scale), -(-height // self._scale)
        return self._mode, (0, 0, width / self._scale, height / self._scale)

    def crop(self, box: tuple[float, float, float, float] | None = None) -> Image.Image:
        """Crop, as of every image; where the pixels are not there yet, only those in the box are decoded, and the file
        stays open."""
        if self._decoded or self._scale > 1 or box is None:
            return super().crop(box)
        left, top, right, bottom = (round(side) for side in box)
        inside = 0 <= left < right <= self.width and 0 <= top < bottom <= self.height
        if not inside or (right - left) * (bottom - top) * 2 > self.width * self.height:
            return super().crop(box)
        part = self._image(self._read_all(), region=(left, top, right - left, bottom - top))
        losses = _losses(part)
        part.info = self.info.copy()
        part.info.update(losses)
        return part

    def load(self) -> Any:
        """Decode the pixels on the first call; a file that Pillow opened is closed then."""
        if not self._decoded:
            decoded = self._image(self._read_all(), preview=self._scale)
            self.info.update(_losses(decoded))
            self.im = decoded.im
            self._size = decoded.size
            self._mode = decoded.mode
            self._decoded = True
            self._release()
        return Image.Image.load(self)

    def verify(self) -> None:
        """Check every checksum of the file; as with other formats, the image must be opened again afterwards."""
        try:
            with _pillows():
                container.unpack(self._read_all())
        finally:
            self._release()

    def _image(self, data: bytes, **part: Any) -> Image.Image:
        """The pixels, or a part of them; of a damaged file, if that is asked for, what is left of them."""
        with _pillows():
            try:
                return self._sound_image(data, **part)
            except FormatError:
                if not ImageFile.LOAD_TRUNCATED_IMAGES:
                    raise
            from vqcodec import batch

            return batch.decode(data, limits=self.limits, best_effort=True, **part)

    def _sound_image(self, data: bytes, **part: Any) -> Image.Image:
        """The pixels of a sound file, or a part of them; without torch those of a lossless one."""
        if self._lossless and part == {"preview": 1}:
            from vqcodec.images import whole

            self.limits.check_pixels(*self._size)
            return whole.image(container.unpack(data))
        from vqcodec import codec

        return codec.decode(data, limits=self.limits, **part)

    def _file(self) -> IO[bytes]:
        if self.fp is None:
            raise OSError("the file of this image is closed")
        return self.fp

    def _read_all(self) -> bytes:
        file = self._file()
        file.seek(self._start)
        return file.read()

    def _release(self) -> None:
        if self._exclusive_fp and self.fp is not None:
            self.fp.close()
        self.fp = None


_ASKED = (
    "quality", "effort", "size", "bpp", "lmbda", "tune", "psnr", "ssimulacra2", "lossless", "fallback", "verify",
)  # fmt: skip


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Encode for `Image.save`: takes what `Codec.encode` does (quality=, lossless= and so on), model=, exif=,
    icc_profile= and xmp=. Raises `TypeError` for another option.

    Metadata that are not given are taken from the image, as the profile is by other plugins; an empty value leaves
    them out. Raises `OSError` where the image cannot be encoded.
    """
    given: dict[str, Any] = image.encoderinfo
    for name in given.keys() - {*_ASKED, *_METADATA, "model"}:
        raise TypeError(f"{FORMAT} has no option {name!r} of save: it has {', '.join((*_ASKED, 'model', *_METADATA))}")
    model: str | os.PathLike[str] | None = given.get("model")
    replaced = {name: given[name] for name in _METADATA if name in given}
    if replaced:
        image = image.copy()
        for name in replaced:  # whatever else Pillow keeps of it
            image.info.pop(_ALSO.get(name, name), None)
        image.info.update({name: _as_bytes(block) for name, block in replaced.items()})
    from vqcodec import codec

    with _pillows():
        fp.write(codec.encode(image, model=model, **{name: given[name] for name in _ASKED if name in given}))


_ALSO = {"xmp": "XML:com.adobe.xmp", "exif": "Raw profile type exif"}
"""Where PNG files have the same a second time."""


def _as_bytes(block: Any) -> Any:
    return block.tobytes() if isinstance(block, Image.Exif) else block


def register(limits: Limits | None = None) -> None:
    """Make the format known to Pillow; importing this module does it.

    Args:
        limits: what loading a file may cost from now on; None: `Limits()`.
    """
    Vq2ImageFile.limits = DEFAULT_LIMITS if limits is None else limits
    Image.register_open(FORMAT, Vq2ImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME)


register()
