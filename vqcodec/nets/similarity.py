# SPDX-License-Identifier: Apache-2.0
"""What the MS-SSIM of tensors and that of pictures have in common. Knows no PyTorch."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, finest first (Wang, Simoncelli and Bovik 2003)."""
