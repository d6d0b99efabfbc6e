# SPDX-License-Identifier: Apache-2.0
"""The shipped model earns its bits: stream against ideal, integers against floats, prior against raw indices."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from vqcodec.errors import ModelError
from vqcodec.evaluation.rates import float_priors, level_rates
from vqcodec.model import registry


@pytest.fixture(scope="module")
def rates(shipped):
    images = [np.ascontiguousarray(image[100:356, 50:562]) for image in (data.coffee(), data.rocket())]
    return level_rates(shipped, images, float_priors(registry.find(), shipped))


def test_the_stream_is_as_long_as_the_ideal_code(rates):
    for level in rates:
        assert level.ideal - 1 <= level.stream <= level.ideal * 1.002 + 64


def test_rounding_costs_less_than_one_percent(rates):
    assert sum(level.stream for level in rates) < 1.01 * sum(level.floating for level in rates) + 64


def test_the_priors_save_bits_at_every_level(shipped, rates):
    for level, config in zip(rates, shipped.config.autoencoder.levels, strict=True):
        assert level.positions == 2 * 256 * 512 // config.stride**2
        assert level.positions < level.indices < level.positions * config.maps  # some stop early
        least, most = sorted((config.codes, config.group_codes))
        assert np.log2(least) <= level.raw / level.indices <= np.log2(most)
        assert level.stream < 0.95 * level.raw
    assert sum(level.stream for level in rates) < 0.75 * sum(level.raw for level in rates)


def test_the_float_network_knows_no_cut_tiles(shipped):
    with pytest.raises(ModelError, match="multiples of 256"):
        level_rates(shipped, [np.zeros((100, 256, 3), np.uint8)], float_priors(registry.find(), shipped))
