# SPDX-License-Identifier: Apache-2.0
"""Photographs from folders or zip files, decoded once into memory, random crops of them, and pictures of many."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqcodec.images.listing import members
from vqcodec.images.types import Pixels
from vqcodec.nets import parallel


def _read(source: bytes | Path) -> Pixels:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return np.asarray(image.convert("RGB"))


def load_images(paths: Sequence[str | Path], limit: int | None = None, workers: int = 2) -> list[Pixels]:
    """Decode all images of folders, zip files and single files, in sorted order within each.

    Args:
        paths: folders, zip files and image files.
        limit: stop after so many images; None: take all.
        workers: threads that decode.

    Returns: uint8 arrays [H, W, 3].

    Raises: ValueError if there are none.
    """
    images: list[Pixels] = []
    with ThreadPoolExecutor(workers) as pool:
        for path in paths:
            sources = [source for _, source in members(Path(path))]
            if limit is not None:
                sources = sources[: max(0, limit - len(images))]
            images.extend(pool.map(_read, sources))
    if not images:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    return images


class CropSampler:
    """Random square crops with random horizontal flips, from an own generator so that a run can be resumed.

    images: uint8 [H, W, 3] each; those smaller than the crop are left out (ValueError if none remain). enlarged: share
    of the crops that are a small part of themselves, at least 4 times enlarged: smooth places, skies and flat colours,
    which are rarer in small crops than in whole pictures. All ranks draw the same joint batch and cut out their share.
    """

    def __init__(self, images: Sequence[Pixels], size: int, seed: int = 0, enlarged: float = 0.0) -> None:
        self.images = [image for image in images if min(image.shape[:2]) >= size]
        if not self.images:
            raise ValueError(f"no image is at least {size} pixels in both directions")
        self.size, self.enlarged = size, enlarged
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self, number: int) -> Tensor:
        """Draw crops: float [number / ranks, 3, size, size] in 0..1, channels last in memory."""
        draws = torch.rand(number, 4, generator=self.generator)[parallel.rank_rows(number)].tolist()
        out = np.empty((len(draws), self.size, self.size, 3), np.uint8)
        for row, (which, top, left, flip) in zip(out, draws, strict=True):
            image = self.images[int(which * len(self.images))]
            y = int(top * (image.shape[0] - self.size + 1))
            x = int(left * (image.shape[1] - self.size + 1))
            crop = image[y : y + self.size, x : x + self.size]
            row[:] = crop[:, ::-1] if flip < 0.5 else crop
        batch = torch.from_numpy(out).permute(0, 3, 1, 2).float().div_(255)
        if self.enlarged:
            for image, (which, times) in zip(batch, self._enlargements(number), strict=True):
                if which < self.enlarged:
                    image.copy_(_enlarged(image, times))
        return batch

    def _enlargements(self, number: int) -> list[list[float]]:
        """Two random numbers for each of this rank's crops."""
        return torch.rand(number, 2, generator=self.generator)[parallel.rank_rows(number)].tolist()


def _enlarged(image: Tensor, position: float) -> Tensor:
    """A corner of a crop, float [3, H, W], as large as the crop: 4 times and more by `position`, 0..1; at 1 a single
    pixel of 128 by 128."""
    side = max(1, round(image.shape[1] / 4 ** (1 + 2.75 * position)))
    part = image[None, :, :side, :side]
    return torch.nn.functional.interpolate(part, image.shape[1:], mode="bicubic", align_corners=True)[0].clamp(0, 1)


def to_device(array: Pixels, multiple: int, device: str) -> Tensor:
    """Turn an array into a tensor.

    Args:
        array: uint8 [H, W, 3].
        multiple: H and W are cropped to multiples of it.
        device: of the result.

    Returns: float [1, 3, H', W'] in 0..1.
    """
    h, w = (n - n % multiple for n in array.shape[:2])
    image = torch.from_numpy(array[:h, :w].copy()).permute(2, 0, 1)[None].to(device)
    return (image.float() / 255).contiguous(memory_format=torch.channels_last)


def middle(pixels: Pixels, side: int) -> Pixels:
    """Take the middle of an image.

    Args:
        pixels: uint8 [H, W, 3].
        side: pixels to take along each axis, at most.

    Returns: a view of the array.
    """
    top, left = (max(0, (n - side) // 2) for n in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def grid(images: Tensor, columns: int) -> Tensor:
    """Lay images side by side, two pixels of white between them.

    Args:
        images: float [N, 3, H, W] in 0..1.
        columns: images in a row.

    Returns: float [3, H', W'].
    """
    rows = -(-len(images) // columns)
    padded = torch.nn.functional.pad(images.clamp(0, 1), (2, 0, 2, 0), value=1.0)
    padded = torch.cat([padded, padded.new_ones(rows * columns - len(images), *padded.shape[1:])])
    h, w = padded.shape[2:]
    whole = padded.view(rows, columns, 3, h, w).permute(2, 0, 3, 1, 4).reshape(3, rows * h, columns * w)
    return whole[:, 2:, 2:].contiguous()
