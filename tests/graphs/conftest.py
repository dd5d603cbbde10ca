"""Databases of graphs' own: what a small application wrote."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dbos_notebook as dn

APPLICATION = Path(__file__).parent / "graphs_application.py"


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def talk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dn.Client]:
    """A client on the database of ``graphs_application.py``: of SQLite, then of Postgres."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('talk') / 'talk.sqlite'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(server.create_database())
    subprocess.run([sys.executable, str(APPLICATION), url], check=True, timeout=120)
    with dn.connect(url) as client:
        yield client
