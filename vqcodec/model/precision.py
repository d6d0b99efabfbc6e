# SPDX-License-Identifier: Apache-2.0
"""Which precision a machine is fast at, and where none may be lost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from vqcodec.errors import boundary
from vqcodec.exact import settings
from vqcodec.exact.check import check_device
from vqcodec.model import memory


class HasDevice(Protocol):
    """What computes on one device."""

    device: torch.device


M = TypeVar("M", bound=HasDevice)
P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def fast_bf16(device_type: str) -> bool:
    """Return whether products in bfloat16 are faster than in float32: on GPUs that have them, and on CPUs with
    AVX512-BF16 or AMX. Elsewhere they are emulated, about ten times slower.

    Args:
        device_type: cpu or cuda.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of PyTorch 2.6 and newer; not known: float32
    return any(bool(supported()) for name in names if (supported := getattr(torch.cpu, name, None)))


def exactly(function: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """Run a function of a model as the contract needs it: without gradients, outside any autocast of the caller, under
    settings of PyTorch that round nothing, and only where the known-answer test passes (else ExactnessError). No error
    leaves it that `errors.boundary` does not let out."""

    @functools.wraps(function)
    def run(model: M, /, *arguments: P.args, **options: P.kwargs) -> T:
        with (
            boundary(),
            memory.given_back(),
            settings.needed(),
            torch.inference_mode(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            check_device(model.device)
            return function(model, *arguments, **options)

    return run
