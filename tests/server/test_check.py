"""``dbos-notebook check``: what it prints, and the exit status that cron and CI act upon."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def released_sqlite(
    corpus_sqlite: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two versions with 60 runs each: of the second, which takes twice as long, a third fail."""
    path = tmp_path_factory.mktemp("released") / "released.sqlite"
    shutil.copyfile(corpus_sqlite("3.4.0"), path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("workflow_status", "operation_outputs"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM application_versions")
        for number, version in enumerate(("1.0", "2.0")):
            connection.execute(
                "INSERT INTO application_versions "
                "(version_id, version_name, version_timestamp, created_at) VALUES (?, ?, ?, ?)",
                [version, version, 1_790_000_000_000 + number, 1_790_000_000_000 + number],
            )
            for run in range(60):
                begun = 1_790_000_000_000 + 10_000 * run
                took = (1_000 + 17 * run) * (1 + number)
                status = "ERROR" if number and run % 3 == 0 else "SUCCESS"
                connection.execute(
                    "INSERT INTO workflow_status (workflow_uuid, status, name, application_version,"
                    " created_at, updated_at, started_at_epoch_ms, completed_at, recovery_attempts,"
                    " priority) VALUES (?, ?, 'orders.ship', ?, ?, ?, ?, ?, 1, 0)",
                    [f"{version}-{run}", status, version, begun, begun + took, begun, begun + took],
                )
    return path


def test_a_release_is_compared_with_the_one_before(
    released_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "--database", str(released_sqlite), "--against", "1.0"]
    assert main(command) == 2
    printed = capsys.readouterr().out
    assert "warning: workflow ship: more errors, slower (2.0 against 1.0)" in printed
    assert "  failures +33.3 percentage points, interval" in printed
    assert main([*command, "--format", "json", "--release", "2.0"]) == 2
    document = json.loads(capsys.readouterr().out)
    worse, cause = document["worse"]
    assert (cause["of"], cause["verdict"]) == ("failure", "new")
    assert (worse["name"], worse["count_candidate"]) == ("orders.ship", 60)
    assert worse["p50_change"] == pytest.approx(1.0, abs=0.1)
    # What became worse is a warning.
    assert main([*command, "--severity", "critical"]) == 0


def test_the_better_release_has_nothing_worse(
    released_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "--database", str(released_sqlite), "--against", "2.0", "--release", "1.0"]
    assert main(command) == 0
    assert "no evidence that anything became slower or fails more often" in capsys.readouterr().out


def test_an_unknown_version_is_an_error(
    released_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--database", str(released_sqlite), "--against", "1.00"]) == 1
    assert "No workflow has the version '1.00'." in capsys.readouterr().err
