"""Odd lives on real DBOS: its rows are the simulator's, and every view says the same of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.widgets import serialize

APPLICATION = Path(__file__).parent / "simulated_application.py"
SECOND = pd.Timedelta("1s")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def odd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dn.Client, dict[str, Any]]]:
    """A client on the database of ``simulated_application.py``, and what that found."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('odd') / 'odd.sqlite'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(server.create_database())
    done = subprocess.run(
        [sys.executable, str(APPLICATION), url],
        check=True, timeout=240, capture_output=True, text=True,
    )  # fmt: skip
    with dn.connect(url) as client:
        yield client, json.loads(done.stdout.splitlines()[-1])


def words(picture: Any) -> str:
    return " ".join(re.sub("<[^>]+>", " ", picture.svg).split())


def test_dbos_writes_the_rows_that_the_simulator_predicts(odd: Any) -> None:
    _, found = odd
    assert found["wrong"] == []
    assert found["compared"] > 35


def test_queue_times_and_durations_are_those_of_the_latest_run(odd: Any) -> None:
    db, _ = odd
    frame = db.workflows(limit=None).set_index("workflow_id")
    # What was resumed, recovered or rewound ran for a moment, seconds after it was created.
    for name in ("resumed", "own-queue", "recovered", "rewound", "forked"):
        assert frame.loc[name, "duration"] < 2 * SECOND, name
        assert name == "forked" or pd.isna(frame.loc[name, "queue_wait"]), name
    assert frame.loc["forked", "queue_wait"] < 3 * SECOND
    assert pd.isna(frame.loc["cancelled-on-queue", "duration"])
    assert pd.isna(frame.loc["cancelled-on-queue", "queue_wait"])
    assert pd.isna(frame.loc["cancelled", "duration"])
    assert SECOND * 0.9 < frame.loc["timed-out", "duration"] < 5 * SECOND
    assert frame.loc[["delayed", "moved"], ["duration", "queue_wait"]].isna().all(axis=None)
    waits, now = frame.loc["waits-again"], pd.Timestamp.now("UTC")
    since = (now - waits["queue_wait"]) - waits["updated_at"]
    assert abs(since) < 5 * SECOND
    assert waits["updated_at"] - waits["created_at"] > 2 * SECOND
    queue = db.queues().set_index("queue_name").loc["nobody"]
    assert queue["oldest_enqueued_at"] == waits["updated_at"]


SAID = {
    "resumed": (r"succeeded after", "from an earlier run"),
    "own-queue": (r"succeeded after", "from an earlier run"),
    "recovered": (r"succeeded after", "from an earlier run"),
    "rewound": (r"succeeded after", "from an earlier run"),
    "forked": (r"succeeded after", "copied from the original"),
    "cancelled-on-queue": (r"cancelled, waited at most \d", "ran before is not recorded"),
    "cancelled": (r"cancelled created", "its start is not recorded"),
    "timed-out": (r"cancelled after (about )?\d", "note"),
    "waits-again": (r"enqueued for (about )?\d", "has waited"),
    "delayed": (r"delayed created", "delayed until"),
}


@pytest.mark.parametrize("name", list(SAID))
def test_every_view_shows_the_same_times(odd: Any, name: str) -> None:
    db, _ = odd
    row = db.workflows([name]).iloc[0]
    graph, workflow = db.graph(name), db.workflow(name)
    said = words(db.timeline(name))
    for expected in SAID[name]:
        assert re.search(expected, said), said
    again = name in ("resumed", "own-queue", "recovered", "rewound")
    assert ("restarted" in said) == again
    # Card, graph, timeline and the rows of the views have a duration, or none has.
    (sent,) = serialize.workflow_rows(db.workflows([name]))
    drawn = words(dn.draw(graph))
    ran = not pd.isna(row["duration"])
    assert ("took" in workflow.facts()) == ran
    assert ("duration" in sent) == ran
    assert ("duration" in graph.nodes[name]) == ran
    assert bool(re.search(r"(succeeded|cancelled) after", said)) == ran
    assert bool(re.search(r"(succeeded|cancelled) after", drawn)) == ran
    # And the path through it is as long, within the second of SQLite.
    path = dn.graphs.critical_path(graph)
    if ran:
        assert abs(path["duration"].sum() - row["duration"]) < 1.1 * SECOND
        assert "before" not in path["part"].tolist()
        took, lasted = workflow.facts()["took"], path["duration"].sum().total_seconds()
        units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
        parts = re.findall(r"([\d.]+) (ms|s|m|h)\b", took)
        number = sum(float(value) * units[unit] for value, unit in parts)
        # Two digits of it are shown; times in whole seconds are exact to the second.
        assert abs(number - lasted) < (0.01 + 0.05 * lasted if took[0].isdigit() else 1.1)
        began = row["completed_at"] - row["duration"]
        assert abs(path["start"].iloc[0] - began) < 2.1 * SECOND
    rows = workflow.timeline_rows.set_index("kind")
    assert pd.isna(rows["duration"].iloc[0]) == (not ran)


def test_steps_of_an_earlier_run_have_no_bars(odd: Any) -> None:
    db, _ = odd
    for name in ("resumed", "own-queue", "recovered", "forked"):
        said = words(db.timeline(name))
        label = "copied from the original" if name == "forked" else "from an earlier run"
        assert said.count(label) == 2, name
