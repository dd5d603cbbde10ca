"""A DBOS application that records what the corpus lacks; ``python graphs_application.py URL``.

A parent that starts a receiver and a sender, a fan of concurrent steps, nine children at once, and
workflows that start one by its ID that is there already.
"""

from __future__ import annotations

import asyncio
import sys

from dbos import DBOS, SetWorkflowID


@DBOS.step()
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@DBOS.workflow()
async def fan() -> float:
    """Three steps at once, then one, then two at once."""
    await asyncio.gather(nap(0.2), nap(0.3), nap(0.4))
    await nap(0.05)
    await asyncio.gather(nap(0.1), nap(0.2))
    return 1.0


@DBOS.workflow()
def receiver() -> str:
    return str(DBOS.recv("greeting", timeout_seconds=30))


@DBOS.workflow()
def sender(destination: str) -> None:
    DBOS.sleep(0.3)
    DBOS.send(destination, "hello", "greeting")


@DBOS.workflow()
def conversation() -> str:
    listening = DBOS.start_workflow(receiver)
    DBOS.start_workflow(sender, listening.workflow_id).get_result()
    return listening.get_result()


@DBOS.step()
def halve(number: int) -> float:
    if number == 7:
        raise ValueError("seven is odd")
    return number / 2


@DBOS.workflow()
def task(number: int) -> float:
    DBOS.set_event("number", number)
    return halve(number)


@DBOS.workflow()
def batch() -> int:
    handles = [DBOS.start_workflow(task, number) for number in range(9)]
    failed = 0
    for handle in handles:
        try:
            handle.get_result()
        except ValueError:
            failed += 1
    return failed


def start_once(workflow_id: str) -> None:
    with SetWorkflowID(workflow_id):
        handle = DBOS.start_workflow(task, 2)
    handle.get_result()


@DBOS.workflow()
def twice() -> None:
    """Start the same child again when it is done: DBOS gives its handle, and nothing starts."""
    start_once("once")
    start_once("once")


@DBOS.workflow()
def starts_first() -> None:
    start_once("shared")


@DBOS.workflow()
def starts_after() -> None:
    """Start a child that a child of this one has started, when both are done."""
    with SetWorkflowID("starts-first"):
        DBOS.start_workflow(starts_first).get_result()
    start_once("shared")


@DBOS.workflow()
def asks_first() -> None:
    """Await a workflow that another one has started, and then start it."""
    DBOS.retrieve_workflow("once").get_result()
    start_once("once")


def main(url: str) -> None:
    DBOS(
        config={
            "name": "talk",
            "system_database_url": url,
            "run_admin_server": False,
            "log_level": "CRITICAL",
            "application_version": "v1",
        }
    )
    DBOS.launch()
    for workflow_id, function in (
        ("talk", conversation),
        ("batch", batch),
        ("twice", twice),
        ("starts-after", starts_after),
        ("asks-first", asks_first),
    ):
        with SetWorkflowID(workflow_id):
            DBOS.start_workflow(function).get_result()

    async def concurrent() -> None:
        with SetWorkflowID("fan"):
            handle = await DBOS.start_workflow_async(fan)
        await handle.get_result()

    asyncio.run(concurrent())
    DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1])
