# SPDX-License-Identifier: Apache-2.0
"""Pillow plugin: `import vqcodec.pillow_plugin`, then `Image.open("x.vq2")` and `image.save("x.vq2")`.

Opening reads the header and the metadata; torch is imported when pixels are asked for.
"""

from __future__ import annotations

import os
from typing import IO, Any

from PIL import Image, ImageFile

from vqcodec.errors import FormatError, VqcodecError
from vqcodec.format import container

FORMAT = "VQ2"
EXTENSION = ".vq2"
MIME = "image/x-vq2"

_METADATA = ("exif", "icc_profile", "xmp")


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


class Vq2ImageFile(ImageFile.ImageFile):
    """A `.vq2` file: size, mode and metadata at once, the pixels at `load()`.

    `load()` raises `OSError` if the file is damaged or its model is not installed; `verify()` raises `OSError` if a
    checksum does not match, and needs no model.
    """

    format = FORMAT
    format_description = "vqcodec image"
    n_frames = 1
    is_animated = False
    _start = 0
    _lossless = False
    _decoded = True  # also of what unpickling makes

    def _open(self) -> None:
        file = self._file()
        self._start = file.tell()
        self._decoded = False
        try:
            head = container.read_head(file)
        except FormatError as error:
            raise SyntaxError(str(error)) from error
        self._size = (head.header.width, head.header.height)
        self._mode = head.header.mode
        blocks = {"icc_profile": head.icc, "exif": head.exif, "xmp": head.xmp}
        self.info.update({name: block for name, block in blocks.items() if block is not None})
        self._lossless = head.header.lossless

    def load(self) -> Any:
        """Decode the pixels on the first call; a file that Pillow opened is closed then."""
        if not self._decoded:
            data = self._read_all()
            try:
                decoded = self._image(data)
            except VqcodecError as error:
                raise OSError(str(error)) from error
            self.im = decoded.im
            self._size = decoded.size
            self._mode = decoded.mode
            self._decoded = True
            self._release()
        return Image.Image.load(self)

    def verify(self) -> None:
        """Check every checksum of the file; as with other formats, the image must be opened again afterwards."""
        try:
            container.unpack(self._read_all())
        except FormatError as error:
            raise OSError(str(error)) from error
        finally:
            self._release()

    def _image(self, data: bytes) -> Image.Image:
        if self._lossless:
            from vqcodec.images import whole
            from vqcodec.model.limits import DEFAULT_LIMITS

            DEFAULT_LIMITS.check_pixels(*self._size)
            return whole.image(container.unpack(data))
        from vqcodec import codec

        return codec.decode(data)

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
    icc_profile= and xmp=; other parameters are ignored.

    Metadata that are not given are taken from the image, as the profile is by other plugins; an empty value leaves
    them out. Raises `OSError` where the image cannot be encoded.
    """
    given: dict[str, Any] = image.encoderinfo
    model: str | os.PathLike[str] | None = given.get("model")
    replaced = {name: given[name] for name in _METADATA if name in given}
    if replaced:
        image = image.copy()
        image.info.update({name: _as_bytes(block) for name, block in replaced.items()})
    from vqcodec import codec

    try:
        fp.write(codec.encode(image, model=model, **{name: given[name] for name in _ASKED if name in given}))
    except VqcodecError as error:
        raise OSError(str(error)) from error


def _as_bytes(block: Any) -> Any:
    return block.tobytes() if isinstance(block, Image.Exif) else block


def register() -> None:
    """Make the format known to Pillow; importing this module does it."""
    Image.register_open(FORMAT, Vq2ImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME)


register()
