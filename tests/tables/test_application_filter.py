"""``connect(application_name=)`` narrows everything that a client shows, as DBOSClient does.

The reference is a second database from which all that another application owns was deleted: what
a narrowed client shows of the full one must equal what a client shows of that.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from dbos import DBOSClient
from servers import PostgresServer

import dbos_notebook as dn
from dbos_notebook.widgets import board

# Owners in turn: two applications, and rows that nobody owns.
OWNED = {
    "workflow_status": "workflow_uuid",
    "queues": "name",
    "workflow_schedules": "schedule_name",
    "application_versions": "version_name",
}
EXTRA = (
    "INSERT INTO {schema}application_versions "
    "(version_id, version_name, version_timestamp, created_at, application_name) VALUES "
    "('x-a', 'a-1', 5, 5, 'a'), ('x-b', 'b-1', 6, 6, 'b'), ('x-n', 'n-1', 7, 7, NULL)",
    "INSERT INTO {schema}queues (queue_id, name, application_name) VALUES "
    "('q-a', 'queue-a', 'a'), ('q-b', 'queue-b', 'b'), ('q-n', 'queue-n', NULL)",
    "INSERT INTO {schema}workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, "
    "status, context, application_name) VALUES ('s-a', 'schedule-a', 'w', '* * * * *', 'ACTIVE', "
    "'', 'a'), ('s-b', 'schedule-b', 'w', '* * * * *', 'ACTIVE', '', 'b'), "
    "('s-n', 'schedule-n', 'w', '* * * * *', 'ACTIVE', '', NULL)",
    # Two wait for a message: the timeout of step 1 is recorded, step 1 is not.
    "INSERT INTO {schema}workflow_status (workflow_uuid, status, name, created_at, updated_at) "
    "VALUES ('zz-1', 'PENDING', 'talk', 1790000000000, 1790000000000), "
    "('zz-2', 'PENDING', 'talk', 1790000000000, 1790000000000)",
    "INSERT INTO {schema}operation_outputs (workflow_uuid, function_id, function_name, output, "
    "serialization) VALUES ('zz-1', 2, 'DBOS.sleep', '9000000000', 'portable_json'), "
    "('zz-2', 2, 'DBOS.sleep', '9000000000', 'portable_json')",
)
OF_WORKFLOWS = {
    "workflow_events": "workflow_uuid",
    "notifications": "destination_uuid",
    "streams": "workflow_uuid",
    "operation_outputs": "workflow_uuid",
    "workflow_input": "workflow_uuid",
    "workflow_output": "workflow_uuid",
}


def share(execute: Callable[[str], Any], schema: str) -> None:
    """Give the rows of a database to two applications and to nobody, in turn."""
    for statement in EXTRA:
        execute(statement.format(schema=schema))
    table = f"{schema}workflow_status"
    execute(
        f"UPDATE {table} SET application_name = CASE (SELECT count(*) FROM {table} o "
        "WHERE o.workflow_uuid < workflow_status.workflow_uuid) % 3 "
        "WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE NULL END"
    )
    execute(f"UPDATE {table} SET application_name = 'b' WHERE workflow_uuid = 'queued-2'")
    execute(f"UPDATE {table} SET application_name = 'a' WHERE workflow_uuid = 'zz-1'")
    execute(f"UPDATE {table} SET application_name = 'b' WHERE workflow_uuid = 'zz-2'")


def remove(execute: Callable[[str], Any], schema: str) -> None:
    """Delete what other applications own: b, and the corpus's own shop."""
    theirs = f"SELECT workflow_uuid FROM {schema}workflow_status WHERE application_name <> 'a'"
    for table, key in OF_WORKFLOWS.items():
        execute(f"DELETE FROM {schema}{table} WHERE {key} IN ({theirs})")
    for table in OWNED:
        execute(f"DELETE FROM {schema}{table} WHERE application_name <> 'a'")


@contextmanager
def sqlite(path: Path) -> Iterator[Callable[[str], Any]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection.execute


@contextmanager
def postgres(url: str) -> Iterator[Callable[[str], Any]]:
    with psycopg.connect(url) as connection:
        yield lambda statement: connection.execute(statement.encode())


@dataclass
class Shared:
    """A database of two applications, and the same without what the other one owns."""

    url: str
    narrowed: dn.Client
    alone: dn.Client


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    """The corpus's database of dbos 3.4.0, given to two applications."""
    if request.param == "sqlite":
        directory = tmp_path_factory.mktemp("shared")
        full, alone = (directory / f"{name}.sqlite" for name in ("full", "alone"))
        shutil.copyfile(request.getfixturevalue("old_sqlite"), full)
        with sqlite(full) as execute:
            share(execute, "")
        shutil.copyfile(full, alone)
        with sqlite(alone) as execute:
            remove(execute, "")
        urls = [f"sqlite:///{full}", f"sqlite:///{alone}"]
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        urls = [request.getfixturevalue("corpus_postgres")("3.4.0")]
        with postgres(urls[0]) as execute:
            share(execute, "dbos.")
        urls.append(server.url(server.create_database(urls[0].split("?")[0].rsplit("/", 1)[1])))
        with postgres(urls[1]) as execute:
            remove(execute, "dbos.")
    with dn.connect(urls[0], application_name="a") as narrowed, dn.connect(urls[1]) as alone:
        yield Shared(urls[0], narrowed, alone)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows without their order, and without what the moment of reading decides."""
    moving = [name for name in ("oldest_wait", "duration", "queue_wait") if name in frame]
    records = json.loads(
        frame.drop(columns=moving).to_json(orient="records", date_format="iso", default_handler=str)
    )
    return sorted(records, key=lambda record: json.dumps(record, sort_keys=True))


def card(client: dn.Client) -> str:
    """A client's card without its place and the moment."""
    text = html.unescape(client._repr_html_()).replace(client._store.label, "")
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|[\d.]+ (ms|s|min|h|d)\b", "", text)


def explored(client: dn.Client, **options: Any) -> Any:
    """What the list shows: its rows, counts by status, and what may be chosen."""
    widget = client.explore(page_size=200, **options)
    answers = widget._handlers
    page = answers["page"]({"view": widget._view, "counts": True})
    positions = {row["id"]: row.get("position") for row in page["rows"]}
    return (
        rows(widget.frame),
        positions,
        page["counts"],
        answers["choices"]({}),
        widget._actions._on_targets({}),
    )


def boarded(client: dn.Client) -> Any:
    """What the board shows."""
    view = client.board(window="30d")
    found, causes = view.read(), view._causes()
    facts = board.board_facts(found)
    return (
        facts["active"],
        facts["queues"],
        causes["failures"],
        causes["durations"],
        rows(found.ended),
    )


def mapped(client: dn.Client) -> Any:
    """The counts of a process map, without descendants: they are included whoever owns them."""
    overview = client.process_map(children=False)
    return (
        {key: node["statuses"] for key, node in overview.nodes.items()},
        {(tail, head): edge["count"] for tail, head, edge in overview.edges.data()},
    )


MEANS = ["running_mean", "waiting_mean"]
"""Of the current bucket they change as time goes on."""

READS: dict[str, Callable[[dn.Client], Any]] = {
    "workflows": lambda db: rows(db.workflows(limit=None)),
    "queued": lambda db: rows(db.queued()),
    "iter_workflows": lambda db: rows(pd.concat(db.iter_workflows())),
    "arrow": lambda db: (
        rows(db.arrow().read_all().to_pandas()),
        rows(db.arrow("steps").read_all().to_pandas()),
    ),
    "counts": lambda db: rows(db.counts(["status", "name"])),
    "failures": lambda db: rows(db.failures()),
    "workflow_statistics": lambda db: rows(db.workflow_statistics()),
    "step_statistics": lambda db: rows(db.step_statistics()),
    "process_map": mapped,
    "variants": lambda db: rows(db.variants().drop(columns=["p50", "p90"])),
    "event_log": lambda db: rows(db.event_log().drop(columns="case:duration")),
    "latency_histogram": lambda db: rows(db.latency_histogram()),
    "diagnose": lambda db: sorted(
        (each.rule, each.subject, each.affected, each.workflow_ids) for each in db.diagnose()
    ),
    "queues": lambda db: rows(db.queues()),
    "throughput": lambda db: rows(db.throughput("1d")),
    "concurrency": lambda db: rows(db.concurrency("1d", by="name").drop(columns=MEANS)),
    "queue_history": lambda db: rows(db.queue_history("slow", "1d").drop(columns=MEANS)),
    "forecast": lambda db: rows(db.forecast().drop(columns="evidence")),
    "slo": lambda db: rows(
        db.slo("checkout", latency="1min", window="3650d").drop(columns=["since"])
    ),
    "executors": lambda db: rows(db.executors()),
    "compare_versions": lambda db: rows(
        db.compare_versions({"status": "SUCCESS"}, {"status": "ERROR"})
    ),
    "contrast": lambda db: rows(
        db.contrast({"name": "checkout"}, {"status": "SUCCESS"}, all_values=True)
    ),
    "events": lambda db: rows(db.events()),
    "awaiting_messages": lambda db: rows(db.awaiting_messages()),
    "messages": lambda db: rows(db.messages()),
    "streams": lambda db: rows(db.streams()),
    "schedules": lambda db: rows(db.schedules()),
    "versions": lambda db: rows(db.versions()),
    # Which failures; what became of each is looked up by ID.
    "repair_status": lambda db: rows(db.repair_status()[["workflow_id", "name", "status"]]),
    "explore": lambda db: (explored(db), explored(db, tree=True)),
    "open": lambda db: (rows(db.open().list.frame), boarded(db)),
    "board": boarded,
    "_repr_html_": card,
}
"""What each method shows that picks rows by itself."""

BY_ID = {
    # An ID is a global address: what it names is shown whoever owns it.
    "workflow",
    "steps",
    "tree",
    "graph",
    "timeline",
    "inspect",
    "controls",
    "wait",
    "cancel",
    "resume",
    "send",
    "fork",
    "rewind",
    "repair",
    "delete",
    "set_delay",
    "set_attributes",
    "pause_schedule",
    "resume_schedule",
    "delete_schedule",
    "trigger_schedule",
    "backfill_schedule",
    "landing_times",
}
NOT_ROWS = {"catalog", "location", "read_only", "close", "explain", "history", "last_receipt"}


def test_each_public_method_is_classified_as_filtered_or_by_id() -> None:
    public = {name for name in dir(dn.Client) if not name.startswith("_")} | {"_repr_html_"}
    known = READS.keys() | BY_ID | NOT_ROWS
    assert known <= public, "gone"
    assert public <= known, "is it narrowed by application_name=? Add it to READS, or say why not"


@pytest.mark.parametrize("method", READS)
def test_a_filtered_client_shows_owned_and_unowned_rows(shared: Shared, method: str) -> None:
    read = READS[method]
    assert read(shared.narrowed) == read(shared.alone)


@pytest.mark.parametrize("method", READS)
def test_an_unfiltered_client_shows_more_rows(shared: Shared, method: str) -> None:
    """Else the comparison above could not fail."""
    with dn.connect(shared.url) as everything:
        assert READS[method](everything) != READS[method](shared.alone)


def test_the_application_filter_matches_dbos_client(shared: Shared) -> None:
    dbos = DBOSClient(
        system_database_url=shared.url, application_name="a", retry_connection_errors=False
    )
    with closing_client(dbos):
        db = shared.narrowed
        registered = db.queues()[lambda queues: queues["created_at"].notna()]
        pairs: dict[str, tuple[list[Any], list[Any]]] = {
            "workflows": (
                db.workflows(limit=None)["workflow_id"].tolist(),
                [w.workflow_id for w in dbos.list_workflows(load_input=False, load_output=False)],
            ),
            "queued": (
                db.queued()["workflow_id"].tolist(),
                [w.workflow_id for w in dbos.list_queued_workflows(load_input=False)],
            ),
            "schedules": (
                db.schedules()["schedule_name"].tolist(),
                [s["schedule_name"] for s in dbos.list_schedules()],
            ),
            "versions": (
                db.versions()["version_name"].tolist(),
                [v["version_name"] for v in dbos.list_application_versions()],
            ),
            "queues": (
                # Ours lists unregistered queues, and other applications' that hold work of a, too.
                registered["queue_name"].tolist(),
                [q.name for q in dbos.list_queues()],
            ),
        }
    for name, (ours, theirs) in pairs.items():
        assert sorted(set(ours)) == sorted(set(theirs)), name


@contextmanager
def closing_client(client: DBOSClient) -> Iterator[None]:
    try:
        yield
    finally:
        client.destroy()


NAMED: dict[str, Callable[[dn.Client, list[str]], Any]] = {
    "workflows": lambda db, ids: rows(db.workflows(ids)),
    "workflow": lambda db, ids: [db.workflow(one).workflow_id for one in ids[:3]],
    "steps": lambda db, ids: rows(db.steps(ids)),
    "tree": lambda db, ids: rows(db.tree(ids)),
    "graph": lambda db, ids: [sorted(map(str, db.graph(one, forks=True))) for one in ids],
    "events": lambda db, ids: rows(db.events(ids)),
    "streams": lambda db, ids: rows(db.streams(ids)),
    "messages": lambda db, ids: rows(db.messages(ids)),
    "repair_status": lambda db, ids: rows(db.repair_status(ids)),
    "repair": lambda db, ids: effects(db.repair(ids, plan=True, key="k")),
    "fork": lambda db, ids: effects(db.fork(ids, "failed", plan=True, key="k")),
    "cancel": lambda db, ids: effects(db.cancel(ids, cancel_children=True, plan=True)),
    "explore": lambda db, ids: rows(db.explore(workflow_ids=ids).frame),
    "inspect": lambda db, ids: sorted(map(str, db.inspect(ids[0], live=False).graph)),
    "controls": lambda db, ids: rows(db.controls(ids).frame),
}
"""What each method shows of workflows that are named by ID."""


def effects(plan: Any) -> list[Any]:
    return [(item.workflow_id, item.verdict, item.effect) for item in plan.items]


@pytest.mark.parametrize("method", NAMED)
def test_a_workflow_named_by_id_is_shown_regardless_of_owner(shared: Shared, method: str) -> None:
    read = NAMED[method]
    with dn.connect(shared.url) as everything:
        ids = everything.workflows(limit=None)["workflow_id"].tolist()
        assert read(shared.narrowed, ids) == read(everything, ids)


def test_application_name_of_a_call_replaces_that_of_the_client(shared: Shared) -> None:
    found = shared.narrowed.workflows(application_name="b", limit=None)
    assert set(found["application_name"].dropna()) == {"b"}
    assert found["application_name"].isna().any(), "and what nobody owns"


def test_a_filtered_client_shows_its_application(shared: Shared) -> None:
    assert "application 'a'" in repr(shared.narrowed)
    assert "application &#39;a&#39;" in shared.narrowed._repr_html_()
    assert "application" not in repr(shared.alone)


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0"])
def test_a_database_without_owners_is_not_filtered(
    corpus_sqlite: Callable[[str], Path], version: str
) -> None:
    path = corpus_sqlite(version)
    with dn.connect(path) as everything, dn.connect(path, application_name="a") as narrowed:
        for method in ("workflows", "queues", "executors", "events", "schedules", "versions"):
            assert READS[method](narrowed) == READS[method](everything)
