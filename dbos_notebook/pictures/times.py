"""When workflows and steps began and ended, made out from what each database recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dbos_notebook.graphs.spans import Runs
from dbos_notebook.pictures import words
from dbos_notebook.pictures.theme import ENDED, known

if TYPE_CHECKING:
    import networkx as nx


class Run(NamedTuple):
    """The latest run of a workflow, in seconds since 1970; what is ``None`` is not known.

    Attributes
    ----------
    created
        When the workflow was created, which may have been for an earlier run.
    enqueued
        Since when it waited on a queue.
    began
        When it began; ``None`` too if it did not.
    ended
        When it ended, or was read.
    over
        Whether it has ended.
    lost
        Whether the beginning was erased; ``began`` is that of its first recorded step then.
    """

    created: float
    enqueued: float | None
    began: float | None
    ended: float
    over: bool
    lost: bool


class Times:
    """Times of a graph, in seconds since 1970.

    Those of workflows are those of their latest runs, as ``graphs.spans`` works them out.
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
        """Return when the latest run of a workflow was enqueued, began and ended."""
        span = self._runs.span(key)
        if span is None:
            return None
        over = known(self._graph.nodes[key].get("status")) in ENDED
        enqueued, begun = (
            None if each is None else each / 1000 for each in (span.enqueued, span.begun)
        )
        return Run(span.created / 1000, enqueued, begun, span.ended / 1000, over, span.lost)

    def took(self, key: Any) -> str:
        """Say how long a workflow ran, or has run; ``""`` where it is not known."""
        duration = self._graph.nodes[key].get("duration")
        run = self.workflow(key)
        if words.missing(duration) or run is None or run.began is None:
            return ""
        if not self.coarse:
            return words.took(duration)
        lasted = run.ended - run.began
        return words.about(lasted) if self._runs.to_the_second(key) else words.lasted(lasted)

    def waited(self, key: Any) -> str:
        """Say how long a workflow waited on a queue, or has waited; ``""``: not known, or not."""
        run = self.workflow(key)
        if run is None or run.enqueued is None:
            return ""
        wait = self._graph.nodes[key].get("queue_wait")
        if self.coarse and wait is not None and not words.missing(wait):
            return words.about(wait.total_seconds())
        return words.lasted((run.ended if run.began is None else run.began) - run.enqueued)

    def again(self, key: Any) -> bool:
        """Whether it is recorded that a workflow ran before its latest run."""
        return self._runs.again(key)

    def said(self, key: Any) -> str:
        """Say how long a workflow ran, or else how long it waited."""
        run = self.workflow(key)
        if run is None or run.began is not None or run.lost:
            return self.took(key)
        if run.over:
            return self.unstarted(key)
        waited = self.waited(key)
        if not waited and self._graph.nodes[key].get("status") == "DELAYED":
            return self.delayed(key).removeprefix("delayed").strip()
        return f"has waited {waited}" if waited else ""

    def delayed(self, key: Any) -> str:
        """Say until when a workflow is delayed."""
        until = words.moment(self._graph.nodes[key].get("delay_until"))
        return f"delayed until {until}" if until else "delayed"

    def unstarted(self, key: Any) -> str:
        """Say how a workflow was cancelled before its latest run; ``""``: it was not."""
        found = self._runs.unstarted(key)
        return "" if found is None else words.unstarted(found, self.waited(key))

    def step(self, key: Any) -> tuple[float, float] | None:
        """Return when a step began and ended; ``None``: not known."""
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

    def older(self, key: Any) -> str:
        """Say where a step is from that did not run in the latest run of its workflow."""
        return {
            "copied": "copied from the original",
            "earlier": "from an earlier run",
        }.get(self._runs.older(key), "")

    def critical_path(self, graph: nx.DiGraph[Any]) -> list[tuple[Any, float, float]]:
        """Return (node, start, end) of ``graphs.critical_path``, of what took time."""
        from dbos_notebook import graphs

        if graph.graph.get("root") not in graph:
            return []
        path = graphs.critical_path(graph).dropna(subset=["start", "end"])
        path = path[~path["part"].isin(["before", "unknown"])]  # of which no bar is drawn
        starts, ends = (
            path[name].to_numpy("datetime64[ns]").astype("int64") / 1e9 for name in ("start", "end")
        )
        return [
            (node, begin, close)
            for node, begin, close in zip(path["node"], starts.tolist(), ends.tolist(), strict=True)
            if close > begin
        ]


def seconds(time: Any) -> float | None:
    """Return an instant in seconds since 1970; ``None``: absent."""
    return None if words.missing(time) else float(time.timestamp())
