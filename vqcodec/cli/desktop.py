# SPDX-License-Identifier: Apache-2.0
"""`vqcodec install-desktop`: the type of .vq2 files and their thumbnails, for desktops that follow freedesktop.org."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import click

from vqcodec.cli.group import main
from vqcodec.format.container import MAGIC
from vqcodec.images import files

MIME = "image/x-vq2"


@main.command("install-desktop")
@click.option(
    "--prefix",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Use this folder of shared data; by default yours, ~/.local/share or XDG_DATA_HOME.",
)
@click.option("--remove", is_flag=True, help="Take away what was installed.")
def install_desktop(prefix: str | None, remove: bool) -> None:
    """Register .vq2 files with the desktop: their type, and their thumbnails.

    Writes mime/packages/vqcodec.xml and thumbnailers/vqcodec.thumbnailer, and has the database of types renewed where
    update-mime-database is installed.

    \b
    vqcodec install-desktop                         for you
    sudo vqcodec install-desktop --prefix /usr/share    for everybody
    vqcodec install-desktop --remove
    """
    share = Path(prefix or os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    contents = {
        share / "mime/packages/vqcodec.xml": mime_xml(),
        share / "thumbnailers/vqcodec.thumbnailer": thumbnailer(),
    }
    for path, text in contents.items():
        if remove:
            path.unlink(missing_ok=True)
        else:
            files.write(str(path), text.encode(), force=True, make_folders=True)
        click.echo(f"{'removed' if remove else 'wrote'} {path}", err=True)
    update = shutil.which("update-mime-database")
    if update is not None and (share / "mime").is_dir():
        subprocess.run([update, str(share / "mime")], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def mime_xml() -> str:
    """Describe the type for the shared MIME-info database: by extension, and by the first bytes."""
    magic = "".join(f"\\x{byte:02x}" for byte in MAGIC)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="{MIME}">
    <comment>VQ2 image</comment>
    <generic-icon name="image-x-generic"/>
    <magic priority="60"><match type="string" offset="0" value="{escape(magic)}"/></magic>
    <glob pattern="*.vq2"/>
  </mime-type>
</mime-info>
"""


def thumbnailer() -> str:
    """Describe what a file manager runs for a thumbnail: %i is the file, %o the PNG file to write, %s the pixels of a
    side."""
    program = shutil.which("vqcodec")
    command = [program] if program else [sys.executable, "-m", "vqcodec"]
    return f"""[Thumbnailer Entry]
TryExec={command[0]}
Exec={shlex.join(command)} decode -f --quiet --device cpu --format png --fit %s %i %o
MimeType={MIME};
"""
