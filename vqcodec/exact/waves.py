# SPDX-License-Identifier: Apache-2.0
"""Evaluation of an integer prior wave by wave, for all tiles together, as decoding and sampling need it.

Everything that belongs to one wave lies together: [rows, tiles, channels]. A layer's input at wave t, row y is held in
row y + 1 of a buffer [H + 1, tiles, C]; row 0 and rows that the wave does not touch are zero. The neighbours of row y
at wave t are then (see `network.TAPS`): row y of wave t - 1 (left), and row y - 1 of waves t - 1 (above right), t - 2
(above) and t - 3 (above left).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vqcodec.exact import ops
from vqcodec.exact.network import IntegerPrior
from vqcodec.exact.waveorder import number_of_waves, positions_by_wave, rows_of_wave

# Gives the indices of a wave and stage: (frequencies float32 [N, R, K], valid bool [N, R] or None) -> int64 [N, R]; it
# does not matter what it returns outside the image. A decoder reads them from a stream, a sampler draws them.
Draw = Callable[[Tensor, "Tensor | None"], Tensor]


class _History:
    """The inputs of all layers at the wave in work and the three before it, in a ring of four buffers."""

    def __init__(self, layers: int, height: int, tiles: int, channels: int, device: torch.device) -> None:
        shape = (4, layers, height + 1, tiles, channels)
        self._ring = torch.zeros(shape, dtype=torch.float32, device=device).unbind(0)
        self._firsts = [0] * 4

    def start(self, t: int, first: int, last: int) -> None:
        """Begin wave t, which touches rows first..last-1: both never fall, so only older first rows need clearing."""
        self._rows, self._above = slice(first + 1, last + 1), slice(first, last)
        self._waves = [self._ring[(t - d) % 4] for d in range(4)]
        if self._firsts[t % 4] < first:
            self._waves[0][:, self._firsts[t % 4] + 1 : first + 1].zero_()
        self._firsts[t % 4] = first

    def neighbours(self, layer: int, own: Tensor | None) -> Tensor:
        """Causal neighbours of the wave's rows, [R, N, 4C], or [R, N, 5C] with the layer's own input, which is kept."""
        _, one, two, three = self._waves
        above = self._above
        parts = [one[layer, self._rows], one[layer, above], two[layer, above], three[layer, above]]
        if own is not None:
            self.keep(layer, own)
            parts.append(own)
        return torch.cat(parts, -1)

    def keep(self, layer: int, own: Tensor) -> None:
        """Store a layer's input at this wave, [R, N, C]."""
        self._waves[0][layer, self._rows] = own


def run(prior: IntegerPrior, condition: Sequence[Tensor], draw: Draw, valid: Tensor | None = None) -> Tensor:
    """Produce the maps of all stages of all tiles.

    condition: from `IntegerPrior.condition`, [N, H, W, 2C] per layer; valid: bool [N, H, W] or None -> int64
    [N, S, H, W]. `draw` is called once for every wave and stage, stages within a wave, with exactly the frequencies
    that `IntegerPrior.map_frequencies` gives.
    """
    n, height, width = condition[0].shape[:3]
    device, channels, layers = prior.device, prior.config.channels, prior.config.layers
    order = positions_by_wave(height, width).to(device)
    conds = [c.reshape(n, height * width, -1).transpose(0, 1)[order].contiguous() for c in condition]
    inside = None if valid is None else valid.reshape(n, -1).t()[order].contiguous()
    size = (n, height * width, 2 * channels)
    keys = {i: torch.zeros(size, dtype=torch.float32, device=device) for i in prior.attentions}
    states: dict[int, Tensor] = {}  # input of each attention layer at the wave before
    history = _History(layers, height, n, channels, device)
    stages = prior.level.codebooks
    found = torch.zeros(height * width, n, stages, dtype=torch.int64, device=device)
    embedded = torch.zeros(0, n, channels, dtype=torch.float32, device=device)
    start = 0
    for t in range(number_of_waves(height, width)):
        first, last = rows_of_wave(t, height, width)
        stop = start + last - first
        mask = None if inside is None else inside[start:stop]
        history.start(t, first, last)
        x: Tensor | None = None
        h: Tensor | None = None
        for i in range(layers):
            neighbours = history.neighbours(i, x)
            flat = prior.layer(i, neighbours.flatten(0, 1), conds[i][start:stop].flatten(0, 1), h)
            x = flat.view(last - first, n, channels)
            if i in prior.attentions:
                if start:
                    before = prior.keys_and_values(i, states[i], embedded).transpose(0, 1)
                    keys[i][:, start - before.shape[1] : start] = before
                states[i] = _inside(x, mask)
                visible = torch.ones(1, 1, 1, start, dtype=torch.bool, device=device)
                if inside is not None:
                    visible = inside[:start].t()[:, None, None]
                x = prior.attend(i, x.transpose(0, 1), keys[i][:, :start], visible).transpose(0, 1).contiguous()
            x = _inside(x, mask)
            h = x.flatten(0, 1)
        assert h is not None
        told: Tensor | None = None
        for stage in range(stages):
            frequencies = ops.frequencies(prior.logits(stage, h, told), prior.table).view(last - first, n, -1)
            indices = draw(frequencies.transpose(0, 1), None if mask is None else mask.t()).t()
            if mask is not None:
                indices = indices * mask
            found[start:stop, :, stage] = indices
            if stage + 1 < stages:
                add = prior.told(stage, indices.flatten())
                told = add if told is None else told + add
        embedded = _inside(prior.own(found[start:stop]), mask)
        history.keep(0, embedded)
        start = stop
    maps = torch.empty_like(found)
    maps[order] = found
    return maps.permute(1, 2, 0).reshape(n, stages, height, width)


def _inside(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask[..., None]
