"""Memory of a listing and time of an import, measured in new processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

_LISTING = """
import json, sys
import dbos_notebook as dn
db = dn.connect(sys.argv[1], statement_timeout=None)
db.workflows(limit=10)
def peak():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) * 1024, int(lines["VmRSS"].split()[0]) * 1024
before = peak()[1]
frame = db.workflows(limit=None)
own = int(frame.memory_usage(deep=True).sum())
print(json.dumps([own, peak()[0] - before, len(frame)]))
"""
_BASELINE = """
import json, sys
from dbos import DBOSClient
import pandas as pd
client = DBOSClient(system_database_url=sys.argv[1])
client.list_workflows(limit=10, load_input=False, load_output=False)
def peak():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) * 1024, int(lines["VmRSS"].split()[0]) * 1024
before = peak()[1]
found = client.list_workflows(load_input=False, load_output=False)
frame = pd.DataFrame([vars(one) for one in found])
print(json.dumps([0, peak()[0] - before, len(frame)]))
"""


def _child(program: str, *arguments: str) -> list[int]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: list[int] = json.loads(done.stdout.splitlines()[-1])
    return answer


def listing(url: str) -> tuple[int, int, int]:
    """Return the frame's size, the peak memory of the listing, and DBOSClient's peak, in bytes."""
    own, peak, rows = _child(_LISTING, url)
    _, baseline, same = _child(_BASELINE, url)
    assert rows == same, f"{rows} rows against {same}"
    return own, peak, baseline


def import_seconds(module: str, rounds: int = 5) -> float:
    """Return the median seconds by which importing ``module`` lengthens a process."""

    def once(program: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - started

    once(f"import {module}")  # the first call fills the file cache
    pairs = [once(f"import {module}") - once("pass") for _ in range(rounds)]
    return statistics.median(pairs)
