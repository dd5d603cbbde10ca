"""The times of workflows and steps, and of the latest run of each workflow.

``Runs`` derives the latest run of each workflow from the recorded times. ``Spans`` adds the times
of steps, for analysis; both have milliseconds. ``Times`` has seconds and strings, for drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import networkx as nx
import pandas as pd

from dbos_notebook import text
from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.attributes import Key, NodeAttributes, nodes_of
from dbos_notebook.graphs.validation import check_graph
from dbos_notebook.status import (
    INTERRUPTED_STATUSES,
    TERMINAL_STATUSES,
    WAITING_STATUSES,
    known_status,
)
from dbos_notebook.tables.timing import SECOND_MS

_CheckedTime = Literal["created_at", "dequeued_at", "ended_at"]
_CHECKED_TIMES: tuple[_CheckedTime, ...] = ("created_at", "dequeued_at", "ended_at")
_MAX_CHECKED = 100
"""The number of workflows that are inspected to detect times in whole seconds."""


class Step(NamedTuple):
    """A step with its recorded or inferred times, in milliseconds since 1970."""

    key: Key
    function_id: int
    start: int
    end: int


T = TypeVar("T", int, float)


class Run(NamedTuple, Generic[T]):
    """The latest run of a workflow: in milliseconds since 1970, or in seconds from ``Times``.

    Attributes
    ----------
    created
        When the workflow was created, possibly for an earlier run.
    enqueued
        When it was enqueued; ``None`` if it was not or if that is not recorded.
    started
        When it started; ``None`` if it is waiting or never ran.
    ended
        When it ended or, if it has not, when the graph was read.
    completed
        Whether it has ended.
    start_erased
        Whether its start was erased; ``started`` is then the start of its first recorded step.
    """

    created: T
    enqueued: T | None
    started: T | None
    ended: T
    completed: bool
    start_erased: bool = False


class Unstarted(NamedTuple):
    """What is known about a workflow that was cancelled before its latest run started.

    Attributes
    ----------
    ran_before
        Whether it ran before; ``None`` if that is not recorded, because resuming resets the count
        of attempts.
    delayed
        Whether its delay had not ended.
    max_wait
        The maximum time that it waited on a queue, in milliseconds.
    """

    ran_before: bool | None
    delayed: bool
    max_wait: int


def describe_unstarted(unstarted: Unstarted, waited: str = "") -> str:
    """Describe how a workflow was cancelled before its latest run, as far as recorded.

    ``waited`` is how long it waited, if known.

    Examples
    --------
    >>> describe_unstarted(Unstarted(ran_before=False, delayed=False, max_wait=11_000), "11 s")
    'waited 11 s, never ran'
    >>> describe_unstarted(Unstarted(ran_before=None, delayed=False, max_wait=11_000))
    'waited at most 11 s; whether it ran before is not recorded'
    """
    if unstarted.ran_before:
        return "did not run again"
    is_recorded = unstarted.ran_before is not None
    if unstarted.delayed:
        return "its delay had not ended" + (", never ran" if is_recorded else "")
    if is_recorded:
        return f"waited {waited}, never ran" if waited else "never ran"
    longest = text.duration(unstarted.max_wait / 1000)
    return f"waited at most {longest}; whether it ran before is not recorded"


class Runs:
    """The latest run of each workflow of a graph, with times refined by those of its steps.

    Times in whole seconds are adjusted to the steps' times, which have milliseconds. Where
    cancelling erased the start, the steps give a lower bound of the duration.

    Attributes
    ----------
    coarse
        Whether the times of workflows are in whole seconds: on SQLite, if the application ran on
        Python before 3.12. If a newer Python opened a database that an older one created, only
        creation times are; they are not adjusted.
    """

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        self._nodes: Mapping[Key, NodeAttributes] = nodes_of(graph)
        read_at = graph.graph.get("read_at")
        self._now = None if read_at is None else milliseconds(read_at)
        self._steps: dict[Key, list[Key]] = {}
        self._started: dict[Key, int] = {}
        self._latest: dict[Key, Run[int] | None] = {}
        instants: dict[_CheckedTime, list[int]] = {name: [] for name in _CHECKED_TIMES}
        for key, node in self._nodes.items():
            if _is_of_other_run(node, self._nodes.get(node.get("workflow_id"), {})):
                continue
            if "function_id" in node:
                self._steps.setdefault(node.get("workflow_id"), []).append(key)
                child = node.get("child_workflow_id")
                if node.get("operation") == "start_child" and "started_at" in node:
                    started = milliseconds(node["started_at"])
                    self._started[child] = min(started, self._started.get(child, started))
            elif node.get("kind") == "workflow":
                for name, times in instants.items():
                    # The end of a cancelled workflow may be its deadline, which is exact.
                    exact = name == "ended_at" and node.get("status") == "CANCELLED"
                    if name in node and not exact and len(times) < _MAX_CHECKED:
                        times.append(milliseconds(node[name]))
        sqlite = not str(graph.graph.get("database", "")).startswith("postgresql")
        is_whole = all(time % SECOND_MS == 0 for times in instants.values() for time in times)
        self.coarse = sqlite and bool(instants["created_at"]) and is_whole

    def run(self, workflow_id: Key) -> Run[int] | None:
        """Return the times of a workflow; ``None`` if it is not in the graph or has none."""
        if workflow_id not in self._latest:
            self._latest[workflow_id] = self._refined(workflow_id)
        return self._latest[workflow_id]

    def recorded(self, workflow_id: Key) -> Run[int] | None:
        """Return the recorded times, without refinement."""
        node = self._nodes.get(workflow_id, {})
        if "created_at" not in node:
            return None
        created = milliseconds(node["created_at"])
        enqueued, started, ended = (
            milliseconds(node[name]) if name in node else None
            for name in ("enqueued_at", "started_at", "ended_at")
        )
        is_waiting = node.get("status") in WAITING_STATUSES
        if is_waiting or (node.get("status") == "PENDING" and started is not None):
            start = next(time for time in (started, enqueued, created) if time is not None)
            ended = start if self._now is None else max(start, self._now)
        if ended is None:
            return None
        completed = known_status(node.get("status")) in TERMINAL_STATUSES
        ended = ended if started is None else max(started, ended)
        return Run(created, enqueued, started, ended, completed)

    def origin(self, key: Key) -> str:
        """Return where a step comes from if it did not run in its workflow's latest run.

        ``"copied"`` from the original of the fork, ``"earlier"`` from a run before the workflow was
        resumed or recovered, or ``""`` if it ran in the latest run.
        """
        node = self._nodes[key]
        if node.get("copied"):
            return "copied"
        owner = self._nodes.get(node.get("workflow_id"), {})
        if "completed_at" not in node or "created_at" not in owner:
            return ""
        end = milliseconds(node["completed_at"])
        if "forked_from" in owner and end <= milliseconds(owner["created_at"]):
            return "copied"
        if "started_at" not in owner:
            # It has not started, or cancelling erased its start.
            never_started = (
                owner.get("status") in WAITING_STATUSES or owner.get("recovery_attempts") == 0
            )
            return "earlier" if never_started else ""
        if "dequeued_at" in owner and "enqueued_at" not in owner:
            return "earlier" if end < milliseconds(owner["started_at"]) else ""
        return ""

    def ran_before(self, workflow_id: Key) -> bool:
        """Return whether an earlier run of a workflow is recorded."""
        node = self._nodes.get(workflow_id, {})
        if "dequeued_at" not in node or "enqueued_at" in node:
            return False
        steps = self._steps.get(workflow_id, ())
        return node.get("recovery_attempts", 0) > 1 or any(
            self.origin(key) == "earlier" for key in steps
        )

    def unstarted(self, workflow_id: Key) -> Unstarted | None:
        """Return what is known about a workflow cancelled before its latest run, or ``None``.

        That it never ran is known only if its wait is, because then it was never resumed.
        """
        node, run = self._nodes.get(workflow_id, {}), self.run(workflow_id)
        if node.get("status") != "CANCELLED" or node.get("recovery_attempts") != 0 or run is None:
            return None
        step_keys = self._steps.get(workflow_id, ())
        ran_before: bool | None = None
        if "enqueued_at" in node:
            ran_before = False
        elif any(self.origin(key) == "earlier" for key in step_keys):
            ran_before = True
        wait_start = run.created
        if "delay_until" in node:
            wait_start = max(wait_start, milliseconds(node["delay_until"]))
        rounding = SECOND_MS if self.coarse else 0
        return Unstarted(
            ran_before, wait_start > run.ended, max(0, run.ended - wait_start + rounding)
        )

    def duration(self, workflow_id: Key) -> pd.Timedelta | None:
        """Return the duration of a workflow's latest run; ``None`` if unknown."""
        recorded: pd.Timedelta | None = self._nodes[workflow_id].get("duration")
        run = self.run(workflow_id) if self.coarse and recorded is not None else None
        if run is None or run.started is None:
            return recorded
        return pd.Timedelta(run.ended - run.started, unit="ms")

    def is_approximate(self, workflow_id: Key) -> bool:
        """Return whether a workflow's duration is accurate only to the second."""
        run = self.run(workflow_id) if self.coarse else None
        if run is None or run.started is None:
            return False
        is_whole = run.started % SECOND_MS == 0 or run.ended % SECOND_MS == 0
        return is_whole or self._implied(workflow_id)

    def _refined(self, workflow_id: Key) -> Run[int] | None:
        run = self.recorded(workflow_id)
        if run is None:
            return None
        node = self._nodes[workflow_id]
        has_ended = node.get("status") not in (*WAITING_STATUSES, "PENDING")
        ran = run.enqueued is None and node.get("recovery_attempts") != 0
        start_erased = run.started is None and ran and has_ended
        if not start_erased and not self.coarse:
            return run
        steps = [
            step
            for key in self._steps.get(workflow_id, ())
            if (step := _timed(key, self._nodes[key])) is not None and not self.origin(key)
        ]
        first = min((step.start for step in steps), default=None)
        last = max((step.end for step in steps), default=None)
        created, enqueued, started, ended, completed, _ = run
        if start_erased:
            started = None if first is None else min(first, ended)
        elif started is not None and first is not None and abs(first - started) < SECOND_MS:
            started = started if self._implied(workflow_id) else first
        if self.coarse:
            if has_ended and last is not None and 0 < last - ended < SECOND_MS:
                ended = last
            created, enqueued, started = self._after_starter(
                workflow_id, created, enqueued, started
            )
        if started is not None:
            ended = max(started, ended)
        return Run(created, enqueued, started, ended, completed, start_erased)

    def _implied(self, workflow_id: Key) -> bool:
        """Return whether the start was erased, but follows from the deadline and the timeout."""
        node = self._nodes[workflow_id]
        erased = node.get("status") in INTERRUPTED_STATUSES and "dequeued_at" not in node
        return erased and "started_at" in node

    def _after_starter(
        self, workflow_id: Key, created: int, enqueued: int | None, started: int | None
    ) -> tuple[int, int | None, int | None]:
        """Adjust times in whole seconds: a child is created after its starting step starts."""
        starter_start = self._started.get(workflow_id)
        if starter_start is not None and starter_start - created < SECOND_MS:
            created = max(created, starter_start)
            if started is not None:
                has_own_start = "dequeued_at" in self._nodes[workflow_id] or self._implied(
                    workflow_id
                )
                started = max(started, created) if has_own_start else created
            if enqueued is not None:
                enqueued = max(enqueued, created)
        elif started is not None and enqueued is not None and started - enqueued < SECOND_MS:
            enqueued = started  # whether it waited is unknown
        if started is not None and enqueued is not None:
            enqueued = min(enqueued, started)
        return created, enqueued, started


class Spans:
    """The times of the workflows and steps of an execution graph, computed on demand.

    Attributes
    ----------
    nodes
        The attributes of all nodes.

    Raises
    ------
    GraphError
        The graph is folded.
    """

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        check_graph(graph)
        self.nodes: Mapping[Key, NodeAttributes] = nodes_of(graph)
        self._runs = Runs(graph)
        self._keys: dict[str, list[Key]] = {}
        self._steps: dict[str, list[Step]] = {}
        self._starters: dict[str, dict[str, Step]] = {}
        for key, node in self.nodes.items():
            if node["kind"] == "group":
                raise GraphError(
                    "This graph is folded. Pass the graph that db.graph(...) returned."
                )
            if "function_id" in node and "timeout_of" not in node:
                self._keys.setdefault(node["workflow_id"], []).append(key)

    def steps(self, workflow_id: str) -> list[Step]:
        """Return the steps of a workflow with times, by function_id."""
        if workflow_id not in self._steps:
            keys = self._keys.get(workflow_id, ())
            self._steps[workflow_id] = self._with_times(keys, self._runs.recorded(workflow_id))
        return self._steps[workflow_id]

    def own_steps(self, workflow_id: str) -> list[Step]:
        """Return the steps that ran in the latest run."""
        return [step for step in self.steps(workflow_id) if not self._runs.origin(step.key)]

    def starter(self, workflow_id: str, child: str) -> Step | None:
        """Return the first step of a workflow that started a child."""
        if workflow_id not in self._starters:
            starters = self._starters[workflow_id] = {}
            for step in self.steps(workflow_id):
                node = self.nodes[step.key]
                if node["operation"] == "start_child":
                    starters.setdefault(node["child_workflow_id"], step)
        return self._starters[workflow_id].get(child)

    def workflow(self, workflow_id: str | None) -> Run[int] | None:
        """Return the times of a workflow; ``None`` if it is not in the graph or has none."""
        return self._runs.run(workflow_id)

    def _with_times(self, keys: Sequence[Key], run: Run[int] | None) -> list[Step]:
        timed = [_timed(key, self.nodes[key]) for key in keys]
        # The earliest start of any later step.
        bounds: list[int | None] = []
        upper = None if run is None else run.ended
        for step in reversed(timed):
            bounds.append(upper)
            if step is not None:
                upper = step.start if upper is None else min(step.start, upper)
        bounds.reverse()
        lower = None if run is None else run.started
        if lower is None and run is not None:
            lower = run.enqueued
        steps: list[Step] = []
        for key, step, upper_bound in zip(keys, timed, bounds, strict=True):
            if step is None:
                step = self._inferred_times(key, lower, upper_bound)
            if step is not None:
                steps.append(step)
                lower = step.end if lower is None else max(step.end, lower)
        return steps

    def _inferred_times(self, key: Key, lower: int | None, upper: int | None) -> Step | None:
        node = self.nodes[key]
        child = self._runs.recorded(node.get("child_workflow_id"))
        if child is None or lower is None or upper is None or upper < lower:
            return None
        moment = child.ended if node["operation"] == "get_result" else child.created
        return Step(key, node["function_id"], lower, max(lower, min(moment, upper)))


class Times:
    """The times of a graph for drawing, in seconds since 1970 and as strings.

    Workflows have the times of their latest runs.
    """

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        self._graph = graph
        self._runs = Runs(graph)
        self.now = seconds(graph.graph.get("read_at")) or 0.0
        self.coarse = self._runs.coarse
        self.steps: dict[Any, list[Any]] = {}
        for key, attributes in graph.nodes(data=True):
            if "function_id" in attributes or attributes.get("kind") == "step":
                self.steps.setdefault(attributes.get("workflow_id"), []).append(key)
        self._spans: dict[Any, tuple[float, float] | None] = {}

    def workflow(self, key: Any) -> Run[float] | None:
        """Return the times of the latest run of a workflow."""
        run = self._runs.run(key)
        if run is None:
            return None
        enqueued, started = (
            None if time is None else time / 1000 for time in (run.enqueued, run.started)
        )
        return Run(
            run.created / 1000,
            enqueued,
            started,
            run.ended / 1000,
            run.completed,
            run.start_erased,
        )

    def duration(self, key: Any) -> str:
        """Return how long a workflow ran or has been running; ``""`` if unknown."""
        duration = self._graph.nodes[key].get("duration")
        run = self.workflow(key)
        if text.is_missing(duration) or run is None or run.started is None:
            return ""
        if not self.coarse:
            return text.duration(duration)
        lasted = run.ended - run.started
        return text.duration(lasted, approximate=self._runs.is_approximate(key))

    def queue_wait(self, key: Any) -> str:
        """Return how long a workflow waited or has been waiting on a queue; ``""`` if unknown."""
        run = self.workflow(key)
        if run is None or run.enqueued is None:
            return ""
        wait = self._graph.nodes[key].get("queue_wait")
        if self.coarse and wait is not None and not text.is_missing(wait):
            return text.duration(wait, approximate=True)
        return text.duration((run.ended if run.started is None else run.started) - run.enqueued)

    def ran_before(self, key: Any) -> bool:
        """Return whether an earlier run of a workflow is recorded."""
        return self._runs.ran_before(key)

    def summary(self, key: Any) -> str:
        """Return how long a workflow ran or, if it did not, how long it waited."""
        run = self.workflow(key)
        if run is None or run.started is not None or run.start_erased:
            return self.duration(key)
        if run.completed:
            return self.unstarted(key)
        waited = self.queue_wait(key)
        if not waited and self._graph.nodes[key].get("status") == "DELAYED":
            return self.delayed(key).removeprefix("delayed").strip()
        return f"has waited {waited}" if waited else ""

    def delayed(self, key: Any) -> str:
        """Return until when a workflow is delayed."""
        until = text.timestamp(self._graph.nodes[key].get("delay_until"))
        return f"delayed until {until}" if until else "delayed"

    def unstarted(self, key: Any) -> str:
        """Return how a workflow was cancelled before its latest run; ``""`` if it was not."""
        unstarted = self._runs.unstarted(key)
        return "" if unstarted is None else describe_unstarted(unstarted, self.queue_wait(key))

    def step(self, key: Any) -> tuple[float, float] | None:
        """Return when a step started and ended; ``None`` if unknown."""
        if key not in self._spans:
            self._spans[key] = self._step(key)
        return self._spans[key]

    def _step(self, key: Any) -> tuple[float, float] | None:
        attributes = self._graph.nodes[key]
        start = seconds(attributes.get("started_at"))
        end = seconds(attributes.get("completed_at"))
        if attributes.get("status") == "PENDING" and end is None and start is not None:
            return start, max(self.now, start)
        wakes = seconds(attributes.get("wakes_at"))
        if start is not None and wakes is not None:
            end = max(end or start, min(wakes, self.now) if self.now else wakes)
        if start is None or end is None:
            return None
        return start, max(start, end)

    def origin(self, key: Any) -> str:
        """Return the origin of a step that did not run in the latest run of its workflow."""
        return {
            "copied": "copied from the original",
            "earlier": "from an earlier run",
        }.get(self._runs.origin(key), "")


def seconds(time: Any) -> float | None:
    """Return a time in seconds since 1970; ``None`` if missing."""
    return None if text.is_missing(time) else float(time.timestamp())


def milliseconds(instant: pd.Timestamp) -> int:
    """Return a time in milliseconds since 1970."""
    return round(instant.timestamp() * 1000)


def _is_of_other_run(node: NodeAttributes, owner: NodeAttributes) -> bool:
    """Return whether, in a comparison, a step did not run in the run whose times its owner has."""
    other = "only in second"
    return "function_id" in node and node.get("difference") == other != owner.get("difference")


def _timed(key: Key, node: NodeAttributes) -> Step | None:
    if "started_at" not in node or "completed_at" not in node:
        return None
    start, end = milliseconds(node["started_at"]), milliseconds(node["completed_at"])
    if "wakes_at" in node:
        end = max(end, milliseconds(node["wakes_at"]))
    return Step(key, node["function_id"], start, max(start, end))
