"""A DBOS application behind a transaction pooler. Arguments: URL, workflows a second, seconds.

Prints one JSON document: how many workflows were begun and how many are done, what failed, and what
DBOS logged.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import Counter

from dbos import DBOS, SetWorkflowID

url, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
logged: Counter[str] = Counter()
failed: Counter[str] = Counter()
begun = done = 0
lock = threading.Lock()


class Collect(logging.Handler):
    """Counts what DBOS warns of."""

    def emit(self, record: logging.LogRecord) -> None:
        """Count one record."""
        if record.levelno >= logging.WARNING:
            logged[record.getMessage().splitlines()[0][:200]] += 1


DBOS(
    config={
        "name": "pooled",
        "system_database_url": url,
        "run_admin_server": False,
        "log_level": "WARNING",
        "application_version": "pooled-1",
        # As DBOS documents for poolers: no LISTEN, no prepared statements.
        "use_listen_notify": False,
        "db_engine_kwargs": {"connect_args": {"prepare_threshold": None}},
    }
)


@DBOS.step()
def one(number: int) -> int:
    """Return the next number."""
    return number + 1


@DBOS.workflow()
def work(number: int) -> int:
    """Run two steps."""
    return one(one(number))


DBOS.launch()
logging.getLogger("dbos").addHandler(Collect())
print("ready", flush=True)
begin = time.monotonic()


def keep_working() -> None:
    """Run workflows at the rate until the time is over."""
    global begun, done
    while True:
        with lock:
            due = begin + begun / rate
            if due > begin + seconds:
                return
            begun += 1
            number = begun
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            with SetWorkflowID(f"work-{number}"):
                work(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            failed[f"{type(error).__name__}: {error}"[:200]] += 1
        else:
            with lock:
                done += 1


threads = [threading.Thread(target=keep_working) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(
    json.dumps({"begun": begun, "done": done, "failed": failed, "logged": logged}),
    flush=True,
)
os._exit(0)
