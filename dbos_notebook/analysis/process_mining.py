"""The process map of many runs: what followed what, how often and how fast."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import networkx as nx
import numpy as np
import pandas as pd

from dbos_notebook.analysis.run_paths import (
    UNKNOWN,
    RunArrays,
    StepArrays,
    Transitions,
    is_first_row,
    read_runs,
    read_steps,
    selected_filters,
    transitions,
)
from dbos_notebook.errors import FilterError
from dbos_notebook.status import FAILED_STATUSES, STATUSES_BY_SEVERITY, severity_rank
from dbos_notebook.tables.timing import SECOND_MS, operation

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

Array = np.ndarray[Any, Any]
Key = tuple[str, ...]


def process_map(
    session: Session,
    queries: Queries,
    filters: Mapping[str, Any],
    *,
    children: bool,
    min_share: float,
    min_count: int,
) -> nx.DiGraph[Any]:
    """Return the process map of the selected runs."""
    read_at = pd.Timestamp(dt.datetime.now(dt.UTC)).floor("ms")
    has_more = False
    if children:
        filters, has_more = selected_filters(session, queries, filters)
    # Descendants are looked up by ID, whichever application owns them.
    queries = queries.all_applications if has_more else queries
    runs = read_runs(session, queries, filters, round(read_at.timestamp() * 1000))
    steps = read_steps(session, queries, filters, runs)
    result = _Map(runs, steps).graph(read_at)
    _leave_out(result, min_share, min_count)
    return result


@dataclass(frozen=True)
class _Taken:
    """Edges between kinds, one entry for each time that one was taken."""

    kind: str
    tail: Array
    head: Array
    run: Array
    between: Array | None = None


class _Map:
    """Aggregates runs and steps by kind.

    Kinds are numbered: first those of workflows, in the order of ``runs.names``; then those of
    steps; then, for each kind of workflow, what its PENDING runs are doing now.
    """

    def __init__(self, runs: RunArrays, steps: StepArrays) -> None:
        self.runs, self.steps = runs, steps
        self.workflow_count = len(runs.names)
        pair = runs.name[steps.run].astype(np.int64) * max(len(steps.names), 1) + steps.name
        pairs, kind = np.unique(pair, return_inverse=True)
        self.kind = kind.reshape(-1) + self.workflow_count
        owner, name = np.divmod(pairs, max(len(steps.names), 1))
        self.running = self.workflow_count + len(pairs)
        names = runs.names
        self.keys: list[Key] = [("workflow", word) for word in names]
        self.keys += [
            ("step", names[first], steps.names[second])
            for first, second in zip(owner.tolist(), name.tolist(), strict=True)
        ]
        self.keys += [("running", word) for word in names]
        # The steps that start children are not nodes: an edge leads to the children.
        self.rows = np.flatnonzero(~steps.starts & ~steps.timeout)
        rows = self.rows
        order = transitions(steps.run[rows], steps.first[rows], steps.last[rows], self.kind[rows])
        self.order = Transitions(*(rows[part] for part in vars(order).values()))

    def graph(self, read_at: pd.Timestamp) -> nx.DiGraph[Any]:
        result: nx.DiGraph[Any] = nx.DiGraph(
            process_map=True, read_at=read_at, runs=len(self.runs), left_out={}
        )
        nodes = {**self._workflow_nodes(), **self._step_nodes(), **self._running_nodes()}
        for number in self._order(nodes):
            result.add_node(self.keys[number], **nodes[number])
        edges: dict[tuple[int, int], dict[str, Any]] = {}
        # Two nodes have one edge; order and starts take precedence over others.
        for part in (*self._next(), self._starts(), self._returns()):
            for pair, values in self._aggregate(part).items():
                if pair not in edges:
                    edges[pair] = values
                elif edges[pair]["kind"] == values["kind"]:
                    edges[pair]["count"] += values["count"]
        for (tail, head), values in edges.items():
            if tail in nodes and head in nodes:
                result.add_edge(self.keys[tail], self.keys[head], **values)
        return result

    def _workflow_nodes(self) -> dict[int, dict[str, Any]]:
        runs = self.runs
        times = _quantiles(runs.name, np.where(runs.active, np.nan, runs.duration))
        started = _smallest(runs.name, runs.started)
        counts = np.zeros((len(runs.names), len(runs.statuses)), np.int64)
        np.add.at(counts, (runs.name, runs.status), 1)
        self.runs_of = counts.sum(axis=1)
        nodes = {}
        for number, name in enumerate(runs.names):
            statuses = dict(zip(runs.statuses, counts[number].tolist(), strict=True))
            nodes[number] = {
                **_attributes("workflow", name, name, statuses, int(self.runs_of[number])),
                **times.get(number, {}),
                **started.get(number, {}),
            }
        return {number: node for number, node in nodes.items() if node["count"]}

    def _step_nodes(self) -> dict[int, dict[str, Any]]:
        steps, rows = self.steps, self.rows
        own = rows[~steps.copied[rows]]
        kind = self.kind[own]
        size = len(self.keys)
        count, failed = (np.bincount(k, minlength=size) for k in (kind, kind[steps.failed[own]]))
        copied = np.bincount(self.kind[rows[steps.copied[rows]]], minlength=size)
        workflows = np.bincount(_distinct(kind, steps.run[own]), minlength=size)
        first = np.bincount(self.kind[self._own(self.order.first)], minlength=size)
        ended = self._own(self.order.last)
        ended = ended[~self.runs.active[steps.run[ended]]]
        last = np.bincount(self.kind[ended], minlength=size)
        times = _quantiles(kind, (steps.ended - steps.started)[own])
        started = _smallest(kind, steps.started[own])
        nodes = {}
        for number in np.flatnonzero(count).tolist():
            _, owner, name = self.keys[number]
            errors, total = int(failed[number]), int(count[number])
            statuses = {"ERROR": errors, "SUCCESS": total - errors}
            nodes[number] = {
                **_attributes("step", name, owner, statuses, int(workflows[number])),
                "operation": operation(name),
                "share": float(workflows[number] / self._runs_named(owner)),
                "first_in": int(first[number]),
                "last_in": int(last[number]),
                **({"copied": int(copied[number])} if copied[number] else {}),
                **times.get(number, {}),
                **started.get(number, {}),
            }
        return nodes

    def _running_nodes(self) -> dict[int, dict[str, Any]]:
        """Return a node for each kind of workflow that has PENDING runs."""
        pending = np.bincount(
            self.runs.name[self.runs.has_status("PENDING")], minlength=self.workflow_count
        )
        return {
            self.running + number: {
                **_attributes("step", "running now", name, {"PENDING": count}, count),
                "operation": "other",
                "share": count / self._runs_named(name),
                "first_in": 0,
                "last_in": 0,
            }
            for number, (name, count) in enumerate(
                zip(self.runs.names, pending.tolist(), strict=True)
            )
            if count
        }

    def _runs_named(self, name: str) -> int:
        return int(self.runs_of[self.runs.names.index(name)])

    def _own(self, rows: Array) -> Array:
        return cast("Array", rows[~self.steps.copied[rows]])

    def _order(self, nodes: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """Return the kinds of workflows as they first started, each with its steps in order."""
        kind, steps = self.kind[self.rows], self.steps
        place = kind.astype(np.int64) * max(len(self.runs), 1) + steps.run[self.rows]
        _, examples = np.unique(place, return_index=True)
        kinds = kind[examples]
        size = len(self.keys)
        total = np.bincount(kinds, steps.first[self.rows][examples], minlength=size)
        mean = total / np.maximum(np.bincount(kinds, minlength=size), 1)
        created = _smallest(self.runs.name, self.runs.created)
        never = pd.Timestamp.max.tz_localize("UTC")
        opened = {
            name: created.get(number, {}).get("started_at", never)
            for number, name in enumerate(self.runs.names)
        }

        def position(number: int) -> tuple[Any, ...]:
            key = self.keys[number]
            is_running = number >= self.running
            rank = -1.0 if key[0] == "workflow" else float(mean[number])
            return opened[key[1]], key[1], is_running, rank, number

        return sorted(nodes, key=position)

    def _next(self) -> Iterator[_Taken]:
        runs, steps, kind = self.runs, self.steps, self.kind
        tail, head = self.order.tail, self.order.head
        # What happened between two copied steps happened in the original.
        ran = ~steps.copied[head]
        tail, head = tail[ran], head[ran]
        between = np.where(steps.copied[tail], np.nan, steps.started[head] - steps.until[tail])
        yield _Taken("next", kind[tail], kind[head], steps.run[head], between)
        pending = runs.has_status("PENDING")
        last = self.order.last[pending[steps.run[self.order.last]]]
        run = steps.run[last]
        yield _Taken("next", kind[last], self.running + runs.name[run], run)
        first = self._own(self.order.first)
        run = steps.run[first]
        between = steps.started[first] - runs.started[run]
        yield _Taken("first", runs.name[run].astype(np.int64), kind[first], run, between)
        without = pending.copy()
        without[steps.run[self.rows]] = False
        run = np.flatnonzero(without)
        name = runs.name[run].astype(np.int64)
        yield _Taken("first", name, self.running + name, run)

    def _starts(self) -> _Taken:
        runs, steps = self.runs, self.steps
        rows = np.flatnonzero(steps.starts & (steps.child != UNKNOWN))
        # It was started outside a step, or the step was not recorded.
        alone = runs.parent != UNKNOWN
        alone[steps.child[rows]] = False
        other = np.flatnonzero(alone)
        rows = self._own(rows)
        parent = np.concatenate([steps.run[rows], runs.parent[other]])
        child = np.concatenate([steps.child[rows], other])
        between = runs.started[child] - np.concatenate(
            [steps.started[rows], np.full(len(other), np.nan)]
        )
        name = runs.name.astype(np.int64)
        return _Taken("starts", name[parent], name[child], parent, between)

    def _returns(self) -> _Taken:
        """Return the edges from the last steps of a workflow to the step that awaited it."""
        runs, steps = self.runs, self.steps
        awaits = ~steps.starts & ~steps.copied & (steps.child != UNKNOWN)
        rows = np.flatnonzero(awaits)
        rows = rows[~runs.active[steps.child[rows]]]
        child, last = steps.child[rows], self.order.last
        owner = steps.run[last]
        low, high = (np.searchsorted(owner, child, side) for side in ("left", "right"))
        count = np.maximum(high - low, 1)
        head = np.repeat(rows, count)
        within = np.arange(len(head)) - np.repeat(np.cumsum(count) - count, count)
        # A workflow without steps stands for its last one.
        tail = runs.name[np.repeat(child, count)].astype(np.int64)
        has_steps = np.repeat(high > low, count)
        tail[has_steps] = self.kind[last[(np.repeat(low, count) + within)[has_steps]]]
        return _Taken("returns", tail, self.kind[head], steps.run[head])

    def _aggregate(self, edges: _Taken) -> dict[tuple[int, int], dict[str, Any]]:
        size = len(self.keys)
        pairs, number = np.unique(edges.tail * size + edges.head, return_inverse=True)
        number = number.reshape(-1)
        counts = np.bincount(number, minlength=len(pairs))
        workflows = np.bincount(_distinct(number, edges.run), minlength=len(pairs))
        times = {} if edges.between is None else _quantiles(number, _elapsed(edges.between))
        found = {}
        for index, (tail, head) in enumerate(zip(*np.divmod(pairs, size), strict=True)):
            owner = self.keys[head if edges.kind == "returns" else tail][1]
            quantiles = times.get(index, {})
            found[int(tail), int(head)] = {
                "kind": edges.kind,
                "count": int(counts[index]),
                "workflows": int(workflows[index]),
                "share": float(workflows[index] / self._runs_named(owner)),
                **{
                    f"between_{name}": quantiles[f"duration_{name}"]
                    for name in ("median", "p95")
                    if quantiles
                },
            }
        return found


def _attributes(
    of: str, name: str, workflow_name: str, statuses: Mapping[str, int], workflows: int
) -> dict[str, Any]:
    """Return the attributes that the nodes of ``graphs.process_map`` have, without ``members``."""
    count = sum(statuses.values())
    order = sorted((word for word, number in statuses.items() if number), key=severity_rank)
    ordered = [word for word in STATUSES_BY_SEVERITY if word in order]
    ordered += [word for word in order if word not in ordered]
    failed = sum(statuses.get(word, 0) for word in FAILED_STATUSES)
    return {
        "kind": "aggregate",
        "of": of,
        "name": name,
        "workflow_name": workflow_name,
        "count": count,
        "workflows": workflows,
        "statuses": {word: statuses[word] for word in ordered},
        "status": order[0] if order else "",
        "failure_rate": failed / count if count else float("nan"),
    }


def _distinct(kind: Array, run: Array) -> Array:
    """Return the kind of each distinct pair of a kind and a run."""
    if not len(kind):
        return np.empty(0, np.int64)
    width = int(run.max()) + 1
    # Several times as fast as numpy.unique.
    pairs = np.sort(kind.astype(np.int64) * width + run)
    return cast("Array", pairs[is_first_row(pairs)] // width)


def _elapsed(milliseconds: Array) -> Array:
    """Return durations without negative ones; those due to rounding are zero."""
    with np.errstate(invalid="ignore"):
        rounded = (milliseconds < 0) & (milliseconds > -SECOND_MS)
        return np.where(rounded, 0.0, np.where(milliseconds < 0, np.nan, milliseconds))


def _grouped(group: Array, values: Array) -> tuple[Array, Array, Array, Array]:
    """Sort values by group; return groups, the first index and the size of each, and values."""
    known = ~np.isnan(values)
    group, values = group[known], values[known]
    order = np.lexsort((values, group))
    groups, first, size = np.unique(group[order], return_index=True, return_counts=True)
    return groups, first, size, values[order]


def _quantile(first: Array, size: Array, ordered: Array, share: float) -> Array:
    """Return a quantile of each group, with linear interpolation."""
    place = (size - 1) * share
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, size - 1)
    low, high = ordered[first + below], ordered[first + above]
    return cast("Array", low + (high - low) * (place - below))


def _quantiles(group: Array, milliseconds: Array) -> dict[int, dict[str, pd.Timedelta]]:
    """Return the attributes ``duration_min`` to ``duration_total`` of each group that has any."""
    groups, first, size, ordered = _grouped(group, milliseconds)
    if not len(groups):
        return {}
    columns = {
        "duration_min": ordered[first],
        "duration_median": _quantile(first, size, ordered, 0.5),
        "duration_p95": _quantile(first, size, ordered, 0.95),
        "duration_max": ordered[first + size - 1],
        "duration_total": np.add.reduceat(ordered, first),
    }
    times = {
        name: pd.to_timedelta(np.rint(v), unit="ms").as_unit("ms") for name, v in columns.items()
    }
    return {
        number: {name: values[index] for name, values in times.items()}
        for index, number in enumerate(groups.tolist())
    }


def _smallest(group: Array, milliseconds: Array) -> dict[int, dict[str, pd.Timestamp]]:
    """Return the attribute ``started_at`` of each group that has any time."""
    groups, first, _, ordered = _grouped(group, milliseconds)
    return {
        number: {"started_at": pd.Timestamp(round(value), unit="ms", tz="UTC").as_unit("ms")}
        for number, value in zip(groups.tolist(), ordered[first].tolist(), strict=True)
    }


def _leave_out(graph: nx.DiGraph[Any], min_share: float, min_count: int) -> None:
    """Remove rare steps and edges, and note in ``left_out`` what was removed."""

    def is_rare(values: Mapping[str, Any]) -> bool:
        return bool(values["count"] < min_count or values["share"] < min_share)

    rare = [key for key, node in graph.nodes.items() if node["of"] == "step" and is_rare(node)]
    edges = [(tail, head) for tail, head, edge in graph.edges.data() if is_rare(edge)]
    failures = sum(
        graph.nodes[key]["statuses"].get(word, 0) for key in rare for word in FAILED_STATUSES
    )
    before = graph.number_of_edges()
    graph.remove_edges_from(edges)
    graph.remove_nodes_from(rare)
    removed = before - graph.number_of_edges()
    found = {"steps": len(rare), "failures": failures, "edges": removed}
    graph.graph["left_out"] = {name: count for name, count in found.items() if count}


def check_rarity(min_share: object, min_count: object) -> None:
    """Raise FilterError for values that are no share or no number of times."""
    is_number = isinstance(min_share, int | float) and not isinstance(min_share, bool)
    if not is_number or not 0 <= cast("float", min_share) <= 1:
        raise FilterError(
            f"min_share={min_share!r} must be a share of runs from 0 to 1, such as 0.05."
        )
    if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 0:
        raise FilterError(f"min_count={min_count!r} must be a number of times, 0 or more.")
