# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run, its learning rate, time keeping and stop signals."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from vqcodec.nets import parallel

OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Args:
        steps: upper bound.
        minutes: wall-clock budget, counted over resumptions (0: no bound); the cosine of the learning rate follows
            whichever is further on.
        tail: share of the run over which the learning rate falls; it is constant before.
        processor_time: count this process's processor time in place of the clock on the wall, so that short trials on a
            busy machine compare.
        batch: crops or tiles per step, of all processes together.
        crop: their side in pixels.
        warmup: steps of linear warm-up.
        clip: bound of the gradient's norm.
        ema: decay of the averaged weights, which are the ones that are validated and exported.
        optimizer: one of OPTIMIZERS.
        bf16: autocast the networks (never the quantiser or the loss).
        compile: torch.compile the networks.
    """

    steps: int = 10_000
    minutes: float = 0.0
    batch: int = 8
    crop: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    warmup: int = 200
    tail: float = 1.0
    clip: float = 1.0
    ema: float = 0.999
    optimizer: str = "adamw"
    validate_every: int = 500
    log_every: int = 50
    seed: int = 0
    bf16: bool = True
    compile: bool = False
    device: str = "cpu"
    processor_time: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        if self.steps < 1 or self.batch < 1 or not 0 <= self.ema < 1:
            raise ValueError(f"steps and batch must be positive and ema in 0..1; got {self}")
        if not 0 < self.tail <= 1:
            raise ValueError(f"the tail must be above 0, at most 1, not {self.tail}")

    @property
    def device_type(self) -> str:
        """cpu or cuda."""
        return torch.device(self.device).type


SETTINGS = {
    "steps": "Stop after N steps.",
    "minutes": "Stop after N minutes, counted over resumptions; 0: never.",
    "batch": "Take N crops or tiles a step, in all processes together.",
    "crop": "Cut crops of N pixels a side.",
    "learning_rate": "Learn at this rate at most.",
    "weight_decay": "Let weights decay so fast.",
    "warmup": "Let the learning rate rise for N steps.",
    "tail": "Let it fall over this share of the run.",
    "clip": "Bound the norm of the gradient.",
    "ema": "Average weights with this decay.",
    "optimizer": "Choose the optimiser.",
    "validate_every": "Validate every N steps.",
    "log_every": "Log every N steps.",
    "seed": "Draw the same again.",
    "bf16": "Compute the networks in bfloat16; by default where that is fast.",
    "compile": "Compile the networks.",
    "device": "Train on auto, cpu or cuda.",
    "processor_time": "Count processor time, not the clock on the wall.",
}
"""What the options of `TrainConfig` do."""


class Clock:
    """Progress of a run in 0..1 and its learning rate; stops at the budget.

    All processes go by rank 0's clock, and all stop when one was told to. While it is entered, SIGINT and SIGTERM only
    ask to stop, so that the loop saves first."""

    def __init__(self, config: TrainConfig, elapsed: float = 0.0) -> None:
        self.config = config
        self.progress = 0.0
        self.stopped = False
        self._asked = False
        self._now = time.process_time if config.processor_time else time.monotonic
        self._start = self._now() - elapsed
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Clock:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def running(self, step: int) -> bool:
        """Take the time before this step. False when the run is over or was told to stop."""
        done = step / self.config.steps
        if self.config.minutes:
            done = max(done, self.elapsed / (60 * self.config.minutes))
        if parallel.world() > 1:
            agreed = parallel.first(torch.tensor([done], dtype=torch.float64, device=self.config.device))
            done = float(agreed)
            self._asked = bool(parallel.total(torch.tensor([float(self._asked)], device=self.config.device)))
        self.progress = min(done, 1.0)
        self.stopped = self._asked
        return self.progress < 1 and not self.stopped

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, earlier parts of the run included."""
        return self._now() - self._start

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then the peak, and in the tail half a cosine down to 1 % of it."""
        warm = min(1.0, (step + 1) / max(1, self.config.warmup))
        fallen = max(0.0, 1 - (1 - self.progress) / self.config.tail)
        return self.config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen)))
