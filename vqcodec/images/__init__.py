# SPDX-License-Identifier: Apache-2.0
"""Pillow's edge: images in and out, files, sheets of pictures. Knows no PyTorch."""
