# SPDX-License-Identifier: Apache-2.0
"""Resumable training state in one safetensors file: module, averaged weights, the optimiser's moments, random
generators and counters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec.model import weights
from vqcodec.nets import parallel
from vqcodec.training.average import Average


def save(
    path: str | Path,
    module: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    meta: Mapping[str, Any],
) -> None:
    """Write everything needed to go on; rank 0 writes, all ranks must call.

    Args:
        path: of the checkpoint, written as a whole or not at all.
        module: what is trained.
        average: its averaged weights.
        optimizer: with its moments.
        generators: of random numbers, by name.
        meta: counters and configuration, as JSON has them.
    """
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state.items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    for rank, state in enumerate(_of_all_ranks(torch.get_rng_state())):
        tensors[f"random.torch.{rank}"] = state
    if torch.cuda.is_available():
        for rank, state in enumerate(_of_all_ranks(torch.cuda.get_rng_state())):
            tensors[f"random.cuda.{rank}"] = state
    for name, generator in generators.items():
        tensors[f"random.{name}"] = generator.get_state()
    if parallel.rank() == 0:
        weights.save(path, tensors, {**meta, "average_updates": average.updates})


def load(
    path: str | Path,
    module: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
) -> dict[str, Any]:
    """Restore what `save` wrote.

    With another number of processes than before, ranks that have no stored state keep the one that they started with.

    Args:
        path: of the checkpoint.
        module: is changed.
        average: is changed.
        optimizer: is changed.
        generators: are changed.

    Returns: the meta that `save` got.

    Raises: ModelError on a foreign file.
    """
    tensors, meta = weights.load(path)
    module.load_state_dict(weights.part(tensors, "model"))
    state = weights.part(tensors, "average")
    average.state = {k: state[k].to(v.device) for k, v in average.state.items()}
    average.updates = meta["average_updates"]
    parameters = dict(module.named_parameters())
    for full, value in weights.part(tensors, "optimizer").items():
        key, name = full.split(".", 1)
        parameter = parameters[name]
        # Moments must lie in memory as their parameter does: fused optimisers walk both in one loop.
        optimizer.state[parameter][key] = value if key == "step" else torch.empty_like(parameter).copy_(value).detach()
    name = f"random.torch.{parallel.rank()}"
    if name in tensors:
        torch.set_rng_state(tensors[name])
    name = f"random.cuda.{parallel.rank()}"
    if name in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[name])
    for name, generator in generators.items():
        generator.set_state(tensors[f"random.{name}"])
    return meta


def averaged(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the averaged state of a checkpoint, for export and for the next run, and its meta."""
    tensors, meta = weights.load(path)
    return weights.part(tensors, "average"), meta


def _of_all_ranks(state: Tensor) -> list[Tensor]:
    if parallel.world() == 1:
        return [state]
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return [other.cpu() for other in parallel.gathered(state.to(device))]
