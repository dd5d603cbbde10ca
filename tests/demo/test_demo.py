"""The demo: deterministic results, every status, and clear errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dbos_notebook import demo
from dbos_notebook.demo.workload import plan
from dbos_notebook.server.cli import main

SHAPE = """
SELECT w.workflow_uuid, w.name, w.status, w.application_version, w.queue_name,
       (SELECT count(*) FROM operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid)
FROM workflow_status w ORDER BY 1
"""


def shape(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(SHAPE).fetchall()
    connection.close()
    return rows


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "a.sqlite"
    demo.run(path, workflows=20, seed=3)
    return path


def test_the_same_seed_gives_the_same_history(small: Path, tmp_path: Path) -> None:
    demo.run(tmp_path / "b.sqlite", workflows=20, seed=3)
    assert shape(small) == shape(tmp_path / "b.sqlite")


def test_every_status_occurs(small: Path) -> None:
    statuses = {row[2] for row in shape(small)}
    assert statuses == {"SUCCESS", "ERROR", "CANCELLED", "PENDING", "ENQUEUED", "DELAYED"}


def test_the_same_run_is_refused_a_second_time(small: Path) -> None:
    with pytest.raises(demo.DemoError, match="already contains a demo run with seed 3"):
        demo.run(small, workflows=20, seed=3)


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
