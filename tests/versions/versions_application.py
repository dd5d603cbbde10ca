"""A DBOS application for every dbos from 1.14 on: ``python versions_application.py URL [ID …]``.

Without IDs it runs some workflows and leaves others on a queue that nobody serves. With IDs it is
started a second time, repaired, and runs until those have finished.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from typing import Any

from dbos import DBOS, DBOSClient, SetWorkflowID

URL, AWAITED = sys.argv[1], sys.argv[2:]
FIRST = version("dbos").startswith("1.")


@DBOS.step()
def add(number: int) -> int:
    return number + 1


@DBOS.step()
def double(number: int) -> int:
    if number == 99 and not AWAITED:
        raise ValueError("99 is broken")
    return number * 2


@DBOS.workflow()
def work(number: int) -> int:
    return double(add(number))


@DBOS.workflow()
def parent(number: int) -> Any:
    return child(number)


@DBOS.workflow()
def child(number: int) -> int:
    return add(number)


def client() -> DBOSClient:
    """Return a client; the first dbos wants the application's own database too."""
    own: dict[str, Any] = {"application_database_url": URL} if FIRST else {}
    return DBOSClient(system_database_url=URL, **own)


def begin() -> None:
    """Run workflows that succeed, fail, have a child, wait, and are cancelled."""
    with SetWorkflowID("good"):
        work(1)
    with SetWorkflowID("bad"):
        try:
            work(98)
        except ValueError:
            print("failed as it should")
    with SetWorkflowID("parent"):
        parent(5)
    other = client()
    for number, workflow_id in enumerate(["waits-1", "waits-2", "waits-3", "cancelled"]):
        options: Any = {
            "workflow_name": "work",
            "queue_name": "nobody",
            "workflow_id": workflow_id,
        }
        other.enqueue(options, number)
    other.cancel_workflow("cancelled")


def await_all() -> None:
    """Wait until the workflows asked for have finished."""
    deadline = time.monotonic() + 60
    while True:
        found = DBOS.list_workflows(workflow_ids=AWAITED)
        if len(found) == len(AWAITED) and all(each.status == "SUCCESS" for each in found):
            return
        if time.monotonic() > deadline:
            sys.exit(f"not finished: {[(each.workflow_id, each.status) for each in found]}")
        time.sleep(0.1)


def main() -> None:
    os.environ["DBOS__APPVERSION"] = "v1"
    config: Any = {"name": "versions", "system_database_url": URL, "run_admin_server": False}
    if FIRST:
        config["application_database_url"] = URL
    DBOS(config=config)
    DBOS.launch()
    if AWAITED:
        await_all()
    else:
        begin()
    sys.stdout.flush()
    # Everything that counts is in the database; an orderly end waits for threads.
    os._exit(0)


if __name__ == "__main__":
    main()
