"""One process of the shop: it runs the tasks of one version and then exits abruptly.

It ends with ``os._exit``, so that waiting workflows remain PENDING as after a crash. Each line of
standard output is the number of workflows finished since the previous line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from dbos import (
    DBOS,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    WorkflowHandle,
)

from dbos_notebook.demo import shop
from dbos_notebook.demo.process import launch, serve
from dbos_notebook.demo.workload import VERSIONS, Task, plan

APPLICATION = "demo-shop"
DELAY = timedelta(days=30)
TIMEOUT_SECONDS = 120.0


def main(version: str, workflows: int, seed: int) -> None:
    """Run the tasks of one version, then exit without cleanup."""
    launch(APPLICATION, version, f"shop-{version}")
    DBOS.register_queue("ledger", global_concurrency=1, polling_interval_sec=0.05)
    DBOS.register_queue("returns", global_concurrency=1, polling_interval_sec=0.05)
    DBOS.register_queue("mail", limiter={"limit": 100, "period": 1.0}, polling_interval_sec=0.1)
    if version == VERSIONS[0]:
        DBOS.create_schedule(
            schedule_name="nightly-stock", workflow_fn=shop.count_stock, schedule="0 2 * * *"
        )
    tasks = [task for task in plan(workflows, seed) if task.version == version]
    _queued(tasks)
    _inline([task for task in tasks if task.kind in ("order", "quote")])
    _queue_waits(tasks)
    _left_open(tasks, last=version == VERSIONS[-1])
    sys.stdout.flush()
    os._exit(0)


def _done(task: Task) -> None:
    print(task.size, flush=True)


def _enqueue(queue: str, task: Task, function: Callable[..., Any], *args: Any, **kw: Any) -> None:
    with SetWorkflowID(task.workflow_id), SetWorkflowAttributes({"seed": task.seed % 10}):
        DBOS.enqueue_workflow(queue, function, *args, **kw)


def _queued(tasks: list[Task]) -> None:
    """Enqueue the tasks that two queues run while orders are processed."""
    for task in tasks:
        if task.kind == "newsletter":
            _enqueue("mail", task, shop.newsletter, f"kunde+{task.seed % 100}@example.org")
        elif task.kind == "reconcile":
            _enqueue("ledger", task, shop.reconcile, f"2026-01-{task.seed % 28 + 1:02d}")


def _queue_waits(tasks: list[Task]) -> None:
    for task in tasks:
        if task.kind in ("newsletter", "reconcile"):
            DBOS.retrieve_workflow(task.workflow_id).get_result(polling_interval_sec=0.05)
            _done(task)


def _inline(tasks: list[Task]) -> None:
    """Process orders in a few threads; more would only wait for SQLite's single writer."""
    with ThreadPoolExecutor(4) as pool:
        for task, _ in zip(tasks, pool.map(_one, tasks), strict=True):
            _done(task)


def _one(task: Task) -> None:
    try:
        _start(task).get_result()
    except shop.ShopError:
        # Some orders are meant to fail; DBOS has recorded the error.
        return


def _start(task: Task) -> WorkflowHandle[Any]:
    with SetWorkflowID(task.workflow_id):
        if task.fork_of:
            failed = [s for s in DBOS.list_workflow_steps(task.fork_of) if s["error"]]
            return DBOS.fork_workflow(
                task.fork_of, failed[-1]["function_id"], application_version=task.version
            )
    attributes = {"channel": ("web", "app", "téléphone")[task.seed % 3], "vip": task.seed % 7 == 0}
    with SetWorkflowID(task.workflow_id), SetWorkflowAttributes(attributes):
        if task.kind == "quote":
            return DBOS.start_workflow(shop.quote, "TEA-1")
        fate = task.kind if task.kind in ("unpaid", "preorder") else task.fate
        fate = "unpaid" if task.kind == "cancelled" else fate
        made = shop.make_order(task.workflow_id, task.seed, fate)
        if task.kind == "preorder":
            with SetEnqueueOptions(delay_seconds=DELAY.total_seconds()):
                return DBOS.enqueue_workflow("ledger", shop.order, made)
        handle = DBOS.start_workflow(shop.order, made)
        if task.fate == "transfer":
            DBOS.send(task.workflow_id, f"transfer-{task.seed}", topic="payment")
        return handle


def _await_stage(workflow_id: str, stage: str) -> None:
    """Wait until a workflow says it has come this far, and waits: its steps are then the same ever.

    A wait with a timeout is a step of its own, a sleep, which DBOS records as it begins.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if DBOS.get_event(workflow_id, "stage", timeout_seconds=1) == stage:
            steps = DBOS.list_workflow_steps(workflow_id)
            if steps and steps[-1]["function_name"] == "DBOS.sleep":
                return
        time.sleep(0.02)
    raise TimeoutError(f"{workflow_id} did not reach {stage!r} in {TIMEOUT_SECONDS:.0f} s")


def _left_open(tasks: list[Task], *, last: bool) -> None:
    """Start what is still open when the process ends, or was cancelled while it waited."""
    if last:
        end = datetime(2026, 1, 4, tzinfo=UTC)
        for handle in DBOS.backfill_schedule("nightly-stock", end - timedelta(days=3), end):
            handle.get_result(polling_interval_sec=0.1)
    for task in tasks:
        if task.kind in ("unpaid", "cancelled", "preorder"):
            _start(task)
            if task.kind != "preorder":
                _await_stage(task.workflow_id, "awaiting payment")
            if task.kind == "cancelled":
                DBOS.cancel_workflow(task.workflow_id)
            _done(task)
    waiting = [task for task in tasks if task.kind == "waiting"]
    # One at a time: the first version's first return is never signed, so all others stay queued.
    for number, task in enumerate(waiting):
        blocks = not last and number == 0
        _enqueue("returns", task, shop.reconcile, "2026-02-01", until_told=blocks)
        if blocks:
            _await_stage(task.workflow_id, "awaiting signature")
        _done(task)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        # A new executor ID, because DBOS recovers the workflows of a process with the same ID.
        serve(APPLICATION, sys.argv[2], f"shop-{sys.argv[2]}-{os.getpid()}")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
