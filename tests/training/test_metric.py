# SPDX-License-Identifier: Apache-2.0
"""What an error of a latent does to the picture, as a metric of quantisers."""

from __future__ import annotations

import pytest
import torch
from conftest import untrained

from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.quality import ms_ssim
from vqcodec.nets.quantizer import ResidualQuantizer
from vqcodec.training.metric import PIXEL_VARIANCE, Similarity, followed, root, squared_jacobians
from vqcodec.training.presets import VQVAE2_PRESETS


def small() -> tuple[Autoencoder, list[torch.Tensor], torch.Tensor]:
    model, _ = untrained()
    image, tradeoffs = torch.rand(1, 3, 16, 16), torch.tensor([0.3])
    with torch.no_grad():
        return model, model.encode(image, None, None, tradeoffs), tradeoffs


def test_squared_jacobians_are_those_of_the_decoder() -> None:
    model, indices, tradeoffs = small()
    codes = [q.lookup(m).permute(0, 3, 1, 2) for q, m in zip(model.level_quantizers(), indices, strict=True)]
    generator = torch.Generator().manual_seed(0)
    estimates = [squared_jacobians(model, indices, tradeoffs, generator) for _ in range(400)]
    for level in range(2):

        def decode(code: torch.Tensor, level: int = level) -> torch.Tensor:
            return model.assemble([*codes[:level], code, *codes[level + 1 :]], tradeoffs)

        jacobian = torch.autograd.functional.jacobian(decode, codes[level]).flatten(0, 3)[:, 0]  # [pixels, D, h, w]
        by_position = jacobian.flatten(2).permute(2, 0, 1)
        exact = (by_position.transpose(1, 2) @ by_position).mean(0) / PIXEL_VARIANCE
        mean = torch.stack([one[level] for one in estimates]).mean(0)
        assert (mean - exact).norm() < 0.1 * exact.norm()


def test_a_probe_costs_what_ms_ssim_loses() -> None:
    """For small errors, that of a structured picture; at its edges windows are cut off."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24, generator=generator), 192, mode="bicubic")
    image = (0.2 + 0.5 * smooth).clamp(0, 1)
    error = 0.005 * torch.randn(image.shape, generator=generator)
    similarity = Similarity(image, 0.5)
    probes = [float(similarity.probe(error, generator)) ** 2 for _ in range(300)]
    lost = 0.5 * float(1 - ms_ssim(image + error, image)) * image.numel()
    assert sum(probes) / len(probes) == pytest.approx(lost, rel=0.35)


def test_similarity_in_the_metric() -> None:
    """It changes what directions cost, not what the finest level costs in all."""
    model, _ = untrained()
    image, tradeoffs = torch.rand(1, 3, 128, 128), torch.tensor([0.3])
    with torch.no_grad():
        indices = model.encode(image, None, None, tradeoffs)
    draws = [torch.Generator().manual_seed(1) for _ in range(3)]
    plain = squared_jacobians(model, indices, tradeoffs, draws[0])
    none = squared_jacobians(model, indices, tradeoffs, draws[1], Similarity(image, 0.0))
    both = squared_jacobians(model, indices, tradeoffs, draws[2], Similarity(image, 5.0))
    torch.testing.assert_close(none, plain)
    torch.testing.assert_close(both[-1].trace(), plain[-1].trace())
    assert not torch.allclose(both[-1], plain[-1], rtol=0.05)


def test_root() -> None:
    factor = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    square = factor.t() @ factor + 0.5 * torch.eye(6)
    r = root(square, 1.0)
    torch.testing.assert_close(r, r.t())
    torch.testing.assert_close(r.t() @ r, square, atol=1e-4, rtol=1e-4)
    milder = root(square, 0.5).square().sum()
    assert float(milder) == pytest.approx(float(square.trace()), rel=1e-4)
    torch.testing.assert_close(root(3 * torch.eye(4)), 3**0.5 * torch.eye(4))


def test_a_metric_follows() -> None:
    factor = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    square = factor.t() @ factor + torch.eye(6)
    metric = torch.eye(6)
    torch.testing.assert_close(followed(metric, square, 0.0), metric)
    torch.testing.assert_close(followed(metric, square, 1.0), root(square))
    for _ in range(60):
        metric = followed(metric, square, 0.2)
    torch.testing.assert_close(metric, root(square), atol=2e-3, rtol=2e-3)


def test_weights_without_a_metric_have_the_identity() -> None:
    quantizer = ResidualQuantizer(VQVAE2_PRESETS["tiny"].autoencoder.levels[1])
    state = quantizer.state_dict()
    del state["metric"]
    quantizer.metric.fill_(7)
    quantizer.load_state_dict(state)
    assert torch.equal(quantizer.metric, torch.eye(quantizer.level.dim))
