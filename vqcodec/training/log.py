# SPDX-License-Identifier: Apache-2.0
"""What people look at while a model trains: a progress bar, JSON lines, TensorBoard. Rank 0 alone writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from vqcodec.nets import parallel


class Writer(Protocol):
    """The part of TensorBoard's SummaryWriter that is used here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write a number, as TensorBoard's `SummaryWriter` does.

        Args:
            tag: name of the curve.
            scalar_value: the number.
            global_step: step of the run.
        """

    def add_image(self, tag: str, img_tensor: Tensor, global_step: int) -> None:
        """Write an image, as TensorBoard's `SummaryWriter` does.

        Args:
            tag: name of the series.
            img_tensor: float [3, H, W] in 0..1.
            global_step: step of the run.
        """

    def flush(self) -> None: ...

    def close(self) -> None: ...


def summary_writer(folder: Path) -> Writer | None:
    """TensorBoard's writer, None where it is not installed (extra `train`)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


class Log:
    """JSON lines in `NAME.jsonl` and on stderr, TensorBoard events under `tensorboard/NAME`, a bar on a terminal."""

    def __init__(self, out: Path, name: str, steps: int) -> None:
        """steps: the run's upper bound, the length of the bar."""
        self._file, self._writer, self._bar = None, None, None
        if parallel.rank():
            return
        out.mkdir(parents=True, exist_ok=True)
        self._file = (out / f"{name}.jsonl").open("a", encoding="utf-8")
        self._writer = summary_writer(out / "tensorboard" / name)
        self._bar = _bar(name, steps)

    def write(self, step: int, values: Mapping[str, Any], images: Mapping[str, Tensor] | None = None) -> None:
        """Write what was measured at a step.

        Args:
            step: number of steps so far.
            values: numbers, strings and (nested) lists of numbers; floats are rounded to five digits.
            images: float [3, H, W] in 0..1 by name.
        """
        if self._file is None:
            return
        line = json.dumps({"step": step} | {k: _rounded(v) for k, v in values.items()})
        self._file.write(line + "\n")
        self._file.flush()
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.write(line, file=sys.stderr)
        if self._writer is not None:
            for key, value in values.items():
                for tag, number in _numbers(key, value):
                    self._writer.add_scalar(tag, number, step)
            for key, image in (images or {}).items():
                self._writer.add_image(key, image.clamp(0, 1), step)
            self._writer.flush()

    @property
    def wants_images(self) -> bool:
        """Whether anybody would see image grids."""
        return self._writer is not None

    def advance(self, step: int, loss: float, progress: float) -> None:
        """Move the bar.

        Args:
            step: number of steps so far.
            loss: of the last step.
            progress: of the run, 0 to 1.
        """
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}, {progress:.0%} of the run", refresh=False)
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """End the bar, the file and TensorBoard's events."""
        for part in (self._bar, self._writer, self._file):
            if part is not None:
                part.close()


def _bar(name: str, steps: int) -> Any:
    """tqdm's bar where stderr is a terminal, else None."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=steps, desc=name, unit="step", file=sys.stderr)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return value


def _numbers(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    """Scalars of a value: lists become TAG/0, TAG/1, ..."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _numbers(f"{tag}/{i}", item)
    elif isinstance(value, (int, float)):
        yield tag, float(value)
