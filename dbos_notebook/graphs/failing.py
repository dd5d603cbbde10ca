"""The failing path: from the step that failed a run up to the workflow that the graph is of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

Node = dict[str, Any]


def mark_failing_path(
    root: str | None,
    nodes: Mapping[Hashable, Node],
    steps_of: Mapping[str, Sequence[Node]],
    starters: Mapping[str, Sequence[Hashable]],
) -> None:
    """Set ``on_failing_path`` on what led to the root's failure.

    A workflow fails by the last failed step that has the workflow's own error; where none has it
    (the error was caught, and another raised from it), by its last step, if that failed; otherwise
    its body failed and the path ends there. A step that failed because it awaited a workflow leads
    on into that one.

    Parameters
    ----------
    root
        Where the path ends.
    nodes
        Attributes of all nodes.
    steps_of
        Attributes of each workflow's steps, by function_id.
    starters
        The steps that started each workflow.
    """
    seen: set[str] = set()
    workflow_id = root
    while workflow_id is not None and workflow_id not in seen:
        seen.add(workflow_id)
        workflow = nodes[workflow_id]
        if workflow["status"] not in ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
            return
        workflow["on_failing_path"] = True
        failed = _failed_step(workflow, steps_of.get(workflow_id, ()))
        if failed is None:
            return
        failed["on_failing_path"] = True
        child = failed.get("child_workflow_id")
        if child is None or child not in nodes or nodes[child]["status"] == "SUCCESS":
            return
        for starter in starters.get(child, ()):
            if nodes[starter]["workflow_id"] == workflow_id:
                nodes[starter]["on_failing_path"] = True
        workflow_id = child


def _failed_step(workflow: Node, steps: Sequence[Node]) -> Node | None:
    if workflow["status"] != "ERROR" or not steps:
        return None
    failed = [step for step in steps if step["status"] == "ERROR"]
    error = workflow.get("error_type"), workflow.get("error_message")
    same = [step for step in failed if (step.get("error_type"), step.get("error_message")) == error]
    if same:
        return same[-1]
    return failed[-1] if failed and failed[-1] is steps[-1] else None
