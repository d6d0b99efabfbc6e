# SPDX-License-Identifier: Apache-2.0
"""Quality, effort and target size: what an encoder is asked for, and what it makes of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import untrained
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from vqcodec.codec import Codec
from vqcodec.encoder.emphasis import emphasis
from vqcodec.encoder.request import DEFAULT_EFFORT, EFFORTS, Request, lmbda_of
from vqcodec.encoder.target import PASSES, PRECISION, search
from vqcodec.errors import ImageError, ModelError
from vqcodec.evaluation import metrics
from vqcodec.format import container
from vqcodec.model import lambdas
from vqcodec.nets.quality import C2
from vqcodec.training.presets import VQVAE2_PRESETS

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


def test_a_step_just_above_the_target_is_left_behind():
    """Weights of two attempts give one size, a little too large: the next has to lie beyond both."""

    def size(weight):
        return 4_010 if weight < 0.3 else 3_980

    weight = search(size, lambda weight: 4_200 * (weight / 0.28) ** -0.2, 4_000, LMBDAS)
    assert 0.3 <= weight < 0.4


def test_the_place_is_a_byte_on_a_logarithmic_scale() -> None:
    config = dataclasses.replace(VQVAE2_PRESETS["tiny"], lmbdas=LMBDAS)
    low, high = LMBDAS
    assert [lambdas.tradeoff(config, rate) for rate in (0.0, low / 2, low, high, 9.0)] == [0, 0, 0, 255, 255]
    assert lambdas.tradeoff(config, math.sqrt(low * high)) in (127, 128)
    assert lambdas.tradeoff(config, low * (high / low) ** 0.25) == round(255 * 0.25)
    assert lambdas.tradeoff(dataclasses.replace(config, lmbdas=(0.0, 0.0)), 1.0) == 0
    assert lambdas.tradeoff(dataclasses.replace(config, lmbdas=(1.0, 1.0)), 2.0) == 0


def test_prior_and_training_agree_on_the_place() -> None:
    """The row of the embedding of the rate: of a byte in the integer prior, of a number in 0..1 in the trained one."""
    for rows in (1, 7, 32, 256):
        for byte in range(256):
            assert round(byte / lambdas.HIGHEST_TRADEOFF * 255) * rows // 256 == byte * rows // 256


def test_factors_of_levels() -> None:
    config = VQVAE2_PRESETS["tiny"]
    tradeoffs = torch.tensor([0.0, 0.5, 1.0])
    assert lambdas.factors(config, tradeoffs).tolist() == [[0] * 3, [1] * 3]  # the coarsest may not stop
    levels = tuple(dataclasses.replace(level, stop=True) for level in config.autoencoder.levels)
    auto = dataclasses.replace(config.autoencoder, levels=levels)
    config = dataclasses.replace(config, autoencoder=auto, factors=((4.0, 0.25), (1.0, 9.0)), lmbdas=LMBDAS)
    torch.testing.assert_close(lambdas.factors(config, tradeoffs), torch.tensor([[4, 1, 0.25], [1, 3, 9]]))
    middle = math.sqrt(LMBDAS[0] * LMBDAS[1])
    torch.testing.assert_close(lambdas.at(config, tradeoffs)[:, 1], torch.tensor([middle, 3 * middle]))


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
    factors = emphasis(image, 8, 0.5)
    assert factors.shape == (8, 12)
    assert factors.log().mean().abs() < 1e-4
    assert factors[:, 7:].min() > 3 * factors[:, :5].max()
    contrast = (torch.tensor(1 / 12) + C2) / C2  # of uniform noise against nothing
    assert float((factors[:, 8:].mean() / factors[:, :4].mean()) ** 2) == pytest.approx(float(contrast), rel=0.1)
    assert torch.equal(emphasis(image, 8, 0.0), torch.ones(8, 12))


def test_tune_moves_bits(shipped):
    """From where contrast hides errors to smooth places, over pictures."""
    errors = np.zeros((2, 2))
    for picture in (data.chelsea(), data.coffee(), data.astronaut()):
        part = np.ascontiguousarray(picture[20:276, 60:316])
        blocks = part.astype(np.float64).reshape(16, 16, 16, 16, 3)
        contrast = blocks.mean(4).var((1, 3))
        smooth = contrast < np.quantile(contrast, 0.25)
        for row, tune in zip(errors, ("eye", "ssim"), strict=True):
            decoded = np.asarray(shipped.decode(shipped.encode(Image.fromarray(part), effort=3, tune=tune)))
            error = np.square(decoded.reshape(blocks.shape) - blocks).mean((1, 3, 4))
            row += error[smooth].mean(), error[~smooth].mean()
    assert errors[1][0] < errors[0][0]
    assert errors[1][1] > errors[0][1]


def test_tune_ssim_is_for_similarity(shipped):
    """More of it for the same bytes, at the cost of squared error: bits at equal quality, on average over pictures."""
    changes = []
    for picture in (data.chelsea(), data.coffee(), data.astronaut()):
        part = np.ascontiguousarray(picture[20:276, 60:316])
        rows = {}
        for tune in ("eye", "ssim"):
            files = [shipped.encode(Image.fromarray(part), quality=q, effort=3, tune=tune) for q in (30, 45, 60)]
            decoded = [np.asarray(shipped.decode(file)) for file in files]
            similar = [metrics.ms_ssim_db(metrics.ms_ssim(part, x)) for x in decoded]
            rows[tune] = [len(file) for file in files], similar, [metrics.psnr(part, x) for x in decoded]
        (sizes, *anchors), (other_sizes, *others) = rows["eye"], rows["ssim"]
        pairs = zip(anchors, others, strict=True)
        changes.append([metrics.bd_rate(sizes, anchor, other_sizes, other).percent for anchor, other in pairs])
    similarity, error = np.mean(changes, 0)
    assert similarity < 0 < error


def test_metadata_count_towards_the_size(shipped, photo):
    image = Image.fromarray(photo[:128, :128])
    image.info["icc_profile"] = np.random.default_rng(0).bytes(1500)
    data = shipped.encode(image, size=3_000)
    assert 0.97 * 3_000 <= len(data) <= 3_000
    assert len(container.unpack(data).icc) == 1500


def test_a_size_that_cannot_be_reached_is_refused(shipped, photo):
    with pytest.raises(ImageError, match="too few"):
        shipped.encode(Image.fromarray(photo), size=150)
    whole = shipped.encode(Image.fromarray(photo[:64, :64]), size=10**6)
    assert len(whole) < 10**5  # the best there is


def test_a_model_of_one_quality_says_so(tmp_path, photo):
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
