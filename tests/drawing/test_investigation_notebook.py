"""The notebook of an investigation runs as ``make demo`` runs it, and the page's examples do."""

from __future__ import annotations

import base64
import doctest
import re
from pathlib import Path

import pytest

from dbos_notebook.server.demo_pages import execute_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "investigate_a_failure.ipynb"


def test_it_leads_to_the_step_and_the_reason(
    shop_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", f"sqlite:///{shop_sqlite}")
    page = execute_notebook(NOTEBOOK)
    pictures = [
        base64.b64decode(each).decode()
        for each in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    ]
    assert len(pictures) == 5
    assert any("failed in order › " in each for each in pictures)
    assert any("→ succeeded" in each for each in pictures)  # the fork against its original
    assert any("critical path" in each for each in pictures)
    # Notes of orders, which the notebook shows with their inputs.
    assert "<script>alert('boo')" not in page


def test_the_page_on_pictures() -> None:
    done = doctest.testfile(
        str(ROOT / "docs" / "pictures.md"),
        module_relative=False,
        globs={"example_database": str(ROOT / "tests" / "corpus" / "dbos-3.4.0.sqlite")},
        optionflags=doctest.NORMALIZE_WHITESPACE,
        encoding="utf-8",
    )
    assert done.attempted > 5
    assert done.failed == 0
    shown = set(re.findall(r"\(pictures/([\w-]+\.svg)\)", (ROOT / "docs/pictures.md").read_text()))
    assert shown == {each.name for each in (ROOT / "docs" / "pictures").iterdir()}
