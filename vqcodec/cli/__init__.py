# SPDX-License-Identifier: Apache-2.0
"""The command line: `vqcodec encode|decode|batch|info|verify|models|sample|indices`.

Data go to stdout, talk goes to stderr; the exit status is 0, 1 when something failed, 2 for wrong usage. What a command
needs is imported inside it, and torch last of all, once an input has been read: `info` and `models` answer at once, and
so does a command whose paths are wrong.
"""

from vqcodec.cli.group import main

__all__ = ["main"]
