# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster, or Ray on this machine: a pool of actors, each with a model of its own, through Ray Data.

Chunks go as rows of datasets, one after the other; Ray holds no more of them than it has room for. An actor that dies
is started again by Ray, elsewhere if its node is gone, and what it did is done again. What took actors down several
times, by the count of an actor of its own, is done alone, in halves, as by `engines.local`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcodec.batch.items import Chunk, Record, halves
from vqcodec.batch.worker import Job, Worker, crashed
from vqcodec.errors import VqcodecError
from vqcodec.model import registry

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 256
"""Chunks of a dataset, for every actor: they are started anew for the next one."""
MOST = 50_000
ATTEMPTS = 4
"""How often a chunk is begun whose actors have died."""


@dataclass(frozen=True)
class RayEngine:
    """Actors.

    Args:
        address: of a cluster, as `ray.init` takes it; None for the one that this process is in, or Ray on this machine.
        actors: so many; None for as many as the cluster has cores, or GPUs, for.
        gpus: of the cluster, that actors get one each of; 0: actors compute on cores.
    """

    address: str | None = None
    actors: int | None = None
    gpus: int = 0

    def run(self, job: Job, chunks: Iterable[Chunk]) -> Iterator[list[Record]]:
        """Do all chunks.

        Args:
            job: what is done to every picture.
            chunks: of pictures.

        Yields: the records of a chunk, in whatever order.

        Raises: what a worker does.
        """
        with _connected(self.address) as ray:
            cores = int(ray.cluster_resources().get("CPU", 1))
            actors = self.actors or self.gpus or max(1, cores // max(1, job.threads))
            rest = iter(chunks)
            while window := list(itertools.islice(rest, min(MOST, WINDOW * actors))):
                suspects = yield from self._windowed(job, window, actors)
                while suspects:
                    chunk = suspects.pop()
                    lost = yield from self._windowed(job, [chunk], 1)
                    if lost and len(chunk.planned) == 1:
                        yield [crashed(job, chunk)]
                    elif lost:
                        suspects += halves(chunk)

    def _windowed(self, job: Job, window: list[Chunk], actors: int) -> Generator[list[Record], None, list[Chunk]]:
        """Do some chunks. Returns: those that took their actors down, every time."""
        import ray

        attempts = ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        rows = [{"number": i, "chunk": pickle.dumps(chunk)} for i, chunk in enumerate(window)]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Actor,
            fn_constructor_args=(pickle.dumps(job), attempts, ATTEMPTS),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(window))),
            num_cpus=0 if self.gpus else max(1, job.threads),
            num_gpus=1 if self.gpus else None,
        )
        missing = dict(enumerate(window))
        batch: Any
        for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            for number, done in zip(*(batch.column(name).to_pylist() for name in ("number", "done")), strict=True):
                result = pickle.loads(done)
                if isinstance(result, BaseException):
                    raise result
                if result is not None:
                    missing.pop(number)
                    yield result
        return list(missing.values())


class Attempts:
    """An actor that counts how often chunks were begun."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Count one more beginning of a chunk. Returns: how many there were."""
        self._counts[number] = self._counts.get(number, 0) + 1
        return self._counts[number]


class Actor:
    """A worker as Ray Data calls it."""

    def __init__(self, job: bytes, attempts: Any, most: int) -> None:
        self._worker = Worker(pickle.loads(job))
        self._attempts, self._most = attempts, most

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Do the chunks of a table. An error that ends the job travels as a result: Ray would try it again. None stands
        for a chunk that took too many actors down."""
        import pyarrow as pa

        rows = zip(*(batch.column(name).to_pylist() for name in ("number", "chunk")), strict=True)
        done = pa.array([self._do(number, chunk) for number, chunk in rows], pa.binary())
        return pa.table({"number": batch.column("number"), "done": done})

    def _do(self, number: int, chunk: bytes) -> bytes:
        import ray

        try:
            given_up = ray.get(self._attempts.begin.remote(number)) > self._most
            return pickle.dumps(None if given_up else self._worker(pickle.loads(chunk)))
        except Exception as error:
            return _pickled(error)


def _pickled(error: Exception) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:  # whatever an exception may hold
        return pickle.dumps(VqcodecError(f"{type(error).__name__}: {error}"))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, with the settings that a job needs; both are put back. Raises VqcodecError if it is not installed, or there
    is no cluster at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise VqcodecError("--engine ray needs the extra `ray`: pip install 'vqcodec[ray]'") from error
    started = not ray.is_initialized()
    if started:
        passed = {name: os.environ[name] for name in (registry.ENVIRONMENT,) if name in os.environ}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not address and "RAY_ADDRESS" not in os.environ:
            quiet["include_dashboard"] = False
        try:
            ray.init(address=address, runtime_env={"env_vars": passed} if passed else None, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise VqcodecError(f"there is no Ray cluster at {address or 'this machine'}: {error}") from error
    context = ray.data.DataContext.get_current()
    settings = {"enable_progress_bars": False, "max_errored_blocks": -1, "print_on_execution_start": False}
    for name in ("ray.data", "ray.data._internal.execution"):
        logging.getLogger(name).setLevel(logging.ERROR)
    before = {name: getattr(context, name) for name in settings if hasattr(context, name)}
    try:
        for name in before:
            setattr(context, name, settings[name])
        yield ray
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        if started:
            ray.shutdown()
