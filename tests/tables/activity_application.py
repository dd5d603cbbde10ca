"""The DBOS application of the tests of failed steps and activities, in one process.

It runs the workflows that fail to their ends, and then those that wait until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from dbos import DBOS, SetWorkflowID


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


if __name__ == "__main__":
    launch(sys.argv[1], "1", f"executor-{os.getpid()}")
    run_failing()
    DBOS.destroy()
