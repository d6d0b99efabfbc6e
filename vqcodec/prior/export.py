# SPDX-License-Identifier: Apache-2.0
"""From a trained `LevelPrior` to the integers of an `IntegerPrior`, and back to go on training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqcodec.errors import ModelError
from vqcodec.exact import ops
from vqcodec.exact.network import IntegerPrior
from vqcodec.prior.layers import BIAS_MAX, IntegerLinear, MaskedLayer
from vqcodec.prior.network import LevelPrior


def _round(x: Tensor, bits: int, limit: int = ops.ACT_MAX) -> Tensor:
    """As `rounding.integers`; int8 where the limit allows it, else int32."""
    rounded = (x.detach().float() * 2.0**bits).round().clamp(-limit, limit)
    return rounded.to(torch.int8 if limit <= ops.ACT_MAX else torch.int32).cpu()


def _products(prior: LevelPrior) -> dict[str, IntegerLinear]:
    """Every product of the network by its name in the weights file."""
    named: dict[str, Any] = {}
    for stack, blocks in (("cond", prior.cond), ("out", prior.out)):
        for i, block in enumerate(blocks):
            named |= {f"{stack}.{i}.inner": block.inner, f"{stack}.{i}.outer": block.outer}
    for i, layer in enumerate(prior.layers):
        assert isinstance(layer, MaskedLayer)
        named |= {f"layer.{i}.conv.{reach}": conv for reach, conv in enumerate(layer.convs)}
        named |= {f"layer.{i}.cond": layer.cond, f"layer.{i}.project": layer.project}
    for key, attention in prior.attentions.items():
        for name in ("query", "key_value", "out"):
            named[f"attention.{key}.{name}"] = getattr(attention, name)
    named.update({f"head.{i}": head for i, head in enumerate(prior.heads)})
    named.update({name: part for name in ("expand", "enter") if (part := getattr(prior, name)) is not None})
    products = {}
    for name, product in named.items():
        assert isinstance(product, IntegerLinear)
        products[name] = product
    return products


def _bias_name(name: str) -> str:
    """A layer's bias is that of its condition."""
    return f"{name.removesuffix('.cond')}.bias"


def _tables(prior: LevelPrior) -> dict[str, torch.nn.Parameter]:
    """Embedding tables by name."""
    tables = {"embed": prior.embed, "base": prior.base}
    optional = {name: getattr(prior, name) for name in ("rate", "step", "stage", "told")}
    tables.update({name: table for name, table in optional.items() if table is not None})
    tables.update({f"cond_coarse.{i}": table for i, table in enumerate(prior.cond_coarse)})
    return tables


def to_integers(prior: LevelPrior) -> dict[str, Tensor]:
    """Integer tensors, int8 and int32, named as `IntegerPrior` reads them. The overflow bound is proved here by making
    one; ExactnessError if a product could leave float32's exact range."""
    tensors = {name: _round(table, ops.ACT_BITS) for name, table in _tables(prior).items()}
    for name, product in _products(prior).items():
        tensors[f"{name}.weight"] = _round(product.weight[0], ops.WEIGHT_BITS)
        if product.bias is not None:
            tensors[_bias_name(name)] = _round(product.bias, product.bias_bits, BIAS_MAX)
    tensors["table"] = ops.exp_table(ops.frequency_top(prior.level.codes), 1).to(torch.int32)
    tensors["exp_table"] = ops.exp_table(2**15, 0).to(torch.int32)
    IntegerPrior(prior.config, prior.level, prior.coarser, tensors)
    return tensors


@torch.no_grad()
def from_integers(prior: LevelPrior, tensors: dict[str, Tensor]) -> None:
    """Set a prior's parameters to what integers stand for: the inverse of `to_integers`.

    Args:
        prior: is changed.
        tensors: integers by name.

    Raises: ModelError if they do not fit.
    """
    try:
        for name, table in _tables(prior).items():
            table.copy_(tensors[name] * 2.0**-ops.ACT_BITS)
        for name, product in _products(prior).items():
            product.weight.copy_(tensors[f"{name}.weight"][None] * 2.0**-ops.WEIGHT_BITS)
            if product.bias is not None:
                product.bias.copy_(tensors[_bias_name(name)] * 2.0**-product.bias_bits)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"the prior's weights do not fit its configuration: {error}") from error
