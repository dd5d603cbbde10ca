"""Our listings against DBOSClient's own, on every filter and on random combinations.

The databases are those that the demo application and dbos 3.4.0 wrote. An order among equal
``created_at`` is ours alone, so rows are compared by ID, and windows by their times.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psycopg
import pytest
from budgets import examples
from dbos import DBOSClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from reference import (
    STEP_FIELDS,
    WORKFLOW_FIELDS,
    by_id,
    contains,
    dbos_reads_exactly,
    dbos_records,
    instant,
    our_records,
)
from servers import CORPUS, PostgresServer

import dbos_notebook as dn

HOSTILE = ["o'brien", "100%", "emoji☃", "_", "a\\b", "%", "", '"; DROP TABLE x; --', "\n"]
# Filter -> the field of DBOS's record whose values it is drawn from.
LISTS = {
    "workflow_ids": "workflow_id",
    "status": "status",
    "name": "name",
    "app_version": "app_version",
    "forked_from": "forked_from",
    "parent_workflow_id": "parent_workflow_id",
    "user": "authenticated_user",
    "queue_name": "queue_name",
    "executor_id": "executor_id",
    "schedule_name": "schedule_name",
    "application_name": "application_name",
    "workflow_id_prefix": "workflow_id",
}
TIMES = {
    ("start_time", "end_time"): "created_at",
    ("completed_after", "completed_before"): "completed_at",
    ("dequeued_after", "dequeued_before"): "dequeued_at",
}
FLAGS = ["was_forked_from", "is_fork", "has_parent"]
# DBOSClient.list_queued_workflows has no such filters.
NOT_FOR_QUEUED = {"was_forked_from", "schedule_name", "queues_only"}
STATUSES = [
    "PENDING",
    "SUCCESS",
    "ERROR",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    "CANCELLED",
    "ENQUEUED",
    "DELAYED",
]
few = examples(60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@dataclass
class Pair:
    """One database, read by us and by DBOS."""

    ours: dn.Client
    dbos: DBOSClient
    everything: list[dict[str, Any]]
    on_sqlite: bool

    def values(self, field: str) -> list[Any]:
        """Return the distinct values that a field has in this database."""
        return sorted({row[field] for row in self.everything if row[field] is not None})

    def theirs(self, **filters: Any) -> list[dict[str, Any]]:
        return dbos_records(
            self.dbos.list_workflows(load_input=False, load_output=False, **filters)
        )

    def theirs_queued(self, **filters: Any) -> list[dict[str, Any]]:
        return dbos_records(
            self.dbos.list_queued_workflows(load_input=False, load_output=False, **filters)
        )


@pytest.fixture(
    scope="session", params=["old_sqlite", "old_postgres", "shop_sqlite", "shop_postgres"]
)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The same database through our client and through DBOS's."""
    database = request.getfixturevalue(request.param)
    on_sqlite = request.param.endswith("sqlite")
    dbos = DBOSClient(
        system_database_url=f"sqlite:///{database}" if on_sqlite else database,
        retry_connection_errors=False,
    )
    with dn.connect(database) as ours:
        pair = Pair(ours, dbos, [], on_sqlite)
        pair.everything = pair.theirs()
        assert len(pair.everything) > 20
        yield pair
    dbos.destroy()


def same(ours: pd.DataFrame, theirs: list[dict[str, Any]], filters: dict[str, Any]) -> None:
    """Demand the same rows, every field, and newest (or oldest) first."""
    records = our_records(ours, WORKFLOW_FIELDS)
    assert by_id(records) == by_id(theirs), filters
    times = [row["created_at"] for row in records]
    assert times == sorted(times, reverse=filters.get("sort_desc", True)), filters


def one_or_many(values: list[str]) -> st.SearchStrategy[Any]:
    one = st.sampled_from(values)
    return one | st.lists(one, min_size=1, max_size=4)


def filters_of(pair: Pair) -> st.SearchStrategy[dict[str, Any]]:
    """Draw filters whose values are this database's own, and hostile ones."""
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in LISTS.items():
        own = pair.values(field)
        if name == "status":
            optional[name] = one_or_many(STATUSES)
        elif name == "workflow_id_prefix":
            prefixes = sorted({value[:n] for value in own for n in (1, 3, 9)}) + own
            # An empty prefix is no filter to neither side; the other hostile ones match nothing.
            optional[name] = one_or_many(prefixes + [text for text in HOSTILE if text])
        else:
            # Own values twice as often, or hostile ones would empty most results.
            optional[name] = one_or_many(own * 2 + HOSTILE)
    for flag in FLAGS:
        optional[flag] = st.booleans()
    optional["queues_only"] = st.booleans()
    optional["sort_desc"] = st.booleans()
    for (after, before), field in TIMES.items():
        near = {value + step for value in pair.values(field) for step in (-1, 0, 1)}
        moments = sorted(filter(dbos_reads_exactly, near)) or [0]
        optional[f"{after}|{before}"] = st.tuples(
            st.none() | st.sampled_from(moments), st.none() | st.sampled_from(moments)
        ).map(lambda bounds: sorted(bounds) if None not in bounds else list(bounds))
    return (
        st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True)
        .flatmap(lambda names: st.fixed_dictionaries({name: optional[name] for name in names}))
        .map(spread)
    )


def spread(drawn: dict[str, Any]) -> dict[str, Any]:
    """Turn drawn pairs of times into the two filters, as ISO text."""
    filters: dict[str, Any] = {}
    for name, value in drawn.items():
        if "|" not in name:
            filters[name] = value
            continue
        for each, moment in zip(name.split("|"), value, strict=True):
            if moment is not None:
                filters[each] = instant(moment).isoformat()
    return filters


def for_dbos(filters: dict[str, Any]) -> dict[str, Any]:
    """DBOS takes an empty text for no filter; one that matches nothing says the same."""
    never = "\x01never"
    changed = dict(filters)
    for name in LISTS:
        if changed.get(name) == "":
            changed[name] = [never] if name != "workflow_id_prefix" else ""
        if name == "workflow_ids" and isinstance(changed.get(name), str):
            changed[name] = [changed[name]]
    return {"sort_desc": True} | changed


@pytest.mark.parametrize("name", sorted(LISTS))
def test_each_list_filter_alone(pair: Pair, name: str) -> None:
    own = STATUSES if name == "status" else pair.values(LISTS[name])[:8] + HOSTILE
    if name == "workflow_id_prefix":
        own = [value[:3] for value in own if value] + [value for value in own if value]
    for value in own:
        filters = {name: value}
        same(pair.ours.workflows(**filters, limit=None), pair.theirs(**for_dbos(filters)), filters)
    filters = {name: own}
    same(pair.ours.workflows(**filters, limit=None), pair.theirs(**for_dbos(filters)), filters)


@pytest.mark.parametrize("name", [*FLAGS, "queues_only", "sort_desc"])
@pytest.mark.parametrize("value", [True, False])
def test_each_flag_alone(pair: Pair, name: str, value: bool) -> None:
    filters = {name: value}
    same(pair.ours.workflows(**filters, limit=None), pair.theirs(**for_dbos(filters)), filters)


@pytest.mark.parametrize("name", [name for bounds in TIMES for name in bounds])
def test_each_time_filter_alone(pair: Pair, name: str) -> None:
    field = next(field for bounds, field in TIMES.items() if name in bounds)
    moments = list(filter(dbos_reads_exactly, pair.values(field)))
    assert moments, f"no {field} to filter by"
    for moment in moments[:: max(1, len(moments) // 6)]:
        filters = {name: instant(moment).isoformat()}
        theirs = pair.theirs(**for_dbos(filters))
        assert theirs, "the bound is inclusive"
        same(pair.ours.workflows(**filters, limit=None), theirs, filters)


@few
@given(data=st.data())
def test_random_combinations(pair: Pair, data: st.DataObject) -> None:
    filters = data.draw(filters_of(pair))
    same(pair.ours.workflows(**filters, limit=None), pair.theirs(**for_dbos(filters)), filters)


@few
@given(data=st.data(), limit=st.integers(1, 12), offset=st.integers(0, 12))
def test_random_windows(pair: Pair, data: st.DataObject, limit: int, offset: int) -> None:
    filters = data.draw(filters_of(pair))
    ours = pair.ours.workflows(limit=limit, offset=offset, **filters)
    theirs = pair.theirs(**for_dbos(filters), limit=limit, offset=offset)
    times = [row["created_at"] for row in our_records(ours, ["created_at"])]
    assert times == [row["created_at"] for row in theirs], filters
    whole = by_id(pair.theirs(**for_dbos(filters)))
    assert all(row == whole[row["workflow_id"]] for row in our_records(ours, WORKFLOW_FIELDS))
    assert ours.attrs["truncated"] is (len(whole) > offset + len(ours)), filters


@few
@given(data=st.data())
def test_queued(pair: Pair, data: st.DataObject) -> None:
    drawn = data.draw(filters_of(pair))
    filters = {name: value for name, value in drawn.items() if name not in NOT_FOR_QUEUED}
    ours = pair.ours.queued(**filters, limit=None)
    same(ours, pair.theirs_queued(**for_dbos(filters)), filters)


def test_queued_without_filters(pair: Pair) -> None:
    theirs = pair.theirs_queued(sort_desc=True)
    assert theirs
    same(pair.ours.queued(limit=None), theirs, {})


def test_steps_of_all_workflows_in_one_call(pair: Pair) -> None:
    frame = pair.ours.steps(pair.ours.workflows(limit=None))
    ours = our_records(frame, ["workflow_id", "status", *STEP_FIELDS])
    expected = []
    for workflow_id in pair.values("workflow_id"):
        for step in pair.dbos.list_workflow_steps(workflow_id):
            status = "SUCCESS" if step["error"] is None else "ERROR"
            row = {field: step[field] for field in STEP_FIELDS}
            expected.append({"workflow_id": workflow_id, "status": status, **row})
    key = ("workflow_id", "function_id")
    assert sorted(ours, key=lambda row: tuple(row[k] for k in key)) == sorted(
        expected, key=lambda row: tuple(row[k] for k in key)
    )
    assert {"SUCCESS", "ERROR"} <= {row["status"] for row in ours}


def test_steps_of_one_workflow_are_in_order(pair: Pair) -> None:
    steps = pair.ours.steps(pair.ours.workflows(limit=None))
    busiest = steps["workflow_id"].value_counts().index[0]
    one = pair.ours.steps(busiest)
    assert len(one) > 2
    theirs = [step["function_id"] for step in pair.dbos.list_workflow_steps(busiest)]
    assert one["function_id"].tolist() == theirs


json_scalars = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["acme", "a'b", "☃", "", "1"])
)


def attribute_filters(pair: Pair) -> st.SearchStrategy[dict[str, Any]]:
    """Draw parts of attributes that exist, and JSON that mostly does not."""
    own = [row["attributes"] for row in pair.everything if row["attributes"]]
    parts = [{key: value} for each in own for key, value in each.items()] + own
    deep = st.recursive(
        json_scalars,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "tier"]), inner)
        ),
        max_leaves=4,
    )
    keys = [*sorted({key for each in own for key in each}), "a.b", "it's", '"', "$"]
    made = st.dictionaries(st.sampled_from(keys), deep, min_size=1, max_size=2)
    return st.sampled_from(parts) | made


@few
@given(data=st.data())
def test_attributes(pair: Pair, data: st.DataObject) -> None:
    wanted = data.draw(attribute_filters(pair))
    expected = [
        row
        for row in pair.everything
        if row["attributes"] is not None and contains(row["attributes"], wanted)
    ]
    if not pair.on_sqlite:  # DBOS refuses this filter on SQLite
        assert by_id(pair.theirs(attributes=wanted)) == by_id(expected), "the reference is wrong"
    same(pair.ours.workflows(attributes=wanted, limit=None), expected, {"attributes": wanted})


def test_attributes_that_exist_are_found(pair: Pair) -> None:
    own = [row for row in pair.everything if row["attributes"]]
    assert own
    for row in own[:5]:
        found = pair.ours.workflows(attributes=row["attributes"], limit=None)
        assert row["workflow_id"] in set(found["workflow_id"]), json.dumps(row["attributes"])


RICH = [
    {"x": 1.5, "y": 2, "z": -0.0, "flag": True, "none": None},
    {"x": 1, "y": 2.0, "flag": False, "text": "1"},
    {"list": [1, 2.5, "a", None, True, [3], {"a": [], "b": {"c": "☃"}}], "x": "1.5"},
    {"a.b": 1, "it's": '"', "": "", "$": {"$": {}}, "list": []},
    {},
]
WANTED = [
    *RICH,
    {"x": 1.5},
    {"x": 1.0},
    {"y": 2},
    {"flag": 1},
    {"flag": True},
    {"none": None},
    {"x": None},
    {"list": []},
    {"list": [2.5]},
    {"list": [[3]]},
    {"list": [[]]},
    {"list": [3]},
    {"list": [{"b": {}}, True]},
    {"list": [{"b": {"c": "☃"}}]},
    {"list": [{"b": {"c": "x"}}]},
    {"list": {}},
    {"list": "a"},
    {"$": {"$": {}}},
    {"a.b": 1},
    {"a": {"b": 1}},
]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_containment_in_rich_attributes(request: pytest.FixtureRequest, backend: str) -> None:
    """Numbers, nesting and odd keys, which the databases above hardly hold."""
    database = request.getfixturevalue(f"corpus_{backend}")("3.4.0")
    documents = {f"checkout-{n}": document for n, document in enumerate(RICH[:4], start=1)}
    documents["waits"] = RICH[4]
    if backend == "sqlite":
        with sqlite3.connect(database) as connection:
            for key, document in documents.items():
                connection.execute(
                    "UPDATE workflow_status SET attributes = ? WHERE workflow_uuid = ?",
                    [json.dumps(document), key],
                )
        connection.close()
    else:
        with psycopg.connect(database) as connection:
            for key, document in documents.items():
                connection.execute(
                    "UPDATE dbos.workflow_status SET attributes = %s WHERE workflow_uuid = %s",
                    [json.dumps(document), key],
                )
    with dn.connect(database) as db:
        everything = db.workflows(limit=None).set_index("workflow_id")["attributes"]
        assert {key: everything[key] for key in documents} == documents
        for wanted in filter(None, WANTED):
            found = set(db.workflows(attributes=wanted)["workflow_id"])
            expected = {key for key, value in everything.items() if contains(value, wanted)}
            assert found == expected, wanted


def test_a_database_name_with_an_at_sign_is_read_as_dbos_reads_it(
    postgres_server: PostgresServer,
) -> None:
    name = postgres_server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")
    with postgres_server.admin() as connection:
        connection.execute(f'ALTER DATABASE {name} RENAME TO "shop@eu"'.encode())
    url = postgres_server.url("shop").replace("/shop", "/shop@eu")
    client = DBOSClient(system_database_url=url)
    expected = [each.workflow_id for each in client.list_workflows(status="ERROR")]
    client.destroy()
    assert expected
    with dn.connect(url) as db:
        assert set(db.workflows(status="ERROR", limit=None)["workflow_id"]) == set(expected)
