# SPDX-License-Identifier: Apache-2.0
"""Resumable training state: module, the optimiser's moments, random generators and counters in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec import weights


def save(
    path: str | Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
    meta: dict[str, Any],
) -> None:
    """Write everything needed to go on. meta: JSON-able counters and configuration."""
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    tensors["random.torch"] = torch.get_rng_state()
    for name, generator in generators.items():
        tensors[f"random.{name}"] = generator.get_state()
    weights.save(path, tensors, meta)


def load(
    path: str | Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
) -> dict[str, Any]:
    """Restore what `save` wrote into the given objects and return its meta. Raises ModelError on a foreign file."""
    tensors, meta = weights.load(path)
    module.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    parameters = dict(module.named_parameters())
    for full, value in tensors.items():
        if full.startswith("optimizer."):
            _, key, name = full.split(".", 2)
            parameter = parameters[name]
            optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
    torch.set_rng_state(tensors["random.torch"])
    for name, generator in generators.items():
        generator.set_state(tensors[f"random.{name}"])
    return meta
