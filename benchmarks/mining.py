"""Benchmarks of process mining: the map of all runs, and their variants."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pandas as pd
import psycopg
from dbos import DBOSClient

import dbos_notebook as dn
from benchmarks.measure import Measurement, Report, rate, seconds

RIVAL_RUNS = 300
"""DBOSClient reads the steps of one workflow in one call; this many are enough for a rate."""

_PEAK = """
import sys
import dbos_notebook as dn
from dbos_notebook.analysis import process_mining
db = dn.connect(sys.argv[1], statement_timeout=None)
db.workflows(limit=10)
def memory(line):
    with open("/proc/self/status") as status:
        lines = dict(each.split(":", 1) for each in status)
    return int(lines[line].split()[0]) * 1024
before = memory("VmRSS")
db.process_map()
print(memory("VmHWM") - before)
"""


def measure_mining(report: Report, url: str, runs: int) -> None:
    """Compare a process map with counting what follows what in pandas, and with the bare rows."""
    client = DBOSClient(system_database_url=url)

    def follows() -> int:
        """Count directly following steps with DBOSClient and pandas."""
        pairs = []
        for found in client.list_workflows(limit=RIVAL_RUNS, load_input=False, load_output=False):
            steps = client.list_workflow_steps(found.workflow_id, load_output=False)
            names = [step["function_name"] for step in steps]
            pairs += list(itertools.pairwise(names))
        return len(pd.DataFrame(pairs, columns=["before", "after"]).value_counts())

    def bare() -> int:
        """Read the columns that a map needs, and discard them."""
        columns = "workflow_uuid, function_id, function_name, started_at_epoch_ms"
        statement = f"COPY (SELECT {columns}, completed_at_epoch_ms FROM dbos.operation_outputs)"
        with (
            psycopg.connect(url) as connection,
            connection.cursor() as cursor,
            cursor.copy(f"{statement} TO STDOUT (FORMAT csv)".encode()) as copy,
        ):
            return sum(len(row) for row in copy)

    with dn.connect(url, statement_timeout=None) as db:
        took = seconds(
            {"map": db.process_map, "variants": lambda: db.variants(limit=None), "bare": bare}, 3
        )
    rival = seconds({"client": follows}, 1)["client"] / RIVAL_RUNS * runs
    client.destroy()
    allowed = 10 * max(runs / 100_000, 0.1)
    report.add(
        Measurement(
            "Process map of all runs, against DBOSClient → pandas (extrapolated)",
            f"{runs:,}",
            f"{took['map']:.1f} s",
            f"{rival:.0f} s",
            f"{rival / took['map']:.0f} ×",
            f"≤ {allowed:g} s",
            took["map"] <= allowed,
        )
    )
    report.add(
        Measurement(
            "Process map of all runs, against COPY of the steps' columns",
            f"{runs:,}",
            rate(runs, took["map"]),
            rate(runs, took["bare"]),
            f"{took['map'] / took['bare']:.1f} × the time",
        )
    )
    report.add(
        Measurement("Variants of all runs", f"{runs:,}", f"{took['variants']:.1f} s", "", "")
    )
    command = [sys.executable, "-c", _PEAK, url]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    limit = 500e6 * max(runs / 100_000, 1)
    report.add(
        Measurement(
            "Peak memory of the process map",
            f"{runs:,}",
            f"{peak / 1e6:,.0f} MB",
            "",
            "",
            f"≤ {limit / 1e6:,.0f} MB",
            peak <= limit,
        )
    )
