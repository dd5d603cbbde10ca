"""The DBOS application of the tests of failed steps and activities, in one process.

It runs the workflows that fail to their ends, and then those that wait until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from dbos import DBOS, DBOSClient, SetEnqueueOptions, SetWorkflowID


class UpstreamError(Exception):
    """The service upstream failed."""


class Declined(Exception):
    """Says why in attributes alone."""

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__()
        self.status_code = status_code
        self.detail = detail


class OrderFailed(Exception):
    """Raised from the error of a step."""


@DBOS.step()
def fine() -> str:
    return "fine"


@DBOS.step(name="shop.steps.fetch", retries_allowed=True, max_attempts=3, interval_seconds=0.01)
def fetch(number: int) -> None:
    raise UpstreamError(f"503 for {number}")


@DBOS.step()
def charge() -> None:
    raise Declined(402, "no funds")


@DBOS.step()
async def collect(number: int) -> None:
    await asyncio.sleep(0.01 * number)
    raise UpstreamError(f"503 for {number}")


@DBOS.workflow()
def retried(number: int) -> None:
    fine()
    fetch(number)


@DBOS.workflow()
def attributes() -> None:
    charge()


@DBOS.workflow()
def own_code() -> None:
    """Survive a failed step, and fail in code of its own."""
    try:
        charge()
    except Declined:
        fine()
    raise OrderFailed("nothing left to try")


@DBOS.workflow()
def translated() -> None:
    """Raise another error because of a step's."""
    try:
        charge()
    except Declined as error:
        raise OrderFailed("could not charge") from error


@DBOS.workflow()
async def concurrent() -> None:
    """Two steps fail, and the error of the first one is raised last."""
    results = await asyncio.gather(collect(1), collect(2), return_exceptions=True)
    raise results[0]  # type: ignore[misc] # both are exceptions


@DBOS.workflow()
async def grouped() -> None:
    """Raise a group with one error."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(1))


@DBOS.workflow()
def outer(number: int) -> None:
    fine()
    inner(number)


@DBOS.workflow()
def inner(number: int) -> None:
    DBOS.start_workflow(retried, number).get_result()


@DBOS.workflow()
def tolerant() -> None:
    """Survive a failed child, and fail in a step of its own."""
    try:
        DBOS.start_workflow(retried, 7).get_result()
    except Exception:  # noqa: BLE001 - whatever DBOS raises for it
        fine()
    charge()


@DBOS.workflow()
def child_code() -> None:
    DBOS.start_workflow(own_code).get_result()


@DBOS.workflow()
def bystander() -> None:
    """Fail while a child that has failed was never awaited."""
    handle = DBOS.start_workflow(retried, 8)
    while handle.get_status().status == "PENDING":
        time.sleep(0.01)
    charge()


FAILING: dict[str, tuple[Any, ...]] = {
    "retried": (retried, 1),
    "attributes": (attributes,),
    "own_code": (own_code,),
    "translated": (translated,),
    "concurrent": (concurrent,),
    "grouped": (grouped,),
    "outer": (outer, 2),
    "tolerant": (tolerant,),
    "child_code": (child_code,),
    "bystander": (bystander,),
}


def run_failing() -> None:
    """Run every workflow that fails, with its name as its ID."""
    for name, (function, *args) in FAILING.items():
        with SetWorkflowID(name):
            handle = DBOS.start_workflow(function, *args)
        try:
            handle.get_result(polling_interval_sec=0.02)
        except BaseException:  # noqa: BLE001 - all of them fail
            continue


@DBOS.step()
def hold() -> None:
    """Run until the process ends."""
    time.sleep(3600)


@DBOS.workflow()
def busy() -> None:
    fine()
    hold()


@DBOS.workflow()
def begins() -> None:
    hold()


@DBOS.workflow()
def sleeper() -> None:
    fine()
    DBOS.sleep(3600)


@DBOS.workflow()
def slept() -> None:
    """Run a step after a sleep."""
    DBOS.sleep(0.01)
    hold()


@DBOS.workflow()
def receiver() -> None:
    DBOS.set_event("stage", "draft")
    DBOS.set_event("stage", "waiting for approval")
    DBOS.recv("approval", timeout_seconds=3600)


@DBOS.workflow()
def received() -> None:
    """Run a step after a message."""
    DBOS.recv("go", timeout_seconds=3600)
    hold()


@DBOS.workflow()
def alone() -> None:
    """Wait for a message as no other run has done before."""
    DBOS.recv(timeout_seconds=3600)


@DBOS.workflow()
def listener(key: str, seconds: float) -> None:
    fine()
    DBOS.get_event("busy", key, timeout_seconds=seconds)


@DBOS.workflow()
def waits_for_children() -> None:
    handles = [DBOS.start_workflow(each) for each in (quick, sleeper, busy)]
    for handle in handles:
        handle.get_result()


@DBOS.workflow()
def calls_a_child() -> None:
    sleeper()


@DBOS.workflow()
def after_children() -> None:
    """Run a step after every child has ended."""
    DBOS.start_workflow(quick).get_result()
    hold()


@DBOS.workflow()
def beside_a_child() -> None:
    """Run a step while a child is active."""
    DBOS.start_workflow(sleeper)
    fine()
    hold()


@DBOS.workflow()
def quick() -> str:
    return fine()


WAITING: dict[str, tuple[Any, ...]] = {
    "busy": (busy,),
    "begins": (begins,),
    "sleeper": (sleeper,),
    "slept": (slept,),
    "receiver": (receiver,),
    "received": (received,),
    "alone": (alone,),
    "listener": (listener, "never", 3600),
    "waits_for_children": (waits_for_children,),
    "calls_a_child": (calls_a_child,),
    "after_children": (after_children,),
    "beside_a_child": (beside_a_child,),
}


def start_waiting() -> None:
    """Start the workflows that wait, with their names as their IDs."""
    with SetWorkflowID("listened"):
        DBOS.start_workflow(listener, "never", 0.01).get_result()
    with SetWorkflowID("answered"):
        answered = DBOS.start_workflow(receiver)
    DBOS.send("answered", "yes", "approval")
    answered.get_result()
    for name, (function, *args) in WAITING.items():
        with SetWorkflowID(name):
            DBOS.start_workflow(function, *args)
    DBOS.send("received", "yes", "go")


def fill_queues(url: str) -> None:
    """Enqueue workflows that are not dequeued, each for another reason."""
    polling = {"polling_interval_sec": 0.05}
    DBOS.register_queue("one", global_concurrency=1, **polling)
    DBOS.register_queue("worker", worker_concurrency=1, **polling)
    DBOS.register_queue("limited", limiter={"limit": 1, "period": 3600}, **polling)
    DBOS.register_queue("partitioned", partition_concurrency=1, **polling)
    DBOS.register_queue("open", **polling)
    for queue in ("one", "worker", "limited"):
        enqueue(queue, f"{queue}-runs")
        wait_for_start(f"{queue}-runs")
        for number in (1, 2):
            enqueue(queue, f"{queue}-{number}")
    with SetEnqueueOptions(queue_partition_key="a"):
        enqueue("partitioned", "partition-runs")
    wait_for_start("partition-runs")
    with SetEnqueueOptions(queue_partition_key="a"):
        enqueue("partitioned", "partition-1")
    enqueue("partitioned", "partition-no-key")
    with SetEnqueueOptions(app_version="9"):
        enqueue("open", "open-other-version")
    with SetEnqueueOptions(delay_seconds=3600):
        enqueue("open", "open-delayed")
    client = DBOSClient(system_database_url=url)
    client.enqueue({"workflow_name": "begins", "queue_name": "nowhere", "workflow_id": "nowhere"})
    client.destroy()


def enqueue(queue: str, workflow_id: str) -> None:
    """Enqueue a workflow that runs until the process ends."""
    with SetWorkflowID(workflow_id):
        DBOS.enqueue_workflow(queue, begins)


def wait_for_start(workflow_id: str) -> None:
    """Wait until a workflow was dequeued."""
    while DBOS.retrieve_workflow(workflow_id).get_status().status != "PENDING":
        time.sleep(0.02)


def launch(url: str, version: str, executor: str) -> None:
    """Launch an executor."""
    DBOS(
        config={
            "name": "activities",
            "system_database_url": url,
            "application_version": version,
            "executor_id": executor,
            "run_admin_server": False,
            "log_level": "CRITICAL",
        }
    )
    DBOS.launch()


def main(url: str, role: str) -> None:
    """Run one process of the application; print a line when everything is as it stays."""
    launch(url, "1", role)
    if role == "failing":
        run_failing()
        DBOS.destroy()
        return
    if role == "dead":
        with SetWorkflowID("stranded"):
            DBOS.start_workflow(sleeper)
    else:
        start_waiting()
        fill_queues(url)
    time.sleep(1)
    print("ready", flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
