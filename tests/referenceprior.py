# SPDX-License-Identifier: Apache-2.0
"""The prior of docs/prior.md a second time, position by position in 64-bit integers: slow, and without the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vqcodec.config import LevelConfig, PriorConfig
from vqcodec.exact import ops, orders

Integers = NDArray[np.int64]


def rounded(x: Integers, shift: int) -> Integers:
    return (x + 2 ** (shift - 1)) >> shift


def clamp(x: Integers, low: int = -127) -> Integers:
    return np.clip(x, low, 127)


def exponential(table: Integers, below: Integers) -> Integers:
    return table[np.minimum(below, 255)]


class ReferencePrior:
    """One tile of one level. maps: of the coarser levels, int64 [maps, H, W] each; inside: bool [H, W]."""

    def __init__(
        self,
        config: PriorConfig,
        level: LevelConfig,
        coarser: Sequence[LevelConfig],
        tensors: dict[str, Integers],
        maps: Sequence[Integers],
        inside: NDArray[np.bool_],
        tradeoff: int,
    ) -> None:
        self.config, self.level, self.tensors, self.inside = config, level, tensors, inside
        height, width = inside.shape
        order = orders.order(config.order, height, width)
        self.kind = order.kind
        self.step = order.step.numpy().reshape(height, width)
        self.reach = order.reach.numpy().reshape(height, width)
        self.condition = self._condition(coarser, maps, tradeoff)
        self.indices = np.zeros((level.maps, height, width), np.int64)
        self.layers = np.zeros((config.layers + 1, height, width, config.channels), np.int64)
        self.before = self.layers.copy()  # a layer's output ahead of its attention

    def linear(self, name: str, shift: int, x: Integers) -> Integers:
        return rounded(x @ self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"], shift)

    def block(self, name: str, x: Integers, seen: Integers) -> Integers:
        return clamp(x + clamp(self.linear(f"{name}.outer", 7, clamp(self.linear(f"{name}.inner", 7, seen), 0))))

    def row(self, level: LevelConfig, m: int) -> int:
        return sum(level.alphabets[:m])

    def _condition(self, coarser: Sequence[LevelConfig], maps: Sequence[Integers], tradeoff: int) -> Integers:
        config, tensors = self.config, self.tensors
        above = config.cond_above and bool(coarser)
        stride = coarser[-1].stride if above else self.level.stride
        r = stride // self.level.stride
        height, width = self.inside.shape[0] // r, self.inside.shape[1] // r
        inside = self.inside.reshape(height, r, width, r).any((1, 3))
        x = np.zeros((height, width, config.channels), np.int64) + tensors["base"]
        if config.tradeoffs:
            x += tensors["rate"][tradeoff * config.tradeoffs // 256]
        for i, (other, known) in enumerate(zip(coarser, maps, strict=True)):
            q = other.stride // stride
            for y in range(height):
                for z in range(width):
                    phase = (y % q) * q + z % q
                    for m in range(other.maps):
                        row = phase * sum(other.alphabets) + self.row(other, m) + known[m, y // q, z // q]
                        x[y, z] += tensors[f"cond_coarse.{i}"][row]
        x = clamp(x) * inside[..., None]
        for b in range(config.cond_blocks):
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            around = [padded[1 + dy :, 1 + dx :][:height, :width] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            x = self.block(f"cond.{b}", x, np.concatenate(around, -1)) * inside[..., None]
        if above:
            x = clamp(self.linear("expand", 7, x)).reshape(height, width, r, r, -1)
            x = x.transpose(0, 2, 1, 3, 4).reshape(height * r, width * r, -1)
        return clamp(x + tensors["step"][self.step]) if self.kind.steps else x

    def trunk(self, y: int, x: int) -> Integers:
        """What enters the output stack; all positions of earlier steps have been set."""
        height, width = self.inside.shape
        reach = int(self.reach[y, x])
        for i in range(self.config.layers):
            parts = []
            for dy, dx in self.kind.reaches[reach]:
                seen = 0 <= y + dy < height and 0 <= x + dx < width and self.step[y + dy, x + dx] < self.step[y, x]
                seen = seen and bool(self.inside[y + dy, x + dx])
                parts.append(self.layers[i, y + dy, x + dx] if seen else np.zeros(self.config.channels, np.int64))
            if i:
                parts.append(self.layers[i, y, x])
            u = np.concatenate(parts) @ self.tensors[f"layer.{i}.conv.{reach}.weight"]
            u += self.condition[y, x] @ self.tensors[f"layer.{i}.cond.weight"] + self.tensors[f"layer.{i}.bias"]
            a, g = np.split(u, 2)
            t = rounded(clamp(rounded(a, 5)) * clamp(rounded(g + 64 * 2**7, 7), 0), 7)
            h = clamp(self.linear(f"layer.{i}.project", 9, t))
            if i:
                h = clamp(h + self.layers[i, y, x])
            self.before[i, y, x] = h
            if self.config.attention_every and (i + 1) % self.config.attention_every == 0:
                h = self._attend(i, y, x, h)
            self.layers[i + 1, y, x] = h
        return clamp(self.linear("enter", 7, h)) if self.config.out_channels else h

    def _attend(self, i: int, y: int, x: int, h: Integers) -> Integers:
        visible = (self.step < self.step[y, x]) & self.inside
        both = np.concatenate([self.before[i][visible], self.layers[0][visible]], -1)
        key_value = clamp(self.linear(f"attention.{i}.key_value", 7, both))
        table, heads = self.tensors["exp_table"], self.config.heads
        query = clamp(self.linear(f"attention.{i}.query", 7, h))
        d = len(query) // heads
        means = []
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            key, value = key_value[:, : heads * d][:, part], key_value[:, heads * d :][:, part]
            score = rounded(key @ query[part], 6 + round(np.log2(d) / 2))
            peak = max(0, *score.tolist()) if len(score) else 0
            weight = exponential(table, peak - score)
            total = weight.sum() + exponential(table, np.int64(peak))
            means.append((2 * (weight @ value) + total) // (2 * total))
        return clamp(h + clamp(self.linear(f"attention.{i}.out", 7, np.concatenate(means))))

    def frequencies(self, stage: int, y: int, x: int, h: Integers) -> Integers:
        """[groups, K], once the position's indices of the stages before are set."""
        level = self.level
        if stage:
            told = [self.tensors["told"][self.row(level, m) + self.indices[m, y, x]] for m in self._before(stage)]
            h = clamp(h + self.tensors["stage"][stage - 1] + sum(told))
        for b in range(self.config.out_blocks):
            h = self.block(f"out.{b}", h, h)
        groups = level.stage_maps(stage).stop - level.stage_maps(stage).start
        logits = self.linear(f"head.{stage}", ops.SHIFT_LOGIT, h).reshape(groups, -1)
        return exponential(self.tensors["table"], logits.max(1, keepdims=True) - logits)

    def _before(self, stage: int) -> range:
        return range(self.level.stage_maps(stage).start)

    def finish(self, y: int, x: int) -> None:
        """Let later positions see this one."""
        rows = [self.row(self.level, m) + self.indices[m, y, x] for m in range(self.level.maps)]
        self.layers[0, y, x] = clamp(self.tensors["embed"][rows].sum(0))


def reference(prior: ReferencePrior, indices: Integers) -> list[tuple[int, int, int, list[int], list[list[int]]]]:
    """What is coded of known maps [maps, H, W], in the order of the stream: step, stage, position, indices and
    frequencies of its groups."""
    level, width = prior.level, prior.inside.shape[1]
    coded = []
    for step in np.unique(prior.step).tolist():
        positions = [(int(y), int(x)) for y, x in np.argwhere((prior.step == step) & prior.inside)]
        h = {position: prior.trunk(*position) for position in positions}
        live = list(positions)
        for stage in range(level.stages):
            maps = level.stage_maps(stage)
            going_on = []
            for y, x in live:
                frequencies = prior.frequencies(stage, y, x, h[y, x])
                prior.indices[maps, y, x] = indices[maps, y, x]
                coded.append((step, stage, y * width + x, indices[maps, y, x].tolist(), frequencies.tolist()))
                if not level.stop or indices[maps, y, x].any():
                    going_on.append((y, x))
            live = going_on
        for position in positions:
            prior.finish(*position)
    return coded
