# SPDX-License-Identifier: Apache-2.0
"""Fuzz what takes files of strangers, with atheris (extra `fuzz`): nothing but VqcodecError may come out.

    python tools/fuzz.py container -- -max_total_time=3600
    python tools/fuzz.py weights -- -runs=100000 corpus/

What follows `--` goes to libFuzzer. An input that takes more than 10 s of processor time is a finding as well:
libFuzzer's `-timeout` counts seconds of a clock, and should be longer where other work runs beside it. The corpus
begins with tests/hostile and the golden files. Half of the mutations work on the parts of a file and repair its lengths
and checksums, so that they come further than the first check.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = ROOT / "tests" / "hostile"
sys.path.insert(0, str(HOSTILE.parent))

from hostile.make import MAGIC, file_of, varint  # noqa: E402

SUFFIXES = {"container": ".vq2", "npz": ".npz", "weights": ".safetensors"}
SECONDS = 10  # of processor time for one input
VALUES = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 4096, 65535, 65536, 2**31 - 1, 2**32, 2**63 - 1, 2**63, -1)

# Containers


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and payload of the chunks of a .vq2 file, as far as they can be told apart; checksums are not looked at."""
    chunks, at = [], len(MAGIC)
    while at < len(data):
        kind, at = data[at : at + 1], at + 1
        length = 0
        for shift in range(0, 35, 7):
            byte = data[at] if at < len(data) else 0
            length, at = length | (byte & 127) << shift, at + 1
            if byte < 128:
                break
        chunks.append((kind, data[at : at + length]))
        at += length + 4
    return chunks


def mutated_container(data: bytes, rng: random.Random) -> bytes:
    """Change, swap, repeat or leave out chunks; mostly make the number of chunks in the header right.

    Args:
        data: a `.vq2` file.
        rng: source of the changes.
    """
    chunks = chunks_of(data) or [(b"H", b"")]
    for _ in range(rng.randint(1, 3)):
        i, action = rng.randrange(len(chunks)), rng.randrange(6)
        kind, payload = chunks[i]
        if action == 0:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[i])
        elif action == 1 and len(chunks) > 1:
            chunks.pop(i)
        elif action == 2:
            chunks.insert(i, (rng.choice([b"C", b"E", b"X", b"A", b"I", b"Z", b"z"]), zlib.compress(payload)))
        else:
            chunks[i] = kind, mutated_bytes(payload, rng)
    kind, head = chunks[0]
    if kind == b"H" and len(head) > 8 and rng.random() < 0.8:
        chunks[0] = kind, head[:-1] + varint(len(chunks) - 1)
    return file_of(chunks)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, put in, take out, repeat bytes.

    Args:
        data: any bytes.
        rng: source of the changes.
    """
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, action = rng.randrange(len(out) + 1), rng.randrange(5)
        if action == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif action == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif action == 2:
            out[at:at] = rng.choice([b"\0" * 4, b"\xff" * 4, rng.randbytes(4), bytes(out[at : at + 8])])
        elif action == 3:
            del out[at : at + rng.choice([1, 4, 16])]
        else:
            other = rng.randrange(len(out) + 1)
            out[at : at + 4] = out[other : other + 4]
    return bytes(out)


# Archives of arrays


def members_of(data: bytes) -> dict[str, bytes]:
    """The members of an .npz file that can be read."""
    held = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for entry in file.infolist():
                if entry.file_size < 1 << 16:
                    held[entry.filename] = file.read(entry)
    except Exception:  # whatever zipfile makes of it: there is nothing more to read
        pass
    return held


def archive_of(members: dict[str, bytes]) -> bytes:
    """A zip file of these members, stored, with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return file.getvalue()


def mutated_npz(data: bytes, rng: random.Random) -> bytes:
    """Change, exchange or leave out members.

    Args:
        data: an `.npz` file.
        rng: source of the changes.
    """
    members = members_of(data)
    if not members:
        return mutated_bytes(data, rng)
    name, other = rng.choice(list(members)), rng.choice(list(members))
    action = rng.randrange(4)
    if action == 0:
        members[name] = members[other]
    elif action == 1:
        del members[name]
    elif action == 2:
        value = rng.choice(VALUES) & 2**64 - 1
        members[name] = members[name][:-8] + value.to_bytes(8, "little")
    else:
        members[name] = mutated_bytes(members[name], rng)
    return archive_of(members)


# Weights


def weights_of(data: bytes) -> tuple[dict[str, object], bytes] | None:
    """Header and tensors of a safetensors file; None if it is none."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        return None
    return (header, data[8 + size :]) if isinstance(header, dict) else None


def weights_file(header: object, tensors: bytes) -> bytes:
    """Make a safetensors file, with the right length of its header.

    Args:
        header: as JSON.
        tensors: bytes behind it.
    """
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def mutated_weights(data: bytes, rng: random.Random) -> bytes:
    """Change values of the header and of the configuration in it, or bytes of the tensors.

    Args:
        data: a weights file.
        rng: source of the changes.
    """
    parts = weights_of(data)
    if parts is None:
        return mutated_bytes(data, rng)
    header, tensors = parts
    action = rng.randrange(3)
    metadata = header.get("__metadata__")
    if action == 0 and isinstance(metadata, dict):
        try:
            meta = json.loads(metadata["vqcodec"])
        except (ValueError, KeyError, TypeError, RecursionError):
            meta = {"model": {}}
        change_value(meta, rng)
        metadata["vqcodec"] = json.dumps(meta)
    elif action == 1:
        change_value(header, rng)
    else:
        tensors = mutated_bytes(tensors, rng)[: len(tensors)].ljust(len(tensors), b"\0")
    return weights_file(header, tensors)


def holders(value: object) -> Iterator[tuple[object, object]]:
    """All containers of a JSON value with a key or index each."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from holders(value[key])  # type: ignore[index]


def change_value(value: object, rng: random.Random) -> None:
    """Change one value of a JSON object.

    Args:
        value: the object, is changed.
        rng: source of the change.
    """
    held = list(holders(value))
    if held:
        holder, key = rng.choice(held)
        new = rng.choice([*VALUES, 0.5, 1e308, float("nan"), None, True, False, "", "seven", [], {}, [[]], [1, 2]])
        if rng.random() < 0.15 and isinstance(holder, (dict, list)):
            del holder[key]  # type: ignore[arg-type]
        else:
            holder[key] = new  # type: ignore[index]


MUTATORS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "container": mutated_container,
    "npz": mutated_npz,
    "weights": mutated_weights,
}

# Targets. `vqcodec` is imported in them, after atheris has set its hooks.


def open_container(data: bytes) -> None:
    """Decode a .vq2 file."""
    import vqcodec

    try:
        vqcodec.decode(data, device="cpu", limits=vqcodec.Limits(pixels=1 << 18, memory=1 << 30, seconds=5))
    except vqcodec.VqcodecError:
        pass


def open_npz(data: bytes) -> None:
    """Read the indices of an .npz file, and decode them."""
    import vqcodec
    from vqcodec import indices

    try:
        held = indices.load(io.BytesIO(data))
        if held.width * held.height < 1 << 18:
            vqcodec.from_indices(held, device="cpu")
    except vqcodec.VqcodecError:
        pass


def open_weights(data: bytes) -> None:
    """Load a weights file, and decode nothing with it: that it loads is enough to be believed."""
    import vqcodec

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        try:
            vqcodec.Codec.load(vqcodec_file(path), "cpu")
        except vqcodec.VqcodecError:
            pass


def vqcodec_file(path: Path) -> object:
    """What the registry says of a weights file."""
    from vqcodec.model import registry

    return registry.find(path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "container": open_container,
    "npz": open_npz,
    "weights": open_weights,
}


def timed(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Make a target fail where an input takes more than `SECONDS` of processor time."""

    def run(data: bytes) -> None:
        start = time.process_time()
        target(data)
        seconds = time.process_time() - start
        if seconds > SECONDS:
            raise TimeoutError(f"{seconds:.1f} s of processor time")

    return run


def seeds(target: str) -> Iterator[Path]:
    """The files that a corpus begins with."""
    suffix = SUFFIXES[target]
    yield from sorted(HOSTILE.rglob(f"*{suffix}"))
    if target == "container":
        yield from sorted((ROOT / "tests" / "golden").rglob(f"*17x33{suffix}"))


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.argument("target", type=click.Choice(list(TARGETS)))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(target: str, options: tuple[str, ...]) -> None:
    try:
        import atheris
    except ImportError:
        raise click.ClickException("atheris is missing: pip install 'vqcodec[fuzz]'") from None
    os.environ["VQCODEC_MODELS"] = str(HOSTILE / "models")
    with atheris.instrument_imports(include=["vqcodec"]):
        import vqcodec.codec
        import vqcodec.indices  # noqa: F401

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, size)
        return MUTATORS[target](data, rng)[:size]

    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(seeds(target)):
            (Path(folder) / f"{number:04}-{path.name}").write_bytes(path.read_bytes())
        arguments = [sys.argv[0], "-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", *options, folder]
        atheris.Setup(arguments, timed(TARGETS[target]), custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
