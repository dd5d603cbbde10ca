"""Benchmarks of statistics, against SQL without percentiles and DBOSClient → pandas."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pandas as pd
import psycopg
from dbos import DBOSClient

import dbos_notebook as dn
from benchmarks.measure import Measurement, Report, milliseconds, seconds

_FAILED = "status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"
_BARE = {
    "workflow": f"""
        SELECT name, count(*), sum(CASE WHEN {_FAILED} THEN 1 ELSE 0 END),
            sum(completed_at - created_at), max(completed_at - created_at),
            sum(started_at_epoch_ms - created_at), max(started_at_epoch_ms - created_at)
        FROM {{prefix}}workflow_status GROUP BY 1""",
    "step": """
        SELECT function_name, count(*), count(error),
            sum(completed_at_epoch_ms - started_at_epoch_ms),
            max(completed_at_epoch_ms - started_at_epoch_ms)
        FROM {prefix}operation_outputs GROUP BY 1""",
}
"""The same aggregates without percentiles, as an application would write them."""


def measure_statistics(report: Report, url: str) -> None:
    """Compare statistics over everything with the bare aggregate."""
    postgres = url.startswith("postgres")
    where = "Postgres" if postgres else "SQLite"
    connection: Any = (
        psycopg.connect(url) if postgres else sqlite3.connect(url.removeprefix("sqlite:///"))
    )
    with dn.connect(url, statement_timeout=None) as db:
        methods: dict[str, Callable[..., pd.DataFrame]] = {
            "workflow": db.workflow_statistics,
            "step": db.step_statistics,
        }
        for subject, method in methods.items():
            statement = _BARE[subject].format(prefix="dbos." if postgres else "")
            size = int(method([])["count"].iloc[0])
            took = seconds(
                {
                    "bare": lambda s=statement: connection.execute(s).fetchall(),
                    "buckets": method,
                    "exact": lambda m=method: m(exact=True),
                },
                5,
            )
            for name, target in (("buckets", 2.0), ("exact", 3.2)):
                ratio = took[name] / took["bare"]
                report.add(
                    Measurement(
                        f"{where}: {subject} statistics, {name}, against the bare aggregate",
                        f"{size:,}",
                        milliseconds(took[name]),
                        milliseconds(took["bare"]),
                        f"{ratio:.2f} × the time",
                        f"≤ {target:g} ×",
                        ratio <= target,
                    )
                )
        if postgres:
            _against_client(report, url, db)
    connection.close()


def _against_client(report: Report, url: str, db: dn.Client) -> None:
    client = DBOSClient(system_database_url=url)

    def fetched() -> pd.DataFrame:
        found = client.list_workflows(load_input=False, load_output=False)
        frame = pd.DataFrame([vars(one) for one in found])
        duration = frame["completed_at"] - frame["created_at"]
        groups = duration.groupby(frame["name"])
        return groups.describe(percentiles=[0.5, 0.9, 0.99])

    ours = seconds({"ours": db.workflow_statistics}, 5)["ours"]
    took = seconds({"client": fetched}, 1)["client"]
    report.add(
        Measurement(
            "Workflow statistics, against DBOSClient → pandas",
            f"{int(db.counts([])['count'].iloc[0]):,}",
            milliseconds(ours),
            milliseconds(took),
            f"{took / ours:.0f} ×",
            "≥ 20 ×",
            took / ours >= 20,
        )
    )
    client.destroy()
