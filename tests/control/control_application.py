"""A DBOS application for the tests of control: a process that runs until its input closes.

``python control_app.py VERSION EXECUTOR`` with the URL in the environment. Each step writes a
line to a file before it does anything: that is how side effects are counted. A line read from the
input is a command (JSON), answered by a line of output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowAttributes, SetWorkflowID


def effects() -> Path:
    """Return the file in which steps leave their traces."""
    return Path(os.environ["CONTROL_EFFECTS"])


def effect(step: str) -> None:
    """Leave a trace that a step of a workflow has begun."""
    with effects().open("a") as file:
        file.write(f"{DBOS.workflow_id} {step} {DBOS.application_version}\n")


def wait_for(gate: str) -> None:
    """Wait until a test opens a gate."""
    while not (effects().parent / "gates" / gate).exists():
        time.sleep(0.02)


@DBOS.step()
def work(name: str) -> str:
    effect(name)
    return f"did {name}"


@DBOS.step()
def held(gate: str) -> str:
    """Wait for a gate, so that a test can act while a step runs."""
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
    """Start a child that always fails, and do not look back."""
    DBOS.start_workflow(always_fails)
    return fragile(f"careless{number}")


@DBOS.workflow()
def parent(gate: str) -> str:
    """A child that waits in a step."""
    work("p")
    handle = DBOS.start_workflow(three, gate)
    return handle.get_result()


@DBOS.workflow()
def scheduled(at: Any, context: Any) -> None:
    work("scheduled")


FUNCTIONS = {
    each.__name__: each
    for each in (three, rich, leaf, middle, top, pair, body_fails, outer_hopeless, careless, parent)
}


def command(asked: dict[str, Any]) -> Any:
    """Do what a test asks."""
    kind = asked["do"]
    if kind in ("start", "run", "enqueue", "delay"):
        function, args = FUNCTIONS[asked["name"]], asked.get("args", [])
        for workflow_id in asked["ids"]:
            with SetWorkflowID(workflow_id), SetWorkflowAttributes(asked.get("attributes")):
                if kind == "enqueue":
                    DBOS.enqueue_workflow(asked["queue"], function, *args)
                elif kind == "delay":
                    with SetEnqueueOptions(delay_seconds=3600):
                        DBOS.enqueue_workflow(asked["queue"], function, *args)
                else:
                    DBOS.start_workflow(function, *args)
        if kind == "run":
            for workflow_id in asked["ids"]:
                try:
                    DBOS.retrieve_workflow(workflow_id).get_result(polling_interval_sec=0.02)
                except Exception:  # noqa: BLE001 - those that are meant to fail
                    continue
    elif kind == "schedule":
        DBOS.create_schedule(
            schedule_name=asked["name"],
            workflow_fn=scheduled,
            schedule=asked["cron"],
            context=Path("x") if asked.get("context") == "object" else asked.get("context"),
        )
    return "ok"


def main() -> None:
    version, executor = sys.argv[1:]
    DBOS(
        config={
            "name": "control-tests",
            "system_database_url": os.environ["CONTROL_URL"],
            "application_version": version,
            "executor_id": executor,
            "log_level": "CRITICAL",
            "notification_listener_polling_interval_sec": 0.05,
            **json.loads(os.environ.get("CONTROL_CONFIG", "{}")),
        }
    )
    DBOS.launch()
    DBOS.register_queue("busy", global_concurrency=1, polling_interval_sec=0.05)
    DBOS.register_queue("free", polling_interval_sec=0.05)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = command(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the test shall see it
            answer = repr(error)
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
