"""Databases whose rows a test writes, and the moment at which they are read."""

from __future__ import annotations

import pytest
from written_runs import NOW, WrittenDatabase, written_postgres, written_sqlite

from dbos_notebook.analysis import forecast, queue_history, slo, throughput


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> WrittenDatabase:
    """An empty database on SQLite, then on Postgres."""
    if request.param == "sqlite":
        return written_sqlite(tmp_path_factory.mktemp("written"))
    return written_postgres(request.getfixturevalue("postgres_server"))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """A fixed present, 7 minutes after that of the runs, so that the last bucket is not over."""
    moment = NOW + 7 * 60_000
    for module in (throughput, queue_history, forecast, slo):
        monkeypatch.setattr(module, "now_ms", lambda: moment)
    return moment
