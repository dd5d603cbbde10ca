"""Benchmarks of reading. Each function measures a filled database and adds to the report."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
from dbos import DBOSClient

import dbos_notebook as dn
from benchmarks import footprint
from benchmarks.measure import Measurement, Report, milliseconds, rate, seconds
from dbos_notebook import payloads
from dbos_notebook.tables.columns import WORKFLOW
from dbos_notebook.widgets.messages import Question

_COLUMNS = ", ".join(column.source for column in WORKFLOW if column.source is not None)


def _client(url: str) -> DBOSClient:
    return DBOSClient(system_database_url=url)


def _baseline_frame(client: DBOSClient, limit: int | None, *, payloads: bool) -> pd.DataFrame:
    found = client.list_workflows(
        limit=limit, sort_desc=True, load_input=payloads, load_output=payloads
    )
    return pd.DataFrame([vars(one) for one in found])


def _drain(connection: psycopg.Connection[Any], limit: int | None) -> int:
    """Run a bare COPY of the same rows, columns and order, and discard the data."""
    order = "created_at DESC" + (f", workflow_uuid DESC LIMIT {limit}" if limit else "")
    statement = (
        f"COPY (SELECT {_COLUMNS} FROM dbos.workflow_status ORDER BY {order}) "
        "TO STDOUT (FORMAT csv)"
    )
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        return sum(len(row) for row in copy)


def lists(report: Report, url: str, sizes: Sequence[int], *, target: float) -> None:
    """List workflows into a DataFrame, relative to DBOSClient and, on Postgres, raw COPY.

    The last size is the number of all rows, which are listed without a limit.
    """
    postgres = url.startswith("postgres")
    where = "Postgres" if postgres else "SQLite"
    client, rates = _client(url), []
    raw = psycopg.connect(url) if postgres else None
    with dn.connect(url, statement_timeout=None) as db:
        for size in sizes:
            limit = None if size == sizes[-1] else size
            calls: dict[str, Any] = {
                "ours": lambda limit=limit: db.workflows(limit=limit, load_errors=False),
                "client": lambda limit=limit: _baseline_frame(client, limit, payloads=False),
            }
            if raw is not None:
                calls["copy"] = lambda limit=limit: _drain(raw, limit)
            took = seconds(calls, 15 if size <= 10_000 else 5)
            rates.append(size / took["ours"])
            ratio = took["client"] / took["ours"]
            report.add(
                Measurement(
                    f"{where}: list → DataFrame, against DBOSClient",
                    f"{size:,}",
                    rate(size, took["ours"]),
                    rate(size, took["client"]),
                    f"{ratio:.1f} ×",
                    f"≥ {target:g} ×",
                    ratio >= target,
                )
            )
            if raw is not None:
                share = took["copy"] / took["ours"]
                report.add(
                    Measurement(
                        f"{where}: list → DataFrame, against raw COPY",
                        f"{size:,}",
                        rate(size, took["ours"]),
                        rate(size, took["copy"]),
                        f"{share:.2f}",
                        "≥ 0.65",
                        share >= 0.65,
                    )
                )
        size = sizes[-1]
        took = seconds(
            {
                "with": lambda: db.workflows(limit=None),
                "without": lambda: db.workflows(limit=None, load_errors=False),
            },
            5,
        )
        more = took["with"] / took["without"]
        report.add(
            Measurement(
                f"{where}: with errors (5 % failed) decoded, against without",
                f"{size:,}",
                rate(size, took["with"]),
                rate(size, took["without"]),
                f"{more:.2f} × the time",
                "≤ 1.25 ×",
                more <= 1.25,
            )
        )
        size = sizes[min(1, len(sizes) - 1)]
        took = seconds(
            {
                "ours": lambda: db.workflows(limit=size, load_input=True, load_output=True),
                "client": lambda: _baseline_frame(client, size, payloads=True),
            },
            3,
        )
        report.add(
            Measurement(
                f"{where}: with inputs and outputs decoded, against DBOSClient's pickle.loads",
                f"{size:,}",
                rate(size, took["ours"]),
                rate(size, took["client"]),
                f"{took['client'] / took['ours']:.1f} ×",
            )
        )
    if raw is not None:
        raw.close()
        flat = min(rates) / max(rates)
        report.add(
            Measurement(
                f"{where}: slowest size against fastest",
                " … ".join(f"{size:,}" for size in sizes),
                f"{min(rates):,.0f} rows/s",
                f"{max(rates):,.0f} rows/s",
                f"{flat:.2f}",
                "flat",
                flat >= 0.8,
            )
        )
    client.destroy()


def _baseline_tree(client: DBOSClient, root: str) -> int:
    """List each workflow's children with DBOSClient, as its users do."""
    found, level = 0, [root]
    while level:
        following: list[str] = []
        for parent in level:
            children = client.list_workflows(
                parent_workflow_id=parent, load_input=False, load_output=False
            )
            following += [child.workflow_id for child in children]
        found, level = found + len(level), following
    return found


def trees_and_steps(report: Report, url: str, root: str, many: int) -> None:
    """Compare a tree, and the steps of many workflows in one call, with loops over DBOSClient."""
    client = _client(url)
    with dn.connect(url, statement_timeout=None) as db:
        whole = len(db.tree(root))
        ours = seconds({"ours": lambda: db.tree(root)}, 5)["ours"]
        took = seconds({"client": lambda: _baseline_tree(client, root)}, 1)["client"]
        report.add(
            Measurement(
                "A tree, against DBOSClient's loop",
                f"{whole:,}",
                milliseconds(ours),
                milliseconds(took),
                f"{took / ours:.0f} ×",
                "≥ 40 ×",
                took / ours >= 40,
            )
        )
        ids = db.workflows(status="SUCCESS", limit=many)["workflow_id"].tolist()
        rows = len(db.steps(ids))
        ours = seconds({"ours": lambda: db.steps(ids)}, 5)["ours"]

        def loop() -> int:
            return sum(len(client.list_workflow_steps(one, load_output=False)) for one in ids)

        assert loop() == rows, "the two do not see the same steps"
        took = seconds({"client": loop}, 1)["client"]
        report.add(
            Measurement(
                f"Steps of {len(ids):,} workflows, against DBOSClient's loop",
                f"{rows:,}",
                milliseconds(ours),
                milliseconds(took),
                f"{took / ours:.0f} ×",
            )
        )
    client.destroy()


def _bare(connection: psycopg.Connection[Any], condition: str) -> int:
    statement = (
        f"SELECT {_COLUMNS} FROM dbos.workflow_status WHERE {condition} "
        "ORDER BY created_at DESC, workflow_uuid DESC LIMIT 50"
    )
    return len(connection.execute(statement.encode()).fetchall())


def first_pages(report: Report, url: str) -> None:
    """Compare pages of 50 rows with bare SQL on an open connection."""
    pages = [
        ("newest", {}, "true"),
        ("failed", {"status": "ERROR"}, "status = 'ERROR'"),
        ("of one queue", {"queue_name": "queue-1"}, "queue_name = 'queue-1'"),
        (
            "enqueued on one queue",
            {"queue_name": "queue-1", "queues_only": True},
            "queue_name = 'queue-1' AND (status IN ('ENQUEUED', 'PENDING') OR status = 'DELAYED')",
        ),
    ]
    with dn.connect(url) as db, psycopg.connect(url) as connection:
        for name, filters, condition in pages:
            took = seconds(
                {
                    "ours": lambda f=filters: db.workflows(limit=50, **f),
                    "bare": lambda c=condition: _bare(connection, c),
                },
                25,
            )
            above = took["ours"] - took["bare"]
            report.add(
                Measurement(
                    f"First page: 50 {name}, above the bare SQL",
                    "50",
                    milliseconds(took["ours"]),
                    milliseconds(took["bare"]),
                    f"+ {above * 1000:.1f} ms",
                    "≤ + 15 ms",
                    above <= 0.015,
                )
            )


def counted(report: Report, url: str) -> None:
    """Compare counts by status and hour with counting fetched rows in pandas."""
    client = _client(url)

    def fetched() -> pd.Series[int]:
        frame = _baseline_frame(client, None, payloads=False)
        hour = pd.to_datetime(frame["created_at"], unit="ms").dt.floor("h")
        return frame.groupby(["status", hour]).size()

    with dn.connect(url, statement_timeout=None) as db:
        total = int(db.counts([])["count"].iloc[0])
        ours = seconds({"ours": lambda: db.counts("status", bucket="1h")}, 3)["ours"]
    took = seconds({"client": fetched}, 1)["client"]
    report.add(
        Measurement(
            "Counts by status and hour, against DBOSClient → groupby",
            f"{total:,}",
            milliseconds(ours),
            milliseconds(took),
            f"{took / ours:.0f} ×",
        )
    )
    client.destroy()


def compared(report: Report, url: str) -> None:
    """Compare two versions, and contrast failures, with bare aggregates and fetched rows."""
    client = _client(url)
    bare = """SELECT w.application_version, w.name, s.function_name, count(*), count(s.error),
        percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
            ORDER BY s.completed_at_epoch_ms - s.started_at_epoch_ms)
        FROM dbos.operation_outputs s JOIN dbos.workflow_status w USING (workflow_uuid)
        WHERE w.application_version IN ('v0', 'v1') GROUP BY 1, 2, 3"""

    def fetched() -> pd.DataFrame:
        found = _baseline_frame(client, None, payloads=False)
        keys = ("name", "app_version", "executor_id", "queue_name", "authenticated_user")
        failed = found["status"] == "ERROR"
        return pd.concat([pd.crosstab(found[key], failed) for key in keys])

    with (
        dn.connect(url, statement_timeout=None) as db,
        psycopg.connect(url, autocommit=True) as raw,
    ):
        total = int(db.counts([])["count"].iloc[0])
        took = seconds(
            {
                "compare": lambda: db.compare_versions("v0", "v1"),
                "bare": lambda: raw.execute(bare.encode()).fetchall(),
                "contrast": lambda: db.contrast({"status": "ERROR"}),
            },
            3,
        )
    rival = seconds({"client": fetched}, 1)["client"]
    for title, ours, theirs in (
        ("Two of four versions compared, against one GROUP BY of their steps", "compare", "bare"),
        ("Failures contrasted with all others, against DBOSClient → crosstab", "contrast", ""),
    ):
        spent = took[theirs] if theirs else rival
        ratio = spent / took[ours]
        report.add(
            Measurement(
                title,
                f"{total:,}",
                milliseconds(took[ours]),
                milliseconds(spent),
                f"{ratio:.1f} × faster" if ratio > 1 else f"{1 / ratio:.1f} × the time",
            )
        )
    client.destroy()


def queue_over_time(report: Report, url: str) -> None:
    """Compare the history of a queue with counts of it, and with fetched rows in pandas.

    The counts are the least that a rival reads; neither has what waited and ran at once.
    """
    client, name = _client(url), "queue-1"
    bare = f"""SELECT created_at / 3600000, count(*), count(started_at_epoch_ms),
        count(completed_at), percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
            ORDER BY started_at_epoch_ms - created_at)
        FROM dbos.workflow_status WHERE queue_name = '{name}' GROUP BY 1"""

    def fetched() -> pd.DataFrame:
        found = client.list_workflows(queue_name=name, load_input=False, load_output=False)
        frame = pd.DataFrame([vars(one) for one in found])
        hour = pd.to_datetime(frame["created_at"], unit="ms").dt.floor("h")
        wait = frame["dequeued_at"] - frame["created_at"]
        return wait.groupby(hour).quantile([0.5, 0.99]).unstack()

    with (
        dn.connect(url, statement_timeout=None) as db,
        psycopg.connect(url, autocommit=True) as raw,
    ):
        total = int(db.counts([], queue_name=name)["count"].iloc[0])
        calls = {
            "ours": lambda: db.queue_history(name),
            "bare": lambda: raw.execute(bare.encode()).fetchall(),
        }
        took = seconds(calls, 3)
    rivals = {
        "one bare GROUP BY": took["bare"],
        "DBOSClient → groupby": seconds({"": fetched}, 1)[""],
    }
    for rival, spent in rivals.items():
        faster = spent > took["ours"]
        ratio = spent / took["ours"] if faster else took["ours"] / spent
        report.add(
            Measurement(
                f"History of a queue by hour, against {rival}",
                f"{total:,}",
                milliseconds(took["ours"]),
                milliseconds(spent),
                f"{ratio:.1f} × {'faster' if faster else 'the time'}",
            )
        )
    client.destroy()


def diagnosed(report: Report, url: str, rows: int) -> None:
    """Compare the diagnosis with one count of all workflows by status."""
    bare = "SELECT status, name, count(*) FROM dbos.workflow_status GROUP BY status, name"
    with dn.connect(url) as db, psycopg.connect(url, autocommit=True) as raw:
        calls = {"ours": db.diagnose, "bare": lambda: raw.execute(bare).fetchall()}
        took = seconds(calls, 5)
    report.add(
        Measurement(
            "What is wrong now, against one bare GROUP BY of all workflows",
            f"{rows:,}",
            milliseconds(took["ours"]),
            milliseconds(took["bare"]),
            f"{took['ours'] / took['bare']:.1f} ×",
            "≤ 1 s",
            took["ours"] <= 1,
        )
    )


@dataclasses.dataclass
class Order:
    """A small payload."""

    id: int
    name: str
    total: float


def decoding(report: Report) -> None:
    """Compare safe decoding of a small payload with unpickling it."""
    text = base64.b64encode(pickle.dumps(Order(7, "widget", 12.5))).decode()
    count = 20_000
    took = seconds(
        {
            "ours": lambda: [payloads.decode(text, "py_pickle") for _ in range(count)],
            "pickle": lambda: [pickle.loads(base64.b64decode(text)) for _ in range(count)],
        },
        5,
    )
    each = count / took["ours"]
    report.add(
        Measurement(
            "Decoding a dataclass of three fields, against pickle.loads",
            f"{count:,}",
            f"{each:,.0f} payloads/s",
            f"{count / took['pickle']:,.0f} payloads/s",
            f"{took['pickle'] / took['ours']:.2f}",
            "≥ 80,000/s",
            each >= 80_000,
        )
    )


def footprints(report: Report, url: str, rows: int) -> None:
    """Measure the peak memory of listing everything, and the time of an import."""
    own, peak, baseline = footprint.listing(url)
    report.add(
        Measurement(
            "Peak memory of listing all (the frame itself: " + _megabytes(own) + ")",
            f"{rows:,}",
            _megabytes(peak),
            _megabytes(baseline),
            f"{peak / own:.2f} × the frame",
            "≤ 3 × the frame",
            peak <= 3 * own,
        )
    )
    ours, pandas = footprint.import_seconds("dbos_notebook"), footprint.import_seconds("pandas")
    report.add(
        Measurement(
            "import dbos_notebook, against import pandas",
            "",
            milliseconds(ours),
            milliseconds(pandas),
            f"{ours / pandas:.2f}",
            "≤ 1.3",
            ours <= 1.3 * pandas,
        )
    )


def live_views(report: Report, url: str, data: Path, rows: int) -> None:
    """Measure the processor time that live views cost the database, as a share of a core.

    The list polls every 2 s and counts every 400 times that the counts took; the board polls every
    5 s, reads what needs attention every minute and the causes of failures every 30 s, but for at
    most a 300th of the time.
    """
    with dn.connect(url) as db:
        explore, board = db.explore(live=True), db.board(live=True)
        page: Question = {"kind": "page", "view": explore._start["view"]}
        counted: Question = {**page, "counts": True}
        took = explore._on_page(counted)["count_took"]
        alone = _database_cpu(data, lambda: explore._on_page(page))
        counts = _database_cpu(data, lambda: explore._on_page(counted)) - alone
        share = alone / 2 + counts / max(2.0, 0.4 * float(took))
        _share(report, "live list", rows, share)
        facts = _database_cpu(data, lambda: board._on_board({"kind": "board"}))
        share = facts / 5
        for least, read in ((60, board._on_attention), (30, board._on_causes)):
            took = float(str(read({})["took"])) / 1000
            cost = _database_cpu(data, lambda read=read: read({}), rounds=5)
            share += cost / max(least, 300 * took)
        _share(report, "live board", rows, share)


def _share(report: Report, name: str, rows: int, share: float) -> None:
    report.add(
        Measurement(
            f"{name}: share of a core that the database spends",
            f"{rows:,}",
            f"{share:.2%}",
            "-",
            "",
            "≤ 1 %",
            share <= 0.01,
        )
    )


def _database_cpu(data: Path, call: Callable[[], object], rounds: int = 20) -> float:
    """Return the seconds of processor time that a call costs the processes of the database."""
    parent = (data / "postmaster.pid").read_text().split("\n", 1)[0]

    def spent() -> float:
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # After the name, which may contain spaces: state, parent, … user, system, and
                # those of ended children, as parallel workers are.
                values = path.read_text().rpartition(")")[2].split()
                if parent in (path.parent.name, values[1]):
                    ticks += sum(map(int, values[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    call()
    before = spent()
    for _ in range(rounds):
        call()
    return (spent() - before) / rounds


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def failures_by_cause(report: Report, url: str) -> None:
    """Compare failures by cause with the bare aggregate, and with DBOSClient and pandas."""
    client = _client(url)

    def fetched() -> Any:
        found = client.list_workflows(status="ERROR", load_input=False)
        frame = pd.DataFrame([vars(one) for one in found])
        return frame.groupby(["name", frame["error"].map(str)]).size()

    bare = (
        "SELECT w.name, o.error, count(*), min(w.completed_at), max(w.completed_at) "
        "FROM dbos.workflow_status w JOIN dbos.workflow_output o USING (workflow_uuid) "
        "WHERE w.status = 'ERROR' GROUP BY 1, 2"
    )
    with dn.connect(url, statement_timeout=None) as db, psycopg.connect(url) as raw:
        total = int(db.failures()["count"].sum())
        calls = {"ours": db.failures, "bare": lambda: raw.execute(bare.encode()).fetchall()}
        took = seconds(calls, 3)
    baseline = seconds({"client": fetched}, 1)["client"]
    for rival, other in (("the bare aggregate", took["bare"]), ("DBOSClient → groupby", baseline)):
        report.add(
            Measurement(
                f"Failures by cause, against {rival}",
                f"{total:,}",
                milliseconds(took["ours"]),
                milliseconds(other),
                f"{other / took['ours']:.2g} ×",
                "≤ 3 s",
                took["ours"] <= 3,
            )
        )
    client.destroy()
