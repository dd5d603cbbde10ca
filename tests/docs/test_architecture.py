"""docs/architecture.md shows the modules that exist and the layers that are tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import dbos_notebook as dn

PACKAGE = Path(dn.__file__).parent
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    """Return the plain blocks of the page."""
    return re.findall(r"(?ms)^```text\n(.*?)^```$", PAGE)


def drawn_modules() -> list[Path]:
    """Return the files in the tree, by its indentation, in its order."""
    (tree,) = [block for block in blocks() if block.startswith("dbos_notebook/")]
    folders: dict[int, Path] = {}
    files = []
    for line in filter(None, tree.splitlines()):
        indent, name, meaning = re.fullmatch(r"( *)(\S+) +(\S.*)", line).groups()  # type: ignore[union-attr] # a line that does not match fails the test
        assert meaning
        path = folders[len(indent) - 2] / name if indent else PACKAGE
        if name.endswith("/"):
            folders[len(indent)] = path
        else:
            files.append(path)
    return files


def test_the_tree_names_each_module_once() -> None:
    modules = {path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")}
    scripts = set((PACKAGE / "widgets" / "js").glob("*.js"))
    drawn = drawn_modules()
    assert len(drawn) == len(set(drawn))
    assert sorted(drawn) == sorted(modules | scripts)


def test_the_layers_are_those_that_are_tested() -> None:
    source = ast.parse((ROOT / "tests" / "test_package.py").read_text(encoding="utf-8"))
    (value,) = [
        node.value
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    ]
    tested = [sorted(layer) for layer in ast.literal_eval(value)]
    (shown,) = [block for block in blocks() if block.startswith("errors,")]
    layers = [line.split(", ") for line in shown.splitlines()]
    assert layers == [layer for layer in tested if not layer[0].startswith("__")]


def test_the_files_to_change_exist() -> None:
    table = PAGE.partition("## Where do I change")[2]
    names = set(re.findall(r"`([\w/]+\.(?:py|js|md))`", table))
    assert len(names) > 20
    for name in names:
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
    assert len(re.findall(r"^\| \*\*", table, re.MULTILINE)) >= 10
