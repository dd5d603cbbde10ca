"""The DBOS application of the tests of control; ``live_executors`` runs it in processes.

Each step first appends a line to a file, so that side effects can be counted. A process executes
the commands that it receives through a pipe.
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowAttributes, SetWorkflowID


def effects() -> Path:
    """Return the file to which steps append their side effects."""
    return Path(os.environ["CONTROL_EFFECTS"])


def effect(step: str) -> None:
    """Record that a step of a workflow has begun."""
    with effects().open("a") as file:
        file.write(f"{DBOS.workflow_id} {step} {DBOS.application_version}\n")


def wait_for(gate: str) -> None:
    """Wait until a test opens a gate (creates its file)."""
    while not (effects().parent / "gates" / gate).exists():
        time.sleep(0.02)


@DBOS.step()
def work(name: str) -> str:
    effect(name)
    return f"did {name}"


@DBOS.step()
def held(gate: str) -> str:
    """Wait for a gate so that a test can act while a step runs."""
    effect(f"held-{gate}")
    wait_for(gate)
    return gate


@DBOS.step()
def fragile(name: str) -> str:
    """Fail in the first version."""
    effect(name)
    if DBOS.application_version == "v1":
        raise ValueError(f"{name} is broken in v1")
    return f"did {name}"


@DBOS.workflow()
def three(gate: str | None = None) -> str:
    """Three steps; with a gate, the second waits."""
    work("a")
    if gate:
        held(gate)
    work("b")
    return work("c")


@DBOS.workflow()
def rich() -> str:
    """Events and streams before the step that fails."""
    work("a")
    DBOS.set_event("stage", "one")
    DBOS.write_stream("log", "first")
    fragile("b")
    DBOS.set_event("stage", "two")
    DBOS.write_stream("log", "second")
    return work("c")


@DBOS.workflow()
def leaf(number: int) -> str:
    work(f"leaf{number}-a")
    return fragile(f"leaf{number}-b")


@DBOS.workflow()
def middle(number: int) -> str:
    work(f"middle{number}-a")
    # Called directly, which DBOS records as a start and a getResult too.
    got = leaf(number)
    return work(f"middle{number}-{got[:3]}")


@DBOS.workflow()
def top(number: int) -> str:
    """Three levels: the deepest step fails in v1."""
    work(f"top{number}-a")
    handle = DBOS.start_workflow(middle, number)
    work(f"top{number}-b")
    got = handle.get_result()
    return work(f"top{number}-{got[:3]}")


@DBOS.workflow()
def pair(number: int) -> list[str]:
    """Two children of which the second fails in v1."""
    first = DBOS.start_workflow(three)
    second = DBOS.start_workflow(leaf, number)
    return [first.get_result(), second.get_result()]


@DBOS.workflow()
def tolerant(number: int) -> list[str]:
    """Await four children, of which two fail in v1, and report before it fails because of them."""
    handles = [
        DBOS.start_workflow(three),
        DBOS.start_workflow(leaf, number),
        DBOS.start_workflow(leaf, number + 1),
        DBOS.start_workflow(three),
    ]
    results = []
    for handle in handles:
        try:
            results.append(handle.get_result())
        except Exception:  # noqa: BLE001 - the test is about workflows that do this
            continue
    work(f"report-{len(results)}")
    if len(results) < len(handles):
        raise RuntimeError("too many children failed")
    return results


@DBOS.workflow()
def body_fails() -> str:
    """Raise outside any step in v1."""
    got = work("a")
    if DBOS.application_version == "v1":
        raise RuntimeError("the body is broken in v1")
    return got


@DBOS.workflow()
def always_fails() -> None:
    work("a")
    raise RuntimeError("broken in every version")


@DBOS.workflow()
def outer_hopeless() -> None:
    work("outer")
    always_fails()


@DBOS.workflow()
def careless(number: int) -> str:
    """Start a child that always fails, without awaiting it."""
    DBOS.start_workflow(always_fails)
    return fragile(f"careless{number}")


@DBOS.workflow()
def parent(gate: str) -> str:
    """Start a child that waits in a step."""
    work("p")
    handle = DBOS.start_workflow(three, gate)
    return handle.get_result()


@DBOS.workflow()
def scheduled(at: Any, context: Any) -> None:
    work("scheduled")


@DBOS.workflow()
def approval(topic: str | None = "approval", timeout: float = 600.0) -> Any:
    """Wait for an answer."""
    work("draft")
    DBOS.set_event("question", "May it be sent?")
    return DBOS.recv(topic, timeout_seconds=timeout)


@DBOS.workflow()
def awaits_event(workflow_id: str) -> Any:
    """Wait for an event that is never set."""
    return DBOS.get_event(workflow_id, "never", timeout_seconds=600)


@DBOS.workflow()
def naps() -> None:
    work("tired")
    DBOS.sleep(600)


FUNCTIONS = {
    each.__name__: each
    for each in (
        three,
        rich,
        leaf,
        middle,
        top,
        pair,
        tolerant,
        body_fails,
        outer_hopeless,
        careless,
        parent,
        approval,
        awaits_event,
        naps,
    )
}


def run_command(command: dict[str, Any]) -> None:
    """Execute a command of a test."""
    kind = command["do"]
    if kind in ("start", "run", "enqueue", "delay"):
        function, args = FUNCTIONS[command["name"]], command.get("args", [])
        for workflow_id in command["ids"]:
            with SetWorkflowID(workflow_id), SetWorkflowAttributes(command.get("attributes")):
                if kind == "enqueue":
                    DBOS.enqueue_workflow(command["queue"], function, *args)
                elif kind == "delay":
                    with SetEnqueueOptions(delay_seconds=3600):
                        DBOS.enqueue_workflow(command["queue"], function, *args)
                else:
                    DBOS.start_workflow(function, *args)
        if kind == "run":
            for workflow_id in command["ids"]:
                try:
                    DBOS.retrieve_workflow(workflow_id).get_result(polling_interval_sec=0.02)
                except Exception:  # noqa: BLE001 - some workflows fail on purpose
                    continue
    elif kind == "schedule":
        context = command.get("context")
        DBOS.create_schedule(
            schedule_name=command["name"],
            workflow_fn=scheduled,
            schedule=command["cron"],
            context=Path("x") if context == "object" else context,
        )


def main(
    url: str, version: str, executor: str, effects: str, config: dict[str, Any], pipe: Connection
) -> None:
    """Launch an executor and execute commands until the pipe closes."""
    os.environ["CONTROL_EFFECTS"] = effects
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.dup2(silence, sys.stderr.fileno())
    DBOS(
        config={
            "name": "control-tests",
            "system_database_url": url,
            "application_version": version,
            "executor_id": executor,
            "log_level": "CRITICAL",
            "notification_listener_polling_interval_sec": 0.1,
            **config,
        }
    )
    DBOS.launch()
    DBOS.register_queue("busy", global_concurrency=1, polling_interval_sec=0.1)
    DBOS.register_queue("free", polling_interval_sec=0.1)
    pipe.send("ready")
    while True:
        try:
            command = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            run_command(command)
        except Exception as error:  # noqa: BLE001 - reported to the test, which fails
            pipe.send(repr(error))
        else:
            pipe.send("ok")
