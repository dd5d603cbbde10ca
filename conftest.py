"""The names that doctests can use: ``dbos_notebook`` and ``example_database``."""

from pathlib import Path
from typing import Any

import pytest

import dbos_notebook

EXAMPLE = Path(__file__).parent / "tests" / "corpus" / "dbos-3.4.0.sqlite"


@pytest.fixture(autouse=True)
def _example_database(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["dbos_notebook"] = dbos_notebook
    doctest_namespace["example_database"] = str(EXAMPLE)
