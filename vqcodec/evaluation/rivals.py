# SPDX-License-Identifier: Apache-2.0
"""Who competes: the codecs that Pillow writes, and ours. Each object is one codec at one setting.

Every codec gets the same 8-bit RGB pixels without metadata. The objects are small and can be sent to other processes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import PIL
from PIL import Image, features

from vqcodec.encoder.request import DEFAULT_EFFORT, DEFAULT_TUNE
from vqcodec.model.registry import find

OURS = "vqcodec"
_PACKAGE = Path(__file__).resolve().parent.parent
# The folders that decide what is in a file, and the module above them.
_PART_OF_FILES = ("codec.py", "config.py", "encoder", "exact", "format", "images", "model", "nets", "stream")


class Setting(Protocol):
    """A codec at one setting: a point of a rate-distortion curve."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str: ...

    @property
    def cache_key(self) -> str | None:
        """All that the bytes depend on besides the pixels; None when results must not be cached."""

    def encode(self, image: Image.Image) -> bytes: ...

    def decode(self, data: bytes) -> Image.Image: ...


class Format(NamedTuple):
    """How Pillow writes a rival: its name there, lowest quality, step between qualities (the highest is 100), options
    of `Image.save`, the same in words, and the qualities that make a curve."""

    pillow: str
    lowest: float
    step: float
    options: Mapping[str, Any]
    words: str
    grid: tuple[float, ...]

    def arguments(self, quality: float) -> dict[str, Any]:
        """Return the arguments of `Image.save` at a quality."""
        return {"format": self.pillow, "quality": int(quality) if self.step == 1 else quality, **self.options}


# Speed 6 and effort 7 are the encoders' defaults. One tile compresses best; AVIF's bytes depend on its threads.
# libavif tunes for the eye where it is not told otherwise (tune=iq, from 1.3); the two other tunes are AVIF at its best
# in PSNR and MS-SSIM.
_AVIF = {"speed": 6, "autotiling": False, "max_threads": 1}
_AVIF_420 = {**_AVIF, "subsampling": "4:2:0"}
_JPEG_GRID = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)
_WEBP_GRID = (0, 5, 15, 30, 45, 60, 75, 90)
_AVIF_GRID = (10, 20, 30, 40, 50, 60, 70, 80)
_JXL_GRID = (5, 10, 20, 30, 40, 55, 70, 80, 90)
FORMATS: dict[str, Format] = {
    "JPEG": Format("JPEG", 1, 1, {"optimize": True, "progressive": True}, "optimised, progressive, 4:2:0", _JPEG_GRID),
    "WebP": Format("WEBP", 0, 1, {"method": 6}, "method 6", _WEBP_GRID),
    "AVIF 4:2:0": Format("AVIF", 0, 1, _AVIF_420, "speed 6", _AVIF_GRID),
    "AVIF 4:4:4": Format("AVIF", 0, 1, {**_AVIF, "subsampling": "4:4:4"}, "speed 6", _AVIF_GRID),
    "AVIF psnr": Format("AVIF", 0, 1, {**_AVIF_420, "advanced": {"tune": "psnr"}}, "speed 6, tune=psnr", _AVIF_GRID),
    "AVIF ssim": Format("AVIF", 0, 1, {**_AVIF_420, "advanced": {"tune": "ssim"}}, "speed 6, tune=ssim", _AVIF_GRID),
    "JPEG XL": Format("JXL", 0, 0.25, {"effort": 7, "num_threads": 0}, "effort 7", _JXL_GRID),
}
AVIF = tuple(name for name in FORMATS if name.startswith("AVIF"))
RIVAL_GRIDS = {name: format_.grid for name, format_ in FORMATS.items()}


@dataclass(frozen=True)
class Rival:
    """A codec of Pillow's at one quality; `name` is a key of `FORMATS`, `quality` up to 100.

    Raises ValueError on an unknown name or a quality out of range, OSError if this Pillow cannot write the format.
    """

    name: str
    quality: float

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise ValueError(f"unknown codec {self.name!r}: choose from {', '.join(FORMATS)}")
        lowest, step = FORMATS[self.name].lowest, FORMATS[self.name].step
        if not lowest <= self.quality <= 100 or self.quality % step:
            raise ValueError(f"{self.name} takes qualities of {lowest} to 100 in steps of {step}, not {self.quality}")
        library_version(self.name)

    @property
    def setting(self) -> str:
        return f"{self.quality:g}"

    @property
    def cache_key(self) -> str:
        format_ = FORMATS[self.name]
        options = json.dumps(format_.options, sort_keys=True)
        return f"{format_.pillow} {self.setting} {options} {library_version(self.name)}"

    def encode(self, image: Image.Image) -> bytes:
        library_version(self.name)  # a process that got this object from another has not met the plugin yet
        buffer = io.BytesIO()
        image.save(buffer, **FORMATS[self.name].arguments(self.quality))
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        library_version(self.name)
        return Image.open(io.BytesIO(data)).convert("RGB")


@functools.cache
def library_version(name: str) -> str:
    """Return what writes the files of a rival, with its version. Raises OSError if it is not installed."""
    format_ = FORMATS[name].pillow
    if format_ == "JXL":  # a plugin, which registers itself when it is imported
        try:
            importlib.import_module("pillow_jxl")
        except ImportError as error:
            raise OSError("JPEG XL needs the package pillow-jxl-plugin, of the eval extra") from error
        return f"pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}"
    feature = {"JPEG": "jpg"}.get(format_, format_.lower())
    if not features.check(feature):
        raise OSError(f"this Pillow ({PIL.__version__}) cannot write {format_}; AVIF needs 11.3 or newer")
    library = {"JPEG": "libjpeg-turbo", "WEBP": "libwebp", "AVIF": "libavif"}[format_]
    version = features.version_feature("libjpeg_turbo") if format_ == "JPEG" else features.version(feature)
    return f"{library} {version}, Pillow {PIL.__version__}"


def rivals(grids: Mapping[str, Sequence[float]] = RIVAL_GRIDS) -> list[Setting]:
    """List the rivals at every quality of `grids`."""
    return [Rival(name, quality) for name, grid in grids.items() for quality in grid]


@dataclass(frozen=True)
class Ours:
    """This package's codec with one model (a name or a path) at one setting; `name` is that of its curve.

    A curve is a list of these, over models, over qualities, or both: see `ours`. quality: handed to `Codec.encode`
    where it is not None. The model is loaded once in a process.
    """

    model: str
    quality: int | None = None
    device: str = "auto"
    name: str = OURS
    effort: int = DEFAULT_EFFORT
    tune: str = DEFAULT_TUNE

    @property
    def setting(self) -> str:
        stem = Path(self.model).stem
        effort = "" if self.effort == DEFAULT_EFFORT else f" e{self.effort}"
        tune = "" if self.tune == DEFAULT_TUNE else f" {self.tune}"
        return (stem if self.quality is None else f"{stem} q{self.quality}") + effort + tune

    @property
    def cache_key(self) -> str:
        from vqcodec.model.model import pick_device

        version = f"{source_version()} torch {importlib.metadata.version('torch')} {pick_device(self.device)}"
        asked = f"quality {self.quality} effort {self.effort} tune {self.tune}"
        return f"{OURS} {find(self.model).identity.hex()} {asked} {version}"

    def encode(self, image: Image.Image) -> bytes:
        asked = {"quality": self.quality, "effort": self.effort, "tune": self.tune}
        return bytes(self._codec().encode(image, **asked, fallback=False))

    def decode(self, data: bytes) -> Image.Image:
        decoded: Image.Image = self._codec().decode(data)
        return decoded.convert("RGB")

    def _codec(self) -> Any:
        from vqcodec.codec import load_model  # here, so that evaluating the rivals alone needs no torch

        return load_model(self.model, self.device)


def ours(
    models: Sequence[str | None],
    qualities: Sequence[int | None] = (None,),
    device: str = "auto",
    efforts: Sequence[int] = (DEFAULT_EFFORT,),
    tunes: Sequence[str] = (DEFAULT_TUNE,),
) -> list[Ours]:
    """Make one setting for every model and quality, in that order: together one curve, for each effort and tune.

    Args:
        models: names or paths; None: the default model of each tune.
        qualities: 0 to 100; None: what the model was trained for.
        device: `auto`, `cpu` or `cuda`.
        efforts: 1 to 9.
        tunes: what the codes are chosen for.
    """
    settings = []
    for effort, tune in itertools.product(efforts, tunes):
        name = OURS + ("" if effort == efforts[0] else f" e{effort}") + ("" if tune == tunes[0] else f" {tune}")
        found = [find(None, tune).name if model is None else model for model in models]
        settings += [Ours(model, quality, device, name, effort, tune) for model in found for quality in qualities]
    return settings


@functools.cache
def source_version() -> str:
    """Return the version of this package, with a hash over the sources that decide what is in a file."""
    import vqcodec

    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE)
        if name.parts[0] in _PART_OF_FILES:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return f"{vqcodec.__version__}+{digest.hexdigest()[:16]}"
