# SPDX-License-Identifier: Apache-2.0
"""The residual quantiser against NumPy, and what may move when."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqcodec.config import LevelConfig
from vqcodec.nets.quantizer import DECAY, EPSILON, Dropout, ResidualQuantizer

LEVEL = LevelConfig(stride=4, codebooks=3, codes=8, dim=5)


def quantizer(seed: int = 0, spread: float = 10.0) -> ResidualQuantizer:
    torch.manual_seed(seed)
    q = ResidualQuantizer(LEVEL)
    q.codebooks.mul_(spread)
    return q.eval()


def test_indices_are_the_nearest_codes_of_the_residuals():
    q = quantizer()
    z = torch.randn(2, 3, 4, 5)
    result = q(z)
    assert result.quantized.shape == z.shape
    assert result.indices.shape == (2, 3, 3, 4)
    residual = z.reshape(-1, 5).numpy().astype(np.float64)
    for stage in range(3):
        codes = q.codebooks[stage].numpy().astype(np.float64)
        nearest = ((residual[:, None] - codes[None]) ** 2).sum(2).argmin(1)
        assert (result.indices[:, stage].flatten().numpy() == nearest).all()
        residual -= codes[nearest]
    np.testing.assert_allclose((z - result.quantized).reshape(-1, 5).numpy(), residual, atol=1e-5)
    np.testing.assert_allclose(float(result.commitment.mean()), (residual**2).mean(), rtol=1e-4)
    assert torch.allclose(q.lookup(result.indices), result.quantized, atol=1e-6)


def test_the_worked_example_of_the_docstring():
    q = ResidualQuantizer(LevelConfig(4, 2, 4, 1)).eval()
    q.codebooks.copy_(torch.tensor([[0.0, 4, 8, 12], [0.0, 1, 2, 3]])[..., None])
    assert q(torch.full((1, 1, 1, 1), 6.1)).indices.flatten().tolist() == [2, 0]
    assert q(torch.full((1, 1, 1, 1), 5.9)).indices.flatten().tolist() == [1, 2]


def test_code_zero_of_later_stages_adds_nothing():
    q = quantizer().train()
    for _ in range(3):
        q(torch.randn(2, 8, 8, 5))
    assert (q.codebooks[1:, 0] == 0).all()
    assert q.codebooks[0, 0].abs().sum() > 0


def test_a_rate_weight_trades_distortion_for_bits():
    q = quantizer()
    z = torch.randn(1, 32, 32, 5)
    q.bits.copy_(torch.arange(8.0).expand(3, 8))  # code 0 is free, code 7 costs seven bits
    before = q(z)
    q.rate_weight.fill_(0.3)
    after = q(z)
    cost = [q.bits.gather(1, r.indices[0].flatten(1)).sum() for r in (before, after)]
    assert cost[1] < 0.7 * cost[0]
    assert after.commitment.mean() > before.commitment.mean()
    q.rate_weight.fill_(1e6)
    assert not q(z).indices.any()


def test_straight_through_gradient_is_the_identity():
    q = quantizer()
    z = torch.randn(1, 2, 2, 5, requires_grad=True)
    weight = torch.randn(1, 2, 2, 5)
    (q(z).quantized * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_moving_average_equals_numpy():
    q = quantizer()
    q.counts.fill_(3.0)
    q.sums.copy_(q.codebooks * 3.0)
    z = torch.randn(2, 8, 8, 5)
    codes, counts, sums = (t[0].clone().double().numpy() for t in (q.codebooks, q.counts, q.sums))
    index = q(z).indices[:, 0].flatten().numpy()
    flat = z.reshape(-1, 5).double().numpy()
    q.train()(z)
    for k in range(8):
        counts[k] = DECAY * counts[k] + (1 - DECAY) * (index == k).sum()
        sums[k] = DECAY * sums[k] + (1 - DECAY) * flat[index == k].sum(0)
    total = counts.sum()
    codes = sums / ((counts + EPSILON) / (total + 8 * EPSILON) * total)[:, None]
    np.testing.assert_allclose(q.counts[0].numpy(), counts, rtol=1e-5)
    np.testing.assert_allclose(q.codebooks[0].numpy(), codes, rtol=1e-4, atol=1e-6)


def test_nothing_moves_in_evaluation():
    q = quantizer()
    before = {k: v.clone() for k, v in q.state_dict().items()}
    q(torch.randn(2, 8, 8, 5))
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
    q.train()(torch.randn(2, 8, 8, 5))
    assert not torch.equal(q.codebooks, before["codebooks"])


def test_dead_codes_restart_with_count_and_sum():
    q = quantizer()
    q.codebooks[:, 4] = 1e4  # out of reach
    q.counts[:, 4] = 0.0
    z = torch.randn(2, 8, 8, 5)
    q.train()(z)
    restarted = q.codebooks[0, 4]
    assert (z.reshape(-1, 5) == restarted).all(1).any()
    assert q.counts[0, 4] >= 1
    assert torch.allclose(q.sums[0, 4] / q.counts[0, 4], restarted, rtol=1e-5)
    q(z)
    assert (q.codebooks[0, 4] - restarted).norm() < 0.5


def test_kmeans_init_uses_every_code_and_lowers_the_error_by_stage():
    q = quantizer()
    centres = 5 * torch.randn(8, 5)
    vectors = centres[torch.arange(4000) % 8] + 0.3 * torch.randn(4000, 5)
    q.initialize(vectors)
    result = q(vectors.view(1, 40, 100, 5))
    assert all(len(result.indices[0, s].unique()) == 8 for s in range(3))
    one = (vectors - q.codebooks[0][result.indices[0, 0].flatten()]).square().mean()
    assert result.commitment.mean() < 0.8 * one < 0.2 * vectors.square().mean()
    with pytest.raises(ValueError, match="at least 8"):
        q.initialize(vectors[:5])


def test_wrong_shape_raises():
    with pytest.raises(ValueError, match=r"\[N, H, W, 5\]"):
        quantizer()(torch.zeros(1, 5, 2, 2))


def test_dropout():
    """Silent images get nothing of the level; of others the latents pass, gradient and all, and codes are chosen."""
    level = LevelConfig(8, 3, 16, 4, stop=True)
    torch.manual_seed(0)
    learning = ResidualQuantizer(level).train()
    learning.initialize(torch.randn(400, 4))
    z = torch.randn(3, 2, 2, 4, requires_grad=True)
    dropout = Dropout(torch.tensor([True, False, False]), torch.tensor([False, True, False]))
    result = learning(z, dropout=dropout)
    assert not result.quantized[0].any()
    assert not result.indices[0].any()
    assert result.commitment[0] == 0
    assert torch.equal(result.quantized[1], z[1])
    assert result.indices[1].any()
    assert result.commitment[1] > 0
    assert not torch.equal(result.quantized[2], z[2])
    result.quantized.sum().backward()
    assert z.grad.flatten(1).amin(1).tolist() == [0, 1, 1]
    assert z.grad.flatten(1).amax(1).tolist() == [0, 1, 1]
