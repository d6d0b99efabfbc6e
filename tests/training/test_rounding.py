# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic in training: what is rounded once, and rows that only fill up."""

from __future__ import annotations

import pytest
import torch
from conftest import untrained

from vqcodec.prior import rounding
from vqcodec.prior.layers import ROWS, padded_rows
from vqcodec.prior.network import LevelPrior
from vqcodec.training.presets import VQVAE2_PRESETS


@pytest.fixture
def prior():
    return untrained(VQVAE2_PRESETS["tiny-light"])[1][-1].train()


@pytest.fixture
def maps(prior):
    return [torch.randint(1, 4, (2, v.maps, 64 // v.stride, 64 // v.stride)) for v in (*prior.coarser, prior.level)]


def with_gradients(prior, forward, maps):
    prior.zero_grad()
    torch.manual_seed(0)  # dropout
    nats = forward(prior, maps[-1], maps[:-1])
    nats.sum().backward()
    return [nats.detach(), *(p.grad.clone() for p in prior.parameters())]


def test_parameters_are_rounded_once_a_pass(monkeypatch, prior, maps):
    """The same nats and gradients as with a rounding at every use, in fewer; the next pass sees what has changed."""
    number, apply = 0, rounding._Integers.apply

    def counted(*arguments):
        nonlocal number
        number += 1
        return apply(*arguments)

    monkeypatch.setattr(rounding._Integers, "apply", counted)
    plain = with_gradients(prior, LevelPrior.forward.__wrapped__, maps)
    anew, number = number, 0
    once = with_gradients(prior, LevelPrior.forward, maps)
    assert number == len(list(prior.parameters())) < anew
    torch.testing.assert_close(once, plain, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        prior.embed.mul_(0.5)
    assert not torch.equal(with_gradients(prior, LevelPrior.forward, maps)[0], once[0])


def test_rows_are_padded_where_a_kernel_is_compiled_for_each_number():
    x = torch.randn(ROWS + 1, 2, 3)
    padded = padded_rows(x.bfloat16())
    assert padded.shape == (2 * ROWS, 2, 3)
    assert torch.equal(padded[: len(x)], x.bfloat16())
    assert not padded[len(x) :].any()
    assert padded_rows(x) is x
    assert len(padded_rows(padded)) == 2 * ROWS


def test_padding_changes_no_logits(prior, maps):
    """In bfloat16, row by row what the same rows give in a product that needs no padding."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        h = prior.trunk(maps[-1], maps[:-1], True).flatten(0, 1)
        assert h.dtype == torch.bfloat16
        assert len(h) % ROWS == 0
        whole = prior.logits(0, h, None, True)
        assert torch.equal(prior.logits(0, h[:3], None, True), whole[:3])
