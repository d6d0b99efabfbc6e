# SPDX-License-Identifier: Apache-2.0
"""Known-answer test: a device, or a global setting, that does not compute exactly is refused before it is used."""

from __future__ import annotations

import torch
from torch import Tensor

from vqcodec.errors import ExactnessError
from vqcodec.exact import ops, settings

_passed: set[tuple[object, ...]] = set()


def check_device(device: torch.device | str) -> None:
    """Compare each operation of the path with int64 arithmetic on the CPU, once per device and global settings.

    Takes milliseconds. Raises ExactnessError, which names the operation, if anything differs in any bit, or if the
    device fails.
    """
    device = torch.device(device)
    with settings.needed():
        setting = (str(device), *settings.key())
        if setting in _passed:
            return
        try:
            with torch.inference_mode(), torch.autocast(device.type, enabled=False):
                _check_products(device)
                _check_pointwise(device)
                _check_tables(device)
                _check_attention(device)
        except RuntimeError as error:  # PyTorch's own: a mode that forbids an operation, a device that is gone
            reason = " ".join(str(error).split())[:300]
            raise ExactnessError(f"{device} does not compute, as PyTorch is set here: {reason}") from error
        _passed.add(setting)


def _refuse(what: str, device: torch.device) -> None:
    raise ExactnessError(
        f"{device} does not compute {what} exactly; files decoded here would be wrong. Undo reduced-precision settings "
        "(torch.set_float32_matmul_precision('highest'), no TF32) or use another device"
    )


def _integers(low: int, high: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Integers low..high from a plain multiplicative generator: the same on every version of every library."""
    number = 1
    for n in shape:
        number *= n
    values = (torch.arange(1, number + 1) * 2654435761 + seed * 40503) % 2**32
    values = (values * 2246822519 % 2**32) >> 7
    return (values % (high - low + 1) + low).view(shape)


def _check_products(device: torch.device) -> None:
    """Random products, and one whose every partial sum climbs to the bound: 1040 * 127 * 127 is just below 2^24."""
    for rows, inner, columns, shift in ((64, 480, 192, 7), (3, 97, 33, 1), (257, 1040, 64, 9)):
        x, w = _integers(-127, 127, (rows, inner), 1), _integers(-127, 127, (inner, columns), 2)
        x[0], w[:, 0] = 127, 127
        x[1], w[:, 1] = 126, -127
        b = _integers(-400, 400, (columns,), 3)
        b[0] = ops.BOUND - 1 - inner * 127 * 127 - 2 ** (shift - 1)
        exact = _halved_up(x @ w + b, shift)  # int64
        parameters = ops.linear(w, b, shift)
        on_device = ops.Linear(parameters.weight.to(device), parameters.bias.to(device))
        got = ops.rounded(x.float().to(device), on_device)
        if not torch.equal(got.cpu().double(), exact.double()):
            _refuse("matrix products", device)


def _halved_up(x: Tensor, shift: int) -> Tensor:
    """floor(x / 2^shift + 1/2) of int64."""
    return (x + 2 ** (shift - 1)) >> shift


def _check_pointwise(device: torch.device) -> None:
    x = _integers(-(2**23), 2**23, (64, 128), 4)
    for shift in (1, ops.SHIFT, ops.SHIFT_PROJECT):
        if not torch.equal(ops.rescale(x.float().to(device), shift).cpu().long(), _halved_up(x, shift)):
            _refuse("rescaling", device)
    x = _integers(-300, 300, (64, 128), 5)
    tanh, sigmoid = x.chunk(2, -1)
    exact = _halved_up(tanh.clamp(-127, 127) * sigmoid.clamp(0, 127), ops.GATE_BITS)
    if not torch.equal(ops.gate(x.float().to(device)).cpu().long(), exact):
        _refuse("the gate", device)
    table = ops.exp_table(2**14, 1)
    logits = _integers(-500, 500, (64, 512), 6)
    exact = table[(logits.amax(-1, keepdim=True) - logits).clamp(max=255)]
    got = ops.frequencies(logits.float().to(device), table.float().to(device))
    if not torch.equal(got.cpu().long(), exact):
        _refuse("frequencies", device)


def _check_tables(device: torch.device) -> None:
    table = _integers(-127, 127, (3000, 96), 11)
    index = _integers(0, 2999, (64, 32), 12)
    got = ops.embedded(table.float().to(device), index.to(device))
    if not torch.equal(got.cpu().long(), table[index].sum(1)):
        _refuse("sums of rows of tables", device)


def _check_attention(device: torch.device) -> None:
    q, k, v = (_integers(-127, 127, (2, 2, n, 16), 7 + i) for i, n in enumerate((5, 300, 300)))
    visible = _integers(0, 1, (1, 1, 5, 300), 10).bool()
    table = ops.exp_table(2**15, 0)
    scores = (q @ k.transpose(-1, -2) + 128) >> 8
    scores = torch.where(visible, scores, -(2**24))
    peak = scores.amax(-1, keepdim=True).clamp(min=0)
    weights = table[(peak - scores).clamp(max=255)] * visible
    total = weights.sum(-1, keepdim=True) + table[peak.clamp(max=255)]
    exact = torch.div(2 * (weights @ v) + total, 2 * total, rounding_mode="floor")  # floor(mean + 1/2) in integers
    query, key, value, exponential = (t.float().to(device) for t in (q, k, v, table))
    got = ops.attend(query, key, value, visible.to(device), exponential)
    if not torch.equal(got.cpu().long(), exact):
        _refuse("attention", device)
