# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: the pages of the site that stand outside docs/, and links that hold in the repository and in the
site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "vqcodec/exact/README.md": "exact.md",
    **{f"models/{card.name}": f"cards/{card.name}" for card in sorted((ROOT / "models").glob("*.md"))},
}
"""Files of the repository and what they are called in the site."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that stand elsewhere.

    Args:
        files: of the site.
        config: of mkdocs.
    """
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the relative links of a page, as they stand in the repository, into those of the site.

    Args:
        markdown: the page's text.
        page: of mkdocs.
    """
    name = page.file.src_uri
    source = next((source for source, there in ELSEWHERE.items() if there == name), f"docs/{name}")
    return _LINK.sub(lambda link: moved(link[1], source, name), markdown)


def moved(target: str, source: str, name: str) -> str:
    """Turn a link to a file of the repository into one from a page of the site.

    Args:
        target: of the link, in the repository.
        source: file that the page's text is in.
        name: of the page.
    """
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    there = ELSEWHERE.get(file, file.removeprefix("docs/"))
    return posixpath.relpath(there, posixpath.dirname(name) or ".")
