# SPDX-License-Identifier: Apache-2.0
"""Evaluation of an integer prior wave by wave, for all tiles together, as decoding and sampling need it.

A layer's input at wave t - d, row y is held in row y + 1 of a buffer [tiles, H + 1, C]; row 0 and rows that the wave
does not touch are zero. The neighbours of row y at wave t are then (see `network.TAPS`): row y of wave t - 1 (left),
and row y - 1 of waves t - 1 (above right), t - 2 (above) and t - 3 (above left).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqcodec.exact import ops
from vqcodec.exact.network import IntegerPrior
from vqcodec.exact.waveorder import number_of_waves, positions_by_wave, rows_of_wave

# Gives the indices of a wave: (frequencies float32 [N, R, K], valid bool [N, R] or None) -> int64 [N, R]; what it
# returns outside the image is ignored. A decoder reads them from a stream, a sampler draws them.
Draw = Callable[[Tensor, "Tensor | None"], Tensor]


class _History:
    """The last three waves of one layer's input."""

    def __init__(self, tiles: int, height: int, channels: int, device: torch.device) -> None:
        self._shape = (tiles, height + 1, channels)
        self._device = device
        self._waves = [torch.zeros(self._shape, dtype=torch.float32, device=device)] * 3

    def neighbours(self, first: int, last: int) -> Tensor:
        """The four causal neighbours of rows first..last-1 of the wave to come: [N, R, 4C]."""
        one, two, three = self._waves
        above = slice(first, last)  # buffer rows are shifted by one
        return torch.cat([one[:, first + 1 : last + 1], one[:, above], two[:, above], three[:, above]], -1)

    def push(self, rows: Tensor, first: int) -> None:
        """Add the wave just computed, [N, R, C]."""
        wave = torch.zeros(self._shape, dtype=torch.float32, device=self._device)
        wave[:, first + 1 : first + 1 + rows.shape[1]] = rows
        self._waves = [wave, *self._waves[:2]]


def run(
    prior: IntegerPrior,
    stage: int,
    condition: Sequence[Tensor],
    draw: Draw,
    valid: Tensor | None = None,
) -> Tensor:
    """Produce the maps of one stage of all tiles.

    condition: from `IntegerPrior.condition`, [N, H, W, 2C] per layer; valid: bool [N, H, W] or None -> int64 [N, H, W].
    `draw` is called once a wave, with exactly the frequencies that `IntegerPrior.map_frequencies` gives.
    """
    n, height, width = condition[0].shape[:3]
    device, channels = prior.device, prior.config.channels
    order = positions_by_wave(height, width).to(device)
    # Positions of one wave side by side, so that each step takes slices and gathers nothing.
    conds = [c.reshape(n, height * width, -1)[:, order] for c in condition]
    inside = None if valid is None else valid.reshape(n, -1)[:, order]
    size = (n, height * width, 2 * channels)
    keys = {i: torch.zeros(size, dtype=torch.float32, device=device) for i in prior.attentions}
    states: dict[int, Tensor] = {}  # input of each attention layer at the wave before
    histories = [_History(n, height, channels, device) for _ in range(prior.config.layers)]
    found = torch.zeros(n, height * width, dtype=torch.int64, device=device)
    embedded = torch.zeros(n, 0, channels, dtype=torch.float32, device=device)
    start = 0
    for t in range(number_of_waves(height, width)):
        first, last = rows_of_wave(t, height, width)
        stop = start + last - first
        mask = None if inside is None else inside[:, start:stop]
        x, h = None, None
        for i in range(prior.config.layers):
            neighbours = histories[i].neighbours(first, last)
            if x is not None:
                histories[i].push(x, first)
                neighbours = torch.cat([neighbours, x], -1)
            flat = prior.layer(i, neighbours.flatten(0, 1), conds[i][:, start:stop].flatten(0, 1), h)
            if i in prior.attentions:
                before = start - embedded.shape[1]
                if start:
                    keys[i][:, before:start] = prior.keys_and_values(i, states[i], embedded)
                states[i] = _inside(flat.view(n, last - first, -1), mask)
                visible = torch.ones(1, 1, 1, start, dtype=torch.bool, device=device)
                if inside is not None:
                    visible = inside[:, None, None, :start]
                flat = prior.attend(i, flat.view(n, last - first, -1), keys[i][:, :start], visible).flatten(0, 1)
            x = _inside(flat.view(n, last - first, -1), mask)
            h = x.reshape(-1, channels)
        assert h is not None
        frequencies = ops.frequencies(prior.logits(stage, h), prior.table)
        indices = draw(frequencies.view(n, last - first, -1), mask)
        if mask is not None:
            indices = indices * mask
        found[:, start:stop] = indices
        embedded = _inside(prior.embed[stage][indices], mask)
        histories[0].push(embedded, first)
        start = stop
    maps = torch.empty_like(found)
    maps[:, order] = found
    return maps.view(n, height, width)


def _inside(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask[..., None]
