# SPDX-License-Identifier: Apache-2.0
"""The metrics against independent implementations and against cases solved by hand."""

from __future__ import annotations

import importlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from vqcodec.evaluation import metrics

Image = NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 0) -> Image:
    """Smooth colour waves with some texture: statistics closer to a photograph than plain noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + 5 * c) + c) * np.cos(y / (11 + 3 * c)) for c in range(3)]
    smooth = 128 + 80 * np.stack(waves, axis=2)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def damaged(image: Image, strength: float, seed: int = 1) -> Image:
    noise = np.random.default_rng(seed).normal(0, strength, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("strength", [1.0, 10.0, 60.0])
def test_psnr_agrees_with_scikit_image(strength: float) -> None:
    reference: Any = importlib.import_module("skimage.metrics").peak_signal_noise_ratio
    a = picture(40, 57)
    b = damaged(a, strength)
    assert metrics.psnr(a, b) == pytest.approx(reference(a, b, data_range=255), abs=1e-9)


@pytest.mark.parametrize("quality", [10, 60])
def test_a_photograph_agrees_with_both(photo: Image, quality: int) -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(photo).save(file, "JPEG", quality=quality)
    decoded = np.array(PIL.Image.open(file))
    psnr: Any = importlib.import_module("skimage.metrics").peak_signal_noise_ratio
    ms_ssim: Any = importlib.import_module("pytorch_msssim").ms_ssim
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in (photo, decoded)]
    assert metrics.psnr(photo, decoded) == pytest.approx(psnr(photo, decoded), abs=1e-4)
    assert metrics.ms_ssim(photo, decoded) == pytest.approx(float(ms_ssim(*tensors, data_range=255)), abs=1e-4)


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    assert metrics.psnr(black, black) == math.inf
    assert metrics.psnr(black, black + np.uint8(255)) == 0.0
    one_channel = black.copy()
    one_channel[..., 1] = 30  # unsigned differences must not wrap around: 0 - 30
    expected = 10 * math.log10(255**2 / 300)
    assert metrics.psnr(black, one_channel) == pytest.approx(expected)
    assert metrics.psnr(one_channel, black) == pytest.approx(expected)


@pytest.mark.parametrize(("height", "width"), [(176, 192), (161, 161), (203, 177), (190, 333)])
@pytest.mark.parametrize("strength", [2.0, 25.0, 90.0])
def test_ms_ssim_agrees_with_pytorch_msssim(height: int, width: int, strength: float) -> None:
    reference: Any = importlib.import_module("pytorch_msssim").ms_ssim
    a = picture(height, width)
    b = damaged(a, strength)
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None].double() for image in (a, b)]
    expected = float(reference(*tensors, data_range=255))
    assert metrics.ms_ssim(a, b) == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_term_agrees_with_scikit_image() -> None:
    a = picture(96, 80)
    b = damaged(a, 20.0)
    reference: Any = importlib.import_module("skimage.metrics").structural_similarity
    _, full = reference(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    valid = full[5:-5, 5:-5].mean(axis=(0, 1))  # where the window of 11 fits
    x, y = (np.moveaxis(image, 2, 0).astype(np.float64) for image in (a, b))
    np.testing.assert_allclose(metrics._ssim_term(x, y, luminance=True), valid, atol=1e-4)


def test_ms_ssim_of_opposites_is_zero_and_of_equals_is_one() -> None:
    a = picture(170, 170)
    assert metrics.ms_ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert metrics.ms_ssim(a, 255 - a) == 0.0


def test_ms_ssim_refuses_small_images() -> None:
    a = picture(200, metrics.MS_SSIM_MIN_SIDE - 1)
    with pytest.raises(ValueError, match="161"):
        metrics.ms_ssim(a, a)


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ms_ssim, metrics.ssimulacra2])
def test_wrong_images_are_refused(measure: object) -> None:
    assert callable(measure)
    good = picture(180, 180)
    wrong_images = (good[..., 0], good.astype(np.float32), good[..., :2], good[:0])
    for wrong in wrong_images:
        with pytest.raises(ValueError, match="uint8 RGB"):
            measure(good, wrong)
    with pytest.raises(ValueError, match="differ in shape"):
        measure(good, good[:-1])


def test_ms_ssim_db() -> None:
    assert metrics.ms_ssim_db(0.9) == pytest.approx(10.0)
    assert metrics.ms_ssim_db(0.99) == pytest.approx(20.0)
    assert metrics.ms_ssim_db(1.0) == math.inf
    with pytest.raises(ValueError, match="over 1"):
        metrics.ms_ssim_db(1.01)


def test_ssimulacra2_scale() -> None:
    a = picture(96, 120)
    assert metrics.ssimulacra2(a, a) == pytest.approx(100.0)
    values = [metrics.ssimulacra2(a, damaged(a, strength)) for strength in (2.0, 10.0, 40.0)]
    assert 100.0 > values[0] > values[1] > values[2]


def test_ssimulacra2_takes_the_original_first(tmp_path: Path) -> None:
    a, b = picture(64, 48), damaged(picture(64, 48), 15.0)
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for image, path in zip((a, b), paths, strict=True):
        PIL.Image.fromarray(image).save(path)
    reference: Any = importlib.import_module("ssimulacra2").compute_ssimulacra2
    assert metrics.ssimulacra2(a, b) == reference(*map(str, paths))
    assert metrics.ssimulacra2(a, b) != metrics.ssimulacra2(b, a)


def test_ssimulacra2_refuses_small_images_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    a = picture(30, metrics.SSIMULACRA2_MIN_SIDE - 1)
    with pytest.raises(ValueError, match="at least 8"):
        metrics.ssimulacra2(a, a)
    with_package = metrics.version.__wrapped__()
    monkeypatch.setattr(metrics, "has_ssimulacra2", lambda: False)
    assert metrics.version.__wrapped__() != with_package


def test_bits_per_pixel() -> None:
    assert metrics.bits_per_pixel(49152, 768, 512) == 1.0
    for size, width, height in ((1, 0, 5), (1, 5, 0), (-1, 5, 5)):
        with pytest.raises(ValueError, match="no rate"):
            metrics.bits_per_pixel(size, width, height)


RATES = [0.1, 0.25, 0.4, 0.9, 1.6]
QUALITY = [24.0, 28.0, 30.5, 34.0, 37.0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_bd_lmbda_of_scaled_rates(factor: float) -> None:
    result = metrics.bd_rate(RATES, QUALITY, [factor * rate for rate in RATES], QUALITY)
    assert result.percent == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (result.low, result.high) == (24.0, 37.0)


def test_bd_rate_covers_only_the_common_range_in_any_order() -> None:
    # log rate linear in quality, so pchip is exact: the test curve saves 20 % at every quality
    def rate(quality: float) -> float:
        return math.exp(quality / 5)

    anchor, test = [25.0, 30.0, 33.0], [36.0, 28.0, 31.0]
    result = metrics.bd_rate([rate(q) for q in anchor], anchor, [0.8 * rate(q) for q in test], test)
    assert result.percent == pytest.approx(-20.0)
    assert (result.low, result.high) == (28.0, 33.0)


@pytest.mark.filterwarnings("ignore")  # the reference says when little of two curves overlaps
@pytest.mark.parametrize("seed", range(6))
def test_bd_rate_agrees_with_an_independent_package(seed: int) -> None:
    reference: Any = importlib.import_module("bjontegaard").bd_rate
    rng = np.random.default_rng(seed)
    curves = []
    for points in (4 + seed, 9 - seed):
        rates = np.cumsum(rng.uniform(0.05, 0.4, points))
        quality = rng.uniform(24, 29) + np.cumsum(rng.uniform(0.3, 3.0, points))
        curves += [rates, quality]
    expected = reference(*curves, method="pchip", require_matching_points=False)
    assert metrics.bd_rate(*(c.tolist() for c in curves)).percent == pytest.approx(expected, abs=0.1)


def test_bd_rate_averages_the_logarithm() -> None:
    # from equal rates at 20 dB to a quarter at 30 dB: on average half in the logarithm
    result = metrics.bd_rate([1.0, 1.0], [20.0, 30.0], [1.0, 0.25], [20.0, 30.0])
    assert result.percent == pytest.approx(-50.0)


def test_bd_rate_and_its_inverse() -> None:
    other = [q + 0.3 * i for i, q in enumerate(QUALITY)]
    forward = metrics.bd_rate(RATES, QUALITY, RATES, other).percent
    back = metrics.bd_rate(RATES, other, RATES, QUALITY).percent
    assert forward < 0 < back
    assert (1 + forward / 100) * (1 + back / 100) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rates", "quality", "message"),
    [
        ([0.1], [24.0], "two points"),
        ([0.1, 0.2], [24.0], "two points"),
        ([0.0, 0.2], [24.0, 25.0], "positive"),
        ([0.1, math.nan], [24.0, 25.0], "positive"),
        ([0.1, 0.2], [24.0, math.inf], "finite"),
        ([0.1, 0.2], [24.0, 24.0], "same quality"),
        ([0.1, 0.2], [10.0, 20.0], "in common"),
    ],
)
def test_bd_rate_refuses(rates: list[float], quality: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.bd_rate(RATES, QUALITY, rates, quality)


def test_reading_a_curve() -> None:
    for rate, quality in zip(RATES, QUALITY, strict=True):
        assert metrics.quality_at_rate(RATES, QUALITY, rate) == pytest.approx(quality)
        assert metrics.rate_at_quality(RATES, QUALITY, quality) == pytest.approx(rate)
    assert metrics.quality_at_rate(RATES, QUALITY, 0.09) is None
    assert metrics.rate_at_quality(RATES, QUALITY, 37.5) is None
    between = metrics.quality_at_rate(RATES, QUALITY, 0.3)
    assert between is not None
    assert 28.0 < between < 30.5
