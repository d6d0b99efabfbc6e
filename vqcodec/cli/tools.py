# SPDX-License-Identifier: Apache-2.0
"""Commands over the scripts of `tools/`, which a wheel has too: training, benchmarks, rate-distortion, comparisons.

They are imported when they run: `vqcodec --help` waits for none of them.
"""

from __future__ import annotations

import importlib.util
import sys
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


def _path(script: str) -> Path:
    """Where a script is: in the wheel, or in the checkout that the package runs from."""
    for folder in (_PACKAGE / "_tools", _PACKAGE.parent / "tools"):
        if (folder / f"{script}.py").is_file() and (
            folder.name == "_tools" or (_PACKAGE.parent / "pyproject.toml").is_file()
        ):
            return folder / f"{script}.py"
    raise VqcodecError(f"the script {script}.py is not installed")
