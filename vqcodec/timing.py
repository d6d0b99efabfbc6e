# SPDX-License-Identifier: Apache-2.0
"""Public hooks on the parts of the codec that take time, and on how far they are; nothing happens where nobody watches.

with timing.watched(lambda part: clock.counting(part)):
    codec.encode(image)
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Watcher = Callable[[str], AbstractContextManager[object]]
Listener = Callable[[str, int, int], None]

PARTS = ("network", "choice of codes", "prior", "entropy coding", "input and output")

_watchers: list[Watcher] = []
_listeners: list[Listener] = []


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Enter `watcher(part)` around every part that runs inside, those within others too. Not for several threads.

    Args:
        watcher: gets one of PARTS, gives a context manager.
    """
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.pop()


def part(name: str) -> AbstractContextManager[object]:
    """Enter a part: the context is that of the watcher, if there is one. name: one of PARTS."""
    return _watchers[-1](name) if _watchers else contextlib.nullcontext()


def timed(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function a part. name: one of PARTS."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> T:
            if not _watchers:
                return function(*arguments, **options)
            with _watchers[-1](name):
                return function(*arguments, **options)

        return run

    return decorate


@contextlib.contextmanager
def listened(listener: Listener) -> Iterator[None]:
    """Tell `listener` how far the steps of a picture are, whose number depends on its size. Not for several threads.

    Args:
        listener: gets the name of the steps, how many are done (0 at their start), and how many there are.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


def steps(name: str, items: Sequence[T]) -> Iterator[T]:
    """Give the items, while a listener hears how far they are.

    Args:
        name: what is done, in a few words.
        items: any.
    """
    for number, item in enumerate(items):
        if _listeners:
            _listeners[-1](name, number, len(items))
        yield item
    if _listeners:
        _listeners[-1](name, len(items), len(items))
