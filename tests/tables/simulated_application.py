"""Odd lives of workflows on real DBOS, each compared with the simulator after every operation.

    python simulated_application.py URL

prints what the simulator had wrong, as JSON, and leaves the database to look at.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, SetWorkflowID, SetWorkflowTimeout
from dbos_simulator import Life

URL = sys.argv[1]
COARSE = URL.startswith("sqlite") and sys.version_info < (3, 12)
GATES: dict[str, threading.Event] = {}
wrong: list[str] = []
compared = 0


@DBOS.step()
def note(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@DBOS.step(retries_allowed=True, max_attempts=3, interval_seconds=0.1)
def flaky(seen: list[int]) -> int:
    seen.append(1)
    if len(seen) < 3:
        raise ValueError("again")
    return len(seen)


@DBOS.workflow()
def work(steps: int) -> str:
    """Run steps, then wait until the script says so."""
    for _ in range(steps):
        note(0.05)
    gate = GATES.get(str(DBOS.workflow_id))
    if gate is not None:
        gate.wait(30)
    note(0.05)
    return "done"


@DBOS.workflow()
def tries() -> int:
    return flaky([])


engine = sa.create_engine(URL.replace("postgresql://", "postgresql+psycopg://"))
TABLE = "workflow_status" if URL.startswith("sqlite") else "dbos.workflow_status"


def row_of(name: str) -> dict[str, Any]:
    with engine.connect() as connection:
        found = connection.execute(
            sa.text(f"SELECT * FROM {TABLE} WHERE workflow_uuid = :id"), {"id": name}
        )
        return dict(found.mappings().one())


def milliseconds() -> int:
    return round(time.time() * 1000)


def does(life: Life, real: Callable[[], Any], made: Callable[[], Any]) -> None:
    """Do an operation in both, and compare."""
    life.now = begun = milliseconds()
    real()
    made()
    compare(life, milliseconds() - begun)


def until(life: Life, status: str, column: str, made: Callable[[], Any]) -> None:
    """Wait for what a worker does, and do the same at the time that it did it."""
    end = time.monotonic() + 30
    while (row := row_of(life.id))["status"] != status and time.monotonic() < end:
        time.sleep(0.03)
    life.now = row[column] or row["updated_at"]
    made()
    compare(life, 0)


def compare(life: Life, took: int) -> None:
    global compared
    row = row_of(life.id)
    if life.status == "ENQUEUED" and row["status"] == "PENDING":
        return  # a worker was quicker than we
    compared += 1
    for name, value in life.row.items():
        if name == "name":
            continue
        real = row[name]
        if name.endswith(("_at", "_epoch_ms")) and value is not None and real is not None:
            same = abs(real - value) <= took + 1100
        else:
            same = real == value
        if not same:
            wrong.append(f"{life.id} {life.status} {name}: {value!r} is {real!r}")


def running(name: str, steps: int = 2, timeout: float | None = None) -> Life:
    """Enqueue a workflow on mail, and wait until it runs."""
    GATES[name] = threading.Event()
    life = Life(name, milliseconds(), COARSE)

    def enqueue() -> None:
        with SetWorkflowID(name), SetWorkflowTimeout(timeout):
            DBOS.enqueue_workflow("mail", work, steps)

    ms = None if timeout is None else round(timeout * 1000)
    does(life, enqueue, lambda: life.enqueue("mail", timeout=ms))
    until(life, "PENDING", "started_at_epoch_ms", life.dequeue)
    end = time.monotonic() + 30
    while len(DBOS.list_workflow_steps(name)) < steps and time.monotonic() < end:
        time.sleep(0.03)
    return life


def finished(life: Life) -> None:
    GATES[life.id].set()
    until(life, "SUCCESS", "completed_at", life.finish)


def main() -> None:
    DBOS(
        config={
            "name": "lives",
            "system_database_url": URL,
            "run_admin_server": False,
            "log_level": "CRITICAL",
            "application_version": "1",
        }
    )
    DBOS.launch()
    DBOS.register_queue("mail", polling_interval_sec=0.1)
    client = DBOSClient(system_database_url=URL)

    def nobody(name: str, **more: Any) -> Life:
        """Enqueue where no worker looks."""
        life = Life(name, milliseconds(), COARSE)
        delay = more.get("delay_seconds")
        does(
            life,
            lambda: client.enqueue(
                {"queue_name": "nobody", "workflow_name": "work", "workflow_id": name, **more}, 1
            ),
            lambda: life.enqueue("nobody", delay and round(delay * 1000)),
        )
        return life

    idle, delayed = nobody("cancelled-on-queue"), nobody("delayed", delay_seconds=3600)
    tagged = nobody("moved", delay_seconds=3600)
    does(tagged, lambda: client.set_workflow_delay("moved", delay_seconds=1800),
         lambda: tagged.delay_again(1_800_000))  # fmt: skip

    # Ran, was cancelled, and is resumed: by default, onto its own queue, and where nobody looks.
    lives = {name: running(name) for name in ("resumed", "own-queue", "waits-again", "recovered",
                                              "rewound", "cancelled", "original")}  # fmt: skip
    direct = Life("direct", milliseconds(), COARSE)

    def start() -> None:
        with SetWorkflowID("direct"):
            DBOS.start_workflow(work, 1)

    does(direct, start, direct.start)
    until(direct, "SUCCESS", "completed_at", direct.finish)
    timed = running("timed-out", timeout=1.0)
    until(timed, "CANCELLED", "completed_at", timed.cancel)
    time.sleep(1.2)
    for name in ("resumed", "own-queue", "waits-again", "cancelled"):
        life = lives[name]
        does(life, lambda name=name: DBOS.cancel_workflow(name), life.cancel)
    does(idle, lambda: DBOS.cancel_workflow(idle.id), idle.cancel)
    for name in ("resumed", "own-queue", "waits-again", "cancelled", "timed-out"):
        GATES[name].set()
    for name in ("rewound", "original"):
        finished(lives[name])
    time.sleep(2.2)
    for name in ("resumed", "own-queue"):
        GATES[name] = threading.Event()
    again = lives["waits-again"]
    does(again, lambda: DBOS.resume_workflow(again.id, queue_name="nobody"),
         lambda: again.resume("nobody"))  # fmt: skip
    own = lives["own-queue"]
    does(own, lambda: DBOS.resume_workflow(own.id, queue_name="mail"), lambda: own.resume("mail"))
    until(own, "PENDING", "started_at_epoch_ms", own.dequeue)
    resumed = lives["resumed"]
    does(resumed, lambda: DBOS.resume_workflow("resumed"), resumed.resume)
    until(resumed, "PENDING", "started_at_epoch_ms", resumed.dequeue)
    for life in (own, resumed):
        finished(life)
    recovered = lives["recovered"]
    does(recovered, lambda: DBOS._recover_pending_workflows(["local"]), recovered.recover)
    until(recovered, "PENDING", "started_at_epoch_ms", recovered.dequeue)
    finished(recovered)
    rewound = lives["rewound"]
    does(rewound, lambda: DBOS.rewind_workflow("rewound", start_step=2), lambda: rewound.rewind(2))
    until(rewound, "PENDING", "started_at_epoch_ms", rewound.dequeue)
    until(rewound, "SUCCESS", "completed_at", rewound.finish)
    lives["original"].now = milliseconds()
    fork = lives["original"].fork("forked", 3)
    with SetWorkflowID("forked"):
        DBOS.fork_workflow("original", 3)
    compare(fork, 100)
    until(fork, "SUCCESS", "completed_at", lambda: (fork.dequeue(), fork.finish()))
    with SetWorkflowID("retried"):
        DBOS.start_workflow(tries).get_result()
    does(delayed, lambda: None, lambda: None)
    DBOS.destroy()
    print(json.dumps({"compared": compared, "wrong": wrong}))


if __name__ == "__main__":
    main()
