# SPDX-License-Identifier: Apache-2.0
"""The tensors that a model's configuration asks for, by name, type and shape, before any of them is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from vqcodec.config import LevelConfig, ModelConfig, PriorConfig, VAEConfig
from vqcodec.errors import ModelError
from vqcodec.exact import orders
from vqcodec.model.weights import Entry
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.blank import blank

Shape = tuple[int, ...]
FLOATS, SMALL, LARGE, COUNTS = ("F16", "F32"), ("I8",), ("I32",), ("I64",)
_OPTIONAL = ".metric"  # of a quantiser; older models have none
_SHOWN = 3  # names of an error


def check_model(config: ModelConfig, entries: Mapping[str, Entry]) -> None:
    """Check that a file has exactly the tensors of a codec model.

    Args:
        config: of the model.
        entries: of the file, by name.

    Raises: ModelError.
    """
    with torch.device("meta"), blank():
        wanted = _of_module(Autoencoder(config.autoencoder), "autoencoder")
    levels = config.autoencoder.levels
    for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True)):
        for name, shape in prior_shapes(prior, level, levels[:i]).items():
            large = name.endswith(("bias", "table"))
            wanted[f"prior.{i}.{name}"] = (LARGE if large else SMALL), shape
    _compare(wanted, entries)


def check_vae(network: Callable[[VAEConfig], nn.Module], config: VAEConfig, entries: Mapping[str, Entry]) -> None:
    """Check that a file has exactly the tensors of a VAE.

    Args:
        network: builds the VAE.
        config: of the VAE.
        entries: of the file, by name.

    Raises: ModelError.
    """
    with torch.device("meta"), blank():
        _compare(_of_module(network(config), "vae"), entries)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError if a number is infinite or none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"tensor {name} has values that are not finite")


def prior_shapes(config: PriorConfig, level: LevelConfig, coarser: Sequence[LevelConfig]) -> dict[str, Shape]:
    """List the tensors of a level's prior by their names after `prior.LEVEL.`: see docs/prior.md.

    Args:
        config: of the prior.
        level: that it is for.
        coarser: levels, coarsest first.
    """
    kind, c, o = orders.KINDS[config.order], config.channels, config.out_channels or config.channels
    rows, above = sum(level.alphabets), config.cond_above and bool(coarser)
    working = coarser[-1].stride if above else level.stride
    shapes: dict[str, Shape] = {"embed": (rows, c), "base": (c,), "table": (256,), "exp_table": (256,)}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (inputs, outputs), (outputs,)

    if config.tradeoffs:
        shapes["rate"] = (config.tradeoffs, c)
    if kind.steps:
        shapes["step"] = (kind.steps, c)
    for j, other in enumerate(coarser):
        shapes[f"cond_coarse.{j}"] = ((other.stride // working) ** 2 * sum(other.alphabets), c)
    for b in range(config.cond_blocks):
        linear(f"cond.{b}.inner", 9 * c, c)
        linear(f"cond.{b}.outer", c, c)
    if above:
        linear("expand", c, (working // level.stride) ** 2 * c)
    for i in range(config.layers):
        for reach, taps in enumerate(kind.reaches):
            shapes[f"layer.{i}.conv.{reach}.weight"] = ((len(taps) + (i > 0)) * c, 2 * c)
        shapes[f"layer.{i}.cond.weight"], shapes[f"layer.{i}.bias"] = (c, 2 * c), (2 * c,)
        linear(f"layer.{i}.project", c, c)
        if config.attention_every and (i + 1) % config.attention_every == 0:
            linear(f"attention.{i}.query", c, c)
            linear(f"attention.{i}.key_value", 2 * c, 2 * c)
            linear(f"attention.{i}.out", c, c)
    if config.out_channels:
        linear("enter", c, o)
    if level.stages > 1:
        shapes["stage"] = (level.stages - 1, o)
        shapes["told"] = (sum(level.alphabets[: level.stage_maps(level.stages - 1).start]), o)
    for b in range(config.out_blocks):
        linear(f"out.{b}.inner", o, o)
        linear(f"out.{b}.outer", o, o)
    for stage in range(level.stages):
        linear(f"head.{stage}", o, sum(level.alphabets[level.stage_maps(stage)]))
    return shapes


def _of_module(module: nn.Module, prefix: str) -> dict[str, tuple[tuple[str, ...], Shape]]:
    """Names, types and shapes of a module on the device `meta`, where nothing is allocated."""
    return {
        f"{prefix}.{name}": (FLOATS if tensor.is_floating_point() else COUNTS, tuple(tensor.shape))
        for name, tensor in module.state_dict().items()
    }


def _compare(wanted: Mapping[str, tuple[tuple[str, ...], Shape]], entries: Mapping[str, Entry]) -> None:
    missing = {name for name in wanted.keys() - entries.keys() if not name.endswith(_OPTIONAL)}
    for words, names in (("lack", missing), ("should not have", entries.keys() - wanted.keys())):
        if names:
            shown = ", ".join(repr(name[:80]) for name in sorted(names)[:_SHOWN])
            raise ModelError(f"the weights do not fit the configuration: they {words} {len(names)} tensors: {shown}")
    for name, entry in entries.items():
        types, shape = wanted[name]
        if entry.dtype not in types or entry.shape != shape:
            stored = f"{entry.dtype} {list(entry.shape)}"
            asked = f"{' or '.join(types)} {list(shape)}"
            raise ModelError(f"the weights do not fit the configuration: {name} is {stored[:80]}, not {asked}")
