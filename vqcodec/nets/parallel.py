# SPDX-License-Identifier: Apache-2.0
"""Training in several processes: who one is, sums over all ranks, draws that all ranks share. One process by default.

Every rank holds an equal share of the joint batch: rows rank * M to (rank + 1) * M.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

shared_generator: torch.Generator | None = None
"""Source of draws that must be the same on every rank; None, outside of training runs, means torch's own."""


@contextlib.contextmanager
def shared_draws(seed: int) -> Iterator[torch.Generator]:
    """Give all ranks one sequence of draws, for as long as the context lasts."""
    global shared_generator
    before, shared_generator = shared_generator, torch.Generator().manual_seed(seed)
    try:
        yield shared_generator
    finally:
        shared_generator = before


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[str]:
    """Join the process group that `torchrun` describes in the environment, if it does, and yield this rank's device.

    device: auto (a GPU if there is one), cpu or cuda; ranks of a machine take one GPU each. NCCL on GPUs, gloo on CPUs.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if name == "cuda" and not alone:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(name)
    if alone:
        yield name
        return
    dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
    try:
        yield name
        dist.barrier()  # no rank leaves while another still talks to it
    finally:
        gc.collect()  # what still holds the group, such as DistributedDataParallel's reducer, goes first
        dist.destroy_process_group()


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def rank_rows(number: int) -> slice:
    """This rank's rows of a joint batch. Raises ValueError if it cannot be divided evenly."""
    if number % world():
        raise ValueError(f"a batch of {number} cannot be divided among {world()} processes")
    each = number // world()
    return slice(rank() * each, (rank() + 1) * each)


def total(x: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, without gradient."""
    if world() > 1:
        x = x.detach().clone()
        dist.all_reduce(x)
    return x


def total_with_gradient(x: Tensor) -> Tensor:
    """Sum of a tensor over all ranks; the gradient is summed likewise."""
    return _Total.apply(x) if world() > 1 else x


class _Total(torch.autograd.Function):
    """Every rank's result depends on every rank's input alike, so that gradients are summed as values are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return total(grads[0])


def first(x: Tensor) -> Tensor:
    """Rank 0's value of a tensor of the same shape on every rank."""
    if world() > 1:
        x = x.detach().clone()
        dist.broadcast(x, 0)
    return x


def gathered(x: Tensor) -> list[Tensor]:
    """Gather the tensors of all ranks, of one shape, in the order of the ranks."""
    if world() == 1:
        return [x]
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return parts


def drawn_rows(x: Tensor, number: int, replace: bool = True) -> Tensor:
    """Draw rows at random from the joint batch, the same on every rank.

    Args:
        x: this rank's rows, float [M, D]; all ranks have the same number.
        number: of rows to draw.
        replace: whether a row may be drawn more than once.

    Returns: float [number, D].
    """
    size = len(x) * world()
    if replace:
        picks = torch.randint(size, (number,), generator=shared_generator)
    else:
        picks = torch.randperm(size, generator=shared_generator)[:number]
    here = (picks // len(x) == rank()).to(x.device)
    rows = (picks.to(x.device) - rank() * len(x))[here]
    drawn = x.new_zeros(number, *x.shape[1:])
    drawn[here] = x[rows]
    return total(drawn)
