"""The demo: deterministic results, every status, and clear errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest

from dbos_notebook import demo
from dbos_notebook.demo.workload import plan
from dbos_notebook.server.cli import main

SHAPE = """
SELECT w.workflow_uuid, w.name, w.status, w.application_version, w.queue_name,
       (SELECT count(*) FROM operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid)
FROM workflow_status w
"""


def shape(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = sorted(connection.execute(SHAPE))
    connection.close()
    return rows


def test_the_same_seed_gives_the_same_history(shop_sqlite: Path, shop_postgres: str) -> None:
    """The two databases are of two runs with the same seed."""
    with psycopg.connect(shop_postgres) as connection:
        connection.execute("SET search_path TO dbos")
        # The order of IDs depends on the server's locale.
        assert shape(shop_sqlite) == sorted(connection.execute(SHAPE))


def test_every_status_occurs(shop_sqlite: Path) -> None:
    statuses = {row[2] for row in shape(shop_sqlite)}
    assert statuses == {"SUCCESS", "ERROR", "CANCELLED", "PENDING", "ENQUEUED", "DELAYED"}


def test_a_second_run_is_refused(shop_sqlite: Path) -> None:
    with pytest.raises(demo.DemoError, match="already contains a demo run"):
        demo.run(shop_sqlite, workflows=60, seed=1)


def test_another_applications_database_is_refused(old_sqlite: Path) -> None:
    with pytest.raises(demo.DemoError, match="--force"):
        demo.run(old_sqlite, workflows=20)


def test_a_bad_url_is_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--database", "mysql://ada:s3cret@db/shop"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dbos-notebook demo: ")
    assert "Traceback" not in error
    assert "s3cret" not in error


@pytest.mark.parametrize("workflows", [20, 200, 5000])
def test_the_plan_has_the_requested_size(workflows: int) -> None:
    assert abs(sum(task.size for task in plan(workflows, seed=1)) - workflows) <= 4
