"""Plans and refusals, on databases without a running executor."""

from __future__ import annotations

import datetime as dt
import html
import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from dbos import DBOSClient, SetWorkflowID
from raw_rows import add_workflow, awaits, set_status, write
from servers import PASSWORD, PASSWORD_ROLE, PostgresServer

import dbos_notebook as dn


def dump(db: dn.Client) -> dict[str, list[str]]:
    """Return every row of every table of DBOS, and the tables' columns."""
    if db.location.path:
        connection = sqlite3.connect(db.location.path)
        names = [r[0] for r in connection.execute("SELECT name FROM sqlite_master ORDER BY 1")]
        tables = [name for name in names if name in db.catalog.tables]
        found = {
            name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"')))
            for name in tables
        }
        found["schema"] = [repr(r) for r in connection.execute("SELECT sql FROM sqlite_master")]
        connection.close()
        return found
    with psycopg.connect(db.location.url()) as server:
        listed = server.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'dbos' ORDER BY 1, 2"
        ).fetchall()
        found = {
            name: sorted(map(repr, server.execute(f'SELECT * FROM dbos."{name}"'.encode())))
            for name in sorted({row[0] for row in listed})
        }
    found["schema"] = list(map(repr, listed))
    return found


def verdicts(plan: object) -> dict[str, str]:
    assert isinstance(plan, dn.Plan)
    return {item.workflow_id: item.verdict for item in plan.items}


def test_a_plan_writes_nothing_and_gives_a_verdict_for_each_workflow(idle_db: dn.Client) -> None:
    before = dump(idle_db)
    plan = idle_db.cancel(["queued-1", "holder", "checkout-1", "cancelled-1", "nobody"], plan=True)
    assert verdicts(plan) == {
        "queued-1": "ready",
        "holder": "ready",
        "checkout-1": "unchanged",
        "cancelled-1": "unchanged",
        "nobody": "not_found",
    }
    plan = idle_db.resume(["cancelled-1", "holder", "checkout-5-bad", "queued-1"], plan=True)
    assert list(verdicts(plan).values()) == ["ready", "refused", "unchanged", "ready"]
    plan = idle_db.fork(["checkout-1", "holder", "queued-1"], "first", plan=True)
    assert list(verdicts(plan).values()) == ["ready", "refused", "refused"]
    plan = idle_db.rewind(["checkout-1", "holder"], plan=True)
    assert list(verdicts(plan).values()) == ["ready", "refused"]
    # DBOS's own refuses 0, and starts at the beginning for 1.
    assert idle_db.rewind("checkout-1", 0, plan=True).items[0].point.start_step == 1
    plan = idle_db.delete(["checkout-1", "holder"], delete_children=True, plan=True)
    assert list(verdicts(plan)) == ["checkout-1", "holder", "checkout-1-4", "checkout-1-4-1"]
    assert dump(idle_db) == before


def test_empty_plans_and_receipts_have_the_same_columns_and_dtypes(idle_db: dn.Client) -> None:
    full, none = idle_db.fork("checkout-1", 2, plan=True), idle_db.fork([], 2, plan=True)
    assert isinstance(full, dn.Plan)
    assert isinstance(none, dn.Plan)
    assert full.to_frame().dtypes.equals(none.to_frame().dtypes)
    receipt = idle_db.cancel(pd.DataFrame({"workflow_id": []}))
    assert isinstance(receipt, dn.Receipt)
    assert receipt.to_frame().empty
    assert list(receipt.to_frame().columns) == [
        "workflow_id",
        "action",
        "outcome",
        "status_before",
        "status_after",
        "new_workflow_id",
        "detail",
        "start_step",
    ]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda db: db.cancel("checkout-99"), dn.WorkflowNotFoundError, "Similar IDs"),
        (lambda db: db.resume("holder"), dn.RefusedError, "it would run twice at the same time"),
        (lambda db: db.fork("holder", "first"), dn.RefusedError, "a second time"),
        (lambda db: db.rewind("holder"), dn.RefusedError, "cancel it first"),
        (lambda db: db.fork("checkout-1", 9), dn.StepNotFoundError, "1 DBOS.setEvent, 2 validate"),
        (lambda db: db.fork("checkout-1", "chrge"), dn.StepNotFoundError, "mean 'charge'"),
        (lambda db: db.fork("checkout-1", "DBOS.setEvent"), dn.StepNotFoundError, "1, 6"),
        (lambda db: db.fork("checkout-1", {"other": 1}), dn.StepNotFoundError, "has no entry"),
        (lambda db: db.fork("checkout-1", True), dn.FilterError, "start_step"),
        (lambda db: db.fork("checkout-1", 1, timeout=-1), dn.FilterError, "above 0"),
        (lambda db: db.fork("checkout-1", 1, key=" "), dn.FilterError, "key"),
        (
            lambda db: db.fork("parent-6-bad", 2, replacement_children={"parent-6-bad-1": "x"}),
            dn.RefusedError,
            "no workflow has the ID 'x'",
        ),
        (lambda db: db.delete("checkout-1"), dn.ConfirmationError, "confirm=True"),
        (lambda db: db.delete("holder", confirm=True), dn.RefusedError, "cancel it first"),
        (lambda db: db.set_delay("holder"), dn.FilterError, "either a delay or"),
        (lambda db: db.set_attributes("holder", {"a": object()}), dn.FilterError, "JSON"),
        (lambda db: db.set_attributes("holder", None, merge=True), dn.FilterError, "merged"),
        (lambda db: db.pause_schedule("none"), dn.ScheduleNotFoundError, "db.schedules()"),
    ],
)  # fmt: skip
def test_a_refused_call_writes_nothing(
    idle_db: dn.Client,
    call: Callable[[dn.Client], object],
    error: type[Exception],
    says: str,
) -> None:
    before = dump(idle_db)
    with pytest.raises(error) as caught:
        call(idle_db)
    assert says in str(caught.value)
    assert dump(idle_db) == before
    assert idle_db.history().empty


def test_more_than_twenty_workflows_need_confirmation(idle_db: dn.Client) -> None:
    everything = idle_db.workflows()
    ended = everything[~everything["status"].isin(["PENDING", "ENQUEUED"])]
    assert len(ended) > 20
    before = dump(idle_db)
    with pytest.raises(dn.ConfirmationError, match=r"fork would change \d+ workflows") as caught:
        idle_db.fork(ended, "first")
    assert caught.value.plan.counts["ready"] == len(ended)
    assert dump(idle_db) == before
    receipt = idle_db.fork(ended, "first", confirm=True)
    assert isinstance(receipt, dn.Receipt)
    assert receipt.counts["done"] == len(ended)
    assert len(idle_db.workflows(forked_from=ended)) == len(ended) + 1  # and the corpus's own


@pytest.mark.parametrize(
    ("workflow", "asked", "number"),
    [
        ("checkout-1", 0, 1),  # DBOS starts at the beginning for both
        ("checkout-1", 1, 1),
        ("checkout-1", 6, 6),
        ("checkout-1", 7, 7),  # after the last
        ("checkout-1", "first", 1),
        ("checkout-1", "last", 6),
        ("checkout-1", "charge", 3),
        ("checkout-1", "failed", 3),  # none failed: the last that is not DBOS's own
        ("checkout-5-bad", "failed", 3),
        ("parent-6-bad", "failed", 2),
        ("cancelled-1", "failed", 1),
        ("queued-1", "first", 1),  # it has no steps
        ("queued-1", 0, 1),
        ("checkout-1", {"checkout-1": "charge"}, 3),
        ("checkout-1", pd.Series({"checkout-1": 2}), 2),
    ],
)
def test_fork_points(old_sqlite: Path, workflow: str, asked: object, number: int) -> None:
    with dn.connect(old_sqlite, read_only=True) as db:
        plan = db.fork(workflow, asked, force=True, plan=True)  # type: ignore[arg-type]
        assert isinstance(plan, dn.Plan)
        point = plan.items[0].point
        assert point is not None
        assert point.start_step == number


@pytest.mark.parametrize(
    "asked",
    [
        [2, 3],
        np.array([2, 3]),
        {"checkout-1": [2, 3]},
        pd.Series([2, 3], index=["checkout-1", "checkout-1"]),
        ["validate", 2, 3, "charge"],  # the same two steps
    ],
)
def test_a_workflow_can_be_forked_from_several_steps(idle_db: dn.Client, asked: Any) -> None:
    plan = idle_db.fork(["checkout-1", "checkout-1"], asked, key="both", plan=True)
    assert plan.to_frame()["start_step"].tolist() == [2, 3]
    receipt = plan.apply()
    frame = receipt.to_frame()
    assert frame["start_step"].tolist() == [2, 3]
    assert frame["outcome"].tolist() == ["done", "done"]
    new = frame["new_workflow_id"].tolist()
    # Each has copies of the steps below its own.
    assert [len(idle_db.steps(one)) for one in new] == [1, 2]
    assert plan.apply().to_frame()["outcome"].tolist() == ["unchanged", "unchanged"]
    # The key makes the whole call repeatable, and each of its forks.
    again = idle_db.fork("checkout-1", asked, key="both").to_frame()
    assert again["outcome"].tolist() == ["unchanged", "unchanged"]
    assert idle_db.fork("checkout-1", 3, key="both").lines[0].new_workflow_id == new[1]
    assert set(idle_db.workflows(forked_from="checkout-1")["workflow_id"]) == set(new)
    assert len(receipt.check()) == 2


def test_without_a_key_each_call_makes_a_new_fork_but_a_plan_only_one(idle_db: dn.Client) -> None:
    plan = idle_db.fork("checkout-1", [0, "first", 2], plan=True)
    new = [item.new_workflow_id for item in plan.items]
    assert len(set(new)) == 2
    assert [line.new_workflow_id for line in plan.apply().lines] == new
    assert [line.outcome for line in plan.apply().lines] == ["unchanged", "unchanged"]
    assert len(idle_db.fork("checkout-1", [1, 2])) == 2
    assert len(idle_db.workflows(forked_from="checkout-1")) == 4


def test_each_step_of_a_fork_has_its_own_verdict(idle_db: dn.Client) -> None:
    plan = idle_db.fork(["checkout-1", "waits"], {"checkout-1": [2, 99], "waits": 5}, plan=True)
    assert [item.verdict for item in plan.items] == ["ready", "refused", "ready"]
    receipt = plan.apply()
    assert [line.outcome for line in receipt.lines] == ["done", "unchanged", "done"]
    assert "has no step 99" in receipt.lines[1].detail
    assert [line.start_step for line in receipt.lines] == [2, None, 5]
    with pytest.raises(dn.StepNotFoundError, match="no step 99"):
        idle_db.fork("checkout-1", [2, 99])
    # Somebody else takes the second ID.
    plan = idle_db.fork("checkout-1", [2, 3], plan=True)
    taken = plan.items[1].new_workflow_id
    client = DBOSClient(system_database_url=idle_db.location.url())
    with SetWorkflowID(taken):
        client.fork_workflow("waits", 1)
    client.destroy()
    receipt = plan.apply()
    assert [line.outcome for line in receipt.lines] == ["done", "unchanged"]
    assert receipt.lines[1].detail.startswith(f"refused: the fork's ID {taken} is used")


def test_a_fork_refused_by_the_database_does_not_undo_the_others(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    with dn.connect(path) as db:
        plan = db.fork("checkout-1", [2, 3, 4], plan=True)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "CREATE TRIGGER no BEFORE INSERT ON workflow_status WHEN NEW.workflow_uuid = "
                f"'{plan.items[1].new_workflow_id}' BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
        receipt = plan.apply()
        assert [line.outcome for line in receipt.lines] == ["done", "failed", "done"]
        assert "not this one" in receipt.lines[1].detail
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TRIGGER no")
        # What was done is not done again; what failed is.
        assert [line.outcome for line in plan.apply().lines] == ["unchanged", "done", "unchanged"]
        assert len(db.workflows(forked_from="checkout-1")) == 3


def test_a_list_of_steps_for_several_workflows_or_a_rewind_is_refused(idle_db: dn.Client) -> None:
    with pytest.raises(dn.FilterError, match=r"\{'checkout-1': \[2, 3\], …\}"):
        idle_db.fork(["checkout-1", "checkout-2"], [2, 3])
    with pytest.raises(dn.FilterError, match="only a fork can"):
        idle_db.rewind("checkout-1", pd.Series([2, 3], index=["checkout-1"] * 2))
    with pytest.raises(dn.FilterError, match="empty list"):
        idle_db.fork("checkout-1", {"checkout-1": []})


def test_a_plan_warns_of_repeated_steps_and_of_recurring_failures(
    idle_db: dn.Client,
) -> None:
    effects = [
        idle_db.fork(one, step, plan=True).to_frame()["effect"].iloc[0]
        for one, step in (("checkout-1", "validate"), ("parent-6-bad", "failed"))
    ]
    assert effects[0].endswith("repeats successful steps: validate, charge")
    assert "awaits parent-6-bad-1, whose failure is recorded" in effects[1]


def effect_of(plan: dn.Plan) -> str:
    (item,) = plan.items
    return item.effect


AGAIN = "whose failure is recorded, and will fail again"


def test_a_plan_warns_of_each_later_step_that_awaits_a_failure(idle_db: dn.Client) -> None:
    steps = [
        ("work", False, None),
        ("pack", False, "child"),
        ("work", False, None),
        ("DBOS.getResult", True, "child"),
    ]
    add_workflow(idle_db, "parent", *steps)
    add_workflow(idle_db, "child")
    both = f"{AGAIN}: db.repair forks both"
    assert effect_of(idle_db.fork("parent", "failed", plan=True)).endswith(
        f"step 4 (DBOS.getResult); but that step awaits child, {both}"
    )
    assert effect_of(idle_db.fork("parent", 3, plan=True)).endswith(
        f"repeats successful steps: work; but step 4 awaits child, {both}"
    )
    # A fork that starts a child again starts a new one, and a replacement has no failure.
    for start in (2, "first"):
        assert "fail again" not in effect_of(idle_db.fork("parent", start, plan=True))
    replaced = idle_db.fork("parent", 3, replacement_children={"child": "checkout-1"}, plan=True)
    assert "fail again" not in effect_of(replaced)
    # A rewound workflow starts its children under the same IDs, and DBOS does not run them again.
    for start, which in (
        ("failed", "that step"),
        (3, "step 4"),
        (2, "step 4"),
        ("first", "step 4"),
    ):
        assert effect_of(idle_db.rewind("parent", start, plan=True)).endswith(
            f"; but {which} awaits child, {AGAIN}: rewind child first, or db.repair forks both"
        )


def test_a_plan_warns_only_of_failures_that_are_still_recorded(idle_db: dn.Client) -> None:
    add_workflow(idle_db, "parent", *awaits("child"))
    plans = [
        lambda: idle_db.fork("parent", "failed", plan=True),
        lambda: idle_db.rewind("parent", "failed", plan=True),
    ]
    again = idle_db.rewind("parent", "first", plan=True)
    for plan in plans:
        assert effect_of(plan()).endswith(
            "; but step 2 awaits child, which does not exist, and waits without end"
        )
    assert "child" not in effect_of(again)
    add_workflow(idle_db, "child")
    for plan in plans:
        assert "will fail again" in effect_of(plan())
    made = [plan() for plan in plans]
    # It has been rewound since, and succeeded.
    set_status(idle_db, "child", "SUCCESS")
    for plan in plans:
        assert "child" not in effect_of(plan())
    for plan in made:
        (line,) = plan.apply().lines
        assert line.outcome == "done"
        assert "will fail again" not in line.detail


def test_a_plan_counts_the_failures_that_it_does_not_name(idle_db: dn.Client) -> None:
    starts = [("pack", False, f"child-{number}") for number in range(7)]
    waits = [("DBOS.getResult", True, f"child-{number}") for number in range(7)]
    add_workflow(idle_db, "parent", *starts, *waits)
    for number in range(7):
        add_workflow(idle_db, f"child-{number}")
    named = ", ".join(f"step {number + 8} awaits child-{number}" for number in range(1, 5))
    assert effect_of(idle_db.fork("parent", 8, plan=True)).endswith(
        f"; but that step awaits child-0, {named}, and 2 more, whose failures are recorded, and "
        "will fail again: db.repair forks them all"
    )
    assert effect_of(idle_db.rewind("parent", 8, plan=True)).endswith(
        "will fail again: rewind them first, or db.repair forks them all"
    )


def test_steps_of_the_typescript_sdk_count_from_zero(postgres_server: PostgresServer) -> None:
    from servers import CORPUS

    url = postgres_server.url(postgres_server.restore(CORPUS / "dbos-ts-5.3.0.pg.sql.gz"))
    with dn.connect(url) as db:
        steps = db.steps(db.workflows(status="SUCCESS"))
        zero = steps[steps["function_id"] == 0]["workflow_id"].iloc[0]
        count = len(steps[steps["workflow_id"] == zero])
        assert count > 2
        plan = db.fork(zero, "first", plan=True)
        assert plan.items[0].point.start_step == 0
        with pytest.raises(dn.StepNotFoundError, match="cannot copy step 0 alone"):
            db.fork(zero, 1)
        (line,) = db.fork(zero, 2, key="ts").lines
        assert line.outcome == "done"
        assert db.steps(line.new_workflow_id)["function_id"].tolist() == [0, 1]
        with pytest.raises(dn.RefusedError, match="cannot rewind to step 0"):
            db.rewind(zero)


def test_a_read_only_client_plans_and_changes_nothing(corpus_sqlite: Callable[[str], Path]) -> None:
    with dn.connect(corpus_sqlite("3.4.0"), read_only=True) as db:
        before = dump(db)
        plan = db.cancel("queued-1", plan=True)
        with pytest.raises(dn.ReadOnlyError, match="read_only=True"):
            plan.apply()
        with pytest.raises(dn.ReadOnlyError):
            db.cancel("queued-1")
        assert dump(db) == before


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_database_of_an_old_revision_is_refused_before_any_write(
    request: pytest.FixtureRequest, kind: str, version: str
) -> None:
    with dn.connect(request.getfixturevalue(f"corpus_{kind}")(version)) as db:
        before = dump(db)
        one = db.workflows(status="ERROR")["workflow_id"].iloc[0]
        for call in (
            lambda: db.cancel(one),
            lambda: db.fork(one, "failed", plan=True).apply(),
            lambda: db.delete(one, confirm=True),
        ):
            with pytest.raises(dn.UnsupportedRevisionError, match="pip install"):
                call()
        assert dump(db) == before


def test_an_upgrade_while_connected_is_noticed(idle_db: dn.Client) -> None:
    plan = idle_db.cancel("queued-1", plan=True)
    statement = "UPDATE {}dbos_migrations SET version = 999"
    if idle_db.location.path:
        with sqlite3.connect(idle_db.location.path) as connection:
            connection.execute(statement.format(""))
    else:
        with psycopg.connect(idle_db.location.url()) as server:
            server.execute(statement.format("dbos.").encode())
    with pytest.raises(dn.UnsupportedRevisionError, match="pip install --upgrade dbos"):
        plan.apply()
    assert idle_db.workflows("queued-1")["status"].tolist() == ["ENQUEUED"]


def test_a_schedule_is_not_triggered_where_dbos_could_not_enqueue(tmp_path: Path) -> None:
    from dbos._migration import sqlite_migrations

    path = tmp_path / "at-120.sqlite"
    connection = sqlite3.connect(path)
    for statements in sqlite_migrations[:120]:
        connection.executescript(statements)
    connection.executescript(
        "CREATE TABLE IF NOT EXISTS dbos_migrations (version INTEGER);"
        "INSERT INTO dbos_migrations VALUES (120);"
        "INSERT INTO workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, "
        "status, context) VALUES ('i', 'daily', 'tidy', '0 0 * * *', 'ACTIVE', 'gAROLg==')"
    )
    connection.close()
    with dn.connect(path) as db:
        assert db.catalog.control
        with pytest.raises(dn.RefusedError, match="lacks workflow_status"):
            db.trigger_schedule("daily")
        with pytest.raises(dn.RefusedError, match="lacks workflow_status"):
            db.backfill_schedule("daily", "2d")
        assert db.workflows().empty
        assert db.pause_schedule("daily").ok


def test_control_creates_no_tables_and_no_file(idle_db: dn.Client) -> None:
    schema = dump(idle_db)["schema"]
    for call in (
        lambda: idle_db.cancel("queued-1"),
        lambda: idle_db.resume("cancelled-1"),
        lambda: idle_db.fork("checkout-1", 3),
        lambda: idle_db.rewind("checkout-2"),
        lambda: idle_db.set_attributes("checkout-3", {"a": 1}),
        lambda: idle_db.delete("checkout-3", confirm=True),
    ):
        assert call().counts["done"] == 1
    assert dump(idle_db)["schema"] == schema
    path = idle_db.location.path
    if path:
        with dn.connect(path) as other:
            path.unlink()
            with pytest.raises(dn.DatabaseConnectionError, match="There is no file"):
                other.cancel("queued-2")
            pool = other._controller.pool
            with pytest.raises(Exception, match="unable to open database file"):
                pool.submit(lambda: pool.client().cancel_workflow("queued-2")).result()
        assert not path.exists()


def test_a_read_only_role_gets_the_missing_grants_in_the_error(
    corpus_postgres: Callable[[str], str], postgres_server: PostgresServer
) -> None:
    from sqlalchemy.engine import make_url

    url = make_url(corpus_postgres("3.4.0"))
    with postgres_server.admin(str(url.database)) as admin:
        for statement in (
            "CREATE ROLE looks_only LOGIN",
            "GRANT USAGE ON SCHEMA dbos TO looks_only",
            "GRANT SELECT ON ALL TABLES IN SCHEMA dbos TO looks_only",
            "CREATE ROLE cancels_only LOGIN IN ROLE looks_only",
            "GRANT UPDATE ON dbos.workflow_status TO cancels_only",
        ):
            admin.execute(statement.encode())
    reader = url.set(username="looks_only").render_as_string(hide_password=False)
    with dn.connect(reader) as db:
        before = dump(db)
        assert db.cancel("queued-1", plan=True).counts["ready"] == 1
        with pytest.raises(dn.PermissionDeniedError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
            db.cancel("queued-1")
        assert dump(db) == before
    canceller = url.set(username="cancels_only").render_as_string(hide_password=False)
    with dn.connect(canceller) as db:
        assert db.cancel("queued-1").counts["done"] == 1
        before = dump(db)
        with pytest.raises(
            dn.PermissionDeniedError,
            match="cancels_only lacks INSERT ON workflow_status; INSERT ON workflow_input",
        ):
            db.fork(["checkout-1", "checkout-2"], "first")
        assert dump(db) == before


def test_no_password_is_shown(
    corpus_postgres: Callable[[str], str],
    postgres_server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from sqlalchemy.engine import make_url

    caplog.set_level(logging.DEBUG)
    url = make_url(corpus_postgres("3.4.0"))
    with postgres_server.admin(str(url.database)) as admin:
        admin.execute(f"GRANT USAGE ON SCHEMA dbos TO {PASSWORD_ROLE}".encode())
        admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA dbos TO {PASSWORD_ROLE}".encode())
    login = url.set(username=PASSWORD_ROLE, password=PASSWORD)
    with dn.connect(login.render_as_string(hide_password=False)) as db:
        plan = db.fork("checkout-1", "first", plan=True)
        with postgres_server.admin() as admin:
            # Reading has one connection, and control gets none.
            # The connection that reading has is all there is, and control gets none.
            admin.execute(f"ALTER ROLE {PASSWORD_ROLE} CONNECTION LIMIT 0".encode())
            try:
                with pytest.raises(dn.PartialFailureError, match="too many connections") as caught:
                    plan.apply()
            finally:
                admin.execute(f"ALTER ROLE {PASSWORD_ROLE} CONNECTION LIMIT -1".encode())
        error = caught.value
        shown = [repr(error), str(error), repr(error.__cause__), repr(plan), caplog.text]
        shown += [
            repr(error.receipt),
            error.receipt._repr_html_(),
            repr(db._controller.pool.__dict__),
        ]
        assert not any(PASSWORD in text for text in shown)


def test_history_and_log_record_who_did_what(
    idle_db: dn.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dbos_notebook.control")
    idle_db.cancel(["queued-1", "checkout-1"])
    idle_db.fork("checkout-1", 3, key="audit")
    history = idle_db.history()
    assert history["action"].tolist() == ["cancel", "fork"]
    assert history[["done", "unchanged"]].values.tolist() == [[1, 1], [1, 0]]
    assert history["options"].iloc[1] == "start_step=3, key='audit'"
    assert str(history["called_at"].dtype) == "datetime64[ms, UTC]"
    assert (history["user"].str.contains("@")).all()
    assert "cancel 'queued-1': done (ENQUEUED → CANCELLED)" in caplog.text
    assert "fork 'checkout-1' from step 3: done (SUCCESS → SUCCESS) as 'audit-" in caplog.text


def test_hostile_names_are_escaped(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    evil = "<img src=x onerror=alert(1)>\n'\"&"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO workflow_status (workflow_uuid, status, name, queue_name, created_at, "
            "updated_at) VALUES (?, 'ENQUEUED', ?, ?, 1, 1)",
            [evil, evil, evil],
        )
    with dn.connect(path) as db:
        plan = db.cancel(evil, plan=True)
        receipt = plan.apply()
        for shown in (plan._repr_html_(), receipt._repr_html_()):
            assert "<img" not in shown
            assert html.escape("<img src=x") in shown
        assert len(repr(receipt).splitlines()) == 3
        assert receipt.to_frame()["workflow_id"].tolist() == [evil]
        keyed = db.fork(evil, "first", key=evil, force=True)
        assert keyed.counts["done"] == 1


def test_applying_a_plan_twice_changes_nothing_the_second_time(idle_db: dn.Client) -> None:
    rewind = idle_db.rewind("checkout-1", plan=True)
    fork = idle_db.fork(["checkout-2", "checkout-3"], "last", plan=True)
    for number in range(2):
        outcome = "unchanged" if number else "done"
        assert set(rewind.apply().to_frame()["outcome"]) == {outcome}
        assert set(fork.apply().to_frame()["outcome"]) == {outcome}
    assert len(idle_db.workflows(forked_from=["checkout-2", "checkout-3"])) == 2


def test_two_concurrent_rewinds_change_a_workflow_once(idle_db: dn.Client) -> None:
    with dn.connect(idle_db.location.path or idle_db.location.url()) as other:
        plans = [client.rewind("checkout-1", plan=True) for client in (idle_db, other)]
        start, receipts = threading.Barrier(2), []

        def apply(plan: dn.Plan) -> None:
            start.wait()
            receipts.append(plan.apply())

        threads = [threading.Thread(target=apply, args=[plan]) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    outcomes = sorted(receipt.to_frame()["outcome"].iloc[0] for receipt in receipts)
    assert outcomes in (["done", "unchanged"], ["done", "failed"])


def test_set_delay_takes_seconds_timedelta_and_datetime(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE workflow_status SET status = 'DELAYED', delay_until_epoch_ms = 5"
                           " WHERE workflow_uuid = 'queued-1'")  # fmt: skip
    with dn.connect(path) as db:
        soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
        for given in ({"delay": 7200}, {"delay": dt.timedelta(hours=2)}, {"until": soon}):
            assert db.set_delay("queued-1", **given).ok
            until = db.workflows("queued-1")["delay_until"].iloc[0]
            assert abs((until - soon).total_seconds()) < 5


def test_waiting_for_finished_workflows_returns_at_once_in_order(idle_db: dn.Client) -> None:
    frame = idle_db.wait(["checkout-5-bad", "checkout-1"])
    assert frame["workflow_id"].tolist() == ["checkout-5-bad", "checkout-1"]
    assert idle_db.wait(["queued-1"], timeout=0.3)["status"].tolist() == ["ENQUEUED"]
    with pytest.raises(dn.WorkflowNotFoundError):
        idle_db.wait("nobody")
    assert idle_db.wait([]).empty


def test_attributes_are_compared_as_json_values(idle_db: dn.Client) -> None:
    same = json.loads('{"tier": 1, "customer": "acme"}')
    (line,) = idle_db.set_attributes("attributed", same).lines
    assert line.outcome == "unchanged"
    assert idle_db.set_attributes("attributed", None).ok
    assert idle_db.workflows("attributed")["attributes"].iloc[0] is None


def set_parent(db: dn.Client, workflow_id: str, parent: str) -> None:
    statement = "UPDATE {}workflow_status SET parent_workflow_id = ? WHERE workflow_uuid = ?"
    write(db, statement, parent, workflow_id)


def test_a_workflow_that_an_active_parent_may_await_is_not_deleted(idle_db: dn.Client) -> None:
    parents = {
        "runs": "PENDING",
        "waits-for-an-executor": "ENQUEUED",
        "starts-later": "DELAYED",
        "has-ended": "CANCELLED",
        "has-the-result": "PENDING",
        "another-kind": "PENDING",
    }
    for parent, status in parents.items():
        start = [("pack", False, f"{parent}-1")]
        if parent == "has-the-result":
            start.append(("DBOS.getResult", True, f"{parent}-1"))
        if parent == "another-kind":
            start = [("DBOS.getEvent", False, None)]
        add_workflow(idle_db, parent, *start, status=status)
        add_workflow(idle_db, f"{parent}-1", status="SUCCESS")
        set_parent(idle_db, f"{parent}-1", "runs" if parent == "another-kind" else parent)
    before = dump(idle_db)
    plan = idle_db.delete([f"{parent}-1" for parent in parents], plan=True)
    assert list(verdicts(plan).values()) == ["refused"] * 3 + ["ready"] * 2 + ["refused"]
    assert plan.items[1].effect == (
        "its parent waits-for-an-executor is ENQUEUED and waits without end if it awaits this "
        "workflow. Cancel the parent first, or pass force=True if it does not"
    )
    # By the child's own row: the parent's step may not be recorded yet.
    assert plan.items[5].effect.startswith("its parent runs is PENDING")
    with pytest.raises(dn.RefusedError, match="its parent runs is PENDING"):
        idle_db.delete("runs-1", confirm=True)
    assert dump(idle_db) == before
    forced = idle_db.delete("runs-1", force=True, plan=True)
    assert forced.items[0].effect == (
        "deleted permanently; it is SUCCESS; its parent runs is PENDING and waits without end if "
        "it awaits this workflow"
    )
    # A plan that was made before the parent ran is not applied.
    plan = idle_db.delete("has-ended-1", plan=True)
    set_status(idle_db, "has-ended", "ENQUEUED")
    (line,) = plan.apply(confirm=True).lines
    assert (line.outcome, line.status_after) == ("unchanged", "SUCCESS")
    assert line.detail.startswith("refused: its parent has-ended is ENQUEUED")
    set_status(idle_db, "has-ended", "CANCELLED")
    assert plan.apply(confirm=True).counts["done"] == 1


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED", "PENDING"])
def test_a_workflow_that_has_not_ended_is_deleted_only_by_force(
    idle_db: dn.Client, status: str
) -> None:
    add_workflow(idle_db, "parent", ("pack", False, "child"), status="PENDING")
    add_workflow(idle_db, "child", status=status)
    set_parent(idle_db, "child", "parent")
    with pytest.raises(dn.RefusedError, match=f"it is {status}: cancel it first"):
        idle_db.delete("child", confirm=True)
    # Together with its parent as well: nothing stops a parent that runs.
    together = idle_db.delete(["parent", "child"], plan=True)
    assert set(verdicts(together).values()) == {"refused"}
    forced = idle_db.delete(["parent", "child"], force=True, plan=True)
    assert "its parent parent is PENDING and waits without end" in forced.items[1].effect
    set_status(idle_db, "parent", "ENQUEUED")
    forced = idle_db.delete(["parent", "child"], force=True, plan=True)
    assert "waits" not in forced.items[1].effect
    assert forced.apply(confirm=True).counts["done"] == 2


def test_a_parent_forked_from_another_may_await_the_same_child(idle_db: dn.Client) -> None:
    add_workflow(idle_db, "original", ("pack", False, "child"), status="ERROR")
    add_workflow(
        idle_db, "fork", ("pack", False, "child"), status="ENQUEUED", forked_from="original"
    )
    add_workflow(idle_db, "child", status="ERROR")
    (item,) = idle_db.delete("child", plan=True).items
    assert item.verdict == "refused"
    assert item.effect.startswith("its parent fork is ENQUEUED")


def test_a_plan_names_the_deduplication_id_that_is_lost(idle_db: dn.Client) -> None:
    (item,) = idle_db.cancel("queued-1", plan=True).items
    assert item.effect == (
        "will not start; leaves queue 'slow'; loses its deduplication ID 'dedup-1'"
    )
    (item,) = idle_db.resume("queued-1", queue_name="slow", plan=True).items
    assert item.effect == (
        "starts without waiting any longer; loses its deduplication ID 'dedup-1'"
    )
    assert "deduplication" not in idle_db.cancel("queued-2", plan=True).items[0].effect
    (line,) = idle_db.cancel("queued-1").lines
    # The receipt keeps it: no row has it any more.
    assert "loses its deduplication ID 'dedup-1'" in line.detail
    stored = "SELECT deduplication_id FROM {}workflow_status WHERE workflow_uuid = 'queued-1'"
    assert write(idle_db, stored) == [(None,)]
    (item,) = idle_db.resume("queued-1", queue_name="slow", plan=True).items
    assert "deduplication" not in item.effect


def test_a_plan_to_cancel_names_the_parent_that_may_await_it(idle_db: dn.Client) -> None:
    add_workflow(idle_db, "parent", ("pack", False, "child"), status="PENDING")
    # It started a workflow that had been started already, and was resumed.
    add_workflow(idle_db, "other", ("pack", False, "child"), status="ENQUEUED")
    write(idle_db, "UPDATE {}workflow_status SET updated_at = 2 WHERE workflow_uuid = ?", "other")
    add_workflow(idle_db, "child", status="ENQUEUED")
    (item,) = idle_db.cancel("child", plan=True).items
    assert item.verdict == "ready"
    assert item.effect == (
        "will not start; its parent other (one of 2) is ENQUEUED and fails if it awaits this "
        "workflow"
    )
    # Parents that are cancelled as well do not go on.
    plan = idle_db.cancel(["parent", "other", "child"], plan=True)
    assert plan.items[2].effect == "will not start"
    (line,) = idle_db.cancel("child").lines
    assert "fails if it awaits this workflow" in line.detail


def test_a_fork_says_first_that_another_fork_did_the_work(idle_db: dn.Client) -> None:
    for name in ("repaired", "retried", "failed-again"):
        add_workflow(idle_db, name, ("charge", True, None))
    add_workflow(idle_db, "f1", forked_from="repaired")
    add_workflow(idle_db, "f2", forked_from="f1", status="SUCCESS")
    add_workflow(idle_db, "f3", forked_from="repaired")
    add_workflow(idle_db, "r1", forked_from="retried", status="PENDING")
    add_workflow(idle_db, "again", forked_from="failed-again")
    plan = idle_db.fork(["repaired", "retried", "failed-again"], "failed", plan=True)
    assert plan.counts["ready"] == 3
    assert [item.effect for item in plan.items] == [
        "its fork f2 succeeded: this runs the work again; runs again from step 1 (charge)",
        "its fork r1 is running: this does its work a second time; runs again from step 1 (charge)",
        "runs again from step 1 (charge)",
    ]
    assert "⚠ 1 has a fork that succeeded." in repr(plan)
    assert "⚠ 1 has a fork that has not finished." in repr(plan)
    # A repair leaves those out, unless it is forced to include them.
    asked = ["repaired", "retried"]
    assert idle_db.repair(asked, plan=True).counts["unchanged"] == 2
    forced = idle_db.repair(asked, force=True, plan=True)
    assert forced.items[0].effect.startswith("its fork f2 succeeded: ")


def test_a_fork_onto_another_queue_than_its_own_says_so(idle_db: dn.Client) -> None:
    for name, queue in (("shipped", "fulfilment"), ("direct", None)):
        add_workflow(idle_db, name, ("charge", True, None))
        write(
            idle_db,
            "UPDATE {}workflow_status SET queue_name = ? WHERE workflow_uuid = ?",
            queue,
            name,
        )
    moves = "; on DBOS's internal queue instead of 'fulfilment'"
    for plan in (
        idle_db.fork(["shipped", "direct"], "first", plan=True),
        idle_db.repair(["shipped", "direct"], plan=True),
        idle_db.rewind(["shipped", "direct"], plan=True),
    ):
        assert [item.effect.endswith(moves) for item in plan.items] == [True, False]
    (item,) = idle_db.fork("shipped", "first", queue_name="fulfilment", plan=True).items
    assert "queue" not in item.effect


def test_a_waiting_workflow_whose_version_nobody_runs_is_cancelled_and_then_forked(
    idle_db: dn.Client,
) -> None:
    """As the remedy of its activity says."""
    with pytest.raises(dn.RefusedError, match="Cancel it first"):
        idle_db.fork("queued-1", "first", application_version="v2")
    assert idle_db.cancel("queued-1").ok
    assert idle_db.fork("queued-1", "first", application_version="v2").ok


def test_a_displayed_receipt_has_failures_first_and_no_estimate_of_what_has_ended() -> None:
    outcomes: list[tuple[str, Any]] = [
        ("kept", "unchanged"),
        ("lost", "not_found"),
        ("good", "done"),
        ("bad", "failed"),
    ]
    lines = [dn.ReceiptLine(name, "fork", outcome) for name, outcome in outcomes]
    status = {"value": "ENQUEUED"}

    def wait(ids: object, timeout: object) -> pd.DataFrame:
        return pd.DataFrame({"status": [status["value"]]})

    receipt = dn.Receipt("fork", lines, wait=wait, notes=["Will it run? likely: v1 is alive."])
    shown = repr(receipt).splitlines()
    assert [line.split()[0] for line in shown[-4:]] == ["bad", "lost", "kept", "good"]
    assert receipt.to_frame()["workflow_id"].tolist() == ["kept", "lost", "good", "bad"]
    receipt.wait()
    assert "Will it run?" in repr(receipt)
    status["value"] = "SUCCESS"
    receipt.wait()
    assert "Will it run?" not in repr(receipt)
