# SPDX-License-Identifier: Apache-2.0
"""Many small tasks over several processes that do not fight for the processors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Workers:
    """Runs tasks in `jobs` processes of one thread each, or in this process where it is one; a context manager."""

    def __init__(self, jobs: int = 1) -> None:
        """Raises ValueError if `jobs` is below 1."""
        if jobs < 1:
            raise ValueError(f"there must be at least one process, not {jobs}")
        self.jobs = jobs
        self._stack = contextlib.ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.jobs > 1:
            self._stack.enter_context(_one_thread())  # before the processes start: they inherit it
            # not forked: PyTorch's threads do not survive that
            self._pool = ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"))
            self._stack.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._pool = None

    def run(self, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
        """Call a function for every task.

        With several processes, the function must be one of a module, and all that passes must be picklable.

        Args:
            function: is called as `function(*task)`.
            tasks: arguments of each call.

        Yields: number of the task and its result, in the order in which they finish.
        """
        if self._pool is None:
            for number, task in enumerate(tasks):
                yield number, function(*task)
            return
        numbers = {self._pool.submit(function, *task): number for number, task in enumerate(tasks)}
        for future in as_completed(numbers):
            yield numbers.pop(future), future.result()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside use one thread for arithmetic."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
