"""On a big database every filter that DBOS indexes is answered from an index, never by a scan."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresServer

import dbos_notebook as dn
from benchmarks.databases import Shape, fill_postgres, fill_sqlite
from dbos_notebook.database.postgres import PostgresSession
from dbos_notebook.database.sqlite import SQLiteSession

BIG = Shape(40_000, 20, 2_000)
NEAR_THE_END = dt.datetime.fromtimestamp(1_790_000_000 + 30 * 86_400 - 3_600, dt.UTC)
NEAR_THE_BEGINNING = dt.datetime.fromtimestamp(1_790_000_000 + 3_600, dt.UTC)

# One filter on one column for which DBOS makes an index.
INDEXED: dict[str, dict[str, Any]] = {
    "newest": {},
    "one ID": {"workflow_ids": "x"},
    "many IDs": {"workflow_ids": [f"id-{number}" for number in range(10_000)]},
    "created after": {"start_time": NEAR_THE_END},
    "created before": {"end_time": NEAR_THE_BEGINNING},
    "completed after": {"completed_after": NEAR_THE_END},
    "completed before": {"completed_before": NEAR_THE_BEGINNING},
    "dequeued after": {"dequeued_after": NEAR_THE_END},
    "failed": {"status": "ERROR"},
    "cancelled": {"status": "CANCELLED"},
    "exhausted": {"status": "MAX_RECOVERY_ATTEMPTS_EXCEEDED"},
    "any failure": {"status": ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]},
    "pending": {"status": "PENDING"},
    "delayed": {"status": "DELAYED"},
    "on a queue": {"queues_only": True},
    "on one queue": {"queues_only": True, "queue_name": "queue-1"},
    "forks of one": {"forked_from": "x"},
    "forks": {"is_fork": True},
    "children of one": {"parent_workflow_id": "x"},
    "children of many": {"parent_workflow_id": [f"id-{number}" for number in range(10_000)]},
    "of a schedule": {"schedule_name": "nightly"},
}


@pytest.fixture(scope="module")
def big_postgres(postgres_server: PostgresServer) -> Iterator[dn.Client]:
    url = postgres_server.url(postgres_server.create_database())
    fill_postgres(url, BIG)
    with dn.connect(url) as client:
        yield client


@pytest.fixture(scope="module")
def big_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dn.Client]:
    path = tmp_path_factory.mktemp("big") / "big.sqlite"
    fill_sqlite(path, BIG)
    with dn.connect(path) as client:
        yield client


@pytest.mark.parametrize("name", INDEXED)
def test_postgres_uses_an_index(big_postgres: dn.Client, name: str) -> None:
    plan = big_postgres.explain(**INDEXED[name])
    assert "Index" in plan
    assert "Seq Scan" not in plan, plan


def test_postgres_finds_attributes_by_their_index(big_postgres: dn.Client) -> None:
    # All rows, because for the newest 50 the planner rightly walks back in time.
    plan = big_postgres.explain(attributes={"tenant": "nobody"}, limit=None)
    assert "idx_workflow_status_attributes" in plan, plan


@pytest.mark.parametrize("name", INDEXED)
def test_sqlite_uses_an_index(big_sqlite: dn.Client, name: str) -> None:
    plan = big_sqlite.explain(**INDEXED[name])
    scans = [
        line for line in plan.splitlines() if re.match(r"SCAN workflow_status(?! USING)", line)
    ]
    assert "workflow_status" in plan
    assert not scans, plan


@pytest.mark.parametrize("ids", [["x"], [f"id-{number}" for number in range(10_000)]])
def test_steps_are_found_by_their_index(
    big_postgres: dn.Client, big_sqlite: dn.Client, ids: list[str]
) -> None:
    assert "Seq Scan" not in big_postgres.explain("steps", workflows=ids)
    plan = big_sqlite.explain("steps", workflows=ids)
    assert "SEARCH operation_outputs USING INDEX" in plan, plan


@pytest.mark.parametrize("dialect", ["postgres", "sqlite"])
def test_the_diagnosis_reads_by_indexes(
    request: pytest.FixtureRequest, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: dn.Client = request.getfixturevalue(f"big_{dialect}")
    session = PostgresSession if dialect == "postgres" else SQLiteSession
    statements: list[Any] = []
    for name in ("rows", "tables"):
        original = getattr(session, name)

        def record(self: Any, *given: Any, original: Any = original) -> Any:
            statements.extend(each[0] if isinstance(each, tuple) else each for each in given)
            return original(self, *given)

        monkeypatch.setattr(session, name, record)
    client.diagnose()
    assert len(statements) <= 26
    for statement in statements:
        with client._store.session() as reading:
            plan = reading.explain(statement)
        # SQLite names an alias of a table by the alias alone.
        table = r"(Seq Scan on|SCAN) (workflow_status|operation_outputs|workflow_(in|out)put)\b"
        scans = [line for line in plan.splitlines() if re.search(rf"{table}(?! USING)", line)]
        assert not scans, plan


def test_the_benchmark_databases_have_the_expected_size(
    big_postgres: dn.Client, big_sqlite: dn.Client, tmp_path: Path
) -> None:
    for client in (big_postgres, big_sqlite):
        counts = client.counts("status").set_index("status")["count"]
        assert int(counts.sum()) == BIG.workflows
        assert int(counts["ERROR"]) == BIG.workflows // 20
        root = client.workflows(limit=None)["workflow_id"].iloc[-1]
        assert len(client.tree(root)) == BIG.tree


def test_a_truncated_listing_has_its_errors(big_postgres: dn.Client) -> None:
    # Its rows are left early, and its errors are asked for in the same session.
    frames = []
    reading = threading.Thread(
        target=lambda: frames.append(big_postgres.workflows(limit=12_000)), daemon=True
    )
    reading.start()
    reading.join(30)
    assert not reading.is_alive(), "it waits for itself"
    (frame,) = frames
    assert frame.attrs["truncated"]
    failed = frame[frame["status"] == "ERROR"]
    assert len(failed) == 600
    assert (failed["error_type"] == "ValueError").all()
    assert (failed["error_message"] == "no card on file").all()
