# SPDX-License-Identifier: Apache-2.0
"""Reading the integer tensors of a weights file: names, shapes and the bound of every product are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vqcodec.errors import ModelError
from vqcodec.exact import ops
from vqcodec.exact.ops import Linear


class Reader:
    """Integers by name, as float32 on a device. Raises ModelError or ExactnessError where they do not fit."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._tensors, self.device = tensors, device

    def get(self, name: str, shape: tuple[int, ...], limit: int = ops.ACT_MAX + 1) -> Tensor:
        """Read a tensor and check it.

        Args:
            name: of the tensor in the weights file.
            shape: that it must have.
            limit: all values must be below it in magnitude.

        Returns: float32 integers on the reader's device.

        Raises: ModelError if it is missing, of another shape, no integers, or too large.
        """
        tensor = self._tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype.is_floating_point:
            stored = "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
            raise ModelError(f"prior tensor {name} should be integers of shape {shape}; it is {stored}")
        if tensor.numel() and not -limit < int(tensor.min()) <= int(tensor.max()) < limit:  # int64 has no -minimum
            raise ModelError(f"prior tensor {name} has values of {limit} or more")
        return tensor.to(self.device, torch.float32)

    def linear(self, name: str, inputs: int, outputs: int, shift: int = ops.SHIFT) -> Linear:
        """Read the product `name`.{weight, bias} and prove it exact.

        Args:
            name: of the product in the weights file.
            inputs: rows of its weight.
            outputs: columns of its weight.
            shift: bits to drop from the product.

        Raises: ModelError if a tensor does not fit; ExactnessError if the product could exceed 2^24.
        """
        weight = self.get(f"{name}.weight", (inputs, outputs))
        bias = self.get(f"{name}.bias", (outputs,), limit=ops.BOUND)
        return ops.linear(weight, bias, shift)

    def gated(self, name: str, rows: Sequence[int], channels: int) -> GatedProduct:
        """Read the product ahead of a gate, which has a convolution for every reach.

        Each half is in its units, and half of the sigmoid's range is added. The bound is proved for each reach, the
        condition included.

        Args:
            name: of the product in the weights file.
            rows: taps of the convolution, one number a reach.
            channels: C, channels that go in; 2C come out.

        Raises: ModelError if a tensor does not fit; ExactnessError if the product could exceed 2^24.
        """
        bias = self.get(f"{name}.bias", (2 * channels,), limit=ops.BOUND)
        bias[channels:] += ops.SIGMOID_HALF * 2**ops.SHIFT
        shift = torch.tensor([ops.SHIFT_TANH, ops.SHIFT], device=self.device).repeat_interleave(channels)
        cond = self.get(f"{name}.cond.weight", (channels, 2 * channels))
        convs = []
        for reach, taps in enumerate(rows):
            conv = self.get(f"{name}.conv.{reach}.weight", (taps * channels, 2 * channels))
            whole = ops.linear(torch.cat([conv, cond]), bias, shift)
            convs.append(whole.weight[: taps * channels])
            condition = Linear(whole.weight[taps * channels :], whole.bias)
        return GatedProduct(tuple(convs), condition)


class GatedProduct:
    """The product ahead of a gate, in parts that are added: the convolution of a position's reach and its condition."""

    def __init__(self, convs: tuple[Tensor, ...], condition: Linear) -> None:
        self.convs, self.condition = convs, condition
        self._subsets: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def taps(self, reach: int, live: tuple[int, ...]) -> Tensor:
        """Take the rows of some taps of a reach, one below the other.

        Args:
            reach: number of the reach, from 0.
            live: the taps.

        Returns: float32 integers [len(live) * C, 2C].
        """
        key = (reach, live)
        if key not in self._subsets:
            conv = self.convs[reach]
            channels = conv.shape[1] // 2
            self._subsets[key] = conv.view(-1, channels, conv.shape[1])[list(live)].flatten(0, 1)
        return self._subsets[key]
