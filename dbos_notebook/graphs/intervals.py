"""The start and end times of workflows and steps, and of their latest runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import pandas as pd

from dbos_notebook import text
from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.validation import check_graph
from dbos_notebook.status import (
    INTERRUPTED_STATUSES,
    TERMINAL_STATUSES,
    WAITING_STATUSES,
    known_status,
)
from dbos_notebook.tables.timing import SECOND_MS

if TYPE_CHECKING:
    import networkx as nx


class Run(NamedTuple):
    """The latest run of a workflow, in seconds since 1970; ``None`` where unknown.

    Attributes
    ----------
    created
        When the workflow was created, possibly for an earlier run.
    enqueued
        When it was enqueued.
    began
        When it started; ``None`` also if it did not.
    ended
        When it ended or, if it has not, was read.
    over
        Whether it has ended.
    lost
        Whether its start was erased; ``began`` is then the start of its first recorded step.
    """

    created: float
    enqueued: float | None
    began: float | None
    ended: float
    over: bool
    lost: bool


class Times:
    """The times of a graph for drawing, in seconds since 1970 and as strings.

    Workflows have the times of their latest runs, as computed by ``Runs``.
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

    def workflow(self, key: Any) -> Run | None:
        """Return the times of the latest run of a workflow."""
        span = self._runs.span(key)
        if span is None:
            return None
        over = known_status(self._graph.nodes[key].get("status")) in TERMINAL_STATUSES
        enqueued, begun = (
            None if each is None else each / 1000 for each in (span.enqueued, span.begun)
        )
        return Run(span.created / 1000, enqueued, begun, span.ended / 1000, over, span.lost)

    def duration(self, key: Any) -> str:
        """Return how long a workflow ran or has been running; ``""`` if unknown."""
        duration = self._graph.nodes[key].get("duration")
        run = self.workflow(key)
        if text.is_missing(duration) or run is None or run.began is None:
            return ""
        if not self.coarse:
            return text.duration(duration)
        lasted = run.ended - run.began
        return text.duration(lasted, approximate=self._runs.is_approximate(key))

    def queue_wait(self, key: Any) -> str:
        """Return how long a workflow waited or has been waiting on a queue; ``""`` if unknown."""
        run = self.workflow(key)
        if run is None or run.enqueued is None:
            return ""
        wait = self._graph.nodes[key].get("queue_wait")
        if self.coarse and wait is not None and not text.is_missing(wait):
            return text.duration(wait, approximate=True)
        return text.duration((run.ended if run.began is None else run.began) - run.enqueued)

    def ran_before(self, key: Any) -> bool:
        """Return whether an earlier run of a workflow is recorded."""
        return self._runs.ran_before(key)

    def summary(self, key: Any) -> str:
        """Return how long a workflow ran or, if it did not, how long it waited."""
        run = self.workflow(key)
        if run is None or run.began is not None or run.lost:
            return self.duration(key)
        if run.over:
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
        found = self._runs.unstarted(key)
        return "" if found is None else describe_unstarted(found, self.queue_wait(key))

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


Key = Hashable
Node = Mapping[str, Any]
_WHOLE = ("created_at", "dequeued_at", "ended_at")
_ASKED = 100
"""The number of workflows that are inspected to detect times in whole seconds."""


class Step(NamedTuple):
    """A step with its recorded or inferred times, in milliseconds since 1970."""

    key: Key
    function_id: int
    start: int
    end: int


class Span(NamedTuple):
    """The latest run of a workflow, in milliseconds since 1970.

    Attributes
    ----------
    created
        When the workflow was created, possibly for an earlier run.
    enqueued
        When it was enqueued; ``None`` if it was not or if that is not recorded.
    begun
        When it started; ``None`` if it is waiting or never ran.
    ended
        When it ended or, if it has not, when the graph was read.
    lost
        Whether its start was erased; ``begun`` is then the start of its first recorded step.
    """

    created: int
    enqueued: int | None
    begun: int | None
    ended: int
    lost: bool = False


class Unstarted(NamedTuple):
    """What is known about a workflow that was cancelled before its latest run started.

    Attributes
    ----------
    before
        Whether it ran before; ``None`` if that is not recorded, because resuming resets the count
        of attempts.
    delayed
        Whether its delay had not ended.
    most
        The maximum time that it waited on a queue, in milliseconds.
    """

    before: bool | None
    delayed: bool
    most: int


def describe_unstarted(found: Unstarted, waited: str = "") -> str:
    """Describe how a workflow was cancelled before its latest run, as far as recorded.

    ``waited`` is how long it waited, if known.

    Examples
    --------
    >>> describe_unstarted(Unstarted(before=False, delayed=False, most=11_000), "11 s")
    'waited 11 s, never ran'
    >>> describe_unstarted(Unstarted(before=None, delayed=False, most=11_000))
    'waited at most 11 s; whether it ran before is not recorded'
    """
    if found.before:
        return "did not run again"
    known = found.before is not None
    if found.delayed:
        return "its delay had not ended" + (", never ran" if known else "")
    if known:
        return f"waited {waited}, never ran" if waited else "never ran"
    return (
        f"waited at most {text.duration(found.most / 1000)}; whether it ran before is not recorded"
    )


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
        self._nodes: Mapping[Key, Node] = dict(graph.nodes.items())
        read_at = graph.graph.get("read_at")
        self._now = None if read_at is None else milliseconds(read_at)
        self._steps: dict[Key, list[Key]] = {}
        self._started: dict[Key, int] = {}
        self._spans: dict[Key, Span | None] = {}
        instants: dict[str, list[int]] = {name: [] for name in _WHOLE}
        for key, node in self._nodes.items():
            if "function_id" in node:
                self._steps.setdefault(node.get("workflow_id"), []).append(key)
                child = node.get("child_workflow_id")
                if node.get("operation") == "start_child" and "started_at" in node:
                    begun = milliseconds(node["started_at"])
                    self._started[child] = min(begun, self._started.get(child, begun))
            elif node.get("kind") == "workflow":
                for name, found in instants.items():
                    # The end of a cancelled workflow may be its deadline, which is exact.
                    exact = name == "ended_at" and node.get("status") == "CANCELLED"
                    if name in node and not exact and len(found) < _ASKED:
                        found.append(milliseconds(node[name]))
        sqlite = not str(graph.graph.get("database", "")).startswith("postgresql")
        whole = all(each % SECOND_MS == 0 for found in instants.values() for each in found)
        self.coarse = sqlite and bool(instants["created_at"]) and whole

    def span(self, workflow_id: Key) -> Span | None:
        """Return the times of a workflow; ``None`` if it is not in the graph or has none."""
        if workflow_id not in self._spans:
            self._spans[workflow_id] = self._span(workflow_id)
        return self._spans[workflow_id]

    def recorded(self, workflow_id: Key) -> Span | None:
        """Return the recorded times, without refinement."""
        node = self._nodes.get(workflow_id, {})
        if "created_at" not in node:
            return None
        created = milliseconds(node["created_at"])
        enqueued, begun, ended = (
            milliseconds(node[name]) if name in node else None
            for name in ("enqueued_at", "started_at", "ended_at")
        )
        waits = node.get("status") in WAITING_STATUSES
        if waits or (node.get("status") == "PENDING" and begun is not None):
            since = next(each for each in (begun, enqueued, created) if each is not None)
            ended = since if self._now is None else max(since, self._now)
        if ended is None:
            return None
        return Span(created, enqueued, begun, ended if begun is None else max(begun, ended))

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
            never = owner.get("status") in WAITING_STATUSES or owner.get("recovery_attempts") == 0
            return "earlier" if never else ""
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
        node, span = self._nodes.get(workflow_id, {}), self.span(workflow_id)
        if node.get("status") != "CANCELLED" or node.get("recovery_attempts") != 0 or span is None:
            return None
        keys = self._steps.get(workflow_id, ())
        before: bool | None = None
        if "enqueued_at" in node:
            before = False
        elif any(self.origin(key) == "earlier" for key in keys):
            before = True
        since = span.created
        if "delay_until" in node:
            since = max(since, milliseconds(node["delay_until"]))
        rounding = SECOND_MS if self.coarse else 0
        return Unstarted(before, since > span.ended, max(0, span.ended - since + rounding))

    def is_approximate(self, workflow_id: Key) -> bool:
        """Return whether a workflow's duration is known to the second only."""
        span = self.span(workflow_id) if self.coarse else None
        if span is None or span.begun is None:
            return False
        cut = span.begun % SECOND_MS == 0 or span.ended % SECOND_MS == 0
        return cut or self._implied(workflow_id)

    def _span(self, workflow_id: Key) -> Span | None:
        span = self.recorded(workflow_id)
        if span is None:
            return None
        node = self._nodes[workflow_id]
        over = node.get("status") not in (*WAITING_STATUSES, "PENDING")
        ran = span.enqueued is None and node.get("recovery_attempts") != 0
        lost = span.begun is None and ran and over
        if not lost and not self.coarse:
            return span
        steps = [
            step
            for key in self._steps.get(workflow_id, ())
            if (step := _timed(key, self._nodes[key])) is not None and not self.origin(key)
        ]
        first = min((step.start for step in steps), default=None)
        last = max((step.end for step in steps), default=None)
        created, enqueued, begun, ended, _ = span
        if lost:
            begun = None if first is None else min(first, ended)
        elif begun is not None and first is not None and abs(first - begun) < SECOND_MS:
            begun = begun if self._implied(workflow_id) else first
        if self.coarse:
            if over and last is not None and 0 < last - ended < SECOND_MS:
                ended = last
            created, enqueued, begun = self._after_starter(workflow_id, created, enqueued, begun)
        if begun is not None:
            ended = max(begun, ended)
        return Span(created, enqueued, begun, ended, lost)

    def _implied(self, workflow_id: Key) -> bool:
        """Return whether the start was erased, but follows from the deadline and the timeout."""
        node = self._nodes[workflow_id]
        erased = node.get("status") in INTERRUPTED_STATUSES and "dequeued_at" not in node
        return erased and "started_at" in node

    def _after_starter(
        self, workflow_id: Key, created: int, enqueued: int | None, begun: int | None
    ) -> tuple[int, int | None, int | None]:
        """Adjust whole seconds: no child is older than the step that started it."""
        since = self._started.get(workflow_id)
        if since is not None and since - created < SECOND_MS:
            created = max(created, since)
            if begun is not None:
                own = "dequeued_at" in self._nodes[workflow_id] or self._implied(workflow_id)
                begun = max(begun, created) if own else created
            if enqueued is not None:
                enqueued = max(enqueued, created)
        elif begun is not None and enqueued is not None and begun - enqueued < SECOND_MS:
            enqueued = begun  # whether it waited is unknown
        if begun is not None and enqueued is not None:
            enqueued = min(enqueued, begun)
        return created, enqueued, begun


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
        self.nodes: Mapping[Key, Node] = dict(graph.nodes.items())
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
            found = self._starters[workflow_id] = {}
            for step in self.steps(workflow_id):
                node = self.nodes[step.key]
                if node["operation"] == "start_child":
                    found.setdefault(node["child_workflow_id"], step)
        return self._starters[workflow_id].get(child)

    def workflow(self, workflow_id: str | None) -> Span | None:
        """Return the times of a workflow; ``None`` if it is not in the graph or has none."""
        return self._runs.span(workflow_id)

    def _with_times(self, keys: Sequence[Key], own: Span | None) -> list[Step]:
        timed = [_timed(key, self.nodes[key]) for key in keys]
        # The earliest start of any later step.
        bounds: list[int | None] = []
        later = None if own is None else own.ended
        for step in reversed(timed):
            bounds.append(later)
            if step is not None:
                later = step.start if later is None else min(step.start, later)
        bounds.reverse()
        earlier = None if own is None else own.begun
        if earlier is None and own is not None:
            earlier = own.enqueued
        found: list[Step] = []
        for key, step, bound in zip(keys, timed, bounds, strict=True):
            if step is None:
                step = self._inferred_times(key, earlier, bound)
            if step is not None:
                found.append(step)
                earlier = step.end if earlier is None else max(step.end, earlier)
        return found

    def _inferred_times(self, key: Key, earlier: int | None, later: int | None) -> Step | None:
        node = self.nodes[key]
        child = self._runs.recorded(node.get("child_workflow_id"))
        if child is None or earlier is None or later is None or later < earlier:
            return None
        moment = child.ended if node["operation"] == "get_result" else child.created
        return Step(key, node["function_id"], earlier, max(earlier, min(moment, later)))


def milliseconds(instant: pd.Timestamp) -> int:
    """Return a time in milliseconds since 1970."""
    return round(instant.timestamp() * 1000)


def _timed(key: Key, node: Node) -> Step | None:
    if "started_at" not in node or "completed_at" not in node:
        return None
    start, end = milliseconds(node["started_at"]), milliseconds(node["completed_at"])
    if "wakes_at" in node:
        end = max(end, milliseconds(node["wakes_at"]))
    return Step(key, node["function_id"], start, max(start, end))
