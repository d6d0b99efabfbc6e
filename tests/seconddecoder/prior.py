# SPDX-License-Identifier: Apache-2.0
"""The prior of a level, in int64: docs/prior.md from "Orders" to "The stages of a position".

All arrays over positions are [tiles, h, w, ...], with a margin of two positions on every side where taps look at them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

RING = ((0, -1), (-1, 1), (-1, 0), (-1, -1), (0, 1), (1, -1), (1, 0), (1, 1))
PHASE = ((0, 2), (3, 1))
MARGIN = 2  # the longest tap
NEVER = 1 << 30  # the step of what is outside a tile


def rounded(x: Integers, shift: int) -> Integers:
    return (x + (1 << shift >> 1)) >> shift


def clamp(x: Integers) -> Integers:
    return np.clip(x, -127, 127)


def relu(x: Integers) -> Integers:
    return np.clip(x, 0, 127)


def product(x: Integers, weight: Integers) -> Integers:
    """x @ weight. In doubles, which NumPy multiplies faster than its integers: all sums are far below 2^53."""
    return (x.astype(np.float64) @ weight.astype(np.float64)).astype(np.int64)


def step_and_reach(order: str, y: int, x: int) -> tuple[int, int]:
    if order == "waves":
        return x + 2 * y, 0
    p = PHASE[y % 2][x % 2]
    return (p + 3, 0) if p else (PHASE[y // 2 % 2][x // 2 % 2], 1)


def taps(order: str, reach: int) -> list[tuple[int, int]]:
    ring = RING[:4] if order == "waves" else RING
    return [((reach + 1) * dy, (reach + 1) * dx) for dy, dx in ring]


class Maps:
    """The index maps of a level. stages: the numbers of the maps of every stage. first: of every map, the row of its
    code 0 in the tables; rows: of all of them."""

    def __init__(self, level: dict[str, Any]) -> None:
        self.stride, self.stop = level["stride"], level["stop"]
        codebooks, groups = level["codebooks"], level["groups"]
        self.stages = [[m] for m in range(codebooks)]
        self.stages += [[codebooks + p * groups + g for g in range(groups)] for p in range(level["products"])]
        sizes = [level["codes"]] * codebooks + [level["group_codes"]] * (groups * level["products"])
        self.number, self.rows = len(sizes), sum(sizes)
        self.first = np.cumsum([0, *sizes[:-1]])


class Prior:
    """The prior of one level. tensors: by their names after `prior.LEVEL.`."""

    def __init__(self, model: dict[str, Any], number: int, tensors: dict[str, Integers]) -> None:
        levels = model["autoencoder"]["levels"]
        self.config, self.tensors = model["priors"][number], tensors
        self.maps, self.coarser = Maps(levels[number]), [Maps(level) for level in levels[:number]]
        self.above = bool(self.config["cond_above"] and self.coarser)
        self.working = self.coarser[-1].stride if self.above else self.maps.stride
        self.order: str = self.config["order"]

    def linear(self, name: str, shift: int, x: Integers) -> Integers:
        return rounded(product(x, self.tensors[f"{name}.weight"]) + self.tensors[f"{name}.bias"], shift)

    def condition(self, coarse: list[Integers], inside: Mask, rate: int) -> Integers:
        """coarse: maps of coarser levels, [tiles, maps, h_j, w_j]; inside: bool [tiles, h, w] -> [tiles, h, w, C]."""
        tiles, h, w = inside.shape
        r, c = self.working // self.maps.stride, self.config["channels"]
        within = inside.reshape(tiles, h // r, r, w // r, r).any((2, 4))
        x = self._start(coarse, within.shape, rate) * within[..., None]
        for block in range(self.config["cond_blocks"]):
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            seen = [padded[:, dy : dy + h // r, dx : dx + w // r] for dy in range(3) for dx in range(3)]
            inner = relu(self.linear(f"cond.{block}.inner", 7, np.concatenate(seen, -1)))
            x = clamp(x + clamp(self.linear(f"cond.{block}.outer", 7, inner))) * within[..., None]
        if self.above:
            expanded = clamp(self.linear("expand", 7, x)).reshape(tiles, h // r, w // r, r, r, c)
            x = expanded.transpose(0, 1, 3, 2, 4, 5).reshape(tiles, h, w, c)
        if self.order == "seven":
            steps = np.array([[step_and_reach("seven", y, z)[0] for z in range(w)] for y in range(h)])
            x = clamp(x + self.tensors["step"][steps])
        return x

    def _start(self, coarse: list[Integers], shape: tuple[int, ...], rate: int) -> Integers:
        x = np.zeros((*shape, self.config["channels"]), np.int64) + self.tensors["base"]
        if self.config["rates"]:
            x += self.tensors["rate"][rate * self.config["rates"] // 256]
        y, z = np.arange(shape[1])[:, None], np.arange(shape[2])
        for j, (indices, other) in enumerate(zip(coarse, self.coarser, strict=True)):
            r = other.stride // self.working
            phase = y % r * r + z % r
            for m in range(other.number):
                row = phase * other.rows + other.first[m] + indices[:, m, y // r, z // r]
                x += self.tensors[f"cond_coarse.{j}"][row]
        return clamp(x)

    def logits(self, s: int, h: Integers, indices: Integers) -> Integers:
        """Stage s of some positions: h [n, O], indices of the stages before [n, maps] -> [n, K of all its groups]."""
        x = h
        if s:
            x = h + self.tensors["stage"][s - 1]
            for m in (m for earlier in self.maps.stages[:s] for m in earlier):
                x = x + self.tensors["told"][self.maps.first[m] + indices[:, m]]
            x = clamp(x)
        for b in range(self.config["out_blocks"]):
            x = clamp(x + clamp(self.linear(f"out.{b}.outer", 7, relu(self.linear(f"out.{b}.inner", 7, x)))))
        return self.linear(f"head.{s}", 8, x)


class Trunk:
    """What is known of the positions of some tiles, step after step."""

    def __init__(self, prior: Prior, condition: Integers, inside: Mask) -> None:
        self.prior, self.condition, self.inside = prior, condition, inside
        tiles, h, w = inside.shape
        config, c = prior.config, prior.config["channels"]
        order = [[step_and_reach(prior.order, y, x) for x in range(w)] for y in range(h)]
        self.step = np.array(order)[..., 0]
        self.reach = np.array(order)[..., 1]
        self._step = np.pad(self.step, MARGIN, constant_values=NEVER)
        # [0] is e, [i + 1] the output of layer i; zeros where nothing is known
        self._x = np.zeros((config["layers"] + 1, tiles, h + 2 * MARGIN, w + 2 * MARGIN, c), np.int64)
        self._before = np.zeros((config["layers"], tiles, h, w, c), np.int64)  # ahead of the attention
        self._keys = np.zeros((config["layers"], tiles, h, w, 2 * c), np.int64)

    def _attends(self, i: int) -> bool:
        every = self.prior.config["attention_every"]
        return bool(every) and (i + 1) % every == 0

    def evaluate(self, step: int, n: Integers, y: Integers, x: Integers) -> Integers:
        """All positions of a step, by tile n, y and x, [p] each -> what enters the output stack, [p, O]."""
        prior = self.prior
        reach = int(self.reach[y[0], x[0]])
        condition = self.condition[n, y, x]
        for i in range(prior.config["layers"]):
            seen = []
            for dy, dx in taps(prior.order, reach):
                there = y + dy + MARGIN, x + dx + MARGIN
                seen.append(self._x[(i, n, *there)] * (self._step[there] < step)[:, None])
            itself = self._x[i, n, y + MARGIN, x + MARGIN]
            if i:
                seen.append(itself)
            u = product(np.concatenate(seen, -1), prior.tensors[f"layer.{i}.conv.{reach}.weight"])
            u += product(condition, prior.tensors[f"layer.{i}.cond.weight"]) + prior.tensors[f"layer.{i}.bias"]
            a, g = np.split(u, 2, 1)
            t = rounded(clamp(rounded(a, 5)) * relu(rounded(g + 64 * 128, 7)), 7)
            out = clamp(prior.linear(f"layer.{i}.project", 9, t))
            if i:
                out = clamp(out + itself)
            self._before[i, n, y, x] = out
            if self._attends(i):
                out = self._attended(i, step, n, out)
            self._x[i + 1, n, y + MARGIN, x + MARGIN] = out
        return clamp(prior.linear("enter", 7, out)) if prior.config["out_channels"] else out

    def _attended(self, i: int, step: int, n: Integers, out: Integers) -> Integers:
        query = clamp(self.prior.linear(f"attention.{i}.query", 7, out))
        mean = np.zeros_like(query)
        for tile in np.unique(n):
            keys = self._keys[i, tile][self.inside[tile] & (self.step < step)]
            mean[n == tile] = self._mean(query[n == tile], keys)
        return clamp(out + clamp(self.prior.linear(f"attention.{i}.out", 7, mean)))

    def _mean(self, query: Integers, both: Integers) -> Integers:
        """Of one tile: queries [q, C] and all that they see, keys and values [k, 2C] -> [q, C]."""
        exp, means = self.prior.tensors["exp_table"], []
        key, value = np.split(both, 2, 1)
        heads, c = self.prior.config["heads"], query.shape[1]
        d = c // heads
        for part in (slice(head * d, (head + 1) * d) for head in range(heads)):
            score = rounded(product(query[:, part], key[:, part].T), 6 + round(math.log2(d) / 2))
            peak = np.maximum(score.max(1, initial=0), 0)[:, None]
            weight = exp[np.minimum(peak - score, 255)]
            total = exp[np.minimum(peak, 255)] + weight.sum(1, keepdims=True)
            means.append((2 * product(weight, value[:, part]) + total) // (2 * total))
        return np.concatenate(means, 1)

    def tell(self, n: Integers, y: Integers, x: Integers, indices: Integers) -> None:
        """Let later steps see these positions and their indices, [p, maps]."""
        prior = self.prior
        e = clamp(prior.tensors["embed"][prior.maps.first + indices].sum(1))
        self._x[0, n, y + MARGIN, x + MARGIN] = e
        for i in filter(self._attends, range(prior.config["layers"])):
            both = np.concatenate([self._before[i, n, y, x], e], 1)
            self._keys[i, n, y, x] = clamp(prior.linear(f"attention.{i}.key_value", 7, both))
