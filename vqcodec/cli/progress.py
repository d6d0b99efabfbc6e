# SPDX-License-Identifier: Apache-2.0
"""How far a collection is: on a terminal a bar with speeds and the remaining time; failures as lines, everywhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from vqcodec.cli.running import say

if TYPE_CHECKING:
    from vqcodec.batch.items import Record
    from vqcodec.batch.sources import Source
    from vqcodec.batch.summary import Summary


class Progress:
    """The stderr of a job.

    Args:
        source: counted meanwhile, for the remaining time.
        summary: that the job adds to.
        quiet: no bar.
    """

    def __init__(self, source: Source, summary: Summary, quiet: bool) -> None:
        self._source, self._summary = source, summary
        self._bar: Any = None
        self._shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._over = threading.Event()

    def __enter__(self) -> Progress:
        if self._shown:
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # no thread that watches the bars
            self._bar = tqdm(unit="picture", file=sys.stderr, dynamic_ncols=True, smoothing=0.05)
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.close()

    def report(self, record: Record) -> None:
        """Count one more picture that is over."""
        for text in record.warnings:
            self.say(f"vqcodec: warning: {record.key}: {text}")
        if record.failure:
            self.say(f"vqcodec: error: {record.key}: {record.error}")
        if self._bar is not None:
            summary = self._summary
            speeds = f"{summary.rate(summary.pixels / 1e6):.2f} MP/s, {summary.rate(summary.bytes_in) / 1e6:.2f} MB/s"
            failed = f", {summary.failed} failed" if summary.failed else ""
            self._bar.set_postfix_str(f"{speeds}, {summary.bpp:.3f} bpp{failed}", refresh=False)
            self._bar.update(summary.pictures - self._bar.n)

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        if self._bar is None:
            say(line)
            return
        with contextlib.suppress(OSError, ValueError):
            self._bar.write(line, file=sys.stderr)

    def _count(self) -> None:
        """List the collection once more, for the total; where that fails, the job itself says so."""
        number = 0
        with contextlib.suppress(Exception):
            for _ in self._source.items():
                if self._over.is_set():
                    return
                number += 1
            self._bar.total = number
