# SPDX-License-Identifier: Apache-2.0
"""`vqcodec models`."""

from __future__ import annotations

import json
from typing import Any

import click

from vqcodec.cli.group import main
from vqcodec.images import files
from vqcodec.model import registry


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of the table.")
def models(as_json: bool) -> None:
    """List the installed models with their measured figures.

    \b
    vqcodec models           a table
    vqcodec models --json    for programs
    """
    rows = []
    for model in registry.installed():
        row = {"name": model.name, "identity": model.identity.hex(), "path": str(model.path)}
        rows.append({**registry.figures(model), **row})
    if as_json:
        files.put_line(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"no model is installed; put one into a directory that {registry.ENVIRONMENT} names", err=True)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        files.put_line(f"{row['name']:{width}}  {row['identity']}  {row.get('title', '')}".rstrip())
        shown = row.get("figures")
        measured: dict[str, Any] = shown if isinstance(shown, dict) else {}
        for key, value in measured.items():
            files.put_line(f"{'':{width}}  {key}: {value}")
