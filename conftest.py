"""What the doctests of the package may name: ``example_database``."""

from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parent / "tests" / "corpus" / "dbos-3.4.0.sqlite"


@pytest.fixture(autouse=True)
def _example_database(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["example_database"] = str(EXAMPLE)
