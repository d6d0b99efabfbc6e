# SPDX-License-Identifier: Apache-2.0
"""The index maps of an image: what an encoder chooses, a file stores and a decoder takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class IndexMaps:
    """The index maps of one image, all levels, on the CPU.

    Args:
        levels: coarsest first, int64 [maps, H / stride, W / stride], H and W the image's sides rounded up to multiples
            of the coarsest stride; the maps are those of the residual stages, then of the groups of product stages.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """

    levels: tuple[Tensor, ...]
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image, in pixels, as Pillow has it."""
        return self.width, self.height

    def equal(self, other: IndexMaps) -> bool:
        """Return whether these are the same indices of an image of the same size."""
        same_size = self.size == other.size and len(self.levels) == len(other.levels)
        return same_size and all(torch.equal(a, b) for a, b in zip(self.levels, other.levels, strict=True))
