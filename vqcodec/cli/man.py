# SPDX-License-Identifier: Apache-2.0
"""`vqcodec man`: man pages, made of what --help says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from vqcodec import __version__
from vqcodec.cli.group import main
from vqcodec.cli.options import force_option
from vqcodec.images import files


@main.command("man")
@click.option(
    "-O", "--output-dir", type=click.Path(file_okay=False), required=True, metavar="DIR", help="Write the pages there."
)
@force_option
def man_command(output_dir: str, force: bool) -> None:
    """Write a man page for every command.

    \b
    vqcodec man -O ~/.local/share/man/man1    then: man vqcodec-encode
    """
    for name, text in pages(main, click.Context(main, info_name="vqcodec")):
        files.write(f"{output_dir}/{name}.1", text.encode(), force, make_folders=True)
        click.echo(f"{output_dir}/{name}.1", err=True)


def pages(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    """List names and pages of a command and those below it.

    Args:
        command: to begin with.
        ctx: of the command, whose path is its name.
    """
    below = {}
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            if child is not None and not child.hidden:
                below[name] = getattr(child, "loaded", lambda child=child: child)()
    name = ctx.command_path.replace(" ", "-")
    yield name, _page(name, command, ctx, [f"{name}-{child}" for child in below])
    for child_name, child in below.items():
        yield from pages(child, click.Context(child, info_name=child_name, parent=ctx))


def _page(name: str, command: click.Command, ctx: click.Context, below: list[str]) -> str:
    """A page in the language of man."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    examples, _, rest = examples.partition("\n\n")
    paragraphs = [" ".join(part.split()) for part in f"{text}\n\n{rest}".split("\n\n") if part.strip()]
    first = paragraphs[0] if paragraphs else command.get_short_help_str()
    lines = [
        f'.TH "{_escaped(name.upper())}" 1 "" "vqcodec {__version__}" "vqcodec"',
        ".SH NAME",
        _escaped(f"{name} - {re.split(r'[.:](?: |$)', first)[0]}"),
        ".SH SYNOPSIS",
        f".B {_escaped(ctx.command_path)}",
        _escaped(" ".join(command.collect_usage_pieces(ctx))),
        ".SH DESCRIPTION",
    ]
    for paragraph in paragraphs:
        lines += [".PP", _escaped(paragraph)]
    records = [param.get_help_record(ctx) for param in command.get_params(ctx)]
    lines.append(".SH OPTIONS")
    for record in filter(None, records):
        lines += [".TP", f".B {_escaped(record[0])}", _escaped(" ".join(record[1].split()))]
    if examples.strip():
        lines += [".SH EXAMPLES", ".nf", *map(_escaped, inspect.cleandoc(examples).splitlines()), ".fi"]
    if below:
        lines += [".SH SEE ALSO", _escaped(", ".join(f"{other}(1)" for other in below))]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text that means itself: backslashes and minus signs, dots and quotes at the start of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
