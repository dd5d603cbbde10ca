"""What a fresh process needs: memory for a listing, time for an import. Run in children."""

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
_RIVAL = """
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
    """Return the frame's own bytes, the peak while it was made, and DBOSClient's peak."""
    own, peak, rows = _child(_LISTING, url)
    _, rival, same = _child(_RIVAL, url)
    assert rows == same, f"{rows} rows against {same}"
    return own, peak, rival


def import_seconds(module: str, rounds: int = 5) -> float:
    """Return the median time of a process that imports ``module``, less one that does not."""

    def once(program: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - begun

    once(f"import {module}")  # the first pays for reading the files
    pairs = [once(f"import {module}") - once("pass") for _ in range(rounds)]
    return statistics.median(pairs)
