# SPDX-License-Identifier: Apache-2.0
"""VMAF rises with quality, and rivals get no more bytes than ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import load_tool
from PIL import Image, ImageFilter, features
from skimage import data

from vqcodec.evaluation import unseen
from vqcodec.evaluation.rivals import Rival

pytest.importorskip("vmaf_torch")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.chelsea()[20:220, 60:316])


def test_blur_costs_quality(photo: Image.Image) -> None:
    values = [
        unseen.vmaf(np.array(photo.filter(ImageFilter.GaussianBlur(radius))), np.array(photo)) for radius in (0, 1, 3)
    ]
    assert values[0] > 95
    assert values[0] > values[1] > values[2]


def test_rivals_get_no_more_bytes(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    ours, *others = unseen.at_equal_bytes([tmp_path / "a.png"], Rival("WebP", 40), ["JPEG", "JPEG XL"])
    assert (ours.name, ours.fitted) == ("WebP", 1)
    assert [other.name for other in others] == ["JPEG", "JPEG XL"]
    assert all(other.bpp <= ours.bpp for other in others)
    (alone,) = unseen.at_equal_bytes([tmp_path / "a.png"], Rival("WebP", 0), ["JPEG"])  # JPEG has none so small
    assert alone.bpp < ours.bpp
    assert alone.vmaf < ours.vmaf


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_the_tool_makes_a_table(photo: Image.Image, tmp_path: Path) -> None:
    photo.crop((0, 0, 192, 192)).save(tmp_path / "a.png")
    result = CliRunner().invoke(load_tool("vmaf").main, [str(tmp_path), "-q", "60"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "| 60 | vqcodec |" in result.output
    assert "AVIF psnr" in result.output
