# SPDX-License-Identifier: Apache-2.0
"""Integer priors of any configuration with random weights, by the tensor names of weights files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqcodec.config import LevelConfig, ModelConfig, PriorConfig
from vqcodec.exact import ops, orders
from vqcodec.exact.network import IntegerPrior


def random_tensors(
    config: PriorConfig, level: LevelConfig, coarser: Sequence[LevelConfig], seed: int = 0, *, stopping: int = 0
) -> dict[str, Tensor]:
    """Integers of sizes as training gives them: few activations are clamped. stopping: added to the logits of
    index 0, in units of 2^-LOGIT_BITS nats, so that positions stop early."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def table(name: str, rows: int, columns: int, spread: float) -> None:
        values = torch.randn(rows, columns, generator=generator) * spread
        tensors[name] = values.round().clamp(-127, 127).to(torch.int8)

    def linear(name: str, inputs: int, outputs: int, gain: float, bias: int = 300) -> None:
        table(f"{name}.weight", inputs, outputs, gain * 2**ops.WEIGHT_BITS / inputs**0.5)
        tensors[f"{name}.bias"] = torch.randint(-bias, bias + 1, (outputs,), generator=generator, dtype=torch.int32)

    kind = orders.KINDS[config.order]
    c, outputs = config.channels, config.out_channels or config.channels
    rows = sum(level.alphabets)
    above = config.cond_above and bool(coarser)
    working = coarser[-1].stride if above else level.stride
    table("embed", rows, c, 40 / level.maps**0.5)
    tensors["base"] = torch.randint(-30, 31, (c,), generator=generator, dtype=torch.int8)
    if config.tradeoffs:
        table("rate", config.tradeoffs, c, 20)
    for i, other in enumerate(coarser):
        table(f"cond_coarse.{i}", (other.stride // working) ** 2 * sum(other.alphabets), c, 30 / other.maps**0.5)
    for i in range(config.cond_blocks):
        linear(f"cond.{i}.inner", 9 * c, c, 1)
        linear(f"cond.{i}.outer", c, c, 0.5)
    if above:
        linear("expand", c, (working // level.stride) ** 2 * c, 1)
    if kind.steps:
        table("step", kind.steps, c, 20)
    for i in range(config.layers):
        for reach, taps in enumerate(kind.reaches):
            inputs = (len(taps) + (i > 0)) * c
            table(f"layer.{i}.conv.{reach}.weight", inputs, 2 * c, 2**ops.WEIGHT_BITS / inputs**0.5)
        table(f"layer.{i}.cond.weight", c, 2 * c, 0.5 * 2**ops.WEIGHT_BITS / c**0.5)
        tensors[f"layer.{i}.bias"] = torch.randint(-300, 301, (2 * c,), generator=generator, dtype=torch.int32)
        linear(f"layer.{i}.project", c, c, 1.5)
        if config.attention_every and (i + 1) % config.attention_every == 0:
            linear(f"attention.{i}.query", c, c, 1)
            linear(f"attention.{i}.key_value", 2 * c, 2 * c, 1)
            linear(f"attention.{i}.out", c, c, 1)
    if config.out_channels:
        linear("enter", c, outputs, 1)
    if level.stages > 1:
        table("stage", level.stages - 1, outputs, 20)
        table("told", sum(level.alphabets[: level.stage_maps(level.stages - 1).start]), outputs, 40)
    for i in range(config.out_blocks):
        linear(f"out.{i}.inner", outputs, outputs, 1.4)
        linear(f"out.{i}.outer", outputs, outputs, 0.5)
    for stage in range(level.stages):
        alphabets = level.alphabets[level.stage_maps(stage)]
        linear(f"head.{stage}", outputs, sum(alphabets), 1.5)
        first = torch.arange(0, sum(alphabets), alphabets[0])
        tensors[f"head.{stage}.bias"][first] += stopping * 2**ops.SHIFT_LOGIT
    codes = max(level.alphabets)
    tensors["table"] = ops.exp_table(ops.frequency_top(codes), 1).to(torch.int32)
    tensors["exp_table"] = ops.exp_table(2**15, 0).to(torch.int32)
    return tensors


def random_priors(config: ModelConfig, seed: int = 0, *, stopping: int = 0) -> list[IntegerPrior]:
    """The priors of all levels."""
    levels = config.autoencoder.levels
    priors = []
    for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True)):
        tensors = random_tensors(prior, level, levels[:i], seed + i, stopping=stopping)
        priors.append(IntegerPrior(prior, level, levels[:i], tensors))
    return priors


def random_maps(
    level: LevelConfig, tiles: int, height: int, width: int, seed: int = 0, valid: Tensor | None = None
) -> Tensor:
    """Index maps int64 [N, maps, H, W] as a level may have them: 0 behind a stop and outside the image."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.stack([torch.randint(0, k, (tiles, height, width), generator=generator) for k in level.alphabets], 1)
    if level.stop:
        maps[torch.rand(maps.shape, generator=generator) < 0.2] = 0
        live = torch.ones(tiles, height, width, dtype=torch.bool)
        for stage in range(level.stages):
            part = maps[:, level.stage_maps(stage)]
            part *= live[:, None]
            live = live & part.any(1)
    return maps if valid is None else maps * valid[:, None]
