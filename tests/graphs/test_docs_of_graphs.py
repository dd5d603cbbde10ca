"""The examples of docs/graphs.md do what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_examples_of_the_graphs_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a file
    done = doctest.testfile(
        str(ROOT / "docs" / "graphs.md"),
        module_relative=False,
        globs={"example_database": str(ROOT / "tests" / "corpus" / "dbos-3.4.0.sqlite")},
        optionflags=doctest.NORMALIZE_WHITESPACE,
        encoding="utf-8",
    )
    assert done.attempted > 20
    assert done.failed == 0
