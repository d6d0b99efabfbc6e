# SPDX-License-Identifier: Apache-2.0
"""Attack the readers of files by the thousand, and count what comes of it: nothing but VqcodecError may.

    python tools/attacks.py --out attacks.json
    python tools/attacks.py repaired --number 1000

Flips of bits, cuts and splices of golden files, which a checksum must catch; containers, archives of indices and
weights files that `tools/fuzz.py` mutates and whose checksums it repairs. Every attack has a number, which is its seed.
`--out` is written as it goes, and read first: the work can be broken off at any time. Exits 1 after another exception,
a picture of a file that should have been refused, over 10 s of processor time for one file, or over 1 GB of memory.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = ROOT / "tests" / "hostile"
os.environ["VQCODEC_MODELS"] = str(HOSTILE / "models")
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import fuzz  # noqa: E402

import vqcodec  # noqa: E402
from vqcodec import indices  # noqa: E402
from vqcodec.model import registry  # noqa: E402

SECONDS, MEGABYTES = 10.0, 1024.0
SOURCES = [HOSTILE / "source.vq2", *sorted((ROOT / "tests" / "golden").glob("*/*.vq2"))]
Attack = Callable[[random.Random], bool]
"""Makes a file and opens it. True if there was a picture that should not be. Raises what opening raises."""


def read(path: Path, cache: dict[Path, bytes] = {}) -> bytes:  # noqa: B006
    """Read a file once.

    Args:
        path: of the file.
        cache: of those that were read.
    """
    if path not in cache:
        cache[path] = path.read_bytes()
    return cache[path]


def flip(rng: random.Random) -> bool:
    """One bit of a file, or two.

    Args:
        rng: source of the attack.
    """
    data = bytearray(read(rng.choice(SOURCES)))
    for at in rng.sample(range(len(data)), rng.choice([1, 1, 2])):
        data[at] ^= 1 << rng.randrange(8)
    vqcodec.decode(bytes(data), device="cpu")
    return True


def cut(rng: random.Random) -> bool:
    """A file cut at its end or in its middle, or spliced with another one.

    Args:
        rng: source of the attack.
    """
    first, second = (read(rng.choice(SOURCES)) for _ in range(2))
    start, stop = rng.randrange(len(first)), rng.randrange(len(second) + 1)
    spliced = first[:start] + (second[stop:] if rng.random() < 0.6 else b"")
    if spliced in map(read, SOURCES):
        raise vqcodec.FormatError("the file itself")
    vqcodec.decode(spliced, device="cpu")
    return True


def repaired(rng: random.Random) -> bool:
    """A container with right checksums: any picture is what its file says.

    Args:
        rng: source of the attack.
    """
    path = rng.choice([HOSTILE / "source.vq2", *sorted((HOSTILE / "files").glob("*.vq2"))])
    data = fuzz.mutated_container(read(path), rng)
    vqcodec.decode(data, device="cpu")
    return False


def archive(rng: random.Random) -> bool:
    """An archive of indices, with right checksums or damaged.

    Args:
        rng: source of the attack.
    """
    path = rng.choice([HOSTILE / "source.npz", *sorted((HOSTILE / "files").glob("*.npz"))])
    change = fuzz.mutated_bytes if rng.random() < 0.3 else fuzz.mutated_npz
    vqcodec.from_indices(indices.load(io.BytesIO(change(read(path), rng))), device="cpu")
    return False


def weights(rng: random.Random) -> bool:
    """A weights file: one that loads has another identity, and opens no file of the model that it was.

    Args:
        rng: source of the attack.
    """
    sound = read(HOSTILE / "models" / "tiny.safetensors")
    data = fuzz.mutated_weights(sound, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        codec = vqcodec.Codec.load(registry.find(path), "cpu")
        codec.decode(read(HOSTILE / "source.vq2"))
    return data != sound


ATTACKS: dict[str, tuple[Attack, int]] = {
    "flip": (flip, 20_000),
    "cut": (cut, 10_000),
    "repaired": (repaired, 20_000),
    "npz": (archive, 10_000),
    "weights": (weights, 500),
}


def attacked(attack: Attack, number: int, row: dict[str, Any]) -> None:
    """Make one attack, and count it.

    Args:
        attack: its kind.
        number: of the attack.
        row: of the results, is changed.
    """
    start, outcome = time.process_time(), "opened"
    try:
        if attack(random.Random(number)):
            outcome = "SILENT"
    except vqcodec.VqcodecError as error:
        outcome = type(error).__name__
    except Exception as error:
        outcome = f"OTHER {type(error).__name__}"
    seconds = time.process_time() - start
    row["outcomes"][outcome] = row["outcomes"].get(outcome, 0) + 1
    if outcome.startswith(("SILENT", "OTHER", "UnexpectedError")):
        row["bad"].append([number, outcome])
    if seconds > row["seconds"]:
        row["seconds"], row["slowest"] = round(seconds, 4), number
    row["megabytes"] = max(row["megabytes"], round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))
    row["done"] = number + 1


def fine(row: dict[str, Any]) -> bool:
    """Whether nothing happened that must not.

    Args:
        row: of the results.
    """
    return not row["bad"] and row["seconds"] < SECONDS and row["megabytes"] < MEGABYTES


@click.command(help=__doc__)
@click.argument("kinds", nargs=-1, type=click.Choice(list(ATTACKS)))
@click.option("--number", type=int, help="Of attacks of each kind, in place of the usual ones.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON of the results.")
def main(kinds: tuple[str, ...], number: int | None, out: Path | None) -> None:
    results = json.loads(out.read_text()) if out is not None and out.exists() else {}
    vqcodec.decode(read(SOURCES[0]), device="cpu")  # loads PyTorch and the model, which no attack is to be charged with
    for kind in kinds or ATTACKS:
        attack, usual = ATTACKS[kind]
        empty = {"done": 0, "outcomes": {}, "bad": [], "seconds": 0.0, "slowest": 0, "megabytes": 0.0}
        row = results.setdefault(kind, empty)
        for i in range(row["done"], usual if number is None else number):
            attacked(attack, i, row)
            if out is not None and i % 100 == 99:
                write(out, results)
        click.echo(f"{kind}: {row}")
    if out is not None:
        write(out, results)
    raise SystemExit(not all(map(fine, results.values())))


def write(out: Path, results: dict[str, Any]) -> None:
    """Replace the file of results.

    Args:
        out: the file.
        results: by kind.
    """
    out.with_suffix(".part").write_text(json.dumps(results, indent=1))
    out.with_suffix(".part").replace(out)


if __name__ == "__main__":
    main()
