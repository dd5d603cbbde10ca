"""The notebook that repairs an incident runs from top to bottom, and what it shows is so."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook import demo
from dbos_notebook.server.demo_pages import execute_notebook

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "repair_an_incident.ipynb"


@pytest.fixture(scope="module")
def database(incident_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("incident") / "shop.sqlite"
    shutil.copyfile(incident_sqlite, path)
    return path


def test_the_notebook_repairs_the_incident(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dn.connect(database) as db:
        failed = db.workflows(status="ERROR", has_parent=False, limit=None)
        bugs = failed["error_type"].str.contains("CouponError|CourierError")
        broken, refused = failed[bugs], failed[~bugs]
        assert db.tree(broken)["depth"].max() == 2, "the demo has no tree of three that failed"
        status = db.repair_status(broken).merge(broken[["workflow_id", "error_type"]])
        left = status[status["state"] == "unaddressed"]
        begun = pd.Timestamp.now(tz="UTC")
        monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", f"sqlite:///{database}")
        page = execute_notebook(NOTEBOOK)
        assert set(db.repair_status(broken)["state"]) == {"repaired"}
        assert set(db.repair_status(refused)["state"]) == {"unaddressed"}
        # Only those orders are charged now that had failed before they were.
        steps = db.steps(db.workflows(name="order", limit=None))
        charged = steps[(steps["function_name"] == "charge") & (steps["started_at"] > begun)]
        assert len(charged) == left["error_type"].str.contains("CouponError").sum() > 0
    assert "Plan: repair" in page
    assert "Receipt: repair" in page
    assert "Traceback" not in page


def test_waiting_shows_one_live_table(database: Path, tmp_path: Path) -> None:
    import nbformat  # takes almost two seconds, which the other workers save

    code = f"""
import dbos_notebook as dn
with dn.connect({str(database)!r}) as db:
    print(db.wait(["unpaid-0-1.0-0001", "cancelled-0-1.0-0002"], timeout=1.5)["status"].tolist())
"""
    cell = nbformat.v4.new_code_cell(code)
    path = tmp_path / "wait.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    page = execute_notebook(path)
    assert page.count("1 of 2 have finished") == 1
    assert "PENDING <strong>1</strong>" in page
    assert "['PENDING', 'CANCELLED']" in html.unescape(page)


def test_an_executor_of_a_version_that_does_not_exist_is_refused(database: Path) -> None:
    with pytest.raises(demo.DemoError, match=r"no version '3.0'"):
        demo.start(database, "3.0")


def test_a_demo_executor_stops_with_its_with_block(database: Path) -> None:
    with demo.start(database, "1.0") as shop:
        assert shop.running
        assert repr(shop) == "<Executor of the demo, version 1.0, running>"
    assert not shop.running
    shop.stop()
