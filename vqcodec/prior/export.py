# SPDX-License-Identifier: Apache-2.0
"""From a trained `LevelPrior` to the integers of an `IntegerPrior`, and back to go on training."""

from __future__ import annotations

import torch
from torch import Tensor

from vqcodec.exact import ops
from vqcodec.exact.network import IntegerPrior
from vqcodec.prior.network import BIAS_BITS, BIAS_MAX, CausalAttention, IntegerConv, LevelPrior, OutputBlock


def _round(x: Tensor, bits: int, limit: int = ops.ACT_MAX) -> Tensor:
    """As `rounding.integers`; int8 where the limit allows it, else int32."""
    rounded = (x.detach().float() * 2.0**bits).round().clamp(-limit, limit)
    return rounded.to(torch.int8 if limit <= ops.ACT_MAX else torch.int32).cpu()


def _convs(prior: LevelPrior) -> dict[str, IntegerConv]:
    """Every product of the network by its name in the weights file, but for each layer's pair and the heads."""
    named: dict[str, IntegerConv] = {}

    def block(name: str, module: torch.nn.Module) -> None:
        assert isinstance(module, OutputBlock)
        named[f"{name}.inner"], named[f"{name}.outer"] = module.inner, module.outer

    for i, module in enumerate(prior.cond):
        block(f"cond.{i}", module)
    for i, module in enumerate(prior.out):
        block(f"out.{i}", module)
    for i, projection in enumerate(prior.projections):
        assert isinstance(projection, IntegerConv)
        named[f"layer.{i}.project"] = projection
    for key, attention in prior.attentions.items():
        assert isinstance(attention, CausalAttention)
        for name in ("query", "key_value", "out"):
            named[f"attention.{key}.{name}"] = getattr(attention, name)
    return named


def _layers(prior: LevelPrior) -> list[tuple[IntegerConv, IntegerConv]]:
    """The masked convolution of every layer and the condition that is added to it."""
    pairs = []
    for conv, cond in zip(prior.convs, prior.conds, strict=True):
        assert isinstance(conv, IntegerConv)
        assert isinstance(cond, IntegerConv)
        pairs.append((conv, cond))
    return pairs


def _plain(prior: LevelPrior) -> dict[str, torch.nn.Parameter]:
    """Embedding tables by name."""
    tables = {"embed": prior.embed, "stage": prior.stage}
    if prior.cond_own is not None:
        tables["cond_own"] = prior.cond_own
    tables.update({f"cond_coarse.{i}": table for i, table in enumerate(prior.cond_coarse)})
    return tables


def to_integers(prior: LevelPrior) -> dict[str, Tensor]:
    """Integer tensors, int8 and int32, named as `IntegerPrior` reads them. The overflow bound is proved here by making
    one; ExactnessError if a product could leave float32's exact range."""
    tensors = {name: _round(table, ops.ACT_BITS) for name, table in _plain(prior).items()}
    for name, conv in _convs(prior).items():
        tensors[f"{name}.weight"] = _round(conv.weight.flatten(0, 1), ops.WEIGHT_BITS)
        tensors[f"{name}.bias"] = _round(conv.bias, conv.bias_bits, BIAS_MAX)
    for i, (conv, cond) in enumerate(_layers(prior)):
        # The condition enters the layer's product as one more tap.
        weight = torch.cat([conv.weight.flatten(0, 1), cond.weight[0]])
        tensors[f"layer.{i}.conv.weight"] = _round(weight, ops.WEIGHT_BITS)
        tensors[f"layer.{i}.conv.bias"] = _round(conv.bias, BIAS_BITS, BIAS_MAX)
        tensors[f"layer.{i}.conv.bias"] += _round(cond.bias, BIAS_BITS, BIAS_MAX)
    for stage in range(prior.level.codebooks):
        tensors[f"head.{stage}.weight"] = _round(prior.head_weight[stage], ops.WEIGHT_BITS)
        tensors[f"head.{stage}.bias"] = _round(prior.head_bias[stage], BIAS_BITS, BIAS_MAX)
    tensors["table"] = ops.exp_table(ops.frequency_top(prior.level.codes), 1).to(torch.int32)
    tensors["exp_table"] = ops.exp_table(2**15, 0).to(torch.int32)
    IntegerPrior(prior.config, prior.level, prior.coarser, tensors)
    return tensors


@torch.no_grad()
def from_integers(prior: LevelPrior, tensors: dict[str, Tensor]) -> None:
    """Set a prior's parameters to what the integers stand for (the inverse of `to_integers`, up to nothing)."""
    for name, table in _plain(prior).items():
        table.copy_(tensors[name] * 2.0**-ops.ACT_BITS)
    for name, conv in _convs(prior).items():
        conv.weight.copy_(tensors[f"{name}.weight"].view_as(conv.weight) * 2.0**-ops.WEIGHT_BITS)
        conv.bias.copy_(tensors[f"{name}.bias"] * 2.0**-conv.bias_bits)
    for i, (conv, cond) in enumerate(_layers(prior)):
        weight = tensors[f"layer.{i}.conv.weight"] * 2.0**-ops.WEIGHT_BITS
        taps = weight.shape[0] - prior.config.channels
        conv.weight.copy_(weight[:taps].view_as(conv.weight))
        cond.weight.copy_(weight[taps:][None])
        conv.bias.copy_(tensors[f"layer.{i}.conv.bias"] * 2.0**-BIAS_BITS)
        cond.bias.zero_()
    for stage in range(prior.level.codebooks):
        prior.head_weight[stage] = tensors[f"head.{stage}.weight"] * 2.0**-ops.WEIGHT_BITS
        prior.head_bias[stage] = tensors[f"head.{stage}.bias"] * 2.0**-BIAS_BITS
