# SPDX-License-Identifier: Apache-2.0
"""Image files of folders and zip files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jfif .webp .avif .bmp .tif .tiff .ppm .pgm .pbm .pnm .gif .tga .jp2 .jxl .heic .heif".split()
)


def is_image(path: PurePath) -> bool:
    """Return whether the name is that of an image."""
    return path.suffix.lower() in SUFFIXES


def images_of(folder: Path) -> list[Path]:
    """List the image files of a folder in order of name. Raises FileNotFoundError if it holds none."""
    paths = sorted(filter(is_image, folder.iterdir()))
    if not paths:
        raise FileNotFoundError(f"no images in {folder}")
    return paths


def members(path: Path) -> Iterator[tuple[str, bytes | Path]]:
    """Names and images of a folder (and those in it), a zip file or a single file, in sorted order: paths, or the bytes
    of what is in a zip."""
    if path.is_dir():
        base = path.resolve()
        for file in sorted(filter(is_image, base.rglob("*"))):
            yield f"{base.name}/{file.relative_to(base).as_posix()}", file
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in sorted(name for name in archive.namelist() if is_image(PurePath(name))):
                yield f"{path.name}/{name}", archive.read(name)
    else:
        yield path.name, path
