"""The notebook of an investigation runs as ``make demo`` runs it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from dbos_notebook.server.demo_pages import execute_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "investigate_a_failure.ipynb"


def test_the_notebook_finds_the_failed_step_and_its_error(
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
