# SPDX-License-Identifier: Apache-2.0
"""Collections in Python: `encode_many`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vqcodec.batch import storage
from vqcodec.batch.engines.cluster import RayEngine
from vqcodec.batch.engines.local import LocalEngine, cores
from vqcodec.batch.items import Record
from vqcodec.batch.running import Asked, Engine, run
from vqcodec.batch.sinks import sink as sink_called
from vqcodec.batch.sources import source
from vqcodec.batch.summary import Summary
from vqcodec.batch.tasks import EncodeTask, Task, model_name
from vqcodec.batch.worker import Job

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vqcodec.batch.lists import Options

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def encode_many(
    paths: Paths,
    dest: str | os.PathLike[str],
    *,
    engine: str = "local",
    processes: int | None = None,
    threads: int | None = None,
    address: str | None = None,
    gpus: int = 0,
    to: str = "folder",
    per_shard: int = 256,
    pattern: str = "",
    column: str = "",
    retry_failed: bool = False,
    force: bool = False,
    report: Callable[[Record], object] = lambda record: None,
    **options: Unpack[Options],
) -> Summary:
    """Encode a collection. A second call does what is missing, has changed or may go well now.

    Args:
        paths: a folder, with all below it; a list file; a pattern; or several paths.
        dest: folder of the results, or a URL.
        engine: local, for processes of this machine, or ray, for actors of a Ray cluster.
        processes: so many, or actors, each with a model; by default one a core, and 0 none beside this one.
        threads: of each; by default the cores divided among the processes, and one an actor.
        address: of a Ray cluster; by default the one that this process is in, or Ray on this machine.
        gpus: of a Ray cluster, one for each actor.
        to: folder, for a tree of files; tar or parquet, for shards.
        per_shard: pictures in each.
        pattern: of names below the folder, as `**/*.jpg`, in place of all images.
        column: of Parquet files, that holds the pictures.
        retry_failed: try again pictures that could not be read, too.
        force: use a folder that holds other things.
        report: called with what became of every picture.
        options: those of `vqcodec.encode`.

    Returns: the summary. Raises VqcodecError if that cannot be done at all; a picture that fails is counted.
    """
    task = encode_task(**options)
    sink = sink_called(to, storage.absolute(dest), task.suffix)
    runner, threads = engine_called(engine, processes, threads, (sink.folder,), address, gpus)
    job = Job(task, sink, threads, column)
    asked = Asked(retry_failed, force, per_shard)
    return run(source(paths, task.sources, pattern, column), job, runner, asked, report)


def encode_task(**options: Any) -> Task:
    """Describe what `encode_many` does to a picture. Raises ModelError if the model is not installed, ValueError on
    options that `Codec.encode` does not take."""
    from vqcodec.encoder.request import DEFAULT_TUNE, Request

    tune = options.get("tune") or DEFAULT_TUNE
    model = model_name(options.pop("model", None), options.pop("device", "auto"), tune)

    asked = {name: value for name, value in options.items() if name not in ("lossless", "fallback", "verify")}
    Request(**asked)
    return EncodeTask(model, tuple(sorted((name, value) for name, value in options.items() if value is not None)))


def engine_called(
    name: str,
    processes: int | None,
    threads: int | None,
    locations: Sequence[str] = (),
    address: str | None = None,
    gpus: int = 0,
) -> tuple[Engine, int]:
    """Make an engine, and choose the threads of each of its workers.

    Args:
        name: local or ray.
        processes: None for one a core.
        threads: None for the cores divided among them, but as they are where there is no further process; one with Ray.
        locations: of sources and results: where other processes do not see them, there is none.
        address: of a Ray cluster.
        gpus: of a Ray cluster.

    Raises ValueError if there is no such engine.
    """
    if name == "ray":
        return RayEngine(address, processes, gpus), threads or 1
    if name != "local":
        raise ValueError(f"engine must be local or ray, not {name!r}")
    if any(map(storage.is_local_to_process, locations)):
        processes = 0
    processes = cores() if processes is None else processes
    if threads is None:
        threads = max(1, cores() // processes) if processes else 0
    return LocalEngine(processes), threads
