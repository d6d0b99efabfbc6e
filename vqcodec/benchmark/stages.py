# SPDX-License-Identifier: Apache-2.0
"""Where the time of the codec goes: a clock around the calls that its rooms are entered by, for as long as it is on."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vqcodec import codec
from vqcodec.encoder.choice import Chooser
from vqcodec.exact.network import IntegerPrior
from vqcodec.format import container
from vqcodec.images import imaging
from vqcodec.nets import strips
from vqcodec.stream import coding
from vqcodec.stream import writer as stream

STAGES = ("network", "choice of codes", "prior", "entropy coding", "input and output", "rest")
"""`rest` is what none of the others has: tiling, sorting into the order of the stream, copies to and from a device."""

# Who is called, under which name, and the stage that it belongs to. Streams are coded from within the prior's steps.
_PLACES: tuple[tuple[Any, str, str], ...] = (
    (strips, "features", "network"),
    (strips, "latent", "network"),
    (strips, "descend", "network"),
    (strips, "decode", "network"),
    (IntegerPrior, "condition", "prior"),
    (codec.Codec, "frequencies", "prior"),
    (codec, "pack_stream", "prior"),
    (codec, "run", "prior"),
    (Chooser, "maps", "choice of codes"),
    (coding.SymbolEncoder, "encode", "entropy coding"),
    (stream.Source, "__call__", "entropy coding"),
    (imaging, "from_pil", "input and output"),
    (imaging, "to_pil", "input and output"),
    (imaging, "encode_alpha", "input and output"),
    (imaging, "decode_alpha", "input and output"),
    (container, "pack", "input and output"),
    (container, "unpack", "input and output"),
)


class Clock:
    """Seconds by stage, without those of the stages inside it; they add up to `total`.

    On a GPU every change of stage waits until the device is done: what runs there is then counted where it was asked
    for, but a whole run takes longer than without the clock.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._cuda = device.type == "cuda"
        self._inner: list[float] = []

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as this stage."""
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
    """A clock that counts what any codec does inside; the results are those without it. Not for several threads."""
    clock = Clock(device)
    with contextlib.ExitStack() as stack:
        for owner, name, stage in _PLACES:
            before = getattr(owner, name)
            setattr(owner, name, _timed(before, clock, stage))
            stack.callback(setattr, owner, name, before)
        with clock.stage("rest"):
            yield clock


def _timed(function: Callable[..., Any], clock: Clock, stage: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        with clock.stage(stage):
            return function(*arguments, **options)

    return timed
