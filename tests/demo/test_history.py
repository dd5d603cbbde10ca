"""The week of history: real runs, aged and multiplied, and executors that continue them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from dbos import DBOSClient
from servers import PostgresServer

import dbos_notebook as dn
from dbos_notebook import demo
from dbos_notebook.demo.history import _rhythm
from dbos_notebook.server.cli import main

APPLICATION = "demo-documents"


def check_history(database: str | Path) -> None:
    with dn.connect(database, application_name=APPLICATION, read_only=True) as db:
        flows = db.workflows(limit=None)
        assert 280 <= len(flows) <= 320
        age = pd.Timestamp.now(tz="UTC") - flows["created_at"]
        assert age.max() > pd.Timedelta(days=6)
        assert age.min() > pd.Timedelta(0)
        assert flows["duration"].dropna().between("0s", "12h").all()
        finished = flows[flows["completed_at"].notna()]
        assert (finished["completed_at"] <= pd.Timestamp.now(tz="UTC")).all()

        # The bug of one release, and the one failure that a retry could not help.
        bugs = flows[flows["error_type"].str.contains("SchemaError", na=False)]
        assert set(bugs["app_version"]) == {"1.4.2"}
        assert len(bugs) > 5

        # Steps lie within their workflow, and children within their parent.
        steps = db.steps(flows)
        joined = steps.merge(flows, on="workflow_id", suffixes=("_step", ""))
        assert (joined["started_at"] >= joined["created_at"]).all()
        ended = joined.dropna(subset="completed_at")
        assert (ended["completed_at_step"] <= ended["completed_at"]).all()
        night = db.workflows(name="documents.workflows.nightly_ingestion", limit=1)
        tree = db.tree(night)
        assert len(tree) == 25
        assert tree["workflow_id"].iloc[1].startswith(f"{tree['workflow_id'].iloc[0]}-")
        assert (tree["completed_at"] <= tree["completed_at"].iloc[0]).all()
        assert tree["error_message"].notna().any()
        versions = db.versions().sort_values("created_at")
        assert versions["version_name"].tolist() == ["1.4.1", "1.4.2", "1.4.3"]


def test_a_week_of_history(incident_sqlite: Path) -> None:
    check_history(incident_sqlite)
    with dn.connect(incident_sqlite, application_name=APPLICATION, read_only=True) as db:
        waiting = db.workflows(status="PENDING")
        assert waiting["name"].unique().tolist() == ["documents.approvals.approve_payment"]
        asked = db.events(waiting)["value"].tolist()
        assert len(asked) == 2
        assert all(value.startswith("waiting for approval of") for value in asked)
        sleeps = db.steps(waiting, load_output=True).query("function_name == 'DBOS.sleep'")
        # Two days or more are left to answer.
        assert (sleeps["output"] > time.time() + 2 * 24 * 3600).all()


def test_a_week_of_history_on_postgres(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.create_database())
    demo.run(url, workflows=20, history=300)
    check_history(url)


def test_an_executor_continues_it(incident_sqlite: Path, tmp_path: Path) -> None:
    path = tmp_path / "demo.sqlite"
    shutil.copyfile(incident_sqlite, path)
    with dn.connect(path) as db:
        bug = db.workflows(status="ERROR", error="SchemaError", has_parent=False, limit=1)
        waiting = db.workflows(status="PENDING", name="documents.approvals.approve_payment")
    with dn.connect(path) as db, demo.start(path, "1.4.3"):
        receipt = db.fork(bug, "failed", application_version="1.4.3")
        client = DBOSClient(system_database_url=f"sqlite:///{path}")
        client.send(waiting["workflow_id"].iloc[0], {"approved": True}, "approval")
        assert receipt.wait(timeout=60)["status"].tolist() == ["SUCCESS"]
        answered = db.wait(waiting["workflow_id"].iloc[0], timeout=60)
        assert answered["status"].tolist() == ["SUCCESS"]
        client.destroy()


def test_nights_and_weekends_are_quiet() -> None:
    # The demo runs at half past three in the afternoon; three days ago was a Sunday.
    assert _rhythm(3) > 5 * _rhythm(12)
    assert _rhythm(24 + 3) > 3 * _rhythm(3 * 24 + 3)


def test_too_short_a_history_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = str(tmp_path / "a.sqlite")
    assert main(["demo", "--database", database, "--history", "9"]) == 1
    assert "--history 9 is too few" in capsys.readouterr().err
    assert not (tmp_path / "a.sqlite").exists()
