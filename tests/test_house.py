# SPDX-License-Identifier: Apache-2.0
"""Imports run downwards: a room imports from the rooms below its own, wherever in a file the import stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted([*ROOT.glob("vqcodec/**/*.py"), *ROOT.glob("tools/*.py")])
PARTS = {path: path.relative_to(ROOT).with_suffix("").parts for path in FILES}
MODULES = {".".join(parts) for parts in PARTS.values()}

# From the top down, as docs/architecture.md draws it; `__init__` is the package itself, whose names are imported on
# first use. Rooms of one line do not import each other.
LINES = (
    "tools __main__",
    "report benchmark",
    "evaluation training",
    "prior",
    "cli pillow_plugin",
    "__init__",
    "data",
    "batch",
    "indices web",
    "sampling",
    "damage",
    "codec vae",
    "encoder",
    "stream",
    "model",
    "nets exact images",
    "format",
    "config errors timing",
)
RANKS = {room: rank for rank, line in enumerate(LINES) for room in line.split()}


def imported(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Lines and modules, as their parts, of all imports from the package, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = tuple(name.split("."))
            while parts and not {".".join(parts), ".".join((*parts, "__init__"))} & MODULES:
                parts = parts[:-1]
            if parts:
                yield node.lineno, parts if ".".join(parts) in MODULES else (*parts, "__init__")


def room(parts: tuple[str, ...]) -> str:
    return parts[parts[0] == "vqcodec"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(PARTS[path]))
def test_imports_run_downwards(path: Path) -> None:
    here = room(PARTS[path])
    lines = [f"{path}:{line} imports {room(there)}" for line, there in imported(path)
             if room(there) != here and RANKS[room(there)] <= RANKS[here]]  # fmt: skip
    assert here == "__init__" or not lines


def test_exact_imports_configuration_and_errors_only() -> None:
    for path in ROOT.glob("vqcodec/exact/*.py"):
        assert {room(there) for _, there in imported(path)} <= {"config", "errors", "exact"}, path


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {parts: {there for _, there in imported(path)} for path, parts in PARTS.items()}
    graph["vqcodec", "__init__"] = set()  # its names are imported on first use
    TopologicalSorter(graph).prepare()  # CycleError


def test_there_is_room_at_the_top_and_no_file_is_long() -> None:
    assert len(list(ROOT.glob("vqcodec/*.py"))) <= 9
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not [path for path, length in lengths.items() if length > 400]
    assert lengths[ROOT / "vqcodec" / "codec.py"] < 200


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = text.partition("```text\ntools/")[2].partition("```")[0]
    rooms = {room(parts) for parts in PARTS.values()} - {"tools", "__init__", "__main__"}
    assert not [name for name in rooms if not re.search(rf"\b{name}\b", diagram)]
    for many in ("stream", "prior", "batch", "damage", "data", "web"):
        row = text.partition(f"\n| `{many}/` |")[2].partition("\n")[0]
        names = {path.relative_to(ROOT / "vqcodec" / many).parts[0].removesuffix(".py")
                 for path in ROOT.glob(f"vqcodec/{many}/**/[a-z]*.py")}  # fmt: skip
        missing = {name for name in names if not re.search(rf"`{name}\b", row)}
        assert missing <= {"failures", "items", "names", "summary"}, many  # small, and of no room but their own


def public_functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of a module and methods of its classes, but for those whose names begin with an underscore."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if isinstance(node, ast.FunctionDef):
                yield name + node.name, node
            else:
                yield from public_functions(node, f"{name}{node.name}.")


def decorators(function: ast.FunctionDef) -> set[str]:
    """The last part of every decorator's name: `command` of `@click.command()`."""
    heads = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return {head.attr if isinstance(head, ast.Attribute) else ast.unparse(head) for head in heads}


def parameters(function: ast.FunctionDef) -> list[str]:
    """What a caller passes; keywords (`**options`) stand in the docstring one by one, by the names that they have."""
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    variable = [function.args.vararg.arg] if function.args.vararg else []
    return [name for name in names + variable if name not in ("self", "cls") and not name.startswith("_")]


def documented(docstring: str) -> list[str]:
    """The names in the section Args: of a docstring, one a line."""
    lines = docstring.partition("Args:\n")[2].partition("\n\n")[0].splitlines()
    return [line.split(":")[0].strip() for line in lines if line.startswith("    ") and line[4:5] != " "]


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(PARTS[path]))
def test_docstrings_have_an_argument_a_line(path: Path) -> None:
    """Of every public function with two parameters or more; a command's options have their help instead."""
    for name, function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        if decorators(function) & {"overload", "option", "argument", "command"} or len(parameters(function)) < 2:
            continue
        names = documented(ast.get_docstring(function) or "")
        assert not set(parameters(function)) - set(names), f"{path}:{function.lineno}: {name}"
        assert len(set(names)) == len(names), f"{path}:{function.lineno}: {name}"
