"""Control of many workflows, against plain loops over DBOSClient, and what the application feels.

A notebook is seldom on its database's machine. So the loops are also run through a relay that holds
each message back, as a network does; and the client whose work the application must not feel runs
at a lower priority, so that what is felt is the database's work and not a fight for the processor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
from dbos import DBOSClient
from sqlalchemy.engine import make_url

import dbos_notebook as dn
from benchmarks.measure import Report, Row, rate

STATES = {"fork": "ERROR", "resume": "CANCELLED", "cancel": "ENQUEUED"}
MOST_LOOPED = 400
"""So many at most are done by the loop, which takes the same time for each."""
ROUND_TRIP_MS = 1.0
WARM_UP, MEASURED = 2.0, 6.0

RELAY = """
import socket, sys, threading, time
path, delay = sys.argv[1], float(sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)

def pump(source, target, held):
    while data := source.recv(65536):
        time.sleep(held)
        target.sendall(data)
    target.close()

while True:
    here, _ = listener.accept()
    here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    there = socket.socket(socket.AF_UNIX)
    there.connect(path)
    threading.Thread(target=pump, args=(here, there, delay), daemon=True).start()
    threading.Thread(target=pump, args=(there, here, 0), daemon=True).start()
"""

FORKER = """
import os, sys
import dbos_notebook as dn
os.nice(15)
url, count = os.environ["BENCH_URL"], int(sys.argv[1])
with dn.connect(url, statement_timeout=None) as db:
    ids = [f"resume-{number}" for number in range(1, count + 1)]
    plan = db.fork(ids, "failed", application_version="none", key="felt", plan=True)
    print("begun", flush=True)
    assert plan.apply().counts["done"] == count
"""

APPLICATION = """
import os, sys, time
from dbos import DBOS
DBOS(config={"name": "bench-live", "system_database_url": os.environ["BENCH_URL"],
             "application_version": "live", "log_level": "CRITICAL"})

@DBOS.step()
def one(number):
    return number

@DBOS.workflow()
def two_steps(number):
    return one(number) + one(number)

DBOS.launch()
print("ready", flush=True)
count = 0
while True:
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.25:
        two_steps(done)
        done += 1
    print(done / (time.perf_counter() - begun), flush=True)
"""


def _fill(url: str, count: int) -> dict[str, list[str]]:
    """Add workflows with five steps each, of which the last failed, in each of three states."""
    made = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for verb, status in STATES.items():
            connection.execute(
                f"""INSERT INTO dbos.workflow_status (workflow_uuid, status, name, created_at,
                    updated_at, application_version, executor_id, queue_name, serialization,
                    application_name)
                SELECT '{verb}-' || i, '{status}', 'order', 1790000000000 + i, 1790000000000 + i,
                    'old', 'e', CASE WHEN '{status}' = 'ENQUEUED' THEN 'bench' END, 'py_pickle',
                    'bench'
                FROM generate_series(1, {count}) AS g(i)""".encode()
            )
            connection.execute(
                f"""INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp)
                SELECT '{verb}-' || i, 'gAR9lC4=', 1
                FROM generate_series(1, {count}) AS g(i)""".encode()
            )
            connection.execute(
                f"""INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name,
                    output, error, started_at_epoch_ms, completed_at_epoch_ms, serialization,
                    retention_timestamp)
                SELECT '{verb}-' || w.i, s.i, 'step_' || s.i,
                    CASE WHEN s.i < 5 THEN 'gARLBS4=' END, CASE WHEN s.i = 5 THEN 'gAROLg==' END,
                    s.i, s.i, 'py_pickle', 1
                FROM generate_series(1, {count}) w(i), generate_series(1, 5) s(i)""".encode()
            )
            made[verb] = [f"{verb}-{number}" for number in range(1, count + 1)]
        connection.execute("VACUUM ANALYZE")
    return made


def _loop(call: Callable[[str], object], ids: Sequence[str]) -> float:
    begun = time.perf_counter()
    for one in ids:
        call(one)
    return (time.perf_counter() - begun) / len(ids)


@contextmanager
def _far(url: str, milliseconds: float) -> Iterator[str]:
    """Give the URL of the same database, so many milliseconds of round trip away."""
    near = make_url(url)
    path = f"{near.query['host']}/.s.PGSQL.5432"
    relay = subprocess.Popen(
        [sys.executable, "-c", RELAY, path, str(milliseconds / 1000)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert relay.stdout is not None
        port = int(relay.stdout.readline())
        far = near.difference_update_query(["host"]).set(host="127.0.0.1", port=port)
        yield far.render_as_string(hide_password=False)
    finally:
        relay.kill()
        relay.wait()
        relay.stdout.close()


def bulk(report: Report, url: str, count: int) -> None:
    """Fork, resume and cancel ``count`` workflows each, with plan, checks and receipt."""
    looped = min(MOST_LOOPED, count // 5)
    made = _fill(url, 2 * (count + looped))
    near, away = slice(0, count + looped), slice(count + looped, None)
    _race(
        report, url, {verb: ids[near] for verb, ids in made.items()}, looped, "beside its database"
    )
    with _far(url, ROUND_TRIP_MS) as far:
        where = f"{ROUND_TRIP_MS:g} ms from its database"
        _race(report, far, {verb: ids[away] for verb, ids in made.items()}, looped, where)


def _race(report: Report, url: str, made: dict[str, list[str]], looped: int, where: str) -> None:
    client = DBOSClient(system_database_url=url)
    loops: dict[str, Callable[[str], object]] = {
        # To a version that nobody runs: the forks stay where they are put.
        "fork": lambda one: client.fork_workflow(one, 5, application_version="none"),
        "resume": client.resume_workflow,
        "cancel": client.cancel_workflow,
    }
    with dn.connect(url, statement_timeout=None) as db:
        ours: dict[str, Callable[[list[str]], object]] = {
            "fork": lambda ids: db.fork(
                ids, "failed", application_version="none", key="bench", confirm=True
            ),
            "resume": lambda ids: db.resume(ids, confirm=True),
            "cancel": lambda ids: db.cancel(ids, confirm=True),
        }
        for verb in STATES:
            ids = made[verb][looped:]
            plain = _loop(loops[verb], made[verb][:looped])
            begun = time.perf_counter()
            receipt = ours[verb](ids)
            each = (time.perf_counter() - begun) / len(ids)
            assert isinstance(receipt, dn.Receipt)
            assert receipt.counts["done"] == len(ids)
            report.add(
                Row(
                    f"Postgres: {verb} with plan and receipt, against a loop, {where}",
                    f"{len(ids):,}",
                    rate(1, each),
                    rate(1, plain),
                    f"{plain / each:.1f} ×",
                    "≥ 3 ×",
                    plain / each >= 3,
                )
            )
    client.destroy()


def felt_by_the_application(report: Report, url: str, count: int) -> None:
    """Measure how many workflows a second an application runs, while many are forked beside it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE dbos.workflow_status SET status = 'ERROR' WHERE workflow_uuid LIKE 'resume-%'"
        )
    process = subprocess.Popen(
        [sys.executable, "-c", APPLICATION],
        env={**os.environ, "BENCH_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    speeds: list[tuple[float, float]] = []

    def read() -> None:
        assert process.stdout is not None
        speeds.extend((time.perf_counter(), float(line)) for line in process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        time.sleep(WARM_UP + MEASURED)
        forker = subprocess.Popen(
            [sys.executable, "-c", FORKER, str(count)],
            env={**os.environ, "BENCH_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert forker.stdout is not None
        assert forker.stdout.readline() == "begun\n"
        began = time.perf_counter()
        assert forker.wait() == 0
        ended = time.perf_counter()
        # Before and after: what the machine does otherwise changes meanwhile.
        time.sleep(MEASURED)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    idle = [speed for at, speed in speeds if began - MEASURED < at < began or at > ended + 0.5]
    busy = [speed for at, speed in speeds if began + 0.25 < at < ended]
    before, during = sum(idle) / len(idle), sum(busy) / len(busy)
    report.add(
        Row(
            f"Postgres: an application's workflows while others are forked ({ended - began:.0f} s)",
            f"{count:,}",
            f"{during:,.0f} /s",
            f"{before:,.0f} /s alone",
            f"{during / before:.2f}",
            "≥ 0.8",
            during / before >= 0.8,
        )
    )
