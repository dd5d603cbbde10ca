"""Control of many workflows relative to loops over DBOSClient, and its effect on the application.

A notebook rarely runs on its database's machine. So both also run through a relay that delays each
message as a network does. While the effect on the application is measured, control runs at a lower
priority, so that the effect is that of the database's work and not of a shared processor.
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
from benchmarks.measure import Measurement, Report, rate

STATES = {"fork": "ERROR", "resume": "CANCELLED", "cancel": "ENQUEUED"}
MAX_LOOPED = 400
"""The loop handles at most this many, because it takes the same time for each."""
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
    plan = db.fork(ids, "failed", application_version="none", key="bench-effect", plan=True)
    print("started", flush=True)
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
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < 0.25:
        two_steps(done)
        done += 1
    print(done / (time.perf_counter() - started), flush=True)
"""


def _fill(url: str, count: int) -> dict[str, list[str]]:
    """Add workflows in each of three statuses, with five steps each, the last of which failed."""
    ids_by_call = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for operation, status in STATES.items():
            connection.execute(
                f"""INSERT INTO dbos.workflow_status (workflow_uuid, status, name, created_at,
                    updated_at, application_version, executor_id, queue_name, serialization,
                    application_name)
                SELECT '{operation}-' || i, '{status}', 'order', 1790000000000 + i,
                    1790000000000 + i, 'old', 'e',
                    CASE WHEN '{status}' = 'ENQUEUED' THEN 'bench' END, 'py_pickle', 'bench'
                FROM generate_series(1, {count}) AS g(i)""".encode()
            )
            connection.execute(
                f"""INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp)
                SELECT '{operation}-' || i, 'gAR9lC4=', 1
                FROM generate_series(1, {count}) AS g(i)""".encode()
            )
            connection.execute(
                f"""INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name,
                    output, error, started_at_epoch_ms, completed_at_epoch_ms, serialization,
                    retention_timestamp)
                SELECT '{operation}-' || w.i, s.i, 'step_' || s.i,
                    CASE WHEN s.i < 5 THEN 'gARLBS4=' END, CASE WHEN s.i = 5 THEN 'gAROLg==' END,
                    s.i, s.i, 'py_pickle', 1
                FROM generate_series(1, {count}) w(i), generate_series(1, 5) s(i)""".encode()
            )
            ids_by_call[operation] = [f"{operation}-{number}" for number in range(1, count + 1)]
        connection.execute("VACUUM ANALYZE")
    return ids_by_call


def _loop(call: Callable[[str], object], ids: Sequence[str]) -> float:
    started = time.perf_counter()
    for one in ids:
        call(one)
    return (time.perf_counter() - started) / len(ids)


@contextmanager
def _with_latency(url: str, milliseconds: float) -> Iterator[str]:
    """Yield the URL of the same database with an additional round-trip time."""
    parsed = make_url(url)
    path = f"{parsed.query['host']}/.s.PGSQL.5432"
    relay = subprocess.Popen(
        [sys.executable, "-c", RELAY, path, str(milliseconds / 1000)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert relay.stdout is not None
        port = int(relay.stdout.readline())
        distant = parsed.difference_update_query(["host"]).set(host="127.0.0.1", port=port)
        yield distant.render_as_string(hide_password=False)
    finally:
        relay.kill()
        relay.wait()
        relay.stdout.close()


def bulk(report: Report, url: str, count: int) -> None:
    """Fork, resume and cancel ``count`` workflows each, with plan, checks and receipt."""
    loop_count = min(MAX_LOOPED, count // 5)
    ids_by_call = _fill(url, 2 * (count + loop_count))
    first, second = slice(0, count + loop_count), slice(count + loop_count, None)
    _compare(
        report,
        url,
        {operation: ids[first] for operation, ids in ids_by_call.items()},
        loop_count,
        "beside its database",
    )
    with _with_latency(url, ROUND_TRIP_MS) as distant_url:
        setting = f"{ROUND_TRIP_MS:g} ms from its database"
        _compare(
            report,
            distant_url,
            {operation: ids[second] for operation, ids in ids_by_call.items()},
            loop_count,
            setting,
        )


def _compare(
    report: Report, url: str, ids_by_call: dict[str, list[str]], loop_count: int, setting: str
) -> None:
    client = DBOSClient(system_database_url=url)
    loops: dict[str, Callable[[str], object]] = {
        # For a version without executors, so that the forks stay enqueued.
        "fork": lambda workflow_id: client.fork_workflow(
            workflow_id, 5, application_version="none"
        ),
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
        for operation in STATES:
            ids = ids_by_call[operation][loop_count:]
            loop_seconds = _loop(loops[operation], ids_by_call[operation][:loop_count])
            started = time.perf_counter()
            receipt = ours[operation](ids)
            our_seconds = (time.perf_counter() - started) / len(ids)
            assert isinstance(receipt, dn.Receipt)
            assert receipt.counts["done"] == len(ids)
            report.add(
                Measurement(
                    f"Postgres: {operation} with plan and receipt, against a loop, {setting}",
                    f"{len(ids):,}",
                    rate(1, our_seconds),
                    rate(1, loop_seconds),
                    f"{loop_seconds / our_seconds:.1f} ×",
                    "≥ 3 ×",
                    loop_seconds / our_seconds >= 3,
                )
            )
    client.destroy()


def effect_on_the_application(report: Report, url: str, count: int) -> None:
    """Measure how many workflows per second an application runs during a bulk fork."""
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
        assert forker.stdout.readline() == "started\n"
        fork_started = time.perf_counter()
        assert forker.wait() == 0
        fork_finished = time.perf_counter()
        # Idle before and after, because other load on the machine changes meanwhile.
        time.sleep(MEASURED)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    idle = [
        speed
        for at, speed in speeds
        if fork_started - MEASURED < at < fork_started or at > fork_finished + 0.5
    ]
    busy = [speed for at, speed in speeds if fork_started + 0.25 < at < fork_finished]
    fork_seconds = fork_finished - fork_started
    before, during = sum(idle) / len(idle), sum(busy) / len(busy)
    report.add(
        Measurement(
            f"Postgres: an application's workflows during a bulk fork ({fork_seconds:.0f} s)",
            f"{count:,}",
            f"{during:,.0f} /s",
            f"{before:,.0f} /s alone",
            f"{during / before:.2f}",
            "≥ 0.8",
            during / before >= 0.8,
        )
    )
