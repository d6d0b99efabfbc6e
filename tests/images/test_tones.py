# SPDX-License-Identifier: Apache-2.0
"""Few tones: errors below a step, means kept, noise about a frequent tone gone."""

from __future__ import annotations

import numpy as np
import pytest

from vqcodec.images.tones import in_tones


@pytest.mark.parametrize("step", [1, 2, 8, 17, 64, 255])
def test_samples_of_a_bin_get_their_mean(step: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    toned = in_tones(pixels, step)
    for channel in range(3):
        before, after = pixels[:, :, channel].astype(int), toned[:, :, channel].astype(int)
        assert np.abs(before - after).max() < step
        for tone in np.unique(after):
            members = before[after == tone]
            assert members.max() - members.min() < step
            assert abs(members.mean() - tone) <= 0.5
    assert step > 1 or np.array_equal(toned, pixels)


@pytest.mark.parametrize("tone", [0, 63, 64, 200, 255])
def test_noise_about_a_tone_goes(tone: int) -> None:
    """Wherever the tone lies: the edges of bins keep away from it."""
    noise = np.random.default_rng(1).normal(tone, 2, (64, 64, 1)).round().clip(0, 255).astype(np.uint8)
    assert len(np.unique(noise)) > 4
    assert len(np.unique(in_tones(noise, 32))) == 1
