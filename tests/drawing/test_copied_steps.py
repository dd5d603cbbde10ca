"""A fork and its original within one second of a database that holds whole seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
from test_drawing import texts

import dbos_notebook as dn


def test_copied_steps_are_recognized_within_the_second_of_the_fork(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path, second = corpus_sqlite("3.4.0"), 1_790_000_000_000
    workflow = (
        "INSERT INTO workflow_status (workflow_uuid, name, status, created_at, updated_at,"
        " started_at_epoch_ms, completed_at, queue_name, forked_from, recovery_attempts)"
        " VALUES (?, 'made', 'SUCCESS', ?, ?, ?, ?, ?, ?, 1)"
    )
    step = (
        "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name,"
        " started_at_epoch_ms, completed_at_epoch_ms) VALUES (?, ?, 'work', ?, ?)"
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        times = [second] * 2
        connection.execute(workflow, ["o", *times, None, second, None, None])
        fork = ["f", *times, second, second, "_dbos_internal_queue", "o"]
        connection.execute(workflow, fork)
        for owner, number, start, end in (
            ("o", 1, 100, 150), ("o", 2, 200, 300), ("f", 1, 100, 150), ("f", 2, 700, 760),
        ):  # fmt: skip
            connection.execute(step, [owner, number, second + start, second + end])
    with dn.connect(path) as db:
        graph = db.graph("f")
        said = texts(db.timeline("f"))
        path_of_it = dn.graphs.critical_path(graph)
        card = str(db.workflow("f"))
    assert graph.nodes["f", 1]["copied"]
    assert "copied" not in graph.nodes["f", 2]
    assert "50 ms · copied from the original" in said
    assert path_of_it["duration"].sum() == pd.Timedelta("60ms")
    assert any(each.startswith("succeeded after 60 ms") for each in said)
    assert "took: 60 ms" in card or "took: < 1 s" in card
