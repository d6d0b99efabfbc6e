# SPDX-License-Identifier: Apache-2.0
"""Indices of an image as arrays, and as `.npz` files."""

from vqcodec.indices.arrays import Indices, dumps, extract, from_indices, load, save, to_indices, to_vq2
from vqcodec.indices.stages import stages_used

__all__ = ["Indices", "dumps", "extract", "from_indices", "load", "save", "stages_used", "to_indices", "to_vq2"]
