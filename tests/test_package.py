"""The package as a whole: who imports whom, what is public, and what importing costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import dbos_notebook as dn

PACKAGE = Path(dn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Lower rooms first. A room imports from rooms of lower numbers, and from itself.
ORDER = {
    "errors": 0,
    "printable": 0,
    "database": 1,
    "payloads": 1,
    "tables": 2,
    "graphs": 3,
    "control": 4,
    "fleet": 4,
    "pictures": 4,
    "exploring": 5,
    "counting": 5,
    "reading": 5,
    "picturing": 5,
    "steering": 5,
    "workflow": 5,
    "client": 6,
    "widgets": 7,
}
# Not rooms of the chain: the public surface, the command line, and an application of its own.
OUTSIDE = {"__init__", "__main__", "apps", "cli", "demo"}


def room(path: Path) -> str:
    """Return the room that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> list[tuple[str, int, bool]]:
    """Return (room, line, whether at module level) for each import of the package in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # Not run when the file is imported: what functions import, and what only annotations need.
    inside_functions = {
        id(node)
        for later in ast.walk(tree)
        if isinstance(later, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(later, ast.If) and ast.unparse(later.test) == "TYPE_CHECKING")
        for node in ast.walk(later)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [node.module or ""]
            if node.module == "dbos_notebook":
                names = [f"dbos_notebook.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "dbos_notebook" and len(parts) > 1:
                found.append((parts[1], node.lineno, id(node) not in inside_functions))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_only(path: Path) -> None:
    mine = room(path)
    if mine in OUTSIDE:
        return
    assert mine in ORDER, f"{mine} is a room that design.md does not know"
    for theirs, line, at_module_level in imported_rooms(path):
        where = f"{path.relative_to(PACKAGE)}:{line}"
        assert theirs in ORDER, f"{where} imports {theirs}"
        if mine in ("client", "exploring") and theirs in ("widgets", "client"):
            assert not at_module_level, f"{where}: widgets load only when one is opened"
            continue
        assert theirs == mine or ORDER[theirs] < ORDER[mine], f"{where}: {mine} imports {theirs}"


def test_some_imports_were_seen() -> None:
    """The check above would pass on files it cannot read."""
    rooms = {theirs for theirs, _, _ in imported_rooms(PACKAGE / "client.py")}
    assert {"errors", "tables", "database"} <= rooms


def test_the_public_list_is_sorted_and_complete() -> None:
    assert list(dn.__all__) == sorted(dn.__all__)
    assert len(set(dn.__all__)) == len(dn.__all__)
    for name in dn.__all__:
        assert getattr(dn, name) is not None, name


def test_every_public_error_has_the_one_base() -> None:
    errors = importlib.import_module("dbos_notebook.errors")
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    raised = [each for each in classes if each.__name__.endswith("Error")]
    assert len(raised) > 8
    for each in raised:
        assert issubclass(each, dn.NotebookError)
        assert each.__name__ in dn.__all__
        assert each.__name__ in (errors.__doc__ or ""), "the drawn tree leaves one out"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_belongs_in_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring) > 20


def test_every_public_method_is_documented() -> None:
    for name, method in inspect.getmembers(dn.Client, callable):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name


def test_importing_loads_no_database_library() -> None:
    heavy = [
        "sqlalchemy",
        "psycopg",
        "dbos",
        "pyarrow.csv",
        "IPython",
        "adbc_driver_sqlite",
        "networkx",
        "anywidget",
        "ipywidgets",
    ]
    code = (
        "import sys, dbos_notebook\n"
        f"print(','.join(name for name in {heavy!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_types_are_published() -> None:
    assert (PACKAGE / "py.typed").exists()
