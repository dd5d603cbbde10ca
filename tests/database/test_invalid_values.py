"""Values that no DBOS wrote: each is missing or told, and hides or moves no other."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from servers import CORPUS, PostgresServer

import dbos_notebook as dn
from dbos_notebook.drawing.frame_html import frame_html
from dbos_notebook.payloads import Undecoded

Change = Callable[..., dn.Client]
HUGE = 2**63 - 1


@pytest.fixture
def sqlite_changed(corpus_sqlite: Callable[[str], Path]) -> Iterator[Change]:
    """Run SQL in a copy of the newest SQLite database, without its constraints, and connect."""
    clients = []

    def change(*statements: str, values: tuple[Any, ...] = ()) -> dn.Client:
        path = corpus_sqlite("3.4.0")
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement, values)
        connection.close()
        clients.append(dn.connect(path))
        return clients[-1]

    yield change
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def whole_postgres(postgres_server: PostgresServer) -> str:
    return postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")


@pytest.fixture
def postgres_changed(postgres_server: PostgresServer, whole_postgres: str) -> Iterator[Change]:
    """Run SQL in a copy of the newest Postgres database, and connect."""
    clients = []

    def change(*statements: str) -> dn.Client:
        name = postgres_server.create_database(like=whole_postgres)
        with postgres_server.admin(name) as connection:
            connection.execute("SET search_path = dbos")
            for statement in statements:
                connection.execute(statement.encode())
        clients.append(dn.connect(postgres_server.url(name)))
        return clients[-1]

    yield change
    for client in clients:
        client.close()


@pytest.fixture(params=["sqlite", "postgres"])
def changed(request: pytest.FixtureRequest) -> Change:
    change: Change = request.getfixturevalue(f"{request.param}_changed")
    return change


def shown(frame: pd.DataFrame) -> str:
    """Return the frame in every form that a notebook shows."""
    html = frame._repr_html_()  # type: ignore[operator]
    return f"{frame!r}{html}{frame_html(frame)}{frame.to_csv()}"


# ---- JSON ----------------------------------------------------------------------------------------


def roles(client: dn.Client, *ids: str) -> list[Any]:
    frame = client.workflows(limit=None).set_index("workflow_id")
    assert len(frame) == 26
    shown(frame)
    return [frame.loc[each, "authenticated_roles"] for each in ids]


def test_truncated_json_documents_do_not_join(changed: Change) -> None:
    texts = {"queued-2": '["guest"],["admin"]', "queued-1": '["x"', "fork-1": '"y"]'}
    client = changed(
        *(
            f"UPDATE workflow_status SET authenticated_roles = '{text}' "
            f"WHERE workflow_uuid = '{one}'"
            for one, text in {**texts, "holder": '["guest"]'}.items()
        )
    )
    found = roles(client, *texts, "holder")
    assert [type(value) for value in found[:3]] == [Undecoded] * 3
    assert [value.text for value in found[:3]] == list(texts.values())
    assert found[3] == ["guest"]


@pytest.mark.parametrize("text", ["abc", "", "1,2", "1\n2", "9" * 5_000, "[" * 3_000 + "]" * 3_000])
def test_invalid_json_stays_a_string(changed: Change, text: str) -> None:
    client = changed(
        f"UPDATE workflow_status SET authenticated_roles = '{text}' "
        "WHERE workflow_uuid = 'checkout-1'",
    )
    (value,) = roles(client, "checkout-1")
    assert isinstance(value, Undecoded)
    client._repr_html_()
    client.workflow("checkout-1")._repr_html_()


def test_attributes_that_only_postgres_can_parse(postgres_changed: Change) -> None:
    for document in (f'{{"b": {"9" * 5000}}}', "[" * 3_000 + "]" * 3_000):
        client = postgres_changed(
            f"UPDATE workflow_status SET attributes = '{document}' WHERE workflow_uuid = 'holder'"
        )
        frame = client.workflows(limit=None).set_index("workflow_id")
        assert isinstance(frame.loc["holder", "attributes"], Undecoded)
        shown(frame)


def test_a_lone_surrogate_in_json_can_be_shown(sqlite_changed: Change) -> None:
    client = sqlite_changed(
        """UPDATE workflow_status SET attributes = '{"a": "\\ud800", "b": "\\ud83d\\ude42"}'"""
    )
    frame = client.workflows(limit=None)
    assert frame["attributes"].iloc[0] == {"a": "?", "b": "🙂"}
    shown(frame).encode()


def test_equal_documents_are_separate_objects(changed: Change) -> None:
    client = changed(
        """UPDATE workflow_status SET attributes = '{"a": [1], "n": 1}'""",
        """UPDATE workflow_status SET attributes = '{"n": 1}' WHERE status = 'SUCCESS'""",
    )
    column = client.workflows(limit=None)["attributes"]
    for document in {id(one): one for one in column}.values():
        document["n"] += 1
        document.get("a", []).append(2)
    assert {one["n"] for one in column} == {2}
    assert {tuple(one["a"]) for one in column if "a" in one} == {(1, 2)}


# ---- numbers and texts ---------------------------------------------------------------------------


def test_a_string_in_a_number_column_forges_no_row(sqlite_changed: Change) -> None:
    before = sqlite_changed().streams()
    client = sqlite_changed(
        'UPDATE streams SET "offset" = ? WHERE rowid = (SELECT min(rowid) FROM streams)',
        values=("7,'forged',0,'x'\n'not-a-workflow','key',1",),
    )
    after = client.streams()
    assert sorted(after["workflow_id"]) == sorted(before["workflow_id"])
    assert after["offset"].isna().sum() == 1
    assert sorted(after["function_id"]) == sorted(before["function_id"])


@pytest.mark.parametrize("value", ["'abc'", "x'00ff'", "'1,2'", "9e999", "'' ", "1e30"])
def test_a_value_of_the_wrong_type_is_missing(sqlite_changed: Change, value: str) -> None:
    before = sqlite_changed().workflows(limit=None).set_index("workflow_id")
    client = sqlite_changed(
        f"UPDATE workflow_status SET priority = {value} WHERE workflow_uuid = 'checkout-1'"
    )
    frame = client.workflows(limit=None).set_index("workflow_id").loc[before.index]
    assert pd.isna(frame.loc["checkout-1", "priority"])
    rest = before.index != "checkout-1"
    ages = ["duration", "queue_wait"]
    pd.testing.assert_frame_equal(frame[rest].drop(columns=ages), before[rest].drop(columns=ages))


def test_broken_utf8_is_replaced(sqlite_changed: Change) -> None:
    client = sqlite_changed(
        "UPDATE workflow_status SET name = CAST(x'ff41' AS TEXT) WHERE workflow_uuid = 'holder'"
    )
    frame = client.workflows(limit=None).set_index("workflow_id")
    assert frame.loc["holder", "name"] == "\ufffdA"
    assert frame.loc["checkout-1", "name"] == "checkout"


@pytest.mark.parametrize(
    ("kind", "using", "year"), [("text", "'abc'", None), ("float8", "1.5", 1970)]
)
def test_a_column_of_another_type_on_postgres(
    postgres_changed: Change, kind: str, using: str, year: int | None
) -> None:
    client = postgres_changed(
        "ALTER TABLE workflow_status ALTER created_at DROP DEFAULT",
        f"ALTER TABLE workflow_status ALTER created_at TYPE {kind} USING {using}",
    )
    years = client.workflows(limit=None)["created_at"].dt.year
    assert years.isna().all() if year is None else (years == year).all()
    if year is None:
        with pytest.raises(dn.NotebookError):
            client.workflows(start_time="1h")


@pytest.mark.parametrize("version", ["abc", None])
def test_a_non_numeric_revision_is_an_error(changed: Change, version: str | None) -> None:
    value = "NULL" if version is None else f"'{version}'"
    statements = ["DROP TABLE dbos_migrations", "CREATE TABLE dbos_migrations (version text)"]
    client = changed(*statements, f"INSERT INTO dbos_migrations VALUES ({value})")
    assert client.catalog.revision is None
    assert "unknown" in client._repr_html_()


def test_tables_without_required_columns_are_an_error(changed: Change) -> None:
    with pytest.raises(dn.NotDBOSDatabaseError, match="lacks created_at, updated_at"):
        changed(
            "ALTER TABLE workflow_status RENAME TO elsewhere",
            "CREATE VIEW workflow_status AS SELECT workflow_uuid, status FROM elsewhere",
        )
    client = changed(
        "ALTER TABLE operation_outputs RENAME TO elsewhere",
        "CREATE VIEW operation_outputs AS SELECT function_id FROM elsewhere",
    )
    assert len(client.workflows()) == len(client.tree("checkout-1")) + 23
    with pytest.raises(dn.NotDBOSDatabaseError, match="operation_outputs lacks"):
        client.steps("checkout-1")
    with pytest.raises(dn.NotDBOSDatabaseError, match="operation_outputs lacks"):
        client.step_statistics()


# ---- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [HUGE, -HUGE - 1, 253_402_300_800_000, 1_790_000_000_000_000])
def test_a_time_outside_the_calendar_is_missing(changed: Change, moment: int) -> None:
    times = "created_at", "updated_at", "started_at_epoch_ms", "completed_at", "workflow_timeout_ms"
    one = "WHERE workflow_uuid = 'checkout-1'"
    client = changed(
        f"UPDATE workflow_status SET {', '.join(f'{name} = {moment}' for name in times)} {one}",
        f"UPDATE operation_outputs SET started_at_epoch_ms = {moment} {one}",
        f"UPDATE notifications SET created_at_epoch_ms = {moment}",
    )
    frame = client.workflows(limit=None).set_index("workflow_id")
    row = frame.loc["checkout-1", ["created_at", "updated_at", "dequeued_at", "duration"]]
    assert row.isna().all()
    assert frame["created_at"].isna().sum() == 1
    for each in (
        client.workflows(limit=None),
        client.steps("checkout-1"),
        client.messages(),
        client.executors(),
        client.queues(),
        client.counts(bucket="1h"),
        client.step_statistics(),
        client.workflow("checkout-1").timeline_rows,
    ):
        shown(each)
    assert client.executors()["last_seen"].notna().all()
    assert client.step_statistics()["total"].max() < pd.Timedelta("1D")
    flow = client.workflow("checkout-1")
    assert "checkout-1" in str(flow) + flow._repr_html_()
    client._repr_html_()


# ---- arguments -----------------------------------------------------------------------------------


def test_attribute_filters_have_a_depth_limit(db: dn.Client) -> None:
    def nested(levels: int) -> dict[str, Any]:
        made: Any = functools.reduce(lambda inner, _: {"a": inner}, range(levels), 1)
        return dict(made)

    assert db.workflows(attributes=nested(6)).empty
    for levels in (7, 3_000, 100_000):
        with pytest.raises(dn.FilterError, match="nested"):
            db.workflows(attributes=nested(levels))


def test_numbers_too_large_for_the_database(db: dn.Client) -> None:
    for number in (10**30, -(10**30), 10**400):
        assert db.workflows(attributes={"a": number}).empty
    assert len(db.workflows(limit=2**70)) == 26
    assert db.workflows(offset=2**70).empty
