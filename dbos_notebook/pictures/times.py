"""When workflows and steps began and ended, made out from what each database recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbos_notebook.pictures import words
from dbos_notebook.pictures.edges import tails
from dbos_notebook.pictures.theme import ENDED, known

if TYPE_CHECKING:
    import networkx as nx

_SECOND = 1.0
_ASKED = 100
"""Workflows whose times are looked at to know whether all are in whole seconds."""


class Times:
    """Times of a graph, in seconds since 1970.

    SQLite keeps the times of workflows in whole seconds and those of steps in milliseconds: a
    workflow then begins and ends with its steps, where they agree to the second.
    """

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        self._graph = graph
        self.now = seconds(graph.graph.get("read_at")) or 0.0
        self.steps: dict[Any, list[Any]] = {}
        whole: list[bool] = []
        for key, attributes in graph.nodes(data=True):
            if "function_id" in attributes or attributes.get("kind") == "step":
                self.steps.setdefault(attributes.get("workflow_id"), []).append(key)
            elif len(whole) < _ASKED and not words.missing(attributes.get("created_at")):
                whole.append(attributes["created_at"].microsecond == 0)
        self.coarse = bool(whole) and all(whole)
        self._spans: dict[Any, tuple[float, float] | None] = {}
        self._known: dict[Any, tuple[float | None, float | None, float | None]] = {}

    def workflow(self, key: Any) -> tuple[float | None, float | None, float | None]:
        """Return when a workflow was created, began and ended; ``None``: not yet, or not known."""
        if key not in self._known:
            self._known[key] = self._workflow(key)
        return self._known[key]

    def _workflow(self, key: Any) -> tuple[float | None, float | None, float | None]:
        attributes = self._graph.nodes[key]
        status = known(attributes.get("status"))
        created = seconds(attributes.get("created_at"))
        began = seconds(attributes.get("dequeued_at"))
        queued = began is not None
        if began is None and status not in ("ENQUEUED", "DELAYED"):
            began = created
        ended = seconds(attributes.get("completed_at"))
        ran = []
        if self.coarse or (ended is None and status in ENDED):
            steps = [self.step(step) for step in self.steps.get(key, ()) if not self.copied(step)]
            ran = [span for span in steps if span is not None]
        if began is not None and ran:
            first, last = min(span[0] for span in ran), max(span[1] for span in ran)
            if self.coarse:
                if began == int(began) and first - began < _SECOND:
                    began = first
                if ended is not None and 0 < last - ended < _SECOND:
                    ended = last
            if ended is None and status in ENDED:
                ended = last
        elif ended is None and status in ENDED:
            ended = began
        if self.coarse and created is not None and began is not None:
            starts = [self.step(step) for step in tails(self._graph, key, "starts")]
            known_since = [span[0] for span in starts if span is not None]
            if known_since:  # no child is older than the step that started it
                created = max(created, *known_since)
                began = max(began, created) if queued else created
            elif began - created < _SECOND:  # whether it waited cannot be told
                created = began
        if began is not None and ended is not None and ended < began:
            ended = began
        return created, began, ended

    def took(self, key: Any) -> str:
        """Say how long a workflow ran, or has run; ``""`` where it is not known."""
        duration = self._graph.nodes[key].get("duration")
        _, began, ended = self.workflow(key)
        if not self.coarse or began is None:
            return words.took(duration)
        span = (ended if ended is not None else max(self.now, began)) - began
        # Both ends to the second, and no step to say more.
        return words.lasted(span) if span else "< 1 s"

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

    def copied(self, key: Any) -> bool:
        """Tell whether a step of a fork is one that ran in the original."""
        attributes = self._graph.nodes[key]
        owner = attributes.get("workflow_id")
        if owner not in self._graph or not self._graph.nodes[owner].get("forked_from"):
            return False
        end = seconds(attributes.get("completed_at"))
        created = seconds(self._graph.nodes[owner].get("created_at"))
        return end is not None and created is not None and end < created

    def critical_path(self, graph: nx.DiGraph[Any]) -> list[tuple[Any, float, float]]:
        """Return (node, start, end) of ``graphs.critical_path``, within the time of the root.

        With times in whole seconds the path begins and ends up to a second outside of it.
        """
        from dbos_notebook import graphs

        root = graph.graph.get("root")
        if root not in graph:
            return []
        created, _, ended = self.workflow(root)
        first = created if created is not None else 0.0
        last = ended if ended is not None else max(self.now, first)
        path = graphs.critical_path(graph).dropna(subset=["start", "end"])
        starts, ends = (
            path[name].to_numpy("datetime64[ns]").astype("int64") / 1e9 for name in ("start", "end")
        )
        inside = zip(
            path["node"], starts.clip(min=first).tolist(), ends.clip(max=last).tolist(), strict=True
        )
        return [(node, begin, close) for node, begin, close in inside if close > begin]


def seconds(time: Any) -> float | None:
    """Return an instant in seconds since 1970; ``None``: absent."""
    return None if words.missing(time) else float(time.timestamp())
