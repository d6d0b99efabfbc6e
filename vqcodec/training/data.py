# SPDX-License-Identifier: Apache-2.0
"""Photographs from folders or zip files, decoded once into memory, and random crops of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm"}


def _read(source: bytes | Path) -> Pixels:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return np.asarray(image.convert("RGB"))


def _members(path: Path) -> Iterator[bytes | Path]:
    if path.is_dir():
        yield from (p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES)
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SUFFIXES:
                    yield archive.read(name)
    else:
        yield path


def load_images(paths: Sequence[str | Path], limit: int | None = None, workers: int = 2) -> list[Pixels]:
    """Decode all images of folders, zip files and single files, in sorted order within each.

    Returns uint8 arrays [H, W, 3]. Raises ValueError if there are none.
    """
    images: list[Pixels] = []
    with ThreadPoolExecutor(workers) as pool:
        for path in paths:
            members = list(_members(Path(path)))
            if limit is not None:
                members = members[: max(0, limit - len(images))]
            images.extend(pool.map(_read, members))
    if not images:
        raise ValueError(f"no images found in {', '.join(map(str, paths))}")
    return images


class CropSampler:
    """Random square crops with random horizontal flips, from an own generator so that a run can be resumed.

    images: uint8 [H, W, 3] each; those smaller than the crop are left out (ValueError if none remain).
    """

    def __init__(self, images: Sequence[Pixels], size: int, seed: int = 0) -> None:
        self.images = [image for image in images if min(image.shape[:2]) >= size]
        if not self.images:
            raise ValueError(f"no image is at least {size} pixels in both directions")
        self.size = size
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self, number: int) -> Tensor:
        """Draw crops: float [number, 3, size, size] in 0..1, channels last in memory."""
        out = np.empty((number, self.size, self.size, 3), np.uint8)
        draws = torch.rand(number, 4, generator=self.generator).tolist()
        for row, (which, top, left, flip) in zip(out, draws, strict=True):
            image = self.images[int(which * len(self.images))]
            y = int(top * (image.shape[0] - self.size + 1))
            x = int(left * (image.shape[1] - self.size + 1))
            crop = image[y : y + self.size, x : x + self.size]
            row[:] = crop[:, ::-1] if flip < 0.5 else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2).float().div_(255)
