# SPDX-License-Identifier: Apache-2.0
"""Collections of `.vq2` files and of indices as PyTorch datasets: pictures, or indices for models of your own."""

from vqcodec.data.files import Files
from vqcodec.data.samples import AS, Sample
from vqcodec.data.stream import Stream

__all__ = ["AS", "Files", "Sample", "Stream"]
