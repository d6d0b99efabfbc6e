# SPDX-License-Identifier: Apache-2.0
"""README and docs hold: blocks of Python and `vqcodec` commands run, other commands have the options that they show.

A block behind the comment `<!-- not run: ... -->` needs photographs or minutes: only its options are checked. Models
are untrained ones of the tiny presets, under the names of those that ship.
"""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, load_tool, save_untrained
from numpy.typing import NDArray
from PIL import Image

from vqcodec.cli import main
from vqcodec.cli.group import COMMANDS
from vqcodec.cli.tools import Tool
from vqcodec.model import registry
from vqcodec.training.presets import VQVAE_PRESETS

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
CARDS = sorted((ROOT / "models").glob("*.md"))
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "vqcodec" / "exact" / "README.md",
    *DOCS,
    *CARDS,
]

PROGRAMS = ("git", "mkdocs", "mypy", "pip", "python", "python3", "ruff", "tensorboard", "torchrun", "vqcodec")
NOT_RUN = re.compile(r"<!-- not run: .+ -->")


class Block(NamedTuple):
    """A block of code: the number of its first line, its language (`text` for what is no code), whether to run it."""

    line: int
    language: str
    lines: list[str]
    run: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of every command, those joined by `&&` apart, without comments and `.venv/bin/`."""
        commands: list[list[str]] = [[]]
        for line in "\n".join(self.lines).replace("\\\n", " ").splitlines():
            for word in shlex.split(line, comments=True):
                if word == "&&":
                    commands.append([])
                else:
                    commands[-1].append(word.removeprefix(".venv/bin/"))
            commands.append([])
        return [command for command in commands if command]


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, fenced or indented."""
    lines = [*page.read_text().splitlines(), ""]
    run, i = True, 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("```"):
            end = lines.index("```", i + 1)
            yield Block(i + 2, line[3:].strip() or "text", lines[i + 1 : end], run)
            run, i = True, end
        elif line.startswith("    ") and not lines[i - 1]:
            end = i
            while end + 1 < len(lines) and (not lines[end] or lines[end].startswith("    ")):
                end += 1
            inside = [text[4:] for text in lines[i:end] if text]
            yield Block(i + 1, "sh" if inside[0].split()[0] in PROGRAMS else "text", inside, run)
            run, i = True, end - 1
        elif line:
            run = not NOT_RUN.fullmatch(line)
        i += 1


def pages_with(language: str) -> list[object]:
    """The pages that have blocks of a language, as parameters."""
    chosen = [page for page in PAGES if any(block.language == language for block in blocks(page))]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in chosen]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of small untrained models under the names of the codecs that ship."""
    directory = tmp_path_factory.mktemp("shipped")
    save_untrained(directory / f"{registry.DEFAULT_MODEL}.safetensors")
    save_untrained(directory / "vqvae-base.safetensors", VQVAE_PRESETS["tiny"])
    return directory


@pytest.fixture
def folder(tmp_path: Path, models: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: part of the example picture as photo.png, and where a checkout has it."""
    monkeypatch.setenv(registry.ENVIRONMENT, str(models))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    Image.fromarray(photo[60:156, 120:248]).save("photo.png")
    shutil.copy("photo.png", "docs/images/chelsea.png")
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs(page: Path, folder: Path) -> None:
    """The blocks of a page are one program."""
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "python":
            code = "\n" * (block.line - 1) + "\n".join(block.lines)
            exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        for words in block.commands if block.language == "sh" else []:
            where = f"{page.name}:{block.line}: {shlex.join(words)}"
            assert words[0] in PROGRAMS, f"{where}: no such program is known here"
            if words[0] == "vqcodec" and block.run:
                run(words[1:], where)
            else:
                check(words, where, monkeypatch)


def run(words: list[str], where: str) -> None:
    """Run a command of `vqcodec`, with patterns of names and redirections, in the current directory."""
    arguments: list[str] = []
    given, target = b"", None
    rest = iter(words)
    for word in rest:
        if word == "<":
            given = Path(next(rest)).read_bytes()
        elif word == ">":
            target = Path(next(rest))
        else:
            arguments += sorted(glob.glob(word)) if "*" in word else [word]
    result = CliRunner().invoke(main, arguments, input=given)
    assert result.exit_code == 0, f"{where}\n{result.output}"
    if target is not None:
        target.write_bytes(result.stdout_bytes)


def check(words: list[str], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command without running it: scripts and tests exist and have these options, as extras do."""
    for word in words:
        if word.startswith(("tests/", "tools/")):
            assert (ROOT / word).exists(), f"{where}: there is no {word}"
        for extra in re.findall(r"^(?:\.|vqcodec)\[(.+)\]$", word):
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE), where
    script = next((i for i, word in enumerate(words) if word.startswith("tools/")), None)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(click.Path, "convert", lambda self, value, *_: value)  # files need not exist
            if words[0] == "vqcodec":
                parse(main, "vqcodec", words[1:])
            elif script is not None:
                parse(load_tool(Path(words[script]).stem).main, words[script], words[script + 1 :])
    except click.UsageError as error:
        pytest.fail(f"{where}: {error.format_message()}")
    except click.exceptions.Exit as done:  # --help
        if done.exit_code:
            pytest.fail(where)


def parse(command: click.Command, name: str, words: list[str]) -> None:
    """Parse arguments as the command would, without calling it. Raises click.UsageError."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        if not rest:
            return  # options of the group alone, as --help
        name, *words = rest
        inner = command.get_command(context, name)
        if inner is None:
            raise click.UsageError(f"there is no command {name}")
        parse(inner.loaded() if isinstance(inner, Tool) else inner, name, words)
    else:
        command.parse_args(context, list(words))


@pytest.mark.parametrize(("words", "wrong"), [(["encode", "a.png", "--qualty", "3"], "--qualty"), (["enc"], "enc")])
def test_wrong_options_are_noticed(words: list[str], wrong: str) -> None:
    with pytest.raises(click.UsageError, match=wrong):
        parse(main, "vqcodec", words)


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_option_is_on_its_page() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert f"vqcodec {name} " in page
        for option in command.params:
            if isinstance(option, click.Option):
                assert any(re.search(rf"{name}\b(?!-)", page) for name in option.opts), f"{name}: {option.opts}"


def test_readme_is_one_page_with_figures_of_the_results() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 70
    assert len(re.findall(r"^    python3 -m venv ", text, re.MULTILINE)) == 2  # those that .ci/run takes
    figures = re.findall(r"[-+][\d.]+ %", text)
    assert len(figures) >= 4
    results = (ROOT / "docs" / "results.md").read_text()
    assert [figure for figure in figures if figure not in results] == []


def test_the_contract_names_every_file() -> None:
    folder = ROOT / "vqcodec" / "exact"
    listed = re.findall(r"^\| `(\w+\.py)` \|", (folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")
