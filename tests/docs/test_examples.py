"""The code in README.md and in the pages of docs/ runs, and names only what exists."""

from __future__ import annotations

import ast
import doctest
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dbos_notebook as dn
from dbos_notebook import demo, graphs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in DOCS.rglob("*.md") if "generated" not in page.parts),
]
DOCTESTED = ["analysis.md", "gallery.md", "graphs.md", "payloads.md"]
EXECUTED = sorted(page for page in PAGES if "{code-cell}" in page.read_text(encoding="utf-8"))
CELL = re.compile(r"(?ms)^```\{code-cell\} python\n(?::tags: [^\n]*\n\n)?(.*?)^```$")
BLOCK = re.compile(r"(?ms)^```python\n(.*?)^```$")


def short(page: Path) -> str:
    """Return a page's path in the repository, for the name of a test."""
    return str(page.relative_to(ROOT))


@pytest.fixture
def in_demo(
    incident_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A working directory with a copy of the demo's database, to which ``connect()`` leads."""
    shutil.copyfile(incident_sqlite, tmp_path / "dbos_demo.sqlite")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", "sqlite:///dbos_demo.sqlite")
    yield
    assert not list(DOCS.rglob("*.parquet"))


def run(code: str, names: dict[str, Any], where: str) -> None:
    """Run a cell and display its last expression, as a notebook does."""
    tree = ast.parse(code, where)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), where, "eval"), names)
        html = getattr(value, "_repr_html_", None)
        assert (html() if html else None) or repr(value) is not None


def test_the_pages_with_cells_are_the_tasks() -> None:
    tasks = {page for page in (DOCS / "tasks").glob("*.md") if page.stem != "index"}
    # They are about servers, shells and other programs.
    others = {"connect_to_production", "use_in_ci", "use_the_dashboard"}
    assert {page for page in tasks if page.stem not in others} == set(EXECUTED)


@pytest.mark.parametrize("page", EXECUTED, ids=short)
def test_the_cells_of_a_task_page_run(page: Path, in_demo: None) -> None:
    cells = CELL.findall(page.read_text(encoding="utf-8"))
    assert len(cells) == page.read_text(encoding="utf-8").count("{code-cell}") > 3
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(cells, 1):
            run(cell, names, f"{short(page)}, cell {number}")
    finally:
        if "executor" in names:
            names["executor"].stop()


def test_the_quick_start_of_the_readme_runs(in_demo: None) -> None:
    first, second = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    run(first, names, "README.md")
    run(second, names, "README.md")
    assert names["plan"].counts["refused"] == 0
    assert len(names["plan"]) >= len(names["failed"]) > 5


@pytest.mark.parametrize("name", DOCTESTED)
def test_the_examples_of_a_page_give_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one writes a file
    done = doctest.testfile(
        str(DOCS / name),
        module_relative=False,
        globs={"example_database": str(ROOT / "tests" / "corpus" / "dbos-3.4.0.sqlite")},
        optionflags=doctest.NORMALIZE_WHITESPACE,
        encoding="utf-8",
    )
    assert done.attempted > 3
    assert done.failed == 0


def test_all_pages_with_examples_are_tested() -> None:
    assert [
        page.name for page in PAGES if "\n>>> " in page.read_text(encoding="utf-8")
    ] == DOCTESTED


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_other_python_code_is_valid(page: Path) -> None:
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if ">>> " not in block:
            with warnings.catch_warnings():
                warnings.simplefilter("error", SyntaxWarning)
                compile(block, short(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_what_a_page_calls_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for holder, owner in (("db", dn.Client), ("dn", dn), ("graphs", graphs), ("demo", demo)):
        for name in set(re.findall(rf"(?<![\w./]){holder}\.(\w+)(?=\()", text)):
            assert hasattr(owner, name), f"{holder}.{name}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=short)
def test_the_errors_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ours = {name for name in dn.__all__ if name.endswith(("Error", "Interrupt", "Warning"))}
    # Of Python, of other packages, of the demo, and of what an example stores.
    others = {
        "CourierError",
        "CouponError",
        "PortableWorkflowError",
        "SchemaError",
        "OutOfStockError",
        "RecordedError",
        "BrokenOffError",  # the changelog names it
        "KeyError",
        "KeyboardInterrupt",
        "RecursionError",
        "RetryError",
        "UpstreamError",
    }
    for name in set(re.findall(r"\b[A-Z][a-z]\w+(?:Error|Interrupt|Warning)\b", text)):
        assert name in ours | others, name


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`((?:tests|scripts|docs|notebooks|benchmarks)/[\w./]+)`", text)):
        assert (ROOT / name).exists(), name
    for name in set(re.findall(r"`make test T=(tests/[^`]+)`", text)):
        assert (ROOT / name).exists(), name
    for target in set(re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text)):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_pages_that_the_code_names_exist() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "dbos_notebook").rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"\bdocs/[\w/]+\.md\b", source)}
    assert len(named) > 2
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_gallery_shows_all_its_pictures() -> None:
    shown = set(re.findall(r"\(pictures/([\w-]+\.svg)\)", (DOCS / "gallery.md").read_text()))
    assert shown == {picture.name for picture in (DOCS / "pictures").iterdir()}
