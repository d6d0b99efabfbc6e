# SPDX-License-Identifier: Apache-2.0
"""Quality, effort and target size: what an encoder is asked for, and what it makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import untrained
from numpy.typing import NDArray
from PIL import Image

from vqcodec.codec import Codec
from vqcodec.config import VQVAE2_PRESETS
from vqcodec.encoder.emphasis import emphasis
from vqcodec.encoder.request import DEFAULT_EFFORT, EFFORTS, Request, lmbda_of
from vqcodec.encoder.target import PASSES, PRECISION, search
from vqcodec.errors import ImageError, ModelError
from vqcodec.evaluation import metrics
from vqcodec.format import container
from vqcodec.nets.quality import C2
from vqcodec.nets.quantizer import OrderZero

LMBDAS = (0.06, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": -1}, {"quality": 101}, {"quality": math.nan}, {"lmbda": -0.1}, {"lmbda": math.inf}, {"size": 0},
        {"bpp": 0.0}, {"bpp": math.nan}, {"tune": "size"}, {"effort": 0}, {"effort": 10}, {"quality": 3, "lmbda": 1.0},
        {"size": 3, "bpp": 1.0},
    ],
)  # fmt: skip
def test_a_request_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="must be|give one of"):
        Request(**wrong)


def test_the_scale_runs_over_the_range_of_rates():
    lmbdas = [lmbda_of(quality, LMBDAS) for quality in range(101)]
    assert all(a > b for a, b in zip(lmbdas, lmbdas[1:], strict=False))
    assert lmbdas[50] == pytest.approx(math.sqrt(0.06 * 2.0))
    assert lmbdas[0] > 2.0 > 0.06 > lmbdas[100]
    with pytest.raises(ModelError, match="single quality"):
        lmbda_of(50, (0.0, 0.0))


def test_target_in_bytes():
    assert Request(size=20_000).target(10) == 20_000
    assert Request(bpp=0.5).target(1600) == 100
    assert Request(quality=30).target(1600) is None
    assert not Request(quality=30).sized


@pytest.mark.parametrize("power", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("target", [1_000.0, 5_000.0, 15_000.0])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.2])
def test_search_hits_a_falling_size_in_few_passes(power: float, target: float, ratio: float) -> None:
    made, estimated = [], []

    def size(weight: float, factor: float = 1.0) -> int:
        return int(100 + factor * 2_000 * weight**-power * (1 + 0.1 * math.sin(math.log(weight))))

    def make(weight: float) -> int:
        made.append(size(weight))
        return made[-1]

    def estimate(weight: float) -> int:
        estimated.append(weight)
        return size(weight, ratio)

    weight = search(make, estimate, target, LMBDAS, 100)
    assert PRECISION * (target - 100) - 1 <= size(weight) - 100 <= target - 100
    assert size(weight) in made
    assert len(made) <= PASSES
    assert len(estimated) <= 4


def test_search_survives_estimates_that_mean_nothing() -> None:
    weight = search(lambda weight: 2_000 * weight**-0.7, lambda weight: 7_000, 3_000, LMBDAS)
    assert 0.8 * 3_000 < 2_000 * weight**-0.7 <= 3_000


def test_search_at_the_ends() -> None:
    def constant(least: float) -> list[float]:
        made = []

        def size(weight: float) -> float:
            made.append(weight)
            return least + 100 / weight

        return [search(size, size, 4_000, LMBDAS), *made]

    assert constant(5_000)[0] == math.inf
    lowest = search(lambda weight: 3_000 - weight, lambda weight: 3_000 - weight, 4_000, LMBDAS)
    assert 0 < lowest < LMBDAS[0] / 60
    steps = search(*[lambda weight: 1_000 if weight > 0.3 else 9_000] * 2, 4_000, LMBDAS)  # nothing between
    assert steps > 0.3
    assert search(lambda weight: 9, lambda weight: 9, 90, LMBDAS, 100) == math.inf


def test_beam_is_never_worse_than_the_greedy_choice():
    torch.manual_seed(0)
    quantizer = untrained()[0].level_quantizers()[1]
    z = torch.randn(2, 6, 5, 8) * quantizer.codebooks[0].std()
    weights, table = torch.tensor([0.0, 3.0]), torch.rand(2, 16) * 8
    costs = []
    for beam in (1, 2, 16):
        maps, rest = quantizer.choose(z, weights, OrderZero(table), beam=beam)
        torch.testing.assert_close(quantizer.lookup(maps) + rest, z, atol=1e-4, rtol=0)
        bits = sum(table[stage][maps[:, stage]] for stage in range(2))
        costs.append(rest.square().sum(-1) + weights[:, None, None] * bits)
    assert (costs[2] <= costs[0] + 1e-3).all()  # with a beam of all codes the choice is the best of all pairs
    assert costs[2].sum() < costs[0].sum()
    assert costs[1].sum() < costs[0].sum()
    every = quantizer.codebooks[0][:, None] + quantizer.codebooks[1][None]
    price = weights[:, None, None] * (table[0][:, None] + table[1][None])
    all_pairs = (z[..., None, None, :] - every).square().sum(-1) + price[:, None, None]
    torch.testing.assert_close(costs[2], all_pairs.flatten(3).amin(3), atol=1e-3, rtol=1e-4)


def coded(codec: Codec, pixels: NDArray[np.uint8], **asked) -> tuple[int, float]:
    """Bytes and PSNR."""
    data = codec.encode(Image.fromarray(pixels), **asked)
    error = np.asarray(codec.decode(data), np.float64) - pixels
    return len(data), 10 * math.log10(255**2 / (error**2).mean())


def test_size_and_quality_rise_with_q(shipped, photo):
    points = [coded(shipped, photo, quality=quality) for quality in range(0, 101, 10)]
    for below, above in zip(points, points[1:], strict=False):
        assert below[0] < above[0]
        assert below[1] < above[1]
    assert points[-1][0] > 4 * points[0][0]
    assert points[-1][1] > points[0][1] + 4


def test_effort_saves_bytes_at_equal_quality(shipped, photo):
    """The default against nearest codes; and the highest against the default."""
    part = np.ascontiguousarray(photo[20:276, 60:316])
    bold = [coded(shipped, part, quality=quality, effort=1) for quality in (40, 70, 100)]
    usual = [coded(shipped, part, quality=quality) for quality in range(0, 101, 10)]
    for size, psnr in bold:
        at = np.interp(psnr, [p for _, p in usual], np.log([s for s, _ in usual]))
        assert math.exp(at) < 0.9 * size
    size, psnr = coded(shipped, part, quality=50, effort=9)
    at = np.interp(psnr, [p for _, p in usual], np.log([s for s, _ in usual]))
    assert size < math.exp(at)
    assert DEFAULT_EFFORT in EFFORTS


@pytest.mark.parametrize("asked", [{"size": 6_000}, {"bpp": 0.25}, {"bpp": 0.8, "effort": 2}])
def test_a_target_is_hit_from_below(shipped, photo, asked):
    size, _ = coded(shipped, photo, **asked)
    target = Request(**asked).target(photo.shape[0] * photo.shape[1])
    assert 0.97 * target <= size <= target


def test_emphasis_is_on_contrast():
    image = torch.full((1, 3, 64, 96), 0.5)
    image[:, :, :, 48:] += torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    found = emphasis(image, 8, 0.5)
    assert found.shape == (8, 12)
    assert found.log().mean().abs() < 1e-4
    assert found[:, 7:].min() > 3 * found[:, :5].max()
    contrast = (torch.tensor(1 / 12) + C2) / C2  # of uniform noise against nothing
    assert float((found[:, 8:].mean() / found[:, :4].mean()) ** 2) == pytest.approx(float(contrast), rel=0.1)
    assert torch.equal(emphasis(image, 8, 0.0), torch.ones(8, 12))


def test_tune_moves_bits(shipped, photo):
    """More similarity for the same bytes, at the cost of squared error."""
    part = np.ascontiguousarray(photo[20:276, 60:316])
    found = []
    for tune in ("psnr", "ssim"):
        data = shipped.encode(Image.fromarray(part), bpp=0.5, effort=3, tune=tune)
        decoded = np.asarray(shipped.decode(data))
        found.append((metrics.ms_ssim(part, decoded), metrics.psnr(part, decoded)))
    assert found[1][0] > found[0][0]
    assert found[1][1] < found[0][1]


def test_metadata_count_towards_the_size(shipped, photo):
    image = Image.fromarray(photo[:128, :128])
    image.info["icc_profile"] = np.random.default_rng(0).bytes(1500)
    data = shipped.encode(image, size=3_000)
    assert 0.97 * 3_000 <= len(data) <= 3_000
    assert len(container.unpack(data).icc) == 1500


def test_a_size_that_cannot_be_reached_is_refused(shipped, photo):
    with pytest.raises(ImageError, match="too few"):
        shipped.encode(Image.fromarray(photo), size=300)
    whole = shipped.encode(Image.fromarray(photo[:64, :64]), size=10**6)
    assert len(whole) < 10**5  # the best there is


def test_a_model_of_one_quality_says_so(tmp_path, photo):
    import dataclasses

    from vqcodec.model.loading import pack_model
    from vqcodec.prior.export import to_integers

    config = dataclasses.replace(VQVAE2_PRESETS["tiny"], lmbdas=(0.0, 0.0))
    autoencoder, priors = untrained(config)
    codec = Codec(config, pack_model(autoencoder, [to_integers(p) for p in priors]))
    image = Image.fromarray(photo[:64, :64])
    assert codec.decode(codec.encode(image)).size == (64, 64)
    for asked in ({"quality": 40}, {"size": 4_000}):
        with pytest.raises(ModelError, match="single quality"):
            codec.encode(image, **asked)


def test_the_same_through_python_and_pillow(photo, tmp_path):
    import vqcodec.pillow_plugin

    image = Image.fromarray(photo[:96, :96])
    data = vqcodec.encode(image, quality=20, effort=2)
    image.save(tmp_path / "a.vq2", quality=20, effort=2)
    assert (tmp_path / "a.vq2").read_bytes() == data
    assert len(vqcodec.encode(image, quality=80, effort=2)) > len(data)
    assert len(vqcodec.encode(image, bpp=1.0)) <= 96 * 96 / 8
    indices = vqcodec.to_indices(image, quality=20, effort=2)
    assert vqcodec.from_indices(indices).tobytes() == vqcodec.decode(data).tobytes()
