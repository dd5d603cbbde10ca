"""Databases of graphs' own: what a small application wrote."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dbos_notebook as dn

APPLICATION = Path(__file__).parent / "graphs_application.py"


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def talk(
    request: pytest.FixtureRequest, once: Callable[[str, Callable[[Path], None]], Path]
) -> Iterator[dn.Client]:
    """A client on the database of ``graphs_application.py``: of SQLite, then of Postgres.

    The application runs once on each, for all workers.
    """

    def run(url: str) -> None:
        subprocess.run([sys.executable, str(APPLICATION), url], check=True, timeout=120)

    if request.param == "sqlite":
        url = f"sqlite:///{once('talk.sqlite', lambda path: run(f'sqlite:///{path}'))}"
    else:
        server = request.getfixturevalue("postgres_server")

        def dump(path: Path) -> None:
            name = server.create_database()
            run(server.url(name))
            path.write_bytes(gzip.compress(server.dump(name)))

        url = server.url(server.restore(once("talk.gz", dump)))
    with dn.connect(url) as client:
        yield client
