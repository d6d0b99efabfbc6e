# SPDX-License-Identifier: Apache-2.0
"""A trained model that gets more product stages and a wider range of lambdas."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import untrained

from vqcodec.training.presets import VQVAE2_PRESETS
from vqcodec.training.prior import Priors
from vqcodec.training.widen import carried, widened

LIGHT = VQVAE2_PRESETS["tiny-light"]


def trained(config=LIGHT):
    """An autoencoder and priors, no two of whose gains and embeddings are alike."""
    model, _ = untrained(config)
    torch.manual_seed(1)
    priors = Priors(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".logs"):
                value.copy_(torch.randn(value.shape).cumsum(0) / 10)
    return model.eval(), priors.eval()


def test_what_was_there_stays():
    """With more stages, codes of the old ones mean and cost what they did; the new ones are mostly silent."""
    model, priors = trained()
    wider = widened(LIGHT, 3, None)
    new_model, new_priors = carried(LIGHT, model, priors, wider)
    tradeoffs = torch.tensor([0.3])
    maps = [  # all stages of all positions are used
        torch.stack([torch.randint(1, codes, (1, side, side)) for codes in level.alphabets], 1)
        for level, side in zip(LIGHT.autoencoder.levels, (4, 8), strict=True)
    ]
    level, new = LIGHT.autoencoder.levels[-1], wider.autoencoder.levels[-1]
    assert (new.products, new.maps) == (3, level.maps + 2 * level.groups)
    padded = [*maps[:-1], torch.cat([maps[-1], maps[-1].new_zeros(1, 2 * level.groups, *maps[-1].shape[2:])], 1)]
    assert torch.equal(model.decode(maps, 0.3), new_model.decode(padded, 0.3))
    old = priors.levels()[-1](maps[-1], maps[:-1], tradeoffs=tradeoffs)
    now = new_priors.levels()[-1](padded[-1], padded[:-1], tradeoffs=tradeoffs)
    assert torch.equal(now[:, : level.maps], old)
    more = now[:, level.maps :].detach()
    assert float(more[more > 0].mean()) < 0.5 * float(torch.tensor(float(level.group_codes)).log())


def test_gains_and_embeddings_go_with_their_lambdas():
    low, high = LIGHT.lmbdas
    wider = widened(LIGHT, None, (low**2 / high, high))  # twice as wide: its middle is the end of what was before
    model, priors = trained()
    new_model, new_priors = carried(LIGHT, model, priors, wider)
    before, after = model.gains["stem"].logs, new_model.gains["stem"].logs
    assert torch.allclose(after[0], before[0])
    assert torch.allclose(after[1], before[0])
    assert torch.allclose(after[2], before[2])
    rows = LIGHT.priors[0].tradeoffs
    old, new = priors.levels()[0].rate, new_priors.levels()[0].rate
    assert torch.equal(new[: rows // 2], old[:1].expand(rows // 2, -1))
    assert torch.equal(new[rows // 2 :], old[torch.arange(rows // 2) * 2 + 1])
    assert all(q.rate_weight == pytest.approx(low) for q in new_model.level_quantizers() if q.rate_weight)


def test_the_same_model_stays_itself():
    model, priors = trained()
    same = carried(LIGHT, model, priors, widened(LIGHT, None, None))
    for old, new in zip((model, priors), same, strict=True):
        state = new.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in old.state_dict().items())


def test_stages_are_not_taken_away():
    with pytest.raises(ValueError, match="cannot go on with"):
        widened(dataclasses.replace(LIGHT, autoencoder=widened(LIGHT, 3, None).autoencoder), 2, None)
    with pytest.raises(ValueError, match="cannot go on with"):
        widened(VQVAE2_PRESETS["tiny"], 2, None)
