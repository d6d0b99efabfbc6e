# SPDX-License-Identifier: Apache-2.0
"""Commands over the scripts of `tools/`, which a wheel has too: training, benchmarks, rate-distortion, comparisons.

They are imported when they run: `vqcodec --help` waits for none of them.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from vqcodec.errors import VqcodecError

TOOLS = {
    "bench": ("benchmark", "Measure time and memory by size, threads and device."),
    "compare": ("compare", "Write a page that shows two pictures beside each other."),
    "rd": ("rd_curves", "Measure rate and distortion of models and rivals on folders."),
    "train": ("train", "Train, export and prepare models."),
}
"""Command -> script, and what it does in one line."""

_PACKAGE = Path(__file__).resolve().parent.parent


class Tool(click.Command):
    """The command of a script, which is imported when it is needed."""

    def __init__(self, name: str) -> None:
        self.script, text = TOOLS[name]
        super().__init__(name, short_help=text, help=text)

    def loaded(self) -> click.Command:
        """Load the command itself. Raises VqcodecError if its script or a package that it needs is not installed."""
        module = f"vqcodec_tool_{self.script}"
        if module not in sys.modules:
            path = _path(self.script)
            spec = importlib.util.spec_from_file_location(module, path)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[module] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[module])
            except ModuleNotFoundError as error:
                del sys.modules[module]
                raise VqcodecError(f"{self.name} needs {error.name}: pip install 'vqcodec[eval,train]'") from error
        command: click.Command = sys.modules[module].main
        _reword(command, f"python tools/{self.script}.py", f"vqcodec {self.name}")
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context of the script's command.

        Args:
            info_name: as of click.
            args: as of click.
            parent: as of click.
        """
        return self.loaded().make_context(info_name, args, parent, **extra)


def script_help(text: str | None) -> str:
    """Make the help of a script of what it says at its top: lines that are indented are examples, not to be filled.

    Args:
        text: the script's docstring.
    """
    blocks = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(f"\b\n{textwrap.dedent(block)}" if block.startswith(" ") else block for block in blocks)


def _reword(command: click.Command, before: str, after: str) -> None:
    """Have the examples of a script, and of commands below it, call it as the command that it is here."""
    command.help = (command.help or "").replace(before, after)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _reword(below, before, after)


def _path(script: str) -> Path:
    """Where a script is: in the wheel, or in the checkout that the package runs from."""
    for folder in (_PACKAGE / "_tools", _PACKAGE.parent / "tools"):
        if (folder / f"{script}.py").is_file() and (
            folder.name == "_tools" or (_PACKAGE.parent / "pyproject.toml").is_file()
        ):
            return folder / f"{script}.py"
    raise VqcodecError(f"the script {script}.py is not installed")
