# SPDX-License-Identifier: Apache-2.0
"""Run a command and say how long it took and how much memory it had; a script of its own, see `run`.

On Linux a process inherits the peak of the one that started it. The command is therefore started from a small
interpreter, which is this file as a script, and not from one that has loaded PyTorch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class ProcessFailed(Exception):
    """A command that ended with an error; its text says which."""


class Usage(NamedTuple):
    """Wall-clock seconds from start to end, and the largest resident set of the process, in bytes (`ru_maxrss`)."""

    seconds: float
    peak_bytes: int


def run(command: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Run a command to its end. Needs `os.wait4`, which Linux and macOS have.

    Args:
        command: and its arguments.
        environment: variables added to this process's.

    Raises: ProcessFailed.
    """
    launcher = [sys.executable, "-S", "-E", __file__, *command]
    done = subprocess.run(launcher, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessFailed(_last_line(done.stderr) or f"the launcher ended with status {done.returncode}")
    outcome = json.loads(done.stdout)
    if status := outcome["status"]:
        killed = f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")
        raise ProcessFailed(killed if status < 0 else _last_line(outcome["error"]) or f"ended with status {status}")
    return Usage(outcome["seconds"], outcome["peak_bytes"])


def _last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:])


def main() -> None:
    """Run the command that the arguments are; JSON on stdout."""
    started = time.perf_counter()
    process = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    outcome = {"seconds": seconds, "peak_bytes": usage.ru_maxrss * unit, "status": process.returncode, "error": error}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
