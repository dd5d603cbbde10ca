"""``dbos-notebook check``: what it prints, and the exit status that cron and CI act upon."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import dbos_notebook as dn
from dbos_notebook.server.cli import SEVERITIES as CHOICES
from dbos_notebook.server.cli import main


@pytest.fixture
def done_sqlite(old_sqlite: Path, tmp_path: Path) -> Path:
    """The corpus's database after what was left active has been cancelled."""
    path = tmp_path / "done.sqlite"
    shutil.copyfile(old_sqlite, path)
    with dn.connect(path) as db:
        db.cancel(db.workflows(status=["PENDING", "ENQUEUED"]))
    return path


def test_findings_are_printed_and_the_status_is_2(
    old_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = old_sqlite.read_bytes()
    assert main(["check", "--database", str(old_sqlite)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "critical: executor local, version v1: PENDING under an executor that appears to be dead "
        "(1)"
    )
    assert "  db.resume(['holder'], force=True)" in lines
    assert sum(line.startswith("critical: ") for line in lines) == 2
    assert old_sqlite.read_bytes() == before


def test_json_has_every_finding(old_sqlite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--database", str(old_sqlite), "--format", "json"]) == 2
    document = json.loads(capsys.readouterr().out)
    with dn.connect(old_sqlite) as db:
        frame = db.diagnose().frame
    assert document["counted"] == len(document["findings"]) == len(frame)
    assert document["severity"] == "warning"
    for finding, row in zip(document["findings"], frame.to_dict("records"), strict=True):
        for name in ("rule", "severity", "subject", "affected", "remedy"):
            assert finding[name] == row[name]
        assert (finding["plan"] or "") == row["plan"]
    assert document["findings"][0]["workflow_ids"] == ["holder"]
    assert document["findings"][0]["since"].endswith("+00:00")


def test_nothing_found_is_status_0(done_sqlite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--database", str(done_sqlite)]) == 0
    assert capsys.readouterr().out == f"sqlite:///{done_sqlite}: nothing found that is wrong now\n"
    assert main(["check", "--database", str(done_sqlite), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_only_findings_of_the_severity_count(
    done_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(done_sqlite)) as connection, connection:
        connection.execute(
            "INSERT INTO notifications (destination_uuid, topic, message) "
            "VALUES ('checkout-1', 'a\x1b[31m', 'x')"
        )
    for severity, status in (("info", 2), ("warning", 0), ("critical", 0)):
        options = ["--severity", severity]
        assert main(["check", "--database", str(done_sqlite), *options]) == status
        assert "info: workflow checkout" in capsys.readouterr().out


def test_the_choices_are_the_severities() -> None:
    from dbos_notebook.analysis.findings import SEVERITIES

    assert CHOICES == SEVERITIES


def test_an_error_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--database", str(tmp_path / "none.sqlite")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("dbos-notebook check: ")
    assert printed.err.count("\n") == 1
