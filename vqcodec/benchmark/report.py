# SPDX-License-Identifier: Apache-2.0
"""Measurements as Markdown and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL
import torch

import vqcodec
from vqcodec.benchmark.contenders import RIVALS
from vqcodec.benchmark.growth import Growth
from vqcodec.benchmark.parts import PARTS
from vqcodec.benchmark.timings import Direction, Plan, Timing
from vqcodec.evaluation.markdown import table

MIB = 1 << 20
HOW = (
    "Pixels are read from and written to PPM files. Seconds are medians: in one process with everything loaded, and of "
    "whole processes (interpreter, imports, model, files). Peak memory is the largest resident set of those processes "
    "(ru_maxrss). The others are Pillow's codecs with the options {}; their quality is the highest that needs no more "
    "bytes than ours at one size, or as asked for. Runs: in process, and of the whole process."
)


def machine() -> dict[str, Any]:
    """Say what the measurements were made with."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "vqcodec": vqcodec.__version__,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(plan: Plan, measurements: Sequence[Timing], growths: Sequence[Growth]) -> dict[str, Any]:
    """Gather everything, in seconds and bytes.

    Args:
        plan: what was asked for.
        measurements: what was measured.
        growths: how that grows.
    """
    return {
        "machine": machine(),
        "plan": asdict(plan),
        "options_of_rivals": dict(RIVALS),
        "measurements": [asdict(m) for m in measurements],
        "growth": [asdict(g) for g in growths],
    }


def markdown(measurements: Sequence[Timing], growths: Sequence[Growth]) -> str:
    """Write tables: all measurements, how they grow, where the time goes.

    Args:
        measurements: what was measured.
        growths: how that grows.
    """
    options = "; ".join(f"{name}: {_options(options)}" for name, options in RIVALS.items())
    line = ", ".join(f"{key} {value}" for key, value in machine().items() if value is not None)
    tables = [f"Measured with {line}.", HOW.format(options)]
    for direction in ("encode", "decode"):
        tables += [f"{direction.capitalize()}:", _table(measurements, direction)]
    if any(m.encode.parts for m in measurements):
        tables += ["Where the time goes, in process:", _part_table(measurements)]
    if growths:
        tables += ["How time and memory grow with the megapixels (MP):", _growth_table(growths)]
    return "\n\n".join(tables)


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _table(measurements: Sequence[Timing], direction: str) -> str:
    head = ["MP", "codec", "device", "threads", "bpp", "in process, s", "s per MP", "whole process, s", "peak, MiB"]
    head += ["runs", "GPU peak, MiB"][: 1 + any(m.device == "cuda" for m in measurements)]
    rows = []
    for m in measurements:
        d: Direction = getattr(m, direction)
        name = f"{m.codec} {m.setting}" + ("" if m.failure is None else f" (**{m.failure}**)")
        bpp = None if m.file_bytes is None else 8e-6 * m.file_bytes / m.megapixels
        per = None if d.seconds is None else d.seconds / m.megapixels
        row = [f"{m.megapixels:.2f}", name, m.device, str(m.threads), *map(_number, (bpp, d.seconds, per))]
        row += [_number(d.process_seconds), _mib(d.peak_bytes), f"{d.runs}, {d.process_runs}", _mib(d.gpu_peak_bytes)]
        rows.append(row[: len(head)])
    return table(head, rows)


def _part_table(measurements: Sequence[Timing]) -> str:
    rows = []
    for m in measurements:
        for name, d in (("encode", m.encode), ("decode", m.decode)):
            if d.parts is not None:
                whole = sum(d.parts.values())
                shares = [f"{d.parts[part]:.3f} ({100 * d.parts[part] / whole:.1f} %)" for part in PARTS]
                rows.append([f"{m.megapixels:.2f}", m.setting, m.device, str(m.threads), name, *shares])
    return table(["MP", "model", "device", "threads", "", *(f"{part}, s" for part in PARTS)], rows)


def _growth_table(growths: Sequence[Growth]) -> str:
    rows = []
    for g in growths:
        unit, scale = ("s", 1) if g.quantity.endswith("seconds") else ("MiB", MIB)
        names = {"seconds": "time", "process_seconds": "whole process", "peak_bytes": "peak memory"}
        line = f"{g.fit.constant / scale:.3g} {unit} {g.fit.slope / scale:+.3g} {unit} x MP"
        quantity = f"{g.direction}, {names.get(g.quantity, 'peak memory of the GPU')}"
        name = f"{g.codec} {g.setting}"
        rows.append([name, g.device, str(g.threads), quantity, line, f"{g.fit.r2:.4f}", f"{g.fit.exponent:.2f}"])
    head = ["codec", "device", "threads", "of", "least squares", "R2", "exponent of the power law"]
    return table(head, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _mib(value: int | None) -> str:
    return "-" if value is None else f"{value / MIB:.0f}"
