# SPDX-License-Identifier: Apache-2.0
"""SSIMULACRA2 to train with is the measure of the package, on distorted photographs of every kind."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.stats import spearmanr
from skimage import data

from vqcodec.images import metrics
from vqcodec.training import eye

pytest.importorskip("ssimulacra2")


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def distorted(picture: Image.Image) -> Iterator[Image.Image]:
    """By compression, blur, noise, another contrast and fewer colours."""
    for quality in (5, 15, 40, 90):
        for name in ("JPEG", "WEBP"):
            buffer = io.BytesIO()
            picture.save(buffer, name, quality=quality)
            yield Image.open(buffer).convert("RGB")
    for radius in (0.5, 2):
        yield picture.filter(ImageFilter.GaussianBlur(radius))
    rng = np.random.default_rng(0)
    for sigma in (3, 20):
        noisy = np.array(picture) + rng.normal(0, sigma, (*picture.size[::-1], 3))
        yield Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    yield picture.point(lambda value: value * 0.9)
    yield picture.quantize(12).convert("RGB")


@pytest.fixture(scope="module")
def scores() -> list[tuple[float, float]]:
    """Ours and the package's, of an odd-sized and an even-sized photograph."""
    pictures = [Image.fromarray(data.chelsea()[:271, 60:331]), Image.fromarray(data.coffee()[80:336, 120:376])]
    return [
        (eye.score(tensor(other), tensor(picture)).item(), metrics.ssimulacra2(np.array(picture), np.array(other)))
        for picture in pictures
        for other in distorted(picture)
    ]


def test_scores_are_the_package_s(scores: list[tuple[float, float]]) -> None:
    for ours, reference in scores:
        assert ours == pytest.approx(reference, abs=0.05)
    assert spearmanr(*np.array(scores).T).statistic > 0.999


def test_equal_pictures_and_gradients() -> None:
    picture = tensor(Image.fromarray(data.coffee()[100:292, 100:292]))
    decoded = picture.clone().requires_grad_()
    distance = eye.distance(decoded, picture)
    assert 0 <= distance.item() < 0.01
    (gradient,) = torch.autograd.grad(distance.sum(), [decoded])
    assert gradient.isfinite().all()
    blurred = torch.nn.functional.avg_pool2d(picture, 5, 1, 2, count_include_pad=False).requires_grad_()
    (gradient,) = torch.autograd.grad(eye.distance(blurred, picture).sum(), [blurred])
    better = blurred - 1e-4 * gradient / gradient.abs().max()
    assert eye.distance(better, picture) < eye.distance(blurred, picture)


def test_pictures_of_a_batch_are_measured_one_by_one() -> None:
    first, second = (tensor(Image.fromarray(data.coffee()[y : y + 96, 100:196])) for y in (0, 200))
    others = (first * 0.8, second + 0.1)
    alone = torch.cat([eye.score(*pair) for pair in zip(others, (first, second), strict=True)])
    assert torch.allclose(eye.score(torch.cat(others), torch.cat([first, second])), alone, atol=1e-3)
