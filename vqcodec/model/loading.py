# SPDX-License-Identifier: Apache-2.0
"""From a weights file to configuration and tensors, and back. Whatever is wrong with a file becomes a ModelError."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from vqcodec.config import ModelConfig, VAEConfig, is_vae
from vqcodec.errors import ModelError
from vqcodec.model import weights
from vqcodec.nets.autoencoder import Autoencoder

C = TypeVar("C")


@dataclass(frozen=True, eq=False)
class Weights(Generic[C]):
    """A weights file, read: its configuration, tensors by name, and all of its metadata."""

    config: C
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def read_codec(path: Path) -> Weights[ModelConfig]:
    """Read the weights file of a codec model. Raises ModelError on a VAE's, and on any that is not valid."""
    file = _read(path, ModelConfig.from_dict, vae=False)
    check_priors(file.config)
    return file


def read_vae(path: Path) -> Weights[VAEConfig]:
    """Read the weights file of a VAE. Raises ModelError on a codec's, and on any that is not valid."""
    return _read(path, VAEConfig.from_dict, vae=True)


def check_priors(config: ModelConfig) -> None:
    """Raise ModelError unless there is a prior for every level."""
    levels, priors = len(config.autoencoder.levels), len(config.priors)
    if levels != priors:
        raise ModelError(f"the model has {priors} priors for {levels} levels")


def fit(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Give a network its tensors, in float32. Raises ModelError, which names it `what`, if they do not fit."""
    try:
        module.load_state_dict(weights.single(tensors))
    except RuntimeError as error:
        raise ModelError(f"the {what}'s weights do not fit its configuration: {error}") from error


def pack_model(autoencoder: Autoencoder, priors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a codec's weights file: what `Model` reads.

    Args:
        autoencoder: stored in half precision but for its statistics and codebooks.
        priors: integers by name, of every level.
    """
    tensors: dict[str, Tensor] = {}
    parameters = dict(autoencoder.named_parameters())
    for name, value in autoencoder.state_dict().items():
        tensors[f"autoencoder.{name}"] = value.half() if name in parameters else value
    for i, prior in enumerate(priors):
        tensors.update({f"prior.{i}.{name}": value for name, value in prior.items()})
    return tensors


def _read(path: Path, from_dict: Callable[[dict[str, Any]], C], vae: bool) -> Weights[C]:
    tensors, meta = weights.load(path)
    if is_vae(meta) and not vae:
        raise ModelError(f"model {path.stem} is a VAE: it can be sampled and measured, but it is no codec")
    if vae and not is_vae(meta):
        raise ModelError(f"model {path.stem} is no VAE")
    try:
        return Weights(from_dict(meta["model"]), tensors, meta)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{path} has no valid model configuration: {error}") from error
