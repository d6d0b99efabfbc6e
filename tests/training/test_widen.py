# SPDX-License-Identifier: Apache-2.0
"""A trained model that gets more product stages and a wider range of lambdas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import untrained
from skimage import data

from vqcodec.training.autoencoder import AutoencoderTraining
from vqcodec.training.joint import JointTask
from vqcodec.training.loop import train
from vqcodec.training.presets import VQVAE2_PRESETS
from vqcodec.training.prior import Priors
from vqcodec.training.schedule import TrainConfig
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
    points = LIGHT.autoencoder.gains
    assert len(after) == 2 * points - 1
    torch.testing.assert_close(after, torch.cat([before[:1].expand(points - 1, -1), before]))
    rows = LIGHT.priors[0].tradeoffs
    old, new = priors.levels()[0].rate, new_priors.levels()[0].rate
    assert torch.equal(new, torch.cat([old[:1].expand(rows, -1), old]))
    assert all(q.rate_weight == pytest.approx(low) for q in new_model.level_quantizers() if q.rate_weight)


def test_a_part_of_a_distance_makes_points_denser():
    """Points at half the distance, and one more below."""
    low, high = LIGHT.lmbdas
    half = (high / low) ** (1 / (2 * (LIGHT.autoencoder.gains - 1)))
    wider = widened(LIGHT, None, (low / half, high))
    model, priors = trained()
    new_model, _ = carried(LIGHT, model, priors, wider)
    before, after = model.gains["head"].logs, new_model.gains["head"].logs
    assert len(after) == 2 * len(before)
    torch.testing.assert_close(after[1::2], before)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[2], (before[0] + before[1]) / 2)


def test_points_that_fit_nowhere_stay_as_many():
    low, high = LIGHT.lmbdas
    wider = widened(LIGHT, None, (low / 1.37, high * 1.11))
    assert wider.autoencoder.gains == LIGHT.autoencoder.gains
    assert [p.tradeoffs for p in wider.priors] == [p.tradeoffs for p in LIGHT.priors]


def test_a_kept_autoencoder_stays_while_codebooks_and_priors_are_trained(tmp_path):
    model, priors = trained()
    wider = widened(LIGHT, 2, None)
    photos = [np.ascontiguousarray(data.chelsea()[:128, :128])]
    config = TrainConfig(steps=3, batch=2, crop=64, warmup=1, validate_every=100, bf16=False)
    task = JointTask(wider, config, AutoencoderTraining(kept=True), photos, photos)
    new_model, new_priors = carried(LIGHT, model, priors, wider)
    task.autoencoder.load_state_dict(new_model.state_dict())
    task.module.priors.load_state_dict(new_priors.state_dict())
    train(task, config, tmp_path)
    after = task.autoencoder.state_dict()
    for name, value in new_model.state_dict().items():
        follows = any(part in name for part in ("codebooks", "counts", "sums", "bits"))
        assert follows or torch.equal(after[name], value), name
    assert not torch.equal(after["quantizers.1.product_codebooks"], new_model.quantizers[1].product_codebooks)
    trained_priors = task.module.priors.state_dict()
    assert not torch.equal(trained_priors["1.heads.0.weight"], new_priors.state_dict()["1.heads.0.weight"])


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
