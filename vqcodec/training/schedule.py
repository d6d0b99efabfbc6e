# SPDX-License-Identifier: Apache-2.0
"""What the two training loops share: settings, learning rate, time keeping, log lines, stop signals."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class TrainConfig:
    """How to train. steps: upper bound. minutes: wall-clock budget, counted over resumptions (0: no bound); the
    cosine of the learning rate follows whichever is further on. batch, crop: crops per step and their side in pixels.
    warmup: steps of linear warm-up. bf16: autocast the networks (never the quantiser or the loss)."""

    steps: int = 10_000
    minutes: float = 0.0
    batch: int = 8
    crop: int = 128
    learning_rate: float = 6e-4
    weight_decay: float = 1e-4
    warmup: int = 200
    clip: float = 1.0
    validate_every: int = 500
    log_every: int = 50
    seed: int = 0
    bf16: bool = True
    device: str = "cpu"


class Clock:
    """Progress of a run in 0..1 and its learning rate; stops at the budget.

    While it is entered, SIGINT and SIGTERM only set `stopped`, so that the loop saves first."""

    def __init__(self, config: TrainConfig, elapsed: float = 0.0) -> None:
        self.config = config
        self.stopped = False
        self._start = time.monotonic() - elapsed
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Clock:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def running(self, step: int) -> bool:
        """False when the run is over or was told to stop."""
        return self.progress(step) < 1 and not self.stopped

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, earlier parts of the run included."""
        return time.monotonic() - self._start

    def progress(self, step: int) -> float:
        """Share of the run that is over: by steps or by time, whichever is more."""
        done = step / self.config.steps
        if self.config.minutes:
            done = max(done, self.elapsed / (60 * self.config.minutes))
        return min(done, 1.0)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to 1 % of the peak."""
        warm = min(1.0, (step + 1) / max(1, self.config.warmup))
        return self.config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress(step))))


class Log:
    """JSON lines in a file, the same on stderr."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Floats are rounded to five digits."""
        rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
        line = json.dumps(rounded)
        self._file.write(line + "\n")
        self._file.flush()
        print(line, file=sys.stderr, flush=True)
