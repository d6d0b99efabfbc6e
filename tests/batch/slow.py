# SPDX-License-Identifier: Apache-2.0
"""A task for tests that kill workers. It imports no PyTorch: workers start at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from vqcodec.batch.tasks import Coded, VerifyTask


class Slow(VerifyTask):
    """Says which process did what, and takes its time; a picture that begins so kills its process."""

    sources = frozenset([".bin"])

    def prepare(self) -> Callable[[bytes], Coded]:
        def work(data: bytes) -> Coded:
            if data.startswith(b"kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            Path(self.device, str(os.getpid())).touch()
            time.sleep(0.05)
            return Coded(None, 1, 1, len(data))

        return work

    def size(self, data: bytes) -> tuple[int, int]:
        return 1, 1
