"""The diagnosis: each rule on a real situation, nothing on a healthy one, and what it costs."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from servers import wait_until

import dbos_notebook as dn
from dbos_notebook.analysis import active_rules, overdue_rules
from dbos_notebook.analysis.diagnosis import Diagnosis
from dbos_notebook.analysis.findings import RULES, Finding
from dbos_notebook.tables import availability, queue_state

APPLICATION = Path(__file__).parent / "diagnosis_application.py"


class Role:
    """One process of the application in a role, which is also its executor ID."""

    def __init__(self, url: str, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(APPLICATION), url, role], stdout=subprocess.PIPE, text=True
        )
        self.phase = 0.0
        """When the runs began that differ from those before."""

    def wait(self) -> Role:
        """Wait until everything is as it stays, or the process has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("phase"):
                self.phase = float(line.split()[1])
            if line == "ready\n":
                return self
        self._process.wait()
        return self

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def make_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """A function that returns the URL of a new system database."""

    def make() -> str:
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('diagnosis') / 'diagnosis.sqlite'}"
        server = request.getfixturevalue("postgres_server")
        return str(server.url(server.create_database()))

    return make


@pytest.fixture(scope="module")
def disorder(make_url: Callable[[], str]) -> Iterator[tuple[dn.Client, Role]]:
    """A client on a database with one of everything that is wrong, and the process that lives."""
    url = make_url()
    for role in ("crash", "crash", "dead"):
        Role(url, role).wait().kill()
    alive = Role(url, "alive").wait()
    with dn.connect(url) as client:
        yield client, alive
    alive.kill()


@pytest.fixture(scope="module")
def diagnosis(disorder: tuple[dn.Client, Role]) -> Iterator[Diagnosis]:
    """What is wrong there, with limits that a short test can exceed."""
    client, alive = disorder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overdue_rules, "GRACE_SECONDS", 0.0)
        patch.setattr(overdue_rules, "NEAR_SHARE", 1.0)
        patch.setattr(active_rules, "FAR_LONGER", 1)
        yield client.diagnose(
            window=time.time() - alive.phase,
            queue_wait="1s",
            no_progress=1,
            ends_within=pd.Timedelta("2h"),
            recoveries=2,
            steps=40,
            payload_bytes=50_000,
        )


def of_rule(diagnosis: Diagnosis, rule: str) -> list[Finding]:
    return [finding for finding in diagnosis if finding.rule == rule]


# Of each rule: the severity, the subject, how many are affected, and words of the evidence.
EXPECTED: dict[str, tuple[str, str, int, str]] = {
    "stranded": ("critical", "executor dead, version 1", 1, "no heartbeat"),
    "no_executor": ("critical", "version 9, queue open", 1, "DBOS records no heartbeat"),
    "recovery_limit": ("critical", "workflow crashes", 1, "started up to 3 times"),
    "repeated_recovery": ("warning", "workflow sleeper", 1, "started up to 3 times"),
    "no_progress": ("warning", "workflow batch", 1, "after step 1 fine, nothing was recorded"),
    "queue_full": ("warning", "queue one", 2, "held by 1 waits, the longest is one-runs, for "),
    "rate_limit": ("warning", "queue limited", 2, "the limit of 1 started per 1 h is used up"),
    "no_partition_key": ("critical", "queue partitioned", 1, "1 workflow (1 waits) without a"),
    "no_queue": ("warning", "queue nowhere", 1, "no queue of this name is registered"),
    "starved_queue": ("critical", "queue unheard", 2, "nothing was dequeued from it within"),
    "deadline_near": ("info", "workflow waits", 1, "the deadline of 1 workflow is near"),
    "timeout_near": ("info", "workflow approval", 1, "earlier runs received 'approval' there"),
    "failure_rate": ("warning", "workflow sync", 13, "13 of 25 runs failed"),
    "latency": ("warning", "workflow render", 25, "half of 25 runs"),
    "many_steps": ("warning", "workflow many", 1, "with up to 40 steps"),
    "large_payload": ("warning", "workflow exports", 1, "the result of its step large"),
}


def test_a_finding_names_its_workflow_in_full_and_shows_what_distinguishes() -> None:
    def found(subject: str) -> Finding:
        return Finding("many_steps", "warning", subject, 1, None, "")

    finding = found("workflow billing.jobs.run, search.jobs.run")
    assert finding.short_subject == "workflow run, run"
    assert "billing.jobs.run" in str(finding)
    assert found("queue mails.eu").short_subject == "queue mails.eu"


@pytest.mark.parametrize("rule", EXPECTED)
def test_a_rule_finds_its_situation(diagnosis: Diagnosis, rule: str) -> None:
    severity, subject, affected, words = EXPECTED[rule]
    found = of_rule(diagnosis, rule)
    assert [each.subject for each in found] == [subject], diagnosis
    (finding,) = found
    assert finding.affected == affected
    assert words in finding.evidence
    assert finding.severity == severity


def test_unread_messages_of_both_kinds(diagnosis: Diagnosis) -> None:
    waiting, ended = of_rule(diagnosis, "unread_message")
    assert (waiting.severity, waiting.subject, waiting.affected) == (
        "warning",
        "topic 'aproval'",
        1,
    )
    assert "unanswered: it waits for 'approval'. Inferred" in waiting.evidence
    assert (ended.severity, ended.subject, ended.affected) == ("info", "workflow batch", 1)
    assert ended.workflow_ids == ("batch-0",)


def test_work_on_a_queue_that_nothing_dequeues(
    disorder: tuple[dn.Client, Role], diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers about its work, and about work that would be put there, agree with the rule."""
    db, _ = disorder
    monkeypatch.setattr(queue_state, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(queue_state, "PATIENCE_POLLS", 1)

    def will_run(queue: str) -> str:
        plan = db.fork("batch-0", "first", application_version="1", queue_name=queue, plan=True)
        return str(plan.items[0].will_run)

    first, second = (db.workflow(f"unheard-{number}").activity for number in (1, 2))
    assert first is not None
    assert second is not None
    assert (first.reason, second.reason) == ("not_dequeued", "not_dequeued")
    assert first.text.startswith(
        "in queue unheard, place 1 of 2: nothing has dequeued it for about "
    )
    assert "place 2 of 2: 1 workflow before it, and nothing has dequeued the" in second.text
    assert "unheard-1 has waited for about " in first.evidence
    assert "Inferred: no executor listens to this queue" in first.evidence
    found = will_run("unheard")
    assert found.startswith("unknown: nothing dequeues queue 'unheard': unheard-1 has wait"), found
    monkeypatch.setattr(availability, "DEAD_SECONDS", 0.1)
    # Where a queue has no room, or executors take its work, it tells nothing.
    assert "nothing dequeues" not in will_run("one")
    assert "nothing dequeues" not in will_run("open")
    found = will_run("unheard")
    assert found.startswith("unlikely. Check that an executor listens to queue 'unheard'"), found
    # The finding is about both, and so is the call.
    (finding,) = of_rule(db.diagnose(queue_wait=0.1), "starved_queue")
    assert (finding.affected, finding.workflow_ids) == (2, ("unheard-1", "unheard-2"))
    assert finding.call is not None
    assert finding.call.targets == finding.workflow_ids
    assert "Resuming starts these on" in finding.remedy


def test_nothing_else_is_found(diagnosis: Diagnosis) -> None:
    assert {finding.rule for finding in diagnosis} == set(EXPECTED) | {"unread_message"}
    assert diagnosis.severity == "critical"
    severities = diagnosis.frame["severity"]
    assert severities.tolist() == sorted(severities, key=["critical", "warning", "info"].index)
    assert len(diagnosis.at_least("warning")) == int((severities >= "warning").sum())


def test_the_frame_has_the_documented_types(diagnosis: Diagnosis) -> None:
    frame = diagnosis.frame
    assert list(frame.columns) == [
        "rule",
        "severity",
        "subject",
        "affected",
        "since",
        "evidence",
        "remedy",
        "plan",
    ]
    assert frame["severity"].cat.categories.tolist() == ["info", "warning", "critical"]
    assert frame["severity"].cat.ordered
    assert str(frame["affected"].dtype) == "Int64"
    assert str(frame["since"].dtype) == "datetime64[ms, UTC]"
    assert len(frame) == len(diagnosis)
    empty = Diagnosis([], "nothing", lambda call: pytest.fail(str(call)))
    assert empty.frame.dtypes.equals(frame.dtypes)
    assert (empty.severity, len(empty)) == (None, 0)


def test_a_plan_is_that_of_the_code_which_is_shown(
    disorder: tuple[dn.Client, Role], diagnosis: Diagnosis
) -> None:
    db, _ = disorder
    plans = 0
    for finding in diagnosis:
        if finding.call is None:
            assert finding.plan == ""
            with pytest.raises(dn.RefusedError, match=finding.rule):
                diagnosis.plan(finding)
            continue
        plan = diagnosis.plan(finding)
        expected = eval(f"{finding.plan[:-1]}, plan=True)", {"db": db})
        # The estimate has an age.
        rows, others = (each.to_frame().drop(columns="will_run") for each in (plan, expected))
        assert rows.equals(others)
        assert plan.counts["ready"] == len(finding.call.targets), plan
        plans += 1
    assert plans >= 6
    assert diagnosis.plan(0).action == "resume"


def test_the_card_and_the_text_name_every_finding(diagnosis: Diagnosis) -> None:
    card, text = diagnosis._repr_html_(), repr(diagnosis)
    for finding in diagnosis:
        assert f"{finding.severity}</strong>" in card
        assert finding.subject.replace("'", "&#39;") in card
        assert RULES[finding.rule] in text
    assert "plan(0) shows what it would do" in card


def test_applying_a_plan_removes_the_finding(
    disorder: tuple[dn.Client, Role], diagnosis: Diagnosis
) -> None:
    """The last test of the process that lives."""
    db, _ = disorder
    (finding,) = of_rule(diagnosis, "no_partition_key")
    diagnosis.plan(finding).apply()
    wait_until(lambda: db.workflow("no-key").status == "PENDING")
    assert of_rule(db.diagnose(), "no_partition_key") == []


def test_what_is_due_when_nobody_lives(
    make_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url()
    Role(url, "late").wait().kill()
    monkeypatch.setattr(overdue_rules, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(overdue_rules, "SCHEDULE_GRACE_SECONDS", 0.0)
    time.sleep(2.5)
    with dn.connect(url) as db:
        diagnosis = db.diagnose()
        (passed,) = of_rule(diagnosis, "deadline_passed")
        assert passed.plan == "db.cancel(['timed'])"
        assert "1 workflow still PENDING" in passed.evidence
        (delayed,) = of_rule(diagnosis, "late_delay")
        assert (delayed.subject, delayed.workflow_ids) == ("queue open", ("delayed",))
        (missed,) = of_rule(diagnosis, "missed_schedule")
        assert missed.subject == "schedule often"
        assert missed.affected >= 2
        plan = diagnosis.plan(missed)
        assert plan.action == "backfill_schedule"
        assert plan.counts["ready"] >= missed.affected - 1


def test_nothing_is_found_where_nothing_is_wrong(make_url: Callable[[], str]) -> None:
    url = make_url()
    role = Role(url, "healthy").wait()
    try:
        with dn.connect(url) as db:
            diagnosis = db.diagnose()
            assert list(diagnosis) == [], diagnosis
            assert "Nothing found" in diagnosis._repr_html_()
            assert repr(diagnosis).endswith(": nothing found>")
    finally:
        role.kill()


def test_nothing_is_found_in_the_demo_with_an_executor(
    incident_sqlite: Path, tmp_path: Path
) -> None:
    """The demo leaves what its processes did not finish; with that cancelled, nothing is wrong."""
    from dbos_notebook import demo

    path = tmp_path / "demo.sqlite"
    shutil.copyfile(incident_sqlite, path)
    with dn.connect(path) as db:
        left = db.workflows(status=["PENDING", "ENQUEUED"], limit=None)
        db.cancel(left, confirm=True)
        with demo.start(path):
            diagnosis = db.diagnose()
    assert list(diagnosis) == [], diagnosis


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0", "ts-5.3.0"])
def test_databases_of_other_versions(
    corpus_postgres: Callable[[str], str], corpus_sqlite: Callable[[str], Path], version: str
) -> None:
    urls: list[Path | str] = [corpus_postgres(version)]
    if not version.startswith("ts"):
        urls.append(corpus_sqlite(version))
    for url in urls:
        with dn.connect(url, read_only=True) as db:
            found = {finding.rule: finding for finding in db.diagnose()}
        if not version.startswith("ts"):
            assert found["no_executor"].subject == "version v1, queue slow"
            assert found["stranded"].workflow_ids == ("holder",)


def test_values_that_no_dbos_wrote(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    name = "<script>alert(1)</script>\x00\n"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for column in ("started_at_epoch_ms", "recovery_attempts", "workflow_deadline_epoch_ms"):
            connection.execute(f"UPDATE workflow_status SET {column} = 'then'")
        connection.execute(
            "UPDATE workflow_status SET executor_id = ?, queue_name = ?", (name, name)
        )
        connection.execute("UPDATE operation_outputs SET completed_at_epoch_ms = x'00'")
        connection.execute("UPDATE workflow_schedules SET last_fired_at = 'then', schedule = 'x'")
    with dn.connect(path) as db:
        diagnosis = db.diagnose()
        assert len(diagnosis) >= 2
        assert "<script>" not in diagnosis._repr_html_()
        assert "\n" not in diagnosis[0].subject


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"windows": 3}, "Did you mean 'window'"),
        ({"window": "soon"}, "is not a duration"),
        ({"queue_wait": None}, "is not a duration"),
        ({"steps": 0}, "at least 1"),
        ({"steps": True}, "at least 1"),
    ],
)
def test_invalid_limits_are_refused(old_sqlite: Path, limits: dict[str, Any], message: str) -> None:
    with dn.connect(old_sqlite) as db, pytest.raises(dn.FilterError, match=message):
        db.diagnose(**limits)
    with dn.connect(old_sqlite) as db, pytest.raises(dn.FilterError, match="critical"):
        db.diagnose().at_least("fatal")  # type: ignore[arg-type]
