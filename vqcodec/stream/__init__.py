# SPDX-License-Identifier: Apache-2.0
"""Indices to words of the range coder, and back: index maps, tiles, groups, writer, reader."""
