# SPDX-License-Identifier: Apache-2.0
"""Decode the golden files, and drawn pictures, in every way that could matter, and compare the indices.

    python tools/index_hashes.py
    python tools/index_hashes.py --python /opt/python3.13/bin/python --python /opt/older-torch/bin/python

The ways: settings of the calling program (`tests/test_callers.py`), one thread and two, instruction sets of PyTorch and
oneDNN, other interpreters with other versions of PyTorch, and the second decoder of `tests/seconddecoder`. Prints a
table and exits 1 if any index differs. Needs the extra `test`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]

SMALL = 600  # bytes of the files that all settings of a caller are tried on
DRAWN = ((40, 24), (97, 61), (16, 300))
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "PyTorch without AVX": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN with SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN with AVX": {"ONEDNN_MAX_CPU_ISA": "AVX"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "neither, MKL with SSE4.2": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}


@click.group(help=__doc__, invoke_without_command=True)
@click.option("--python", "pythons", multiple=True, type=click.Path(exists=True), help="Another interpreter.")
@click.option("-j", "--jobs", default=1, show_default=True, help="Processes at a time.")
@click.pass_context
def main(context: click.Context, pythons: tuple[str, ...], jobs: int) -> None:
    if context.invoked_subcommand is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_drawn(Path(folder))
        expected = golden_hashes()
        rows = []
        for row in ways(folder, pythons, jobs):
            compared = [name for name, value in row["hashes"].items() if expected.setdefault(name, value) == value]
            row["equal"] = len(compared) == len(row["hashes"]) > 0
            rows.append(row)
            click.echo(line(row))
    different = [row["way"] for row in rows if not row["equal"]]
    click.echo(f"{len(rows)} ways, {len(expected)} files: " + (f"NOT EQUAL: {different}" if different else "all equal"))
    raise SystemExit(bool(different))


def golden_hashes() -> dict[str, str]:
    """What tests/golden says, by model and name."""
    held = [json.loads(path.read_text()) for path in GOLDEN.glob("*/golden.json")]
    return {f"{one['model']}/{name}": value for one in held for name, value in one["indices"].items()}


def write_drawn(folder: Path) -> None:
    """Encode drawn pictures with every shipped codec.

    Args:
        folder: for MODEL/NAME.vq2.
    """
    from check_sizes import MODELS, drawn

    import vqcodec

    for model in MODELS:
        codec = vqcodec.load_model(model, "cpu")
        (folder / model).mkdir()
        for number, (width, height) in enumerate(DRAWN):
            asked = {"quality": 20.0 + 35 * number} if any(codec.config.lmbdas) else {"lmbda": 0.0}
            file = codec.encode(drawn(width, height), effort=1, fallback=False, **asked)
            (folder / model / f"drawn-{width}x{height}.vq2").write_bytes(file)


def ways(folder: str, pythons: Sequence[str], jobs: int) -> Iterator[dict[str, Any]]:
    """Run a process for every environment, interpreter and decoder.

    Args:
        folder: of the drawn files.
        pythons: further interpreters.
        jobs: processes at a time.

    Returns: rows of the table, as the commands below print them.
    """
    here = sys.executable
    asked: list[tuple[str, str, str, dict[str, str]]] = [
        (here, "second", "the second decoder", {}),
        (here, "settings", "settings of a caller", {}),
        *((here, "indices", name, environment) for name, environment in ENVIRONMENTS.items()),
        *((python, "indices", "another interpreter", {}) for python in pythons),
    ]
    with ThreadPoolExecutor(jobs) as pool:
        for rows in pool.map(lambda one: answers(*one[:3], folder, one[3]), asked):
            yield from rows


def answers(python: str, command: str, name: str, folder: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Run one process, and read its rows.

    Args:
        python: interpreter.
        command: indices, settings or second.
        name: of the way.
        folder: of the drawn files.
        environment: variables to be set.
    """
    varied = {key for variables in ENVIRONMENTS.values() for key in variables}
    result = subprocess.run(
        [python, str(Path(__file__).resolve()), command, name, folder],
        env={key: value for key, value in os.environ.items() if key not in varied} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(text) for text in result.stdout.splitlines() if text.startswith("{")]
    if result.returncode or not rows:
        reason = (result.stderr.strip().splitlines() or ["no answer"])[-1]
        rows.append({"way": f"{name} ({python}): {reason}", "hashes": {}})
    return rows


def line(row: dict[str, Any]) -> str:
    """One row of the table.

    Args:
        row: as a process printed it.
    """
    digest = hashlib.sha256("".join(sorted(row["hashes"].values())).encode()).hexdigest()[:12]
    what = f"{row['way']:32} {row.get('versions', ''):48} {len(row['hashes']):2} files {digest}"
    return f"{what} {'equal' if row['equal'] else 'DIFFERENT'}"


# In the processes


def files(folder: str, largest: int = 1 << 30) -> Iterator[tuple[str, Path]]:
    """Names and paths of golden and drawn files.

    Args:
        folder: of the drawn ones.
        largest: bytes of a file.
    """
    for path in sorted([*GOLDEN.glob("*/*.vq2"), *Path(folder).glob("*/*.vq2")]):
        if path.stat().st_size <= largest:
            yield f"{path.parent.name}/{path.stem}", path


def hashed(maps: Iterable[NDArray[np.int64]]) -> str:
    """SHA-256 over index maps as little-endian 16-bit numbers, level by level.

    Args:
        maps: of the levels, coarsest first.
    """
    digest = hashlib.sha256()
    for level in maps:
        digest.update(np.ascontiguousarray(level.astype("<u2")).tobytes())
    return digest.hexdigest()


def decoded(folder: str, largest: int = 1 << 30) -> dict[str, str]:
    """Hashes of what the package decodes.

    Args:
        folder: of the drawn files.
        largest: bytes of a file.
    """
    import vqcodec
    from vqcodec.format import container

    hashes = {}
    for name, path in files(folder, largest):
        maps = vqcodec.load_model(name.split("/")[0], "cpu").read_indices(container.unpack(path.read_bytes()))
        hashes[name] = hashed(level.numpy() for level in maps.levels)
    return hashes


def print_row(way: str, hashes: dict[str, str]) -> None:
    """Print what the first process reads.

    Args:
        way: its name.
        hashes: by file.
    """
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        capability = torch.backends.cpu.get_cpu_capability()
        versions = f"Python {platform.python_version()}, PyTorch {torch.__version__}, {capability}"
        versions += f", {torch.get_num_threads()} threads"
    print(json.dumps({"way": way, "versions": versions, "hashes": hashes}), flush=True)
    if not hashes or not golden_hashes().items() >= {k: v for k, v in hashes.items() if "/drawn-" not in k}.items():
        raise SystemExit(1)


@main.command(hidden=True)
@click.argument("name")
@click.argument("folder")
def indices(name: str, folder: str) -> None:
    """Decode all files in this process."""
    print_row(name, decoded(folder))


@main.command(hidden=True)
@click.argument("name")
@click.argument("folder")
def settings(name: str, folder: str) -> None:
    """Decode the small files under every setting of a caller."""
    import pytest
    from test_callers import CALLERS

    for caller, setting in CALLERS.items():
        with contextlib.suppress(pytest.skip.Exception), setting():
            print_row(f"caller: {caller}", decoded(folder, SMALL))


@main.command(hidden=True)
@click.argument("name")
@click.argument("folder")
@click.option("--largest", default=1 << 30)
def second(name: str, folder: str, largest: int) -> None:
    """Decode all files with the second decoder."""
    from seconddecoder import container, weights, whole

    models = {path.stem: weights.read(path) for path in (ROOT / "models").glob("vq*.safetensors")}
    hashes = {}
    for file, path in files(folder, largest):
        hashes[file] = hashed(whole.decode(container.read(path.read_bytes()), models[path.parent.name]))
    print_row(name, hashes)


if __name__ == "__main__":
    main()
