# SPDX-License-Identifier: Apache-2.0
"""The group that all commands belong to: whatever ends a command ends it in one line and with its exit status."""

from __future__ import annotations

import contextlib
import errno
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import click

from vqcodec import __version__
from vqcodec.cli.tools import TOOLS, Tool
from vqcodec.images import files


class Failure(click.ClickException):
    """An error that ends the command: one line on stderr, exit status 1."""

    def show(self, file: Any = None) -> None:
        with contextlib.suppress(OSError):
            click.echo(f"vqcodec: error: {self.format_message()}", file=file, err=True)


class Stopped(click.ClickException):
    """SIGINT ended the command: one line, and the status that a shell expects."""

    exit_code = 128 + signal.SIGINT

    def show(self, file: Any = None) -> None:
        with contextlib.suppress(OSError):
            click.echo(f"vqcodec: {self.message}", file=file, err=True)


class StoppedByTerm(Stopped):
    """SIGTERM did."""

    exit_code = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM, as an exception: what is under way is cleared away."""


COMMANDS = {
    "batch": "cli.batch",
    "decode": "cli.decode",
    "encode": "cli.encode",
    "indices": "cli.indices",
    "info": "cli.info",
    "install-desktop": "cli.desktop",
    "man": "cli.man",
    "models": "cli.models",
    "sample": "cli.sample",
    "verify": "cli.verify",
}
"""Commands and the modules of the package that they are in, imported when they are asked for."""


class Commands(click.Group):
    """A group whose commands end in one line, never in a traceback, and are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List all names, in order."""
        return sorted({*super().list_commands(ctx), *COMMANDS, *TOOLS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Look up a command, whose module adds it to the group.

        Args:
            ctx: of the group.
            cmd_name: of the command.
        """
        if cmd_name in COMMANDS:
            importlib.import_module(f"vqcodec.{COMMANDS[cmd_name]}")
        if cmd_name in TOOLS:
            return Tool(cmd_name)
        return super().get_command(ctx, cmd_name)

    def main(self, args: Sequence[str] | None = None, *more: Any, **named: Any) -> Any:
        """Run as click does, but end in one line, with an exit status of this package's.

        Args:
            args: of the command line; None: those of the process.
            more: as of click.
        """
        try:
            with _terminated():
                return super().main(args, *more, **named)
        except OSError as error:  # of `--help` and `--version`, which nothing else could have raised
            files.forget_stdout()
            Failure(files.describe(error, "stdout")).show()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            raise Stopped("interrupted") from None
        except Terminated:
            raise StoppedByTerm("terminated") from None
        except files.UsageError as error:
            raise click.UsageError(str(error)) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # click ends the process quietly: the reader has gone
            raise Failure(files.describe(error)) from error


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM raises `Terminated` inside; not where something else handles it, and in the main thread only."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vqcodec", message="%(prog)s %(version)s")
def main() -> None:
    """A learned image codec: images to .vq2 files and back.

    \b
    vqcodec encode photo.png            writes photo.vq2
    vqcodec decode photo.vq2 back.png   and back
    vqcodec encode -r photos/ -O coded/ a tree of folders

    Every command explains itself with --help, and ends with status 0, 1 if something failed, 2 for wrong usage.
    """
