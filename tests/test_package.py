"""The package as a whole: who imports whom, what is public, and what importing costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import dbos_notebook as dn
from dbos_notebook.tables import filters
from dbos_notebook.types import Filters, WorkflowFilters

PACKAGE = Path(dn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# The layers, lowest first: a package or module imports from lower layers and from itself.
LAYERS = [
    {"errors", "imports", "status", "text", "types"},
    {"html"},
    {"database", "payloads"},
    {"tables"},
    {"store"},
    {"graphs"},
    {"control", "drawing"},
    {"analysis"},
    {"workflow"},
    {"widgets"},
    {"client"},
    {"__init__"},
    {"demo"},
    {"server"},
    {"__main__"},
]
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


NAMES = {module_name(path): path for path in MODULES}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (module, line) for each import of the package: also in functions, also for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                name = within if within in NAMES else str(node.module)
                if name.partition(".")[0] == "dbos_notebook":
                    yield name, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "dbos_notebook":
                    yield alias.name, node.lineno


def layer(module: str) -> int:
    return LAYER_OF[[*module.split("."), "__init__"][1]]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_down_only(path: Path) -> None:
    name = module_name(path)
    for imported, line in imports(path):
        same = imported.split(".")[:2] == name.split(".")[:2]
        assert same or layer(imported) < layer(name), f"{path}:{line} imports {imported}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = nx.DiGraph(
        (name, imported) for name, path in NAMES.items() for imported, _ in imports(path)
    )
    assert graph.number_of_edges() > 300
    circles = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    assert circles == []


def test_no_two_modules_and_no_two_classes_share_a_name() -> None:
    # The demo is an application of its own.
    own = {name: path for name, path in NAMES.items() if ".demo" not in name}
    modules = Counter(name.rpartition(".")[2] for name in own)
    classes = Counter(
        node.name
        for path in own.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in (modules + classes).items() if count > 1} == set()


def test_a_package_uses_its_own_templates_only() -> None:
    shared = {path.name for path in (PACKAGE / "templates").iterdir()}
    for folder in PACKAGE.glob("*/templates"):
        own = {path.name for path in folder.iterdir()} | shared
        sources = [*folder.iterdir(), *folder.parent.rglob("*.py")]
        named = {
            name
            for path in sources
            for name in re.findall(r"\b\w+\.(?:html|svg)\.j2\b", path.read_text(encoding="utf-8"))
        }
        assert named <= own, folder


def test_the_public_list_is_sorted_and_complete() -> None:
    assert list(dn.__all__) == sorted(dn.__all__)
    assert len(set(dn.__all__)) == len(dn.__all__)
    for name in dn.__all__:
        assert getattr(dn, name) is not None, name


def test_every_public_error_has_the_base_class() -> None:
    errors = importlib.import_module("dbos_notebook.errors")
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    raised = [each for each in classes if each.__name__.endswith("Error")]
    assert len(raised) > 8
    for each in raised:
        assert issubclass(each, dn.NotebookError)
        assert each.__name__ in dn.__all__
        assert each.__name__ in (errors.__doc__ or ""), "the drawn tree leaves one out"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_has_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring) > 20


def test_every_public_method_is_documented() -> None:
    for name, method in inspect.getmembers(dn.Client, callable):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name


def test_importing_loads_no_database_library() -> None:
    heavy = [
        "pandas",
        "sqlalchemy",
        "psycopg",
        "dbos",
        "pyarrow",
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


def test_listing_workflows_of_a_file_imports_neither_control_nor_a_driver_for_postgres() -> None:
    database = Path(__file__).parent / "corpus" / "dbos-3.4.0.sqlite"
    code = (
        "import sys, dbos_notebook\n"
        f"assert len(dbos_notebook.connect({str(database)!r}).workflows())\n"
        "names = ('dbos', 'psycopg', 'dbos_notebook.control')\n"
        "print(','.join(name for name in names if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_the_typed_filters_are_those_that_are_checked() -> None:
    assert set(WorkflowFilters.__annotations__) == set(filters.FILTER_NAMES)


def test_help_shows_each_filter() -> None:
    for method in (dn.Client.workflows, dn.Client.queued, dn.Client.counts, dn.Client.explore):
        shown = inspect.signature(method).parameters
        assert set(Filters.__annotations__) <= set(shown), method
        assert "filters" not in shown
