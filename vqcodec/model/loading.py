# SPDX-License-Identifier: Apache-2.0
"""From a weights file to configuration and tensors, and back. Whatever is wrong with a file becomes a ModelError."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from vqcodec.config import ModelConfig, VAEConfig, is_vae
from vqcodec.errors import ModelError
from vqcodec.model import inventory, memory, schema, weights
from vqcodec.nets.autoencoder import Autoencoder

C = TypeVar("C")


@dataclass(frozen=True, eq=False)
class Weights(Generic[C]):
    """A weights file, read: its configuration, tensors by name, and all of its metadata.

    identity: of the bytes that these were read from, whatever the file holds by now.
    """

    identity: bytes
    config: C
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def read_codec(path: Path) -> Weights[ModelConfig]:
    """Read the weights file of a codec model. Raises ModelError on a VAE's, and on any that is not valid."""
    file = weights.load_model(path)
    if is_vae(file.meta):
        raise ModelError(f"model {path.stem} is a VAE: it can be sampled and measured, but it is no codec")
    return _read(file, schema.model_config, inventory.check_model)


def read_vae(path: Path, network: Callable[[VAEConfig], nn.Module]) -> Weights[VAEConfig]:
    """Read the weights file of a VAE.

    Args:
        path: of the file.
        network: builds it, on the device `meta`, to see which tensors it has.

    Raises ModelError on a codec's file, and on any that is not valid.
    """
    file = weights.load_model(path)
    if not is_vae(file.meta):
        raise ModelError(f"model {path.stem} is no VAE")
    return _read(file, schema.vae_config, functools.partial(inventory.check_vae, network))


def fit(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Give a network its tensors, in float32.

    Args:
        module: the network.
        tensors: by the names of its state.
        what: its name, for the error.

    Raises ModelError if they do not fit.
    """
    try:
        module.load_state_dict(weights.single(tensors))
    except RuntimeError as error:
        raise ModelError(f"the {what}'s weights do not fit its configuration: {error}") from error


def pack_model(autoencoder: Autoencoder, priors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Gather the tensors of a codec's weights file: what `Model` reads.

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


def _read(
    file: weights.ModelWeights,
    configure: Callable[[object], C],
    check: Callable[[C, Mapping[str, weights.Entry]], None],
) -> Weights[C]:
    """Configuration and header are checked first: no tensor is allocated of a file that lies about them."""
    memory.bound_caches()
    try:
        config = configure(file.meta.get("model"))
    except ModelError as error:
        raise ModelError(f"{file.path} has no valid model configuration: {error}") from error
    check(config, file.entries)
    tensors = file.tensors()
    inventory.check_finite(tensors)
    return Weights(file.identity, config, tensors, file.meta)
