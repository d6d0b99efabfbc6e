# SPDX-License-Identifier: Apache-2.0
"""Where the time of the codec goes: a clock that watches its parts (`vqcodec.timing`), for as long as it is on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from vqcodec import timing

PARTS = (*timing.PARTS, "rest")
"""`rest` is what none of the others has: tiling, sorting into the order of the stream, copies to and from a device."""


class Clock:
    """Seconds by part, without those of the parts inside it; they add up to `total`.

    On a GPU every change of part waits until the device is done: what runs there is then counted where it was asked
    for, but a whole run takes longer than without the clock.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._cuda = device.type == "cuda"
        self._inner: list[float] = []

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as this part."""
        self._wait()
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
            self._wait()
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


@contextlib.contextmanager
def clocked(device: torch.device) -> Iterator[Clock]:
    """Make a clock that counts what any codec does inside; the results are those without it. Not for several
    threads."""
    clock = Clock(device)
    with timing.watched(clock.part), clock.part("rest"):
        yield clock
