"""Failures by cause: against pandas over the rows, and of workflows that a real DBOS ran."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from dbos._error import DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded
from servers import PostgresServer
from written_runs import HOUR, NOW, WrittenDatabase, run, written_postgres, written_sqlite

import dbos_notebook as dn
from dbos_notebook.analysis.fingerprints import fingerprint
from dbos_notebook.errors import FilterError

KEYS = ["name", "failed_step", "error_type", "message", "status"]
COUNTS = ["count", "unaddressed", "failed_ancestors"]


def by_pandas(db: dn.Client, **filters: Any) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Group failed workflows by cause with a loop over the rows of a listing."""
    rows = db.workflows(limit=None).set_index("workflow_id", drop=False)
    selected = db.workflows(limit=None, **filters)
    runs = selected["name"].value_counts()
    failed = selected[selected["status"].isin(["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])]
    origins: dict[str, list[str]] = {}
    for key, began in zip(failed["workflow_id"], failed["failed_workflow_id"], strict=True):
        origin = began if isinstance(began, str) else key
        origins.setdefault(origin, []).extend([key] if key != origin else [])
    states = db.repair_status(list(origins)).set_index("workflow_id")["state"]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for key in origins:
        row = rows.loc[key]
        message = row["error_message"]
        text = fingerprint(message, key) if isinstance(message, str) else None
        cause = (row["name"], row["failed_step"], row["error_type"], text, row["status"])
        groups.setdefault(tuple(x if isinstance(x, str) else None for x in cause), []).append(key)
    chosen = set(failed["workflow_id"])
    return {
        cause: (
            len(keys),
            sum(states[key] in ("unaddressed", "failed again") for key in keys),
            sum(len(origins[key]) for key in keys),
            sum(key in chosen for key in keys) / runs.get(cause[0], 1) or None,
            set(rows.loc[keys, "app_version"].dropna()),
            set(keys),
            {above for key in keys for above in origins[key]},
        )
        for cause, keys in groups.items()
    }


def found(frame: pd.DataFrame) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in frame.to_dict("records"):
        assert row["example"] in row["workflow_ids"]
        assert len(row["workflow_ids"]) == row["count"]
        assert len(row["ancestor_ids"]) == row["failed_ancestors"]
        cause = tuple(row[key] if isinstance(row[key], str) else None for key in KEYS)
        assert cause not in rows
        rows[cause] = (
            *(row[name] for name in COUNTS),
            None if pd.isna(row["share"]) else row["share"],
            set(row["versions"]),
            set(row["workflow_ids"]),
            set(row["ancestor_ids"]),
        )
    return rows


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"has_parent": False},
    {"name": ["fulfil", "ship"]},
    {"app_version": "1.0"},
    {"is_fork": True},
]


@pytest.mark.parametrize("filters", SELECTIONS)
def test_failures_are_those_of_the_rows(shop: dn.Client, filters: dict[str, Any]) -> None:
    frame = shop.failures(**filters)
    assert found(frame) == by_pandas(shop, **filters)
    assert frame["count"].is_monotonic_decreasing


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_failures_of_every_version(request: pytest.FixtureRequest, kind: str, version: str) -> None:
    url = request.getfixturevalue(f"corpus_{kind}")(version)
    with dn.connect(url) as db:
        frame = db.failures()
        assert found(frame) == by_pandas(db)
        rows = db.workflows(limit=None).set_index("workflow_id")
        for row in frame.to_dict("records"):
            # Before dbos 2.31 the last change of the row is its end.
            of = rows.loc[row["workflow_ids"]]
            ended = of["completed_at"].fillna(of["updated_at"])
            assert (row["first_seen"], row["last_seen"]) == (ended.min(), ended.max())
            assert of.loc[row["example"], "created_at"] == of["created_at"].max()


def test_the_dtypes_do_not_depend_on_the_rows(shop: dn.Client) -> None:
    full, empty = shop.failures(bucket="1h"), shop.failures(name="no such workflow", bucket="1h")
    assert full.dtypes.astype(str).to_dict() == empty.dtypes.astype(str).to_dict()
    assert not len(empty)
    assert len(full)
    assert str(full["first_seen"].dtype) == "datetime64[ms, UTC]"
    assert full.attrs == empty.attrs == {"dbos_notebook": "failures"}


@pytest.mark.parametrize("time", ["created_at", "completed_at"])
def test_buckets_count_what_failed_in_them(shop: dn.Client, time: str) -> None:
    frame = shop.failures(bucket="1s", time=time)
    rows = shop.workflows(limit=None).set_index("workflow_id")
    starts = rows[time].dt.floor("1s")
    whole = shop.failures().groupby(KEYS, observed=True, dropna=False)["count"].sum()
    assert frame.groupby(KEYS, observed=True, dropna=False)["count"].sum().equals(whole)
    assert frame[time].is_monotonic_increasing
    runs = starts.groupby([rows["name"], starts], observed=True).size()
    for row in frame.to_dict("records"):
        assert set(starts[row["workflow_ids"]]) == {row[time]}
        assert row["share"] == row["count"] / runs[row["name"], row[time]]


def test_other_arguments_are_refused(shop: dn.Client) -> None:
    with pytest.raises(FilterError, match="'SUCCESS' is no failure"):
        shop.failures(status="SUCCESS")
    with pytest.raises(FilterError, match="time='creatd_at' is not one"):
        shop.failures(bucket="1h", time="creatd_at")
    with pytest.raises(FilterError, match="bucket='often'"):
        shop.failures(bucket="often")


# Failures that a real DBOS recorded: see tables/activity_application.py.


@pytest.fixture(params=["sqlite", "postgres"])
def failing(request: pytest.FixtureRequest) -> Iterator[dn.Client]:
    with dn.connect(request.getfixturevalue(f"failing_{request.param}")) as client:
        yield client


def test_a_failure_counts_where_it_began(failing: dn.Client) -> None:
    frame = failing.failures()
    assert found(frame) == by_pandas(failing)
    causes = frame.set_index(["name", "failed_step"])
    # The retried step failed in a run of its own, in a grandchild, and in two children that a
    # parent survived or did not await. The wrapper is not the error, and the number no cause.
    retried = causes.loc[("retried", "shop.steps.fetch")]
    assert (retried["error_type"], retried["message"]) == (
        "__main__.UpstreamError",
        "<int> for <int>",
    )
    assert (retried["count"], retried["share"]) == (4, 1.0)
    assert sorted(retried["ancestor_ids"]) == ["outer", "outer-2"]
    # A tolerant parent failed by itself, once.
    assert causes.loc[("tolerant", "charge"), ["count", "failed_ancestors"]].tolist() == [1, 0]
    own = frame[(frame["name"] == "own_code") & frame["failed_step"].isna()].iloc[0]
    assert (own["count"], own["ancestor_ids"]) == (2, ["child_code"])


def test_filters_select_the_failures_that_are_traced(failing: dn.Client) -> None:
    (cause,) = failing.failures(name="outer").to_dict("records")
    assert (cause["name"], cause["workflow_ids"]) == ("retried", ["outer-2-1"])
    assert cause["ancestor_ids"] == ["outer"]
    # No run of that workflow is selected, so there is nothing that it is a share of.
    assert pd.isna(cause["share"])
    (part,) = failing.failures(name="retried", error="503 for 2").to_dict("records")
    assert (part["count"], part["share"]) == (1, 0.25)


def test_a_group_stands_for_its_workflows(failing: dn.Client) -> None:
    frame = failing.failures()
    group = frame[frame["name"] == "retried"].iloc[0]
    assert sorted(failing.workflows(group)["workflow_id"]) == sorted(group["workflow_ids"])
    everything = failing.workflows(status="ERROR")["workflow_id"]
    counted = {key for ids in frame["workflow_ids"] for key in ids}
    assert set(failing.workflows(frame)["workflow_id"]) == counted < set(everything)
    forked = failing.fork(group, "failed", plan=True)
    assert {item.workflow_id for item in forked.items} == set(group["workflow_ids"])
    # A repair includes the workflows above, which failed because of it.
    repaired = failing.repair(group, plan=True)
    assert {item.workflow_id for item in repaired.items} == {
        *group["workflow_ids"],
        *group["ancestor_ids"],
    }
    assert failing.steps(frame.head(1))["workflow_id"].isin(group["workflow_ids"]).any()
    assert len(failing.workflows(failing.workflows().iloc[0])) == 1


def test_an_empty_group_acts_on_nothing(failing: dn.Client) -> None:
    nothing = failing.failures(name="no such workflow")
    assert failing.workflows(nothing).empty
    for plan in (
        failing.repair(nothing, plan=True),
        failing.fork(nothing, "failed", plan=True),
        failing.cancel(nothing, plan=True),
        failing.delete(nothing, plan=True),
    ):
        assert not plan.items
    no_ids = failing.failures().iloc[0].copy()
    no_ids["workflow_ids"] = no_ids["ancestor_ids"] = []
    assert not failing.repair(no_ids, plan=True).items


# Rows that are written by hand.


def recorded(error: Exception) -> str:
    return base64.b64encode(pickle.dumps(error)).decode()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WrittenDatabase]:
    if request.param == "sqlite":
        yield written_sqlite(tmp_path_factory.mktemp("failures"))
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        yield written_postgres(server)


def failed(key: str, created: int = NOW - HOUR, **values: Any) -> dict[str, Any]:
    error = recorded(ValueError(f"run-{key} failed {len(key)} times"))
    return run(
        key,
        created,
        **{"status": "ERROR", "error": error, "completed_at": created + 5, **values},
        serialization="py_pickle",
    )


def step(key: str, number: int, name: str, child: str, error: str) -> dict[str, Any]:
    return {
        "workflow_uuid": f"run-{key}",
        "function_id": number,
        "function_name": name,
        "child_workflow_id": f"run-{child}",
        "error": error,
        "serialization": "py_pickle",
    }


def test_forks_say_what_is_addressed(written: WrittenDatabase) -> None:
    keys = ("alone", "repaired", "forked", "again", "covered")
    written.write(
        [
            *(
                failed(key, parent_workflow_id="run-top" if key == "covered" else None)
                for key in keys
            ),
            run("top", NOW - HOUR, name="top", completed_at=NOW),
            run("one", NOW, forked_from="run-repaired", name="fork"),
            run("two", NOW, forked_from="run-forked", status="PENDING", name="fork"),
            failed("three", NOW, forked_from="run-again", name="fork"),
            run("four", NOW, forked_from="run-top", name="fork"),
        ]
    )
    with dn.connect(written.url) as db:
        assert found(db.failures()) == by_pandas(db)
        causes = db.failures().set_index("name")
        # The fork that failed again is a failure of its own, and its original stays open.
        assert causes["count"].to_dict() == {"work": 5, "fork": 1}
        assert causes["unaddressed"].to_dict() == {"work": 2, "fork": 1}
        assert causes.loc["work", "message"] == "<workflow_id> failed <int> times"


def test_a_child_that_ran_out_of_attempts_is_the_cause(written: WrittenDatabase) -> None:
    error = recorded(DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded("run-child"))
    stopped = {"status": "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "completed_at": NOW, "name": "crashes"}
    written.write(
        [
            failed("top", name="top", error=error),
            failed("middle", name="middle", error=error),
            run("child", NOW - HOUR, **stopped),
            run("cancelled", NOW - HOUR, status="CANCELLED", completed_at=NOW),
        ],
        operation_outputs=[
            step("top", 1, "DBOS.getResult", "middle", error),
            step("middle", 1, "DBOS.getResult", "child", error),
        ],
    )
    with dn.connect(written.url) as db:
        (cause,) = db.failures().to_dict("records")
        assert (cause["name"], cause["status"]) == ("crashes", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
        assert pd.isna([cause[key] for key in ("failed_step", "error_type", "message")]).all()
        assert (cause["workflow_ids"], cause["count"]) == (["run-child"], 1)
        assert sorted(cause["ancestor_ids"]) == ["run-middle", "run-top"]
        # Also if the filters do not select it.
        (cause,) = db.failures(name="top").to_dict("records")
        assert (cause["workflow_ids"], cause["ancestor_ids"]) == (["run-child"], ["run-top"])
        (cause,) = db.failures(status="CANCELLED").to_dict("records")
        assert (cause["workflow_ids"], cause["status"]) == (["run-cancelled"], "CANCELLED")


def test_unusual_rows(written: WrittenDatabase) -> None:
    written.write(
        [
            failed("no_error", error=None, name=None),
            failed("empty", error=""),
            failed("no_end", completed_at=None, updated_at=NOW),
            failed("circle", name="circle"),
            failed("skewed", completed_at=NOW - 2 * HOUR, name="clock"),
        ],
        operation_outputs=[
            step("circle", 1, "DBOS.getResult", "circle", failed("circle")["error"])
        ],
    )
    with dn.connect(written.url) as db:
        frame = db.failures()
        assert found(frame) == by_pandas(db)
        unnamed = frame[frame["name"].isna()].iloc[0]
        assert unnamed["count"] == 1
        assert pd.isna(unnamed["message"])
        ends = dict(zip(frame["example"], frame["last_seen"], strict=True))
        assert ends["run-skewed"] == pd.Timestamp(NOW - 2 * HOUR, unit="ms", tz="UTC")
        assert ends["run-no_end"] == pd.Timestamp(NOW, unit="ms", tz="UTC")
        # A run without the time that is bucketed is not counted.
        counted = db.failures(bucket="1h", time="completed_at")
        assert counted["count"].sum() == 4
