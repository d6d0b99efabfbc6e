# SPDX-License-Identifier: Apache-2.0
"""Pictures of given sizes, and the time and memory that codecs take for them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw

from vqcodec.benchmark import launch
from vqcodec.benchmark.contenders import Contender, Ours
from vqcodec.benchmark.parts import clocked

T = TypeVar("T")

ASPECT = 1.5  # width over height of the pictures


@dataclass(frozen=True)
class Plan:
    """sizes: megapixels, rising. threads: counts to try. runs: of which the median is taken; no further one starts once
    `seconds` have passed, so that large images get fewer, but one at least. processes: run commands as well."""

    sizes: tuple[float, ...]
    threads: tuple[int, ...] = (1,)
    runs: int = 5
    seconds: float = 20.0
    processes: bool = True


@dataclass(frozen=True)
class Direction:
    """Encoding or decoding of one picture; None where it was not measured.

    Args:
        seconds: in this process, everything loaded, the median of `runs`.
        process_seconds: of a whole process (interpreter, imports, model, files), the median of `process_runs`.
        peak_bytes: largest resident set of that process.
        gpu_peak_bytes: largest total of PyTorch's tensors on the GPU.
        parts: seconds by `parts.PARTS` in the run with the median total; on a GPU of runs of their own, which are
            slower (see `parts.Clock`).
    """

    seconds: float | None = None
    runs: int = 0
    process_seconds: float | None = None
    process_runs: int = 0
    peak_bytes: int | None = None
    gpu_peak_bytes: int | None = None
    parts: dict[str, float] | None = None


@dataclass(frozen=True)
class Timing:
    """One codec at one size. failure: why something is missing, None if nothing is."""

    codec: str
    setting: str
    device: str
    threads: int
    width: int
    height: int
    megapixels: float
    file_bytes: int | None
    encode: Direction
    decode: Direction
    failure: str | None


def drawn(width: int = 768, height: int = 512) -> Image.Image:
    """Draw a picture for want of a photograph: ramps, ellipses and a little noise.

    Args:
        width: in pixels.
        height: in pixels.
    """
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2)
    noise = np.random.default_rng(0).integers(-8, 9, ramps.shape)
    image = Image.fromarray(np.clip(ramps + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for i in range(24):
        left, top = 97 * i % width, 61 * i % height
        draw.ellipse((left, top, left + 20 + 5 * i, top + 90 - 2 * i), fill=(10 * i, 240 - 9 * i, 90 + 5 * i))
    return image


def picture(source: Image.Image, megapixels: float) -> Image.Image:
    """Cut an RGB picture of a size from a source, which is repeated as between mirrors: its detail stays.

    Args:
        source: a picture of any size.
        megapixels: of the result.
    """
    width = max(1, round((megapixels * 1e6 * ASPECT) ** 0.5))
    height = max(1, round(width / ASPECT))
    pixels = np.asarray(source.convert("RGB"))
    around = ((0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0))
    return Image.fromarray(np.ascontiguousarray(np.pad(pixels, around, mode="symmetric")[:height, :width]))


def benchmark(
    contenders: Sequence[Contender], source: Image.Image, plan: Plan, progress: Callable[[str], None] = lambda _: None
) -> list[Timing]:
    """Measure everything, size by size.

    Where memory does not suffice, or a process fails, the measurement says so and the next one follows.

    Args:
        contenders: codecs to compare.
        source: the picture to cut from.
        plan: sizes, runs and time.
        progress: gets a line before each measurement.
    """
    measurements = []
    small = picture(source, min(plan.sizes))
    for contender in contenders:
        attempt(contender, small, replace(plan, runs=1, processes=False), plan.threads[-1])  # not counted: a warm-up
    for megapixels in plan.sizes:
        image = picture(source, megapixels)
        for contender in contenders:
            counts = plan.threads if contender.threaded and contender.device.type == "cpu" else plan.threads[-1:]
            for threads in counts:
                number = threads if contender.threaded else 1
                progress(f"{megapixels} megapixels: {contender.name} {contender.setting}, {contender.device}, {number}")
                measurements.append(attempt(contender, image, plan, number))
    return measurements


def attempt(contender: Contender, image: Image.Image, plan: Plan, threads: int) -> Timing:
    """Measure one codec on one picture.

    Args:
        contender: the codec.
        image: the picture.
        plan: runs and time.
        threads: to compute with.
    """
    encode = decode = Direction()
    size, failure = None, None
    contender.use_threads(threads)
    with tempfile.TemporaryDirectory() as directory:
        try:
            encode, data = _encode(contender, image, plan, threads, Path(directory))
            size = len(data)
            decode = _decode(contender, data, plan, threads, Path(directory))
        except launch.ProcessFailed as error:
            failure = f"process: {error}"
        except (MemoryError, RuntimeError) as error:
            if not _of_memory(error):
                raise
            failure = f"out of memory: {error}"
    if contender.device.type == "cuda":
        torch.cuda.empty_cache()
    pixels = image.width * image.height / 1e6
    return Timing(
        contender.name, contender.setting, contender.device.type, threads, image.width, image.height, pixels,
        size, encode, decode, failure,
    )  # fmt: skip


def _of_memory(error: Exception) -> bool:
    """PyTorch raises RuntimeError where the CPU's memory does not suffice, and one of its kind for a GPU's."""
    return isinstance(error, MemoryError) or "memory" in str(error)


def _encode(
    contender: Contender, image: Image.Image, plan: Plan, threads: int, directory: Path
) -> tuple[Direction, bytes]:
    direction = Direction()
    if plan.processes:
        source, target = directory / "in.ppm", directory / f"coded{contender.suffix}"
        image.save(source)
        direction = _process(contender.encode_command(source, target, threads), contender.environment(threads), plan)
    return _in_process(direction, contender, lambda: contender.encode(image), plan)


def _decode(contender: Contender, data: bytes, plan: Plan, threads: int, directory: Path) -> Direction:
    direction = Direction()
    if plan.processes:
        source, target = directory / f"coded{contender.suffix}", directory / "out.ppm"
        source.write_bytes(data)
        direction = _process(contender.decode_command(source, target, threads), contender.environment(threads), plan)
    return _in_process(direction, contender, lambda: contender.decode(data), plan)[0]


def _process(command: list[str], environment: dict[str, str], plan: Plan) -> Direction:
    """Time and memory of a command."""
    usages = repeated(lambda: launch.run(command, environment), plan)
    seconds, peak = median(usage.seconds for usage in usages), max(usage.peak_bytes for usage in usages)
    return Direction(process_seconds=seconds, process_runs=len(usages), peak_bytes=peak)


def _in_process(direction: Direction, contender: Contender, call: Callable[[], T], plan: Plan) -> tuple[Direction, T]:
    """Add the time in this process and the parts to what is known; and the result of the last call."""
    results: list[T] = []
    device, cuda = contender.device, contender.device.type == "cuda"

    def timed() -> float:
        start = time.perf_counter()
        results[:] = [call()]
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    def timed_by_part() -> dict[str, float]:
        with clocked(device) as clock:
            results[:] = [call()]
        return clock.seconds

    parts: list[dict[str, float]] = []
    if isinstance(contender, Ours) and not cuda:
        parts = repeated(timed_by_part, plan)  # on a CPU the clock costs nothing that could be measured
        seconds = [sum(run.values()) for run in parts]
    else:
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        seconds = repeated(timed, plan)
        if cuda:
            direction = replace(direction, gpu_peak_bytes=torch.cuda.max_memory_allocated(device))
            parts = repeated(timed_by_part, plan)
    if parts:
        middle = sorted(parts, key=lambda run: sum(run.values()))[(len(parts) - 1) // 2]
        direction = replace(direction, parts=middle)
    return replace(direction, seconds=median(seconds), runs=len(seconds)), results[0]


def repeated(call: Callable[[], T], plan: Plan) -> list[T]:
    """Repeat a call `plan.runs` times, or until the time is up.

    Args:
        call: is made once at least.
        plan: runs and time.

    Returns: what the calls gave.
    """
    start = time.perf_counter()
    results = [call()]
    while len(results) < plan.runs and time.perf_counter() - start < plan.seconds:
        results.append(call())
    return results
