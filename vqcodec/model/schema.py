# SPDX-License-Identifier: Apache-2.0
"""Configurations from the JSON of a weights file, strictly: types, ranges, and what belongs together. No torch here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from vqcodec.config import AutoencoderConfig, LevelConfig, ModelConfig, PriorConfig, VAEConfig
from vqcodec.errors import ModelError

T = TypeVar("T")

MAX_LEVELS = 16
MAX_SIDE = 256  # positions of a tile along an axis
_ORDERS = ("waves", "seven")

# By class, fields that files call otherwise.
_RENAMED: dict[type, dict[str, str]] = {ModelConfig: {"rates": "lmbdas"}, PriorConfig: {"rates": "tradeoffs"}}

# By class, the range of every number, ends included. Larger than anything that makes sense, and small enough that the
# sizes of all tensors can be counted.
_RANGES: dict[type, dict[str, tuple[float, float]]] = {
    LevelConfig: {
        "stride": (2, 256),
        "codebooks": (1, 64),
        "codes": (2, 4096),
        "dim": (1, 2048),
        "products": (0, 64),
        "groups": (1, 256),
        "group_codes": (2, 4096),
    },
    PriorConfig: {
        "channels": (1, 1024),
        "layers": (1, 256),
        "attention_every": (0, 256),
        "heads": (1, 1024),
        "cond_blocks": (0, 256),
        "out_blocks": (0, 256),
        "dropout": (0, 1),
        "out_channels": (0, 1024),
        "tradeoffs": (0, 256),
    },
    AutoencoderConfig: {
        "widths": (1, 4096),
        "encoder_blocks": (0, 256),
        "decoder_blocks": (0, 256),
        "patch": (2, 256),
        "gains": (0, 256),
    },
    ModelConfig: {"tile_size": (2, 1 << 15), "lmbdas": (0, 1e6), "factors": (1e-6, 1e6)},
    VAEConfig: {
        "widths": (1, 4096),
        "encoder_blocks": (0, 256),
        "decoder_blocks": (0, 256),
        "latents": (1, 4096),
        "tile_size": (1, 1 << 15),
    },
}


def model_config(data: object) -> ModelConfig:
    """Read the configuration of a codec model. Raises ModelError on anything else."""
    auto = _fields(ModelConfig, data).get("autoencoder")
    levels = tuple(_built(LevelConfig, level) for level in _list(_fields(AutoencoderConfig, auto), "levels"))
    priors = tuple(_built(PriorConfig, prior) for prior in _list(_fields(ModelConfig, data), "priors"))
    autoencoder = _built(AutoencoderConfig, auto, levels=levels)
    config = _built(ModelConfig, data, autoencoder=autoencoder, priors=priors)
    check_priors(config)
    if config.tile_size & (config.tile_size - 1) or config.tile_size % autoencoder.coarsest:
        raise ModelError(f"tiles of {config.tile_size} pixels are no power of two, or no multiple of the strides")
    if config.tile_size // levels[-1].stride > MAX_SIDE:
        raise ModelError(f"tiles have more than {MAX_SIDE} positions along an axis")
    for prior in priors:
        if prior.order not in _ORDERS:
            raise ModelError(f"there is no order called {prior.order!r}")
        if prior.channels % prior.heads:
            raise ModelError(f"{prior.channels} channels cannot be divided among {prior.heads} heads")
    return config


def check_priors(config: ModelConfig) -> None:
    """Raise ModelError unless there is a prior for every level."""
    levels, priors = len(config.autoencoder.levels), len(config.priors)
    if levels != priors:
        raise ModelError(f"the model has {priors} priors for {levels} levels")


def vae_config(data: object) -> VAEConfig:
    """Read the configuration of a VAE. Raises ModelError on anything else."""
    return _built(VAEConfig, {k: v for k, v in _fields(VAEConfig, data, "system").items() if k != "system"})


def _fields(kind: type, data: object, *more: str) -> Mapping[str, Any]:
    """The values of an object by the fields of a class, or some more keys."""
    if not isinstance(data, dict):
        raise ModelError(f"a {kind.__name__} should be an object, not {_shown(data)}")
    renamed: Mapping[Any, str] = _RENAMED.get(kind, {})
    plain = {field.name for field in dataclasses.fields(kind)} - set(renamed.values())
    unknown = data.keys() - plain - renamed.keys() - set(more)
    if unknown:
        raise ModelError(f"a {kind.__name__} has no {_shown(min(unknown))}: a newer vqcodec is needed")
    return {renamed.get(key, key): value for key, value in data.items()}


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    values = data.get(name)
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_LEVELS:
        raise ModelError(f"{name} should be a list of 1 to {MAX_LEVELS}, not {_shown(values)}")
    return values


def _built(kind: type[T], data: object, **built: Any) -> T:
    """An instance of a class; built: fields that are no plain values."""
    values = {name: _value(kind, name, value) for name, value in _fields(kind, data).items() if name not in built}
    try:
        return kind(**values, **built)
    except (TypeError, ValueError) as error:  # a field is missing, or what the class itself refuses
        raise ModelError(str(error)) from error


def _value(kind: type, name: str, value: object) -> Any:
    """A value of the type of its field, as the annotation says, in the field's range."""
    (annotation,) = (field.type for field in dataclasses.fields(kind) if field.name == name)
    right = {
        "int": _is_integer(value),
        "float": _is_number(value),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str) and len(value) <= 64,
        "tuple[int, ...]": _is_list(value, 32) and all(map(_is_integer, value)),  # type: ignore[call-overload]
        "tuple[float, float]": _is_pair(value),
        "tuple[tuple[float, float], ...]": _is_list(value, MAX_LEVELS) and all(map(_is_pair, value)),  # type: ignore[call-overload]
    }[str(annotation)]
    numbers = _flat(value) if right and not isinstance(value, (bool, str)) else []
    low, high = _RANGES[kind].get(name, (-math.inf, math.inf))
    if not right or not all(low <= number <= high for number in numbers):
        raise ModelError(f"{name} of a {kind.__name__} should be {annotation} in {low:g} to {high:g}: {_shown(value)}")
    return _tuples(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: object, most: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= most


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))


def _flat(value: Any) -> list[float]:
    return [number for part in value for number in _flat(part)] if isinstance(value, (list, tuple)) else [value]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _shown(value: object) -> str:
    """A value in few characters and on one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}..."
