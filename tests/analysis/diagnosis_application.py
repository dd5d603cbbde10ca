"""The DBOS application of the tests of the diagnosis: each role leaves other things in disorder.

``crash`` and ``dead`` are one executor that is started again and again, ``alive`` is another one
that stays, ``healthy`` is one in whose database nothing is wrong, ``late`` leaves what is due soon.
"""

from __future__ import annotations

import os
import sys
import time

from dbos import (
    DBOS,
    DBOSClient,
    SetEnqueueOptions,
    SetWorkflowID,
    SetWorkflowTimeout,
)

MANY_STEPS = 40
LARGE = "x" * 60_000


@DBOS.step()
def fine() -> str:
    return "fine"


@DBOS.step()
def load(hangs: bool) -> None:
    """Load a file; one of them hangs."""
    if hangs:
        time.sleep(3600)


@DBOS.step()
def hold() -> None:
    """Run until the process ends."""
    time.sleep(3600)


@DBOS.step()
def large() -> str:
    return LARGE


@DBOS.step()
def fragile(fails: bool, seconds: float) -> None:
    time.sleep(seconds)
    if fails:
        raise ValueError("503")


@DBOS.workflow()
def quick() -> str:
    return fine()


@DBOS.workflow()
def waits() -> None:
    hold()


@DBOS.workflow()
def sleeper() -> None:
    fine()
    DBOS.sleep(3600)


@DBOS.workflow(max_recovery_attempts=1)
def crashes() -> None:
    """End the process."""
    os._exit(7)


@DBOS.workflow()
def batch(hangs: bool) -> None:
    """Load a file after a step of its own."""
    fine()
    load(hangs)


@DBOS.workflow()
def approval() -> None:
    fine()
    DBOS.recv("approval", timeout_seconds=3600)


@DBOS.workflow()
def many() -> None:
    for _ in range(MANY_STEPS):
        fine()


@DBOS.workflow()
def exports() -> None:
    large()


@DBOS.workflow()
def sync(fails: bool) -> None:
    fragile(fails, 0)


@DBOS.workflow()
def render(seconds: float) -> None:
    fragile(fails=False, seconds=seconds)


@DBOS.workflow()
def nightly(at: object, context: object) -> None:
    fine()


def launch(url: str, version: str, executor: str) -> None:
    """Launch an executor that listens to some of the queues."""
    DBOS(
        config={
            "name": "diagnosis",
            "system_database_url": url,
            "application_version": version,
            "executor_id": executor,
            "run_admin_server": False,
            "log_level": "CRITICAL",
        }
    )
    DBOS.listen_queues(["one", "limited", "partitioned", "open"])
    DBOS.launch()


def start(function: object, workflow_id: str, *args: object) -> None:
    """Start a workflow and do not wait for it."""
    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(function, *args)  # type: ignore[call-overload] # any workflow


def enqueue(queue: str, workflow_id: str) -> None:
    """Enqueue a workflow that runs until the process ends."""
    with SetWorkflowID(workflow_id):
        DBOS.enqueue_workflow(queue, waits)


def wait_for_status(workflow_id: str, status: str) -> None:
    """Wait until a workflow has a status."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = DBOS.retrieve_workflow(workflow_id, existing_workflow=False).get_status()
        if found is not None and found.status == status:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{workflow_id} is not {status}")


def crash() -> None:
    """Leave a run that was interrupted, beside one that interrupts the process."""
    start(sleeper, "sleeper")
    time.sleep(0.3)
    start(crashes, "crashes")
    time.sleep(30)


def dead() -> None:
    """After the last recovery: leave a run that nobody else recovers."""
    wait_for_status("crashes", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def alive(url: str) -> None:
    """Run what is normal, and leave one of everything that is not."""
    for number in range(6):
        with SetWorkflowID(f"batch-{number}"):
            DBOS.start_workflow(batch, False).get_result()
    _messages()
    _queues(url)
    start(batch, "batch-hangs", True)
    with SetWorkflowTimeout(3600):
        start(waits, "timed")
    _trends()
    # The newest runs, because only these are measured.
    for function in (many, exports):
        DBOS.start_workflow(function).get_result()


def _messages() -> None:
    with SetWorkflowID("answered"):
        answered = DBOS.start_workflow(approval)
    DBOS.send("answered", "yes", "approval")
    answered.get_result()
    start(approval, "unanswered")
    DBOS.send("unanswered", "yes", "aproval")
    DBOS.send("batch-0", "more", "files")


def _queues(url: str) -> None:
    polling = {"polling_interval_sec": 0.05}
    DBOS.register_queue("one", global_concurrency=1, **polling)
    DBOS.register_queue("limited", limiter={"limit": 1, "period": 3600}, **polling)
    DBOS.register_queue("partitioned", partition_concurrency=1, **polling)
    DBOS.register_queue("open", **polling)
    DBOS.register_queue("unheard", **polling)
    for queue in ("one", "limited"):
        enqueue(queue, f"{queue}-runs")
        wait_for_status(f"{queue}-runs", "PENDING")
        for number in (1, 2):
            enqueue(queue, f"{queue}-{number}")
    enqueue("partitioned", "no-key")
    for number in (1, 2):
        enqueue("unheard", f"unheard-{number}")
    with SetEnqueueOptions(app_version="9"):
        enqueue("open", "other-version")
    client = DBOSClient(system_database_url=url)
    client.enqueue({"workflow_name": "waits", "queue_name": "nowhere", "workflow_id": "nowhere"})
    client.destroy()


def _trends() -> None:
    """Run two workflows as ever, then let one fail and the other become slow."""
    for phase in ("before", "after"):
        if phase == "after":
            time.sleep(1.1)
            print(f"phase {time.time()}", flush=True)
            time.sleep(1.1)
        after = phase == "after"
        handles = [DBOS.start_workflow(sync, after and number % 2 == 0) for number in range(25)]
        for _ in range(25):
            handles.append(DBOS.start_workflow(render, 1.5 if after else 0.0))
            if not after:
                # One by one, because many at once wait for SQLite's single writer.
                handles[-1].get_result(polling_interval_sec=0.01)
        for handle in handles:
            try:
                handle.get_result(polling_interval_sec=0.02)
            except ValueError:
                continue


def healthy() -> None:
    """Run what may be active in a healthy application."""
    for number in range(6):
        with SetWorkflowID(f"batch-{number}"):
            DBOS.start_workflow(batch, False).get_result()
    for number in range(25):
        try:
            DBOS.start_workflow(sync, number == 7).get_result()
        except ValueError:
            continue
    start(sleeper, "sleeper")
    start(approval, "unanswered")
    DBOS.register_queue("one", global_concurrency=1, polling_interval_sec=0.05)
    for number in range(3):
        enqueue("one", f"one-{number}")
    with SetWorkflowTimeout(3600):
        start(waits, "timed")
    with SetEnqueueOptions(delay_seconds=3600):
        enqueue("one", "delayed")
    DBOS.create_schedule(schedule_name="nightly", workflow_fn=nightly, schedule="0 2 * * *")
    time.sleep(1)


def late() -> None:
    """Leave a delay, a deadline and a schedule, and end before they are due."""
    DBOS.register_queue("open", polling_interval_sec=0.05)
    DBOS.create_schedule(schedule_name="often", workflow_fn=nightly, schedule="* * * * * *")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        schedule = DBOS.get_schedule("often")
        if schedule is not None and schedule["last_fired_at"]:
            break
        time.sleep(0.05)
    with SetWorkflowTimeout(1.5):
        start(waits, "timed")
    with SetEnqueueOptions(delay_seconds=1.5):
        enqueue("open", "delayed")


def main(url: str, role: str) -> None:
    """Run one process of the application; print a line when everything is as it stays."""
    launch(url, "1", "dead" if role == "crash" else role)
    if role == "alive":
        alive(url)
    else:
        {"crash": crash, "dead": dead, "healthy": healthy, "late": late}[role]()
    print("ready", flush=True)
    if role == "late":
        os._exit(0)
    time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
