# SPDX-License-Identifier: Apache-2.0
"""The group that all commands belong to; errors that users can meet end in one line."""

from __future__ import annotations

import sys
from typing import Any

import click

from vqcodec import __version__
from vqcodec.errors import VqcodecError
from vqcodec.images import files


class Failure(click.ClickException):
    """An error that ends the command: one line on stderr, exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"vqcodec: error: {self.format_message()}", file=file or sys.stderr)


class Commands(click.Group):
    """A group whose commands end in one line, never in a traceback, for errors that users can meet."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends the process quietly: the reader has gone
        except files.UsageError as error:
            raise click.UsageError(str(error)) from error
        except (VqcodecError, OSError, MemoryError) as error:
            raise Failure(files.describe(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vqcodec", message="%(prog)s %(version)s")
def main() -> None:
    """A learned image codec: images to .vq2 files and back."""
