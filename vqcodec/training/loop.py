# SPDX-License-Identifier: Apache-2.0
"""The training loop that all systems share. A `Task` says what is trained, on what, and how it is measured."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqcodec.nets import parallel
from vqcodec.training import checkpoint
from vqcodec.training.average import Average
from vqcodec.training.log import Log
from vqcodec.training.muon import Muon, parameter_groups
from vqcodec.training.schedule import Clock, TrainConfig


@dataclass(frozen=True)
class Report:
    """Figures of a validation.

    Args:
        values: for the log.
        score: what the best checkpoint has least of, None if there is no best (the last one counts).
        images: float [3, H, W] in 0..1 by name.
    """

    values: dict[str, Any]
    score: float | None = None
    images: dict[str, Tensor] = field(default_factory=dict)


class Task(ABC):
    """One kind of training.

    Args:
        name: of its files.
        module: what is trained; its forward gives the loss's parts, so that gradients are averaged over processes.
        scales: multiples of the learning rate by prefix of the parameters' names; those are never optimised by Muon.
        find_unused: whether a rank's part of a batch may leave parameters without a gradient, such as the heads of
            stages that none of its positions uses.
    """

    name: str
    scales: ClassVar[Mapping[str, float]] = {}
    find_unused: ClassVar[bool] = False
    module: nn.Module
    generator: torch.Generator  # of the data: its state is the position in them

    @abstractmethod
    def model_config(self) -> dict[str, Any]:
        """Plain types, stored in every checkpoint."""

    @abstractmethod
    def batch(self, config: TrainConfig) -> Any:
        """Draw this rank's part of the next joint batch, on its device."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss in its units, and scalars for the log (means over this rank's part of the batch).

        Args:
            network: `module`, or what wraps it.
            batch: from `batch`.
            config: of the run.
        """

    @abstractmethod
    def validate(self, config: TrainConfig, images: bool) -> Report:
        """Measure `module` as it is, on rank 0 alone.

        Args:
            config: of the run.
            images: whether grids are wanted.
        """

    def before(self, step: int, clock: Clock, config: TrainConfig) -> bool:
        """Do what is due before a step, on all ranks.

        Args:
            step: number of the step, from 0.
            clock: of the run.
            config: of the run.

        Returns: whether weights changed at one stroke: averages then start anew.
        """
        return False

    def after(self, step: int, clock: Clock, scalars: dict[str, Tensor]) -> None:
        """Do what is due after a step, on all ranks.

        Args:
            step: number of the step, from 0.
            clock: of the run.
            scalars: of the joint batch.
        """
        return

    def extra(self) -> dict[str, Any]:
        """More to store in every checkpoint: JSON-able."""
        return {}


def train(task: Task, config: TrainConfig, out: Path) -> Path:
    """Train, or go on from `out/NAME.ckpt.safetensors`.

    Args:
        task: what is trained, on what.
        config: how long and how.
        out: folder of checkpoints and logs.

    Returns: the path of the checkpoint to use: the best one where the task has a score, else the last. Raises
    FloatingPointError when the loss is not finite; the last checkpoint stays.
    """
    network = _prepare(task, config)
    optimizer = _optimizer(task, config)
    average = Average(task.module, config.ema)
    last, best_path = out / f"{task.name}.ckpt.safetensors", out / f"{task.name}.best.safetensors"
    with parallel.shared_draws(config.seed) as shared:
        generators = {"data": task.generator, "shared": shared}
        step, elapsed, best = 0, 0.0, math.inf
        if last.exists():
            meta = checkpoint.load(last, task.module, average, optimizer, generators)
            step, elapsed, best = meta["step"], meta["elapsed"], meta["best"]
        clock, log = Clock(config, elapsed), Log(out, task.name, config.steps)

        def save(path: Path) -> None:
            meta = {"step": step, "elapsed": clock.elapsed, "best": best, "name": task.name}
            meta |= {"model": task.model_config(), "train": dataclasses.asdict(config), **task.extra()}
            checkpoint.save(path, task.module, average, optimizer, generators, meta)

        def validate() -> None:
            nonlocal best
            with _evaluation(task.module, average):
                report = task.validate(config, log.wants_images) if parallel.rank() == 0 else Report({})
            log.write(step, report.values, report.images)
            score = parallel.first(
                torch.tensor([math.inf if report.score is None else report.score], device=config.device)
            ).item()
            if score < best:
                best = score
                save(best_path)

        validated = step
        task.module.train()
        with clock, contextlib.closing(log):
            while clock.running(step):
                if task.before(step, clock, config):
                    average.reset(task.module)
                scalars = _step(task, network, optimizer, clock.learning_rate(step), config)
                step += 1
                task.after(step, clock, scalars)
                average.update(task.module)
                values: dict[str, Any] = {k: v.tolist() for k, v in scalars.items()}
                log.advance(step, values["loss"], clock.progress)
                if step % config.log_every == 0:
                    rate = clock.learning_rate(step - 1)
                    log.write(step, {"minutes": clock.elapsed / 60, **values, "lr": rate})
                if step % config.validate_every == 0:
                    validate()
                    save(last)
                    validated = step
            if validated < step:
                if not clock.stopped:
                    validate()
                save(last)
    return best_path if best_path.exists() else last


def _prepare(task: Task, config: TrainConfig) -> nn.Module:
    """Seed, and wrap the module for what the configuration asks for."""
    torch.manual_seed(config.seed * 1000 + parallel.rank())
    task.module.to(config.device)
    if config.compile:
        task.module.compile()
    if parallel.world() == 1:
        return task.module
    return DistributedDataParallel(task.module, find_unused_parameters=task.find_unused)


def _optimizer(task: Task, config: TrainConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(task.module, task.scales)
    if config.optimizer == "muon":
        return Muon(groups, config.learning_rate, config.weight_decay)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )


def _step(
    task: Task, network: nn.Module, optimizer: torch.optim.Optimizer, rate: float, config: TrainConfig
) -> dict[str, Tensor]:
    """One update. Returns the loss and the task's scalars, means over all ranks."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    loss, scalars = task.loss(network, task.batch(config), config)
    scalars = {"loss": loss, **scalars}
    joint = torch.cat([value.detach().float().flatten() for value in scalars.values()])
    joint = parallel.total(joint) / parallel.world()
    parts = joint.split([value.numel() for value in scalars.values()])
    means = {k: part.view(v.shape) for (k, v), part in zip(scalars.items(), parts, strict=True)}
    if not math.isfinite(means["loss"].item()):
        raise FloatingPointError(
            f"the loss is {means['loss'].item()}: the run stops, the last checkpoint is kept. "
            "Go on from it with a smaller --learning-rate"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(task.module.parameters(), config.clip)
    optimizer.step()
    return means


@contextlib.contextmanager
def _evaluation(module: nn.Module, average: Average) -> Iterator[None]:
    """Averaged weights, evaluation mode, no gradients, and random draws that leave the run's own untouched."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.inference_mode(), average.applied(module):
        torch.manual_seed(0)
        module.eval()
        yield
    module.train()
