# SPDX-License-Identifier: Apache-2.0
"""What a process keeps between pictures.

PyTorch keeps what it prepared for a convolution, 0.16 MB each, by the shape of its input, in caches of 1,024 entries.
Where every picture has another size, these small blocks come to lie between the large ones of activations, which the C
library then neither joins nor gives back: a process grows to several times what it needs. So the caches are smaller
here, where nothing was computed before a model is loaded, and free memory goes back to the system now and then.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

CACHES = {"LRU_CACHE_CAPACITY": "32", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}
"""Entries of the caches, by the environment variables that PyTorch and oneDNN read with the first convolution.

It takes 15 to encode and decode a picture; where sizes are mixed five are new each time, 0.3 ms each, whatever the
caches hold.
"""

SECONDS = 10.0
"""Work, in seconds of a thread, after which free memory is given back: that, and asking for it again, takes 0.1 s where
it is slow."""


def bound_caches() -> None:
    """Make the caches smaller, unless the user has said how large they are, or PyTorch has convolved already."""
    for name, entries in CACHES.items():
        if not (name.startswith("ONEDNN") and name.replace("ONEDNN", "DNNL") in os.environ):  # its older name
            os.environ.setdefault(name, entries)


@contextmanager
def given_back() -> Iterator[None]:
    """Count the work of a block, and give back free memory when it is enough. Blocks inside others count once."""
    if getattr(_inside, "it", False):
        yield
        return
    _inside.it = True
    begun = time.thread_time()
    try:
        yield
    finally:
        _inside.it = False
        _work.add(time.thread_time() - begun)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Look up the function of glibc; None with other C libraries."""
    try:
        return cast("Callable[[int], int]", ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):
        return None


class _Work:
    """The work of all threads since memory was given back."""

    def __init__(self) -> None:
        self._lock, self._seconds = threading.Lock(), 0.0

    def add(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds
            enough = self._seconds >= SECONDS
            if enough:
                self._seconds = 0.0
        if enough and (trim := _trim()) is not None:
            trim(0)


_inside = threading.local()
_work = _Work()
