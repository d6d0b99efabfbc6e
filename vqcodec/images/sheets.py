# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: several pictures on one."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

GRID_GAP = 2  # pixels


def grid(pictures: Iterable[Image.Image], count: int, columns: int) -> Image.Image:
    """Put pictures of one size on one, row by row, with a white gap between them.

    Args:
        pictures: of one size.
        count: number of them.
        columns: pictures in a row.

    Returns: mode RGB.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (1, 1))
    for i, picture in enumerate(pictures):
        across, down = picture.width + GRID_GAP, picture.height + GRID_GAP
        if not i:
            sheet = Image.new("RGB", (columns * across - GRID_GAP, rows * down - GRID_GAP), "white")
        sheet.paste(picture, (i % columns * across, i // columns * down))
    return sheet
