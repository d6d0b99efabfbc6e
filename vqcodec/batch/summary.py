# SPDX-License-Identifier: Apache-2.0
"""How a job went: counts, bytes and speeds, failures by kind."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vqcodec.batch.items import Record

LISTED = 1000
"""Failures that a summary keeps; the manifest has all of them."""


@dataclass
class Summary:
    """What became of a collection.

    Args:
        done: pictures that were done in this run.
        unchanged: that an earlier run had done.
        failed: that failed in this run, or had failed before and were not tried again.
        failures: numbers of the latter by kind.
        pixels: of those that were done.
        bytes_in: of their sources.
        bytes_coded: of their `.vq2` files, or of what was made of them.
        warned: pictures with warnings.
        errors: of failures, key and what was wrong, the first thousand.
        seconds: since the job was started.
    """

    done: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    pixels: int = 0
    bytes_in: int = 0
    bytes_coded: int = 0
    warned: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def pictures(self) -> int:
        """All that were seen."""
        return self.done + self.unchanged + self.failed

    @property
    def bpp(self) -> float:
        """Bits per pixel of those that were done, all together."""
        return 8 * self.bytes_coded / self.pixels if self.pixels else 0.0

    def add(self, record: Record) -> None:
        """Count a picture that is over."""
        self.warned += bool(record.warnings)
        if record.failure:
            self.add_failure(record.key, record.failure, record.error)
        else:
            self.done += 1
            self.pixels += record.width * record.height
            self.bytes_in += max(0, record.size)
            self.bytes_coded += record.coded
        self.clock()

    def add_failure(self, key: str, kind: str, error: str) -> None:
        """Count a failure.

        Args:
            key: name of the item.
            kind: of the failure.
            error: in one line.
        """
        self.failed += 1
        self.failures[kind] += 1
        if len(self.errors) < LISTED:
            self.errors.append((key, error))

    def clock(self) -> None:
        """Take the time."""
        self.seconds = time.perf_counter() - self._started

    def rate(self, number: float) -> float:
        """So much a second."""
        return number / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        return {
            "pictures": self.pictures,
            "done": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "failures": dict(sorted(self.failures.items())),
            "warned": self.warned,
            "megapixels": round(self.pixels / 1e6, 6),
            "bytes_in": self.bytes_in,
            "bytes_coded": self.bytes_coded,
            "bpp": round(self.bpp, 6),
            "seconds": round(self.seconds, 3),
            "pictures_per_second": round(self.rate(self.done), 3),
            "megapixels_per_second": round(self.rate(self.pixels / 1e6), 3),
            "bytes_per_second": round(self.rate(self.bytes_in)),
            "errors": [{"key": key, "error": error} for key, error in self.errors],
        }

    def __str__(self) -> str:
        counts = ((self.unchanged, "unchanged"), (self.failed, "failed"))
        parts = [f"{self.done} done", *(f"{number} {what}" for number, what in counts if number)]
        if self.failures:
            parts[-1] += " (" + ", ".join(f"{number} {kind}" for kind, number in sorted(self.failures.items())) + ")"
        text = f"{self.pictures} pictures: {', '.join(parts)}"
        if self.done:
            text += f"; {self.bytes_in} -> {self.bytes_coded} bytes, {self.bpp:.4f} bpp"
            text += f"; {self.rate(self.done):.1f} pictures and {self.rate(self.pixels / 1e6):.2f} megapixels a second"
        return f"{text}; {self.seconds:.1f} s"
