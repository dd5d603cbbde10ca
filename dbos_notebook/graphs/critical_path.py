"""The critical path, the failure path, and the self time of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.attributes import Key, NodeAttributes
from dbos_notebook.graphs.intervals import Run, Spans, Step
from dbos_notebook.status import FAILED_STATUSES


def mark_failing_path(
    root: str | None,
    nodes: Mapping[Key, NodeAttributes],
    steps_of: Mapping[str, Sequence[NodeAttributes]],
    starters: Mapping[str, Sequence[Key]],
) -> None:
    """Set ``on_failing_path`` on the nodes that caused the root's failure.

    The cause of a workflow's failure is its last failed step with the same error; if there is none,
    because the error was caught and another one raised, its last step, if that failed. Otherwise
    the workflow's own code failed, and the path ends there. If the step awaited a workflow that did
    not succeed, the path continues in that workflow.

    Parameters
    ----------
    root
        The root workflow.
    nodes
        The attributes of all nodes.
    steps_of
        The attributes of each workflow's steps, by function_id.
    starters
        The steps that started each workflow.
    """
    seen: set[str] = set()
    workflow_id = root
    while workflow_id is not None and workflow_id not in seen:
        seen.add(workflow_id)
        workflow = nodes[workflow_id]
        if workflow["status"] not in FAILED_STATUSES:
            return
        workflow["on_failing_path"] = True
        failed = failed_step(workflow, steps_of.get(workflow_id, ()))
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


def failed_step(workflow: NodeAttributes, steps: Sequence[NodeAttributes]) -> NodeAttributes | None:
    """Return the step that made a workflow fail; ``None`` if its own code did."""
    if workflow["status"] != "ERROR" or not steps:
        return None
    failed = [step for step in steps if step["status"] == "ERROR"]
    error = workflow.get("error_type"), workflow.get("error_message")
    same = [step for step in failed if (step.get("error_type"), step.get("error_message")) == error]
    if same:
        return same[-1]
    return failed[-1] if failed and failed[-1] is steps[-1] else None


_PARTS = {
    "sleep": "sleep",
    "recv": "waiting",
    "get_event": "waiting",
    "get_result": "waiting",
}


def critical_path(graph: nx.DiGraph[Any]) -> pd.DataFrame:
    """Return the chain of steps, waits and children that determined when a workflow ended.

    It is found backwards from the end: the step that completed last, then the step that completed
    last before that one started, and so on. Where a step awaited a child that was still running,
    the chain continues in the child, including its queue wait, and then at the step that started
    it.

    Parameters
    ----------
    graph
        An execution graph, not folded.

    Returns
    -------
    pandas.DataFrame
        ``node`` (its key in the graph), ``workflow_id``, ``function_id``, ``name``, ``part``,
        ``start``, ``end``, ``duration``; in order of time, without gaps. Steps on the chain that
        took less than a millisecond have rows too. The durations add up to the root's
        ``duration``: that of its latest run, up to the time of reading while it is running. The
        path of a workflow that is waiting, or that was cancelled while waiting, is its wait only.
        If cancelling erased the start of the run, the path starts with the first recorded step,
        and the time between and after steps is ``unknown``. ``part`` is one of:

        ========== ======================================================================
        queued     the workflow waited on a queue
        before     before that: it was delayed, in an earlier run, or nothing is recorded
        step       a step ran
        sleep      ``DBOS.sleep``
        waiting    for a message, an event, or a workflow that is not in the graph
        result     from the end of a child, or the request for its result, to the result
        between    the workflow's own code between, before or after steps
        running    after the last recorded step of a PENDING workflow
        unknown    own code, or a pause before it was resumed, as its start was erased
        ========== ======================================================================

    Raises
    ------
    GraphError
        The graph is folded, or its root has no times.

    Notes
    -----
    With applications on Python before 3.12, SQLite stores the times of workflows in whole seconds.
    There the root starts with its first step and ends with its last step, which may differ from
    its ``duration`` by up to a second.

    Examples
    --------
    >>> path = critical_path(dbos_notebook.connect(example_database).graph("checkout-1"))
    >>> path.loc[path["duration"] > "100ms", ["name", "part"]].values.tolist()
    [['ship', 'queued'], ['DBOS.getResult', 'result']]
    """
    walk = _Walk(Spans(graph))
    root: Any = graph.graph.get("root")
    run = walk.spans.workflow(root)
    if run is None:
        raise GraphError(
            f"The root {root!r} of the graph has no times, so it has no critical path."
        )
    if run.started is None:
        walk.moment = run.ended
        walk.wait(run, root, run.created if run.enqueued is None else run.enqueued)
    else:
        walk.trace(root, run.started, run.ended)
    return walk.frame()


def critical_path_intervals(graph: nx.DiGraph[Any]) -> list[tuple[Any, float, float]]:
    """Return (node, start, end) in seconds since 1970 for each part with a duration."""
    if graph.graph.get("root") not in graph:
        return []
    path = critical_path(graph).dropna(subset=["start", "end"])
    path = path[~path["part"].isin(["before", "unknown"])]  # these have no bar
    starts, ends = (
        path[name].to_numpy("datetime64[ns]").astype("int64") / 1e9 for name in ("start", "end")
    )
    return [
        (node, start, end)
        for node, start, end in zip(path["node"], starts.tolist(), ends.tolist(), strict=True)
        if end > start
    ]


@dataclass
class _Frame:
    """A workflow on the stack of the backward walk.

    Attributes
    ----------
    steps
        Its remaining steps, by completion time.
    started
        The time at which the walk leaves it.
    run, floor
        Its times, and the lower bound from its parent, if its wait is on the path as well.
    starter
        The step of the frame below that started it.
    awaiter
        The step of the frame below that awaited it, if no step of that frame started it.
    """

    workflow_id: str
    steps: list[Step]
    started: int
    run: Run[int] | None = None
    floor: int = 0
    starter: Step | None = None
    awaiter: Step | None = None
    at_end: bool = True

    def leave(self, step: Step) -> None:
        """Remove the steps that did not complete before a step started."""
        start = step.start, step.function_id
        while self.steps and (self.steps[-1].end, self.steps[-1].function_id) >= start:
            self.steps.pop()


@dataclass
class _Walk:
    """A backward walk through time; ``moment`` is its current time in milliseconds."""

    spans: Spans
    moment: int = 0
    rows: list[tuple[Key, str, int, int]] = field(default_factory=list)
    _stack: list[_Frame] = field(default_factory=list)
    _open: set[str] = field(default_factory=set)

    def back_to(self, moment: int, node: Key, part: str, *, passed: bool = False) -> None:
        """Assign the time back to ``moment`` to a node, and move there.

        A node that is ``passed`` has a row even if it took no time.
        """
        if moment < self.moment or passed:
            start = min(moment, self.moment)
            self.rows.append((node, part, start, self.moment))
            self.moment = start

    def wait(self, run: Run[int], workflow_id: str, floor: int) -> None:
        """Walk through a workflow's queue wait and the time before it."""
        if run.enqueued is not None:
            self.back_to(max(run.enqueued, floor), workflow_id, "queued")
        self.back_to(max(run.created, floor), workflow_id, "before")

    def trace(self, root: str, started: int, ended: int) -> None:
        """Walk from the end of the root to its start."""
        self.moment = ended
        self._enter(root, started)
        while self._stack:
            frame = self._stack[-1]
            if not frame.steps or self.moment <= frame.started:
                self._finish(frame)
                continue
            step = frame.steps.pop()
            if step.end < frame.started:
                frame.steps.clear()
                continue
            self._own_code(frame, max(step.end, frame.started))
            if not self._through_child(frame, step):
                self.back_to(
                    max(step.start, frame.started), step.key, self._part(step), passed=True
                )
                frame.leave(step)

    def _enter(
        self,
        workflow_id: str,
        started: int,
        run: Run[int] | None = None,
        floor: int = 0,
        starter: Step | None = None,
        awaiter: Step | None = None,
    ) -> None:
        own = self.spans.own_steps(workflow_id)
        steps = sorted(own, key=lambda step: (step.end, step.function_id))
        self._stack.append(_Frame(workflow_id, steps, started, run, floor, starter, awaiter))
        self._open.add(workflow_id)

    def _finish(self, frame: _Frame) -> None:
        self._own_code(frame, frame.started)
        self._stack.pop()
        self._open.remove(frame.workflow_id)
        if frame.run is not None:
            self.wait(frame.run, frame.workflow_id, frame.floor)
        if not self._stack:
            return
        below = self._stack[-1]
        if frame.awaiter is not None:
            self.back_to(max(frame.awaiter.start, below.started), frame.awaiter.key, "waiting")
        if frame.starter is not None:
            self.back_to(
                max(frame.starter.start, below.started), frame.starter.key, "step", passed=True
            )
            below.leave(frame.starter)

    def _own_code(self, frame: _Frame, moment: int) -> None:
        """Assign the time after a step to the workflow's own code, or to its running node."""
        running = frame.workflow_id, "running"
        if frame.at_end and running in self.spans.nodes:
            self.back_to(moment, running, "running")
        else:
            run = self.spans.workflow(frame.workflow_id)
            part = "unknown" if run is not None and run.start_erased else "between"
            self.back_to(moment, frame.workflow_id, part)
        frame.at_end = False

    def _part(self, step: Step) -> str:
        node = self.spans.nodes[step.key]
        if node["operation"] == "get_result" and node.get("child_workflow_id") in self.spans.nodes:
            return "result"
        return _PARTS.get(node["operation"], "step")

    def _through_child(self, frame: _Frame, step: Step) -> bool:
        """Walk through the workflow that a step awaited, if it was still running then."""
        node = self.spans.nodes[step.key]
        child = node.get("child_workflow_id", "")
        run = self.spans.workflow(child)
        if node["operation"] != "get_result" or run is None or run.ended <= step.start:
            return False
        if child in self._open:
            return False  # manually edited rows: workflows that await each other
        self.back_to(max(run.ended, step.start), step.key, "result", passed=True)
        starter = self.spans.starter(frame.workflow_id, child)
        if starter is not None and starter.function_id < step.function_id:
            floor = max(starter.start, frame.started)
        else:
            floor = max(step.start, frame.started)
            frame.leave(step)
            starter = None
        # A workflow that never ran has only its wait.
        started = max(run.created, floor, run.ended if run.started is None else run.started)
        self._enter(child, started, run, floor, starter, step if starter is None else None)
        return True

    def frame(self) -> pd.DataFrame:
        """Return the rows in order of time."""
        rows = self.rows[::-1]
        frame = _node_columns(self.spans, [key for key, *_ in rows])
        frame["part"] = pd.Series([part for _, part, _, _ in rows], dtype="str")
        for name, index in (("start", 2), ("end", 3)):
            moments = np.array([row[index] for row in rows], dtype="datetime64[ms]")
            frame[name] = pd.Series(moments).dt.tz_localize("UTC")
        frame["duration"] = frame["end"] - frame["start"]
        return frame


def self_time(graph: nx.DiGraph[Any]) -> pd.DataFrame:
    """Return the duration of each workflow and step, divided into self time and children.

    Parameters
    ----------
    graph
        An execution graph, not folded.

    Returns
    -------
    pandas.DataFrame
        ``node``, ``workflow_id``, ``function_id``, ``kind``, ``name``, ``duration``, ``children``
        and ``self``, with the longest self time first; one row per node with times. The
        ``children`` of a workflow is the time in which at least one of its steps ran; that of a
        step that awaits a workflow is the time in which the workflow was queued or ran. ``self``
        is the remainder. Workflows whose start was erased by cancelling have no row.

    Raises
    ------
    GraphError
        The graph is folded.

    Examples
    --------
    >>> times = self_time(dbos_notebook.connect(example_database).graph("checkout-1"))
    >>> times.set_index("name").loc["charge", ["children", "self"]].map(str).tolist()
    ['0 days 00:00:00', '0 days 00:00:00.021000']
    """
    times = Spans(graph)
    rows: list[tuple[Key, int, int]] = []
    for workflow_id, node in times.nodes.items():
        if node["kind"] != "workflow" or not isinstance(workflow_id, str):
            continue
        run = times.workflow(workflow_id)
        steps = times.steps(workflow_id)
        own = times.own_steps(workflow_id)
        if run is not None and run.started is not None and not run.start_erased:
            covered = _covered([(step.start, step.end) for step in own], run.started, run.ended)
            rows.append((workflow_id, run.ended - run.started, covered))
        for step in steps:
            awaited = times.nodes[step.key]
            child = times.workflow(awaited.get("child_workflow_id"))
            covered = 0
            if awaited["operation"] == "get_result" and child is not None:
                since = child.started if child.enqueued is None else child.enqueued
                covered = _covered([(since or child.created, child.ended)], step.start, step.end)
            rows.append((step.key, step.end - step.start, covered))
    rows.sort(key=lambda row: row[2] - row[1])
    frame = _node_columns(times, [key for key, *_ in rows])
    frame.insert(3, "kind", [times.nodes[key]["kind"] for key, *_ in rows])
    for name, values in (
        ("duration", [duration for _, duration, _ in rows]),
        ("children", [covered for _, _, covered in rows]),
        ("self", [duration - covered for _, duration, covered in rows]),
    ):
        frame[name] = pd.Series(np.array(values, dtype="timedelta64[ms]"))
    return frame


def _covered(intervals: Sequence[tuple[int, int]], lower: int, upper: int) -> int:
    """Return the length of an interval that is covered by intervals, which may overlap."""
    covered, reached = 0, lower
    for start, end in sorted(intervals):
        start, end = max(start, reached), min(end, upper)
        if start < end:
            covered += end - start
            reached = end
    return covered


def _node_columns(times: Spans, keys: Sequence[Key]) -> pd.DataFrame:
    """Return the columns that identify the node of each row."""
    nodes = [times.nodes[key] for key in keys]
    objects = np.empty(len(keys), dtype=object)
    for index, key in enumerate(keys):
        objects[index] = key  # a tuple would be unpacked
    return pd.DataFrame(
        {
            "node": objects,
            "workflow_id": pd.Series([node["workflow_id"] for node in nodes], dtype="str"),
            "function_id": pd.Series([node.get("function_id") for node in nodes], dtype="Int64"),
            "name": pd.Series([node.get("name") for node in nodes], dtype="str"),
        }
    )
