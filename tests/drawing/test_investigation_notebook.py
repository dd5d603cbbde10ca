"""The quickstart and the notebook of an investigation run as ``make demo`` runs them."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from dbos_notebook.server.demo_pages import execute_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


def test_the_notebook_finds_the_failed_step_and_its_error(
    shop_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", f"sqlite:///{shop_sqlite}")
    page = execute_notebook(NOTEBOOKS / "investigate_a_failure.ipynb")
    pictures = [
        base64.b64decode(each).decode()
        for each in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    ]
    assert len(pictures) == 3
    assert any("failed in order › " in each for each in pictures)
    assert any("→ succeeded" in each for each in pictures)  # the fork against its original
    assert any("critical path" in each for each in pictures)
    # Notes of orders, which the notebook shows with their inputs.
    assert "<script>alert('boo')" not in page


def test_the_quickstart_shows_list_graph_timeline_and_fork_first(
    incident_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", f"sqlite:///{incident_sqlite}")
    page = execute_notebook(NOTEBOOKS / "quickstart.ipynb")
    heading = page.index("All of it in one view")
    first, rest = page[:heading], page[heading:]
    assert first.count('class="dbos-notebook-frame"') == 1
    assert first.count('src="data:image/svg+xml;base64,') == 2
    assert "Plan: fork 1 workflow" in first
    assert rest.count('class="dbos-notebook-frame"') >= 3
