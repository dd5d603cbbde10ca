"""What active workflows are said to be doing, on real DBOS processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from servers import wait_until

import dbos_notebook as dn
from dbos_notebook.tables import availability
from dbos_notebook.tables.activity import Activity

APPLICATION = Path(__file__).parent / "activity_application.py"


class Process:
    """One process of the application; ``role`` is also its executor ID."""

    def __init__(self, url: str, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(APPLICATION), url, role], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a new system database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('activity') / 'activity.sqlite'}"
    server = request.getfixturevalue("postgres_server")
    return str(server.url(server.create_database()))


@pytest.fixture(scope="module")
def alive(url: str) -> Iterator[Process]:
    """A process whose workflows wait, started after another one was killed."""
    Process(url, "dead").kill()
    process = Process(url, "alive")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def waiting(url: str, alive: Process) -> Iterator[dn.Client]:
    """A client on the database of the process."""
    with dn.connect(url) as client:
        yield client


@pytest.fixture(scope="module")
def found(waiting: dn.Client) -> dict[str, Activity]:
    """The activity of every active workflow, from one call."""
    active = waiting.workflows(status=["PENDING", "ENQUEUED", "DELAYED"], limit=None)
    return waiting._store.activities(active["workflow_id"].tolist())


TEXTS = {
    "busy": "running after step 1 fine",
    "begins": "running before its first recorded step",
    "sleeper": "sleeping until TIME",
    # Its sleep has ended.
    "slept": "running after step 1 DBOS.sleep",
    "receiver": "waiting for a message on topic 'approval' until TIME; "
    "last event: stage = 'waiting for approval'",
    # Its message has come; the timeout that is recorded is in the future.
    "received": "running after step 1 DBOS.recv",
    # No other run tells what it waits for.
    "alone": "waiting for a message or an event until TIME",
    "listener": "waiting for an event until TIME",
    "waits_for_children": "waiting for 2 children",
    "calls_a_child": "waiting for 1 child",
    # Its children have ended.
    "after_children": "running after step 2 DBOS.getResult",
    # It has run a step since it started its child.
    "beside_a_child": "running after step 2 fine; 1 child active",
    "stranded": "stranded: executor dead silent since TIME; it was sleeping until TIME",
    "one-runs": "running before its first recorded step",
    "one-1": "in queue one, place 1 of 2: the queue runs 1 of at most 1 at a time, which is "
    "one-runs",
    "one-2": "in queue one, place 2 of 2: the queue runs 1 of at most 1 at a time, which is "
    "one-runs",
    "worker-1": "in queue worker, place 1 of 2: 1 executor of the queue runs at most 1 at a time, "
    "and is busy with worker-runs",
    "limited-1": "in queue limited, place 1 of 2: the limit of 1 started per 1 h is used up until "
    "TIME",
    "partition-1": "in queue partitioned, place 1 of 1: partition 'a' runs 1 of at most 1 at a "
    "time, which is partition-runs",
    "partition-no-key": "in queue partitioned, place 1 of 1: the queue is partitioned and the "
    "workflow has no partition key, so it is never dequeued",
    "open-other-version": "in queue open, place 1 of 1: no live executor appears to run version 9",
    "open-delayed": "delayed until TIME",
    "nowhere": "in queue nowhere, place 1 of 1: no queue of this name is registered in the "
    "database, so only a process whose code declares it dequeues it",
}
INFERRED = {"receiver", "alone", "listener", "waits_for_children", "calls_a_child", "stranded"}


def without_times(text: str) -> str:
    """Replace the times in a text by a word."""
    return pd.Series([text]).str.replace(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME", regex=True)[
        0
    ]


@pytest.mark.parametrize("workflow_id", TEXTS)
def test_what_a_workflow_is_doing(found: dict[str, Activity], workflow_id: str) -> None:
    activity = found[workflow_id]
    assert without_times(activity.text) == TEXTS[workflow_id]
    queued_inferred = activity.reason in ("no_executor", "worker_concurrency")
    assert bool(activity.evidence) == (workflow_id in INFERRED or queued_inferred)


def test_the_parts_of_an_activity(found: dict[str, Activity]) -> None:
    hour = pd.Timedelta("1h")
    sleeper, receiver, listener = (found[key] for key in ("sleeper", "receiver", "listener"))
    for waits in (sleeper, receiver, listener):
        assert waits.since is not None
        assert waits.until is not None
        assert abs(waits.until - waits.since - hour) < pd.Timedelta("10s")
    assert (receiver.kind, receiver.topics) == ("message", ("approval",))
    assert "earlier runs received 'approval' there" in receiver.evidence
    assert (listener.kind, listener.topics) == ("event", ())
    assert (found["alone"].kind, found["alone"].topics) == ("message or event", ())
    assert found["waits_for_children"].children == 2
    stranded = found["stranded"]
    assert (stranded.kind, stranded.doing) == ("stranded", "sleeping")
    assert "after this executor was last active" in stranded.evidence
    assert stranded.remedy == "Version 1 is alive: resume with force=True"
    limited = found["limited-1"]
    assert limited.until is not None
    assert limited.until > pd.Timestamp.now("UTC") + hour - pd.Timedelta("2min")
    assert (found["one-2"].position, found["one-2"].queue_length) == (2, 2)
    assert found["one-2"].reason == "concurrency"
    other = found["open-other-version"]
    assert other.reason == "no_executor"
    assert other.remedy == (
        "Version 1 is alive: Cancel, then Fork with version 1 and queue open; in Python, cancel "
        "the workflow, then fork it with application_version='1', queue_name='open'"
    )


def test_nothing_is_said_of_workflows_that_have_ended(
    waiting: dn.Client, found: dict[str, Activity]
) -> None:
    assert "answered" not in found
    assert waiting.workflow("answered").activity is None
    assert "now" not in waiting.workflow("answered").facts()


def test_the_column_and_the_card_have_the_same_words(
    waiting: dn.Client, found: dict[str, Activity]
) -> None:
    listed = waiting.workflows(["busy", "receiver", "answered"], load_activity=True)
    texts = listed.set_index("workflow_id")["activity"]
    assert texts["busy"] == found["busy"].text
    assert pd.isna(texts["answered"])
    assert "activity" not in waiting.workflows(["busy"])
    flow = waiting.workflow("receiver")
    assert flow.activity is not None
    assert flow.activity.text == texts["receiver"]
    assert flow.facts()["now"] == texts["receiver"]


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0", "ts-5.3.0"])
def test_databases_of_other_versions(
    corpus_postgres: Callable[[str], str], corpus_sqlite: Callable[[str], Path], version: str
) -> None:
    urls: list[Path | str] = [corpus_postgres(version)]
    if not version.startswith("ts"):
        urls.append(corpus_sqlite(version))
    for url in urls:
        with dn.connect(url) as client:
            listed = client.workflows(limit=None, load_activity=True)
            active = listed["status"].isin(["PENDING", "ENQUEUED", "DELAYED"])
            assert active.any() == (not version.startswith("ts"))
            assert (listed["activity"].notna() == active).all()
            failed = listed["status"] == "ERROR"
            assert (listed["failed_workflow_id"].notna() == failed).all()
            if not version.startswith("ts"):
                steps = listed.set_index("workflow_id")[["failed_step", "failed_workflow_id"]]
                assert steps.loc["parent-6-bad"].tolist() == ["charge", "parent-6-bad-1"]


def test_values_that_no_dbos_wrote(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for column in ("executor_id", "queue_name", "application_version", "delay_until_epoch_ms"):
            connection.execute(f"UPDATE workflow_status SET {column} = x'01'")
        connection.execute("UPDATE queues SET concurrency = 'many', worker_concurrency = x'00'")
        connection.execute("UPDATE operation_outputs SET completed_at_epoch_ms = 'then'")
    with dn.connect(path) as client:
        listed = client.workflows(status=["PENDING", "ENQUEUED"], load_activity=True)
        assert listed["activity"].notna().all()


def test_all_is_stranded_once_the_process_is_killed(
    waiting: dn.Client,
    alive: Process,
    found: dict[str, Activity],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last test of the process."""
    alive.kill()
    # In a container, processes of others may have a SQLite file open; only silence tells.
    monkeypatch.setattr(availability, "DEAD_SECONDS", 0)
    ids = ["busy", "sleeper", "receiver", "one-1", "open-delayed"]

    def read() -> dict[str, Activity]:
        return waiting._store.activities(ids)

    wait_until(lambda: read()["busy"].kind == "stranded")
    now = read()
    kinds = {key: activity.kind for key, activity in now.items()}
    assert kinds == dict.fromkeys(ids[:3], "stranded") | {"one-1": "queued", ids[-1]: "delayed"}
    assert now["receiver"].doing == "message"
    assert now["receiver"].topics == ("approval",)
    assert "silent since" in now["busy"].text
    # Nothing is alive, so nothing helps but to start a process.
    assert now["busy"].remedy == now["one-1"].remedy == ""
    assert now["one-1"].reason == "no_executor"
    assert found["one-1"].reason == "concurrency"
