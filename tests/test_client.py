"""What a person sees of the Client: listings, the card, dtypes, counts, trees, threads."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import dbos_notebook as dn
from benchmarks.databases import Shape, fill_sqlite
from dbos_notebook.status import STATUSES
from dbos_notebook.tables.columns import FRAMES, PAYLOAD, STEP, WORKFLOW, Column
from dbos_notebook.tables.filters import LIST_FILTERS

EMPTY = [
    [],
    (),
    set(),
    pd.Series([], dtype="str"),
    pd.DataFrame({"workflow_id": pd.Series([], dtype="str")}),
    iter([]),
]
MARKUP = "<script>alert('x')</script>&\"<b>"


@pytest.fixture
def hostile(corpus_sqlite: Callable[[str], Path]) -> Path:
    """A database whose names are markup and whose IDs are LIKE patterns."""
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE workflow_status SET name = ?, queue_name = ?, executor_id = ?, "
            "application_version = ?, application_name = ? WHERE queue_name = 'slow'",
            [MARKUP] * 5,
        )
        connection.execute("UPDATE queues SET name = ? WHERE name = 'slow'", [MARKUP])
        for old, new in (("checkout-1", "50%_off"), ("checkout-2", "50xyoff"), ("waits", "a\\b")):
            connection.execute(
                "UPDATE workflow_status SET workflow_uuid = ? WHERE workflow_uuid = ?", [new, old]
            )
    connection.close()
    return path


# ---- listings ------------------------------------------------------------------------------------


def test_listings_are_newest_first_and_limited(db: dn.Client) -> None:
    everything = db.workflows(limit=None)
    assert everything.attrs["truncated"] is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # who asks for five rows need not be told
        some = db.workflows(limit=5)
    assert some.attrs["truncated"] is True
    assert some["workflow_id"].tolist() == everything["workflow_id"].tolist()[:5]
    assert everything["created_at"].is_monotonic_decreasing


def test_truncation_by_the_default_limit_warns(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    fill_sqlite(path, Shape(1_500, 10, 100))
    with dn.connect(path) as client:
        with pytest.warns(
            dn.TruncatedWarning, match="Showing the first 1,000 workflows; there are more"
        ) as caught:
            cut = client.workflows()
        assert caught[0].filename == __file__, "the warning points at the caller"
        assert (len(cut), cut.attrs["truncated"]) == (1_000, True)
        assert len(client.workflows(limit=None)) == 1_500


def test_no_warning_without_truncation(db: dn.Client) -> None:
    count = len(db.workflows(limit=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = db.workflows(limit=count)
        assert db.workflows().attrs["truncated"] is False
    assert len(exact) == count
    assert exact.attrs["truncated"] is False


def test_pages_cover_everything_once(db: dn.Client) -> None:
    everything = db.workflows(limit=None)["workflow_id"].tolist()
    pages: list[str] = []
    for offset in range(0, len(everything), 4):
        pages += db.workflows(limit=4, offset=offset)["workflow_id"].tolist()
    assert pages == everything
    assert len(db.workflows(offset=10_000)) == 0


@pytest.mark.parametrize("name", LIST_FILTERS)
@pytest.mark.parametrize("empty", EMPTY, ids=lambda value: type(value).__name__)
def test_an_empty_list_matches_nothing(db: dn.Client, name: str, empty: object) -> None:
    frame = db.workflows(**{name: empty}, limit=None)
    assert len(frame) == 0
    assert list(frame.columns) == [column.name for column in WORKFLOW]
    assert db.counts(**{name: empty})["count"].sum() == 0
    assert len(db.queued(**{name: empty})) == 0


@pytest.mark.parametrize("empty", EMPTY, ids=lambda value: type(value).__name__)
def test_an_empty_selection_has_no_steps_or_events(db: dn.Client, empty: object) -> None:
    empty = list(empty) if hasattr(empty, "__next__") else empty
    assert len(db.steps(empty)) == 0
    assert len(db.steps(empty, children=True)) == 0
    assert len(db.events(empty)) == 0
    assert len(db.events()) > 0
    assert len(db.messages(empty)) == 0
    assert len(db.streams(empty)) == 0


def test_a_selection_may_be_an_id_a_list_a_series_or_a_frame(db: dn.Client) -> None:
    frame = db.workflows(workflow_id_prefix="checkout-1")
    assert len(frame) > 1
    ids = frame["workflow_id"].tolist()
    expected = db.steps(ids)
    assert len(expected) > len(ids)
    for given in (frame, frame["workflow_id"], tuple(ids), iter(ids), set(ids), pd.Index(ids)):
        pd.testing.assert_frame_equal(db.steps(given), expected)
    one = db.steps("checkout-1")
    pd.testing.assert_frame_equal(
        one,
        expected[expected["workflow_id"] == "checkout-1"].reset_index(drop=True),
        check_categorical=False,
    )


def test_steps_with_children_are_those_of_the_tree(db: dn.Client) -> None:
    with_children = db.steps("checkout-1", children=True)
    pd.testing.assert_frame_equal(
        with_children, db.steps(sorted(db.tree("checkout-1").workflow_id))
    )
    assert with_children["workflow_id"].nunique() == 3


@pytest.mark.parametrize(
    "age",
    ["24h", "7d", dt.timedelta(days=1), pd.Timedelta("2h"), dt.date(2036, 1, 1)],
    ids=str,
)
def test_ages_and_dates_bound_a_listing(db: dn.Client, age: object) -> None:
    after = db.workflows(start_time=age, limit=None)
    before = db.workflows(end_time=age, limit=None)
    assert len(after) + len(before) == len(db.workflows(limit=None))


def test_a_timestamp_bounds_a_listing(db: dn.Client) -> None:
    everything = db.workflows(limit=None)
    middle = everything["created_at"].iloc[len(everything) // 2]
    found = db.workflows(start_time=middle, limit=None)
    assert len(found) == (everything["created_at"] >= middle).sum()
    assert 0 < len(found) < len(everything)
    local = middle.tz_convert("Asia/Kolkata")
    assert len(db.workflows(start_time=local, limit=None)) == len(found)


def test_chunks_add_up_to_the_listing(db: dn.Client) -> None:
    whole = db.workflows(limit=None)
    for chunksize in (1, 7, len(whole), 50_000):
        chunks = list(db.iter_workflows(chunksize=chunksize))
        sizes = [len(chunk) for chunk in chunks]
        assert all(size == chunksize for size in sizes[:-1])
        assert sum(sizes) == len(whole)
        moving = ["duration", "queue_wait"]  # of what still runs, at the moment of the call
        pd.testing.assert_frame_equal(
            pd.concat(chunks, ignore_index=True).drop(columns=moving).astype("object"),
            whole.drop(columns=moving).astype("object"),
        )
    filtered = pd.concat(list(db.iter_workflows(chunksize=2, status="ERROR")))
    assert filtered["workflow_id"].tolist() == db.workflows(status="ERROR")["workflow_id"].tolist()


def test_an_empty_listing_has_no_chunks(db: dn.Client) -> None:
    assert sum(len(chunk) for chunk in db.iter_workflows(workflow_ids=[])) == 0


@pytest.mark.parametrize("chunksize", [0, -1, 1.5])
def test_a_chunk_size_of_zero_is_refused(db: dn.Client, chunksize: object) -> None:
    with pytest.raises(dn.FilterError, match="chunksize"):
        list(db.iter_workflows(chunksize=chunksize))  # type: ignore[arg-type]


# ---- types ---------------------------------------------------------------------------------------


def check_dtypes(frame: pd.DataFrame, columns: tuple[Column, ...]) -> None:
    """Demand the columns and dtypes that the documentation promises."""
    assert list(frame.columns) == [column.name for column in columns]
    for column in columns:
        dtype = frame[column.name].dtype
        if column.kind == "status":
            assert dtype.ordered
            assert dtype.categories.tolist()[:7] == list(STATUSES)
        elif column.kind == "category":
            assert isinstance(dtype, pd.CategoricalDtype), column.name
            assert not dtype.ordered
        else:
            promised = pd.Series([], dtype=column.dtype).dtype
            assert dtype == promised, (column.name, dtype)


def test_column_kinds_have_the_documented_dtypes() -> None:
    kinds = {column.name: column.dtype for column in (*WORKFLOW, *STEP)}
    expected = {
        "workflow_id": "str",
        "status": "category",
        "created_at": "datetime64[ms, UTC]",
        "duration": "timedelta64[ms]",
        "priority": "Int64",
        "attributes": "object",
        "queue_name": "category",
        "was_forked_from": "boolean",
    }
    assert {name: kinds[name] for name in expected} == expected


def test_dtypes_are_as_documented(db: dn.Client) -> None:
    check_dtypes(db.workflows(limit=None), WORKFLOW)
    check_dtypes(db.workflows(load_input=True, load_output=True), WORKFLOW + PAYLOAD)
    check_dtypes(db.steps("checkout-1"), STEP)
    check_dtypes(db.queued(), WORKFLOW)
    check_dtypes(db.tree("checkout-1"), FRAMES["workflows"] + FRAMES["tree"])
    for method in ("queues", "events", "messages", "streams", "schedules", "versions", "executors"):
        check_dtypes(getattr(db, method)(), FRAMES[method])


def test_empty_frames_have_the_same_dtypes(db: dn.Client) -> None:
    check_dtypes(db.workflows(workflow_ids=[]), WORKFLOW)
    check_dtypes(
        db.workflows(workflow_ids=[], load_input=True, load_output=True), WORKFLOW + PAYLOAD
    )
    check_dtypes(db.steps([]), STEP)
    for method in ("events", "messages", "streams"):
        check_dtypes(getattr(db, method)([]), FRAMES[method])


def test_an_unknown_status_is_kept_and_sorted_last(hostile: Path) -> None:
    with sqlite3.connect(hostile) as connection:
        connection.execute(
            "UPDATE workflow_status SET status = 'PAUSED' WHERE workflow_uuid = ?", ["fork-1"]
        )
    connection.close()
    with dn.connect(hostile) as db:
        frame = db.workflows(limit=None)
    assert frame["status"].cat.categories.tolist() == [*STATUSES, "PAUSED"]
    assert frame.set_index("workflow_id")["status"]["fork-1"] == "PAUSED"


@pytest.mark.parametrize(("what", "columns"), [("workflows", WORKFLOW), ("steps", STEP)])
def test_arrow_has_the_documented_schema(
    db: dn.Client, what: str, columns: tuple[Column, ...]
) -> None:
    reader = db.arrow(what)
    assert isinstance(reader, pa.RecordBatchReader)
    assert reader.schema == pa.schema([(column.name, column.arrow) for column in columns])
    table = reader.read_all()
    table.validate(full=True)
    expected = db.workflows(limit=None)
    if what == "steps":
        expected = db.steps(expected)
    assert table.num_rows == len(expected) > 20
    assert sorted(table["workflow_id"].to_pylist()) == sorted(expected["workflow_id"])


def test_arrow_takes_filters_and_refuses_an_unknown_table(db: dn.Client) -> None:
    found = db.arrow("workflows", status="ERROR").read_all()
    assert set(found["status"].to_pylist()) == {"ERROR"}
    steps = db.arrow("steps", status="ERROR").read_all()
    assert set(steps["workflow_id"].to_pylist()) <= set(found["workflow_id"].to_pylist())
    with pytest.raises(dn.FilterError, match="'workflows'"):
        db.arrow("workflow")


def test_durations(db: dn.Client) -> None:
    frame = db.workflows(limit=None)
    done = frame[frame["status"].isin(["SUCCESS", "ERROR"])]
    begun = done["dequeued_at"].fillna(done["created_at"])
    assert (done["duration"] == done["completed_at"] - begun).all()
    running = frame[frame["status"] == "PENDING"]
    assert len(running) > 0
    now = pd.Timestamp.now(tz="UTC")
    age = now - running["dequeued_at"].fillna(running["created_at"])
    assert ((age - running["duration"]).abs() < pd.Timedelta("10s")).all()
    waiting = frame[frame["status"] == "ENQUEUED"]
    assert len(waiting) > 0
    assert waiting["duration"].isna().all()
    assert ((now - waiting["created_at"] - waiting["queue_wait"]).abs() < pd.Timedelta("10s")).all()


# ---- search, counts, trees -----------------------------------------------------------------------


def test_search_covers_ids_names_queues_and_errors(db: dn.Client) -> None:
    def found(text: str) -> set[str]:
        return set(db.workflows(search=text, limit=None)["workflow_id"])

    assert found("CHECKOUT-1") >= {"checkout-1", "checkout-1-4"}
    assert found("long_sleep") == {"cancelled-1", "holder"}
    assert found("slow") >= {"holder", "queued-1", "queued-2"}
    # In errors: a pickle's class and its argument, and a JSON message.
    declined = {"fork-1", "parent-6-bad-1", "parent-6-bad", "checkout-5-bad"}
    assert found("PaymentDeclined") == declined
    assert found("order-6-bad") == {"parent-6-bad-1", "parent-6-bad"}
    assert found("portable failure 13") == {"portable-13"}
    assert found("no such text anywhere") == set()


def test_counts_without_columns_count_all(db: dn.Client) -> None:
    assert db.counts([])["count"].tolist() == [len(db.workflows(limit=None))]
    assert db.counts([], status="ERROR")["count"].tolist() == [len(db.workflows(status="ERROR"))]


def test_search_takes_wildcards_literally(hostile: Path) -> None:
    with dn.connect(hostile) as db:
        assert db.workflows(search="50%_off")["workflow_id"].tolist() == ["50%_off"]
        assert db.workflows(search="a\\b")["workflow_id"].tolist() == ["a\\b"]
        assert set(db.workflows(search="%")["workflow_id"]) == {"50%_off"}
        assert db.workflows(workflow_id_prefix="50%_")["workflow_id"].tolist() == ["50%_off"]
        assert len(db.workflows(search="o'brien")) == 0


@pytest.mark.parametrize("by", ["status", "name", ["status", "queue_name"], ["app_version"]])
def test_counts_equal_those_of_the_rows(shop: dn.Client, by: object) -> None:
    keys = [by] if isinstance(by, str) else list(by)  # type: ignore[call-overload]
    counted = shop.counts(by=by)  # type: ignore[arg-type]
    assert list(counted.columns) == [*keys, "count"]
    rows = shop.workflows(limit=None)
    expected = rows.groupby(keys, observed=True, dropna=False).size()
    assert as_counts(counted, keys) == {
        tuple(clean(part) for part in (key if isinstance(key, tuple) else (key,))): int(count)
        for key, count in expected.items()
    }


def clean(value: object) -> object:
    return None if pd.isna(value) else value


def as_counts(frame: pd.DataFrame, keys: list[str]) -> dict[tuple[object, ...], int]:
    found = {}
    for row in frame.to_dict("records"):
        key = tuple(clean(row[name]) for name in keys)
        assert key not in found
        found[key] = int(row["count"])
    return found


@pytest.mark.parametrize(("bucket", "floor"), [("1h", "h"), ("1d", "D"), ("5min", "5min")])
def test_counts_by_time_equal_those_of_the_rows(shop: dn.Client, bucket: str, floor: str) -> None:
    counted = shop.counts(by="status", bucket=bucket)
    assert list(counted.columns) == ["status", "created_at", "count"]
    assert str(counted["created_at"].dtype) == "datetime64[ms, UTC]"
    rows = shop.workflows(limit=None)
    rows["created_at"] = rows["created_at"].dt.floor(floor)
    expected = rows.groupby(["status", "created_at"], observed=True).size()
    assert as_counts(counted, ["status", "created_at"]) == {
        key: int(count) for key, count in expected.items()
    }
    other = shop.counts(by="status", bucket=bucket, time="completed_at", status="SUCCESS")
    assert other["count"].sum() == (rows["status"] == "SUCCESS").sum()


def test_counts_take_filters(shop: dn.Client) -> None:
    counted = shop.counts(by="name", status="ERROR")
    assert counted["count"].sum() == len(shop.workflows(status="ERROR", limit=None)) > 0


def test_step_statistics_equal_those_of_the_steps(shop: dn.Client) -> None:
    statistics = shop.step_statistics().set_index("function_name")
    rows = shop.workflows(limit=None)
    steps = shop.steps(rows)
    origins = rows.set_index("workflow_id")["forked_from"]
    same = ["workflow_id", "function_id", "started_at", "completed_at"]
    known = set(steps[same].itertuples(index=False, name=None))
    copied = [
        (origins[step.workflow_id], *step[1:]) in known
        for step in steps[same].itertuples(index=False)
    ]
    assert 0 < sum(copied) < len(steps), "a fork has steps of its original"
    steps = steps[[not each for each in copied]]
    groups = steps.groupby("function_name", observed=True)
    assert statistics["count"].astype(int).to_dict() == groups.size().to_dict()
    errors = groups["status"].apply(lambda status: int((status == "ERROR").sum()))
    assert statistics["errors"].astype(int).to_dict() == errors.to_dict()
    assert errors.sum() > 0
    longest = next(column for column in statistics if "max" in column)
    for name, group in groups:
        if group["duration"].notna().any():
            ours = pd.Timedelta(statistics[longest][name])
            assert abs(ours - group["duration"].max()) <= pd.Timedelta("1ms"), name


def test_a_client_that_only_enqueued_is_not_an_executor(shop_sqlite: Path) -> None:
    with closing(sqlite3.connect(shop_sqlite)) as connection, connection:
        connection.execute(
            "UPDATE workflow_status SET executor_id = 'web-1' WHERE status IN "
            "('ENQUEUED', 'DELAYED') OR (status = 'CANCELLED' AND recovery_attempts = 0)"
        )
    with dn.connect(shop_sqlite) as db:
        rows, executors = db.workflows(limit=None), db.executors()
        ran = rows[rows["executor_id"].notna() & (rows["executor_id"] != "web-1")]
        assert 0 < len(ran) < len(rows)
        assert executors["workflows"].sum() == len(ran)
        assert "web-1" not in executors["executor_id"].tolist()
        waiting = db.workflow(rows.loc[rows["status"] == "ENQUEUED", "workflow_id"].iloc[0])
        assert "web-1" not in waiting.facts().values()
        assert waiting.row["executor_id"] == "web-1"
        first = ran.iloc[0]
        assert db.workflow(first["workflow_id"]).facts()["executor"] == first["executor_id"]


def test_a_tree_equals_a_recursive_search(shop: dn.Client) -> None:
    rows = shop.workflows(limit=None)
    steps = shop.steps(rows)
    children: dict[str, set[str]] = {}
    for row in rows.dropna(subset=["parent_workflow_id"]).itertuples():
        children.setdefault(row.parent_workflow_id, set()).add(row.workflow_id)
    started = steps[steps["child_workflow_id"].notna()]
    started = started[started["function_name"] != "DBOS.getResult"]
    for row in started.itertuples():
        children.setdefault(row.workflow_id, set()).add(row.child_workflow_id)
    known = set(rows["workflow_id"])

    def descend(workflow_id: str, depth: int) -> dict[str, int]:
        found = {workflow_id: depth}
        for child in children.get(workflow_id, set()) & known:
            found |= descend(child, depth + 1)
        return found

    parents = sorted(children)
    assert any(max(descend(each, 0).values()) >= 2 for each in parents)
    for root in parents:
        tree = shop.tree(root)
        assert dict(zip(tree["workflow_id"], tree["depth"], strict=True)) == descend(root, 0)
        assert set(tree["root_workflow_id"]) == {root}
        shallow = shop.tree(root, depth=1)
        assert set(shallow["workflow_id"]) == {k for k, v in descend(root, 0).items() if v <= 1}


def test_awaiting_a_workflow_does_not_make_it_a_child(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO operation_outputs "
            "(workflow_uuid, function_id, function_name, child_workflow_id) "
            "VALUES ('waits', 99, 'DBOS.getResult', 'holder')"
        )
    connection.close()
    with dn.connect(path) as db:
        assert "holder" in set(db.steps("waits")["child_workflow_id"])
        assert db.tree("waits")["workflow_id"].tolist() == ["waits"]


def test_queues_count_waiting_workflows(shop: dn.Client) -> None:
    queues = shop.queues()
    queued = shop.queued(limit=None)
    for name, group in queued.groupby("queue_name", observed=True):
        mine = queues[queues["queue_name"] == name]
        statuses = group["status"].value_counts()
        assert mine["enqueued"].sum() == statuses["ENQUEUED"], name
        assert mine["running"].sum() == statuses["PENDING"], name
        assert mine["delayed"].sum() == statuses["DELAYED"], name
    assert queues["enqueued"].sum() > 0


# ---- the card, and where it is used --------------------------------------------------------------


def test_the_card_shows_location_and_counts(shop: dn.Client) -> None:
    html = shop._repr_html_()
    counts = shop.counts()
    for status, count in zip(counts["status"], counts["count"], strict=True):
        assert str(status) in html
        assert str(count) in html
    assert "shop" in html or str(shop.location) in html


def test_the_card_escapes_names(hostile: Path) -> None:
    with dn.connect(hostile) as db:
        html = db._repr_html_()
    assert "<script>alert" not in html
    assert "<b>" not in html.replace("<b></b>", "")
    assert "&lt;script&gt;alert" in html, "the queue's name is not on the card at all"


def test_the_card_of_an_old_database(corpus_sqlite: Callable[[str], Path]) -> None:
    with dn.connect(corpus_sqlite("2.0.0")) as db:
        assert "SUCCESS" in db._repr_html_()
        assert "2.0" in repr(db) + db._repr_html_()


def test_repr_reads_nothing(old_sqlite: Path, tmp_path: Path) -> None:
    with dn.connect(old_sqlite) as db:
        text = repr(db)
    assert "dbos-3.4.0.sqlite" in text
    assert repr(db) == text, "a closed client still says where it was"


def test_a_client_serves_eight_threads(db: dn.Client) -> None:
    expected = db.workflows(limit=None)["workflow_id"].tolist()

    def read(number: int) -> list[str]:
        if number % 2:
            assert len(db.steps("checkout-1")) > 0
        return db.workflows(limit=None)["workflow_id"].tolist()

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read, range(40)):
            assert found == expected


def test_calls_from_a_running_event_loop(db: dn.Client) -> None:
    async def cell() -> int:
        here = len(db.workflows(limit=None))
        there = await asyncio.to_thread(lambda: len(db.workflows(limit=None)))
        assert here == there
        return here

    assert asyncio.run(cell()) > 0


# ---- connect -------------------------------------------------------------------------------------


def test_every_form_of_location_is_accepted(
    old_sqlite: Path, old_postgres: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(old_sqlite.parent))
    monkeypatch.chdir(tmp_path)
    forms: list[str | Path | None] = [
        old_sqlite,
        str(old_sqlite),
        f"sqlite:///{old_sqlite}",
        f"~/{old_sqlite.name}",
        old_postgres,
        old_postgres.replace("postgresql://", "postgres://"),
        old_postgres.replace("postgresql://", "postgresql+psycopg://"),
    ]
    for form in forms:
        with dn.connect(form) as db:
            assert len(db.workflows()) > 20, form
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", f"sqlite:///{old_sqlite}")
    with dn.connect() as db:
        assert len(db.workflows()) > 20
    monkeypatch.setenv("HERE", str(old_sqlite))
    monkeypatch.delenv("DBOS_SYSTEM_DATABASE_URL")
    with pytest.raises(dn.LocationError, match="DBOS_SYSTEM_DATABASE_URL"):
        dn.connect()
    config = tmp_path / "dbos-config.yaml"
    config.write_text("name: shop\nsystem_database_url: sqlite:///${HERE}\n")
    with dn.connect() as db:
        assert len(db.workflows()) > 20
    config.write_text("name: [unclosed\n")
    with pytest.raises(dn.LocationError, match="YAML"):
        dn.connect()


def test_libpq_key_value(old_postgres: str) -> None:
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    with dn.connect(make_conninfo(**conninfo_to_dict(old_postgres))) as db:
        assert len(db.workflows()) > 20


def test_the_catalog_lists_absent_columns_and_tables(corpus_sqlite: Callable[[str], Path]) -> None:
    with dn.connect(corpus_sqlite("2.0.0")) as db:
        assert not db.catalog.has("workflow_status", "parent_workflow_id")
        assert db.catalog.has("workflow_status", "queue_name")
        assert not db.catalog.has("queues")
        assert db.workflows()["parent_workflow_id"].isna().all()
        assert db.catalog.written_by == "dbos 1.14 to 2.1"
