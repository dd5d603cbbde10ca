"""Build the execution graph from the rows of workflows and steps."""

from __future__ import annotations

import datetime as dt
import gc
import hashlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, cast

import networkx as nx
import numpy as np
import pandas as pd
import sqlalchemy as sa

from dbos_notebook.errors import FilterError
from dbos_notebook.graphs import contraction
from dbos_notebook.graphs.attributes import EdgeAttributes, Key, NodeAttributes, nodes_of
from dbos_notebook.graphs.critical_path import mark_failing_path
from dbos_notebook.graphs.ordering import is_sequential, order_by_time
from dbos_notebook.graphs.validation import check_rows
from dbos_notebook.payloads import decode
from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables import frames, listings
from dbos_notebook.tables.columns import MESSAGE, STEP, Column
from dbos_notebook.tables.filters import as_strings, check_count
from dbos_notebook.tables.timing import frame_times, wake_time
from dbos_notebook.tables.timing import operation as operation

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store
    from dbos_notebook.tables.sql import Queries


Pair = tuple[Key, Key]


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector.

    While millions of objects are created, it traverses all of them repeatedly and frees nothing,
    which takes a third of the time of building an execution graph of 70,000 nodes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_WORKFLOW = (
    "name",
    "status",
    "created_at",
    "dequeued_at",
    "completed_at",
    "enqueued_at",
    "started_at",
    "ended_at",
    "delay_until",
    "queue_wait",
    "duration",
    "error_type",
    "error_message",
    "error_wrapper",
    "error_attempts",
    "failed_step",
    "failed_step_id",
    "failed_workflow_id",
    "queue_name",
    "app_version",
    "executor_id",
    "forked_from",
    "recovery_attempts",
)
_STEP = (
    "status",
    "started_at",
    "completed_at",
    "duration",
    "error_type",
    "error_message",
    "error_wrapper",
    "error_attempts",
    "child_workflow_id",
)


def workflow_nodes(workflows: pd.DataFrame, read_at: pd.Timestamp) -> dict[str, NodeAttributes]:
    """Return the node attributes of workflows by ID, in the order of the rows."""
    ids = workflows["workflow_id"].tolist()
    # Missing values have no attribute, except for status, which is empty.
    nodes: list[NodeAttributes] = [
        {"kind": "workflow", "workflow_id": workflow_id, "status": ""} for workflow_id in ids
    ]
    times = frame_times(workflows, read_at)
    # Durations of active workflows are computed as of read_at, those of others were recorded.
    active = workflows["status"].isin(ACTIVE_STATUSES).to_numpy(bool)
    for name in _WORKFLOW:
        column = workflows.get(name)
        if name in times and column is None:
            column = times[name]
        elif name in times and active.any():
            column = times[name].where(active, column)
        if column is not None:
            _fill(nodes, name, column)
    _digest(nodes, workflows)
    return dict(zip(ids, nodes, strict=True))


def step_nodes(
    steps: pd.DataFrame, wakes: pd.DataFrame | None
) -> tuple[list[tuple[str, int]], list[NodeAttributes]]:
    """Return the keys and attributes of step nodes, in the order of the rows."""
    owners = steps["workflow_id"].tolist()
    numbers = steps["function_id"].tolist()
    names = steps["function_name"].astype("category")
    # Each distinct name is classified once.
    distinct_names = names.cat.categories.tolist()
    operations = [*map(operation, distinct_names), "other"]
    nodes: list[NodeAttributes] = [
        {
            "kind": "step",
            "workflow_id": owner,
            "function_id": number,
            "operation": operations[code],
        }
        for owner, number, code in zip(owners, numbers, names.cat.codes.tolist(), strict=True)
    ]
    _fill(nodes, "name", names)
    for name in _STEP:
        if name in steps:
            _fill(nodes, name, steps[name])
    for node in nodes:
        if "child_workflow_id" in node and node["operation"] != "get_result":
            node["operation"] = "start_child"
    _digest(nodes, steps)
    keys = list(zip(owners, numbers, strict=True))
    _mark_sleeps(dict(zip(keys, nodes, strict=True)), wakes)
    return keys, nodes


def running_node(workflow: NodeAttributes, steps: Sequence[NodeAttributes]) -> NodeAttributes:
    """Return the node for what a PENDING workflow is doing now."""
    node: NodeAttributes = {
        "kind": "step",
        "workflow_id": workflow["workflow_id"],
        "operation": "other",
        "status": "PENDING",
        "name": f"after step {steps[-1]['function_id']}" if steps else "before the first step",
    }
    awaited = steps[-1].get("timeout_of") if steps else None
    if awaited is not None and all(step["function_id"] != awaited for step in steps):
        node["operation"] = "recv"
        node["name"] = f"waiting in step {awaited}"
    since = [step["completed_at"] for step in steps if "completed_at" in step]
    if "started_at" in workflow:
        since.append(workflow["started_at"])
    if since:
        node["started_at"] = max(since)
    return node


def _fill(nodes: Sequence[NodeAttributes], name: str, column: pd.Series[Any]) -> None:
    """Set an attribute of nodes from a column, except where it is missing."""
    present = column.notna().to_numpy()
    values = column.tolist()
    # Columns have the names of attributes.
    by_index = cast("Sequence[dict[str, object]]", nodes)
    if present.all():
        for node, value in zip(by_index, values, strict=True):
            node[name] = value
    else:
        for index in np.flatnonzero(present).tolist():
            by_index[index][name] = values[index]


def _digest(nodes: Sequence[NodeAttributes], rows: pd.DataFrame) -> None:
    """Set a digest of each node's result, by which results are compared, if they were loaded."""
    if not {"output", "error"} <= set(rows.columns):
        return
    for node, output, error in zip(nodes, rows["output"], rows["error"], strict=True):
        # Hash the decoded value, because equal values can be stored in different formats.
        representation = f"output {output!r}" if error is None else f"error {error!r}"
        digest = hashlib.sha256(representation.encode("utf-8", "replace"))
        node["output_digest"] = digest.hexdigest()[:32]


def _milliseconds(instants: pd.Series[Any]) -> list[int | None]:
    """Return times in milliseconds since 1970."""
    values = instants.dt.tz_localize(None).to_numpy("datetime64[ms]")
    numbers: list[int | None] = values.astype("int64").tolist()
    for index in np.flatnonzero(np.isnat(values)).tolist():
        numbers[index] = None
    return numbers


def _mark_sleeps(nodes: Mapping[Key, NodeAttributes], wakes: pd.DataFrame | None) -> None:
    """Distinguish sleeps from timeouts of recv and get_event, which DBOS records as sleeps too."""
    wake_times: dict[Key, pd.Timestamp] = {}
    if wakes is not None:
        names = ("workflow_id", "function_id", "wakes_at")
        for workflow_id, function_id, instant in zip(
            *(wakes[name].tolist() for name in names), strict=True
        ):
            wake_times[workflow_id, function_id] = instant
    for key, node in nodes.items():
        if node["operation"] != "sleep":
            continue
        previous = nodes.get((node["workflow_id"], node["function_id"] - 1), {})
        if previous.get("operation") in ("recv", "get_event"):
            node["timeout_of"] = previous["function_id"]
        elif (
            not previous
            and node["function_id"] > 1
            and (node["workflow_id"], node["function_id"] + 1) not in nodes
        ):
            # The step of a recv or get_event is recorded when it ends, its timeout before.
            node["timeout_of"] = node["function_id"] - 1
        elif key in wake_times:
            node["wakes_at"] = wake_times[key]


SLACK = pd.Timedelta(milliseconds=50)
"""Tolerance for clock differences: the database times messages, the application steps."""
SECOND = pd.Timedelta(seconds=1)


def message_edges(nodes: Mapping[Key, NodeAttributes], messages: pd.DataFrame | None) -> list[Pair]:
    """Return pairs of send and recv steps that exchanged a message.

    DBOS does not record who sent a message, so it is inferred from times: there is a pair if
    exactly one send step ran when the message was stored.
    """
    if messages is None or messages.empty:
        return []
    senders = sorted(
        (
            (node["started_at"], node["completed_at"], key)
            for key, node in nodes.items()
            if node.get("operation") == "send" and "started_at" in node and "completed_at" in node
        ),
        key=lambda sender: sender[:2],
    )
    started = [start for start, _, _ in senders]
    # The latest end so far, which bounds the search backwards.
    latest_ends = list(accumulate((end for _, end, _ in senders), max))
    pairs: list[Pair] = []
    for workflow_id, function_id, stored in zip(
        messages["workflow_id"].tolist(),
        messages["consumed_by_function_id"].tolist(),
        messages["created_at"].tolist(),
        strict=True,
    ):
        receiver = (workflow_id, function_id)
        if pd.isna(stored) or nodes.get(receiver, {}).get("operation") != "recv":
            continue
        # SQLite stores whole seconds.
        is_whole_second = stored == stored.floor("s")
        earliest = stored - SLACK
        latest = stored + (SECOND if is_whole_second else SLACK)
        candidates: list[Key] = []
        index = bisect_right(started, latest) - 1
        while index >= 0 and latest_ends[index] >= earliest and len(candidates) < 2:
            if senders[index][1] >= earliest:
                candidates.append(senders[index][2])
            index -= 1
        if len(candidates) == 1:
            pairs.append((candidates[0], receiver))
    return pairs


Times = tuple[Sequence[int | None], Sequence[int | None]]
MAX_LAST_STEPS = 64
"""An awaited workflow with more final steps than this ends in a join node."""


def execution_graph(
    workflows: pd.DataFrame,
    steps: pd.DataFrame,
    *,
    root: str | None = None,
    messages: pd.DataFrame | None = None,
    wakes: pd.DataFrame | None = None,
    copied: pd.DataFrame | None = None,
    database: str | None = None,
    read_at: pd.Timestamp | None = None,
) -> nx.DiGraph[Any]:
    """Build the execution graph of workflows and their steps, as ``Client.graph`` does.

    Parameters
    ----------
    workflows
        Rows of :meth:`Client.tree` or :meth:`Client.workflows`.
    steps
        Rows of :meth:`Client.steps`; steps of other workflows are ignored. If both frames have
        ``output`` and ``error``, nodes have a digest of their results, by which :func:`compare`
        finds changed results.
    root
        The ID of the root workflow; that of the first row by default.
    messages
        ``workflow_id``, ``consumed_by_function_id`` and ``created_at`` of received messages.
    wakes
        ``workflow_id``, ``function_id`` and ``wakes_at`` of sleep steps.
    copied
        ``workflow_id`` and ``function_id`` of steps that a fork copied from its original; by
        default, copies are detected by their times.
    database
        The database of the rows, without a password.
    read_at
        When the rows were read; now by default.

    Returns
    -------
    networkx.DiGraph
        An acyclic graph; docs/graphs.md lists its attributes.

    Raises
    ------
    GraphError
        The rows are inconsistent: a workflow is its own ancestor or has two rows, or there is no
        row for ``root``.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> graph = execution_graph(db.tree("checkout-1"), db.steps("checkout-1", children=True))
    >>> graph.nodes["checkout-1", 3]["name"], list(graph.successors(("checkout-1", 3)))
    ('charge', [('checkout-1', 4)])
    """
    with garbage_collection_paused():
        check_rows(workflows, steps, root)
        if read_at is None:
            read_at = pd.Timestamp.now("UTC").floor("ms")
        parts = _Parts(workflow_nodes(workflows, read_at))
        parts.add_steps(steps, wakes)
        if copied is not None:
            for key in zip(copied["workflow_id"], copied["function_id"], strict=True):
                if key in parts.nodes:
                    parts.nodes[key]["copied"] = True
        if root is None:
            root = next(iter(parts.workflows), None)
        parts.find_parents(workflows)
        mark_failing_path(root, parts.nodes, parts.steps_of, parts.starters)

        graph: nx.DiGraph[Any] = nx.DiGraph(root=root)
        if database is not None:
            graph.graph["database"] = database
        graph.graph["read_at"] = read_at
        pairs = message_edges(parts.nodes, messages)
        parts.connect(graph, pairs, frozenset())
        if cycles := contraction.cycles(graph):
            # Correct rows can form cycles where clocks differ: a workflow that was recovered on
            # another machine, or a message whose sender was inferred from times. Ignore both.
            nodes_on_cycles = set().union(*cycles)
            pairs = [pair for pair in pairs if not nodes_on_cycles.issuperset(pair)]
            sequential = frozenset(contraction.workflows_of(cycles, nodes_of(graph)))
            parts.connect(graph, pairs, sequential)
            if cycles := contraction.cycles(graph):
                # A step can also start a workflow by an existing ID: DBOS then returns the handle
                # of that workflow, and records the same row as for a new one.
                on_cycles = frozenset(contraction.workflows_of(cycles, nodes_of(graph)))
                parts.keep_first_starts(workflows, on_cycles)
                parts.connect(graph, pairs, sequential | on_cycles)
            if cycles := contraction.cycles(graph):
                raise contraction.cycle_error(cycles, nodes_of(graph))
        return graph


@dataclass
class _Parts:
    """The nodes of each workflow, and the relations between workflows."""

    workflows: dict[str, NodeAttributes]
    nodes: dict[Key, NodeAttributes] = field(default_factory=dict)
    keys_of: dict[str, Sequence[Key]] = field(default_factory=dict)
    steps_of: dict[str, Sequence[NodeAttributes]] = field(default_factory=dict)
    times_of: dict[str, Times] = field(default_factory=dict)
    starters: dict[str, list[Key]] = field(default_factory=dict)
    awaiters: dict[str, list[Key]] = field(default_factory=dict)

    def add_steps(self, steps: pd.DataFrame, wakes: pd.DataFrame | None) -> None:
        """Create the nodes of steps, grouped by workflow and ordered by function_id."""
        in_graph = steps["workflow_id"].isin(self.workflows)
        # SQLite accepts any value as function_id; a step without a number cannot be ordered.
        steps = steps.loc[in_graph & steps["function_id"].notna()]
        steps = steps.sort_values(["workflow_id", "function_id"], kind="stable")
        keys, nodes = step_nodes(steps, wakes)
        starts, ends = _milliseconds(steps["started_at"]), _milliseconds(steps["completed_at"])
        for index, node in enumerate(nodes):
            wakes_at, end = node.get("wakes_at"), ends[index]
            if wakes_at is not None and end is not None:
                # A sleep ends when it wakes, even if its row was completed earlier.
                ends[index] = max(end, round(wakes_at.timestamp() * 1000))
        start = 0
        for index in range(1, len(keys) + 1):
            owner = keys[start][0]
            if index == len(keys) or keys[index][0] != owner:
                self.keys_of[owner] = keys[start:index]
                self.steps_of[owner] = nodes[start:index]
                self.times_of[owner] = starts[start:index], ends[start:index]
                start = index
        for workflow_id, workflow in self.workflows.items():
            self.nodes[workflow_id] = workflow
            workflow_steps = self.steps_of.get(workflow_id, ())
            self.nodes.update(zip(self.keys_of.get(workflow_id, ()), workflow_steps, strict=True))
            if workflow["status"] == "PENDING":
                self.nodes[workflow_id, "running"] = running_node(workflow, workflow_steps)
        for key, node in zip(keys, nodes, strict=True):
            child = node.get("child_workflow_id")
            if child in self.workflows:
                is_awaiter = node["operation"] == "get_result"
                (self.awaiters if is_awaiter else self.starters).setdefault(child, []).append(key)

    def find_parents(self, workflows: pd.DataFrame) -> None:
        """Set the ``parent`` attribute of workflows."""
        parent_ids = workflows["parent_workflow_id"]
        for workflow_id, parent in zip(self.workflows, parent_ids.tolist(), strict=True):
            starters = self.starters.get(workflow_id, ())
            candidates = [self.nodes[key]["workflow_id"] for key in starters]
            # A fork also has the start steps that were copied from its original.
            if isinstance(parent, str) and (parent in candidates or not candidates):
                self.workflows[workflow_id]["parent"] = parent
            elif candidates:
                self.workflows[workflow_id]["parent"] = candidates[0]

    def keep_first_starts(self, workflows: pd.DataFrame, workflow_ids: Collection[str]) -> None:
        """Keep only the step that can have started each of these workflows.

        That is the first start step of the parent that the row names, or of a fork of the parent,
        which has a copy of the step.
        """
        parent_ids = workflows["parent_workflow_id"]
        for workflow_id, parent in zip(self.workflows, parent_ids.tolist(), strict=True):
            if workflow_id not in workflow_ids:
                continue
            workflow = self.workflows[workflow_id]
            workflow.pop("parent", None)
            if not isinstance(parent, str):
                self.starters.pop(workflow_id, None)
                continue
            first_starts: dict[str, Key] = {}
            for key in self.starters.pop(workflow_id, ()):
                first_starts.setdefault(self.nodes[key]["workflow_id"], key)
            owner = parent
            if parent not in first_starts:
                forks = (w for w in first_starts if self.workflows[w].get("forked_from") == parent)
                owner = next(forks, parent)
            workflow["parent"] = owner
            if owner in first_starts:
                self.starters[workflow_id] = [first_starts[owner]]

    def connect(
        self, graph: nx.DiGraph[Any], messages: Iterable[Pair], sequential: frozenset[str]
    ) -> None:
        """Set the nodes and edges of a graph; order ``sequential`` workflows by function_id."""
        graph.remove_nodes_from(list(graph))
        graph.add_nodes_from(self.nodes.items())
        edges = _Edges(graph)
        for workflow_id, workflow in self.workflows.items():
            last = self._order(edges, workflow_id, sequential=workflow_id in sequential)
            if workflow["status"] == "PENDING":
                for key in last:
                    kind = edges.first if key == workflow_id else edges.next
                    kind.append((key, (workflow_id, "running")))
            elif workflow["status"] not in ACTIVE_STATUSES and workflow_id in self.awaiters:
                if len(last) > MAX_LAST_STEPS:
                    last = [edges.join(workflow_id, last)]
                awaiters = self.awaiters[workflow_id]
                edges.returns.extend((key, awaiter) for key in last for awaiter in awaiters)
            self._add_origins(edges, workflow_id, workflow)
        edges.write(messages)

    def _order(self, edges: _Edges, workflow_id: str, *, sequential: bool) -> Sequence[Key]:
        """Add edges between steps; return the last steps, or the workflow if it has none."""
        keys = self.keys_of.get(workflow_id, ())
        if not keys:
            return (workflow_id,)
        times = self.times_of[workflow_id]
        if sequential or is_sequential(*times):
            # The same as sequential_order and twice as fast; most workflows are sequential.
            edges.next.extend(pairwise(keys))
            edges.first.append((workflow_id, keys[0]))
            return keys[-1:]
        order = order_by_time(*times)
        if order.joins:
            keys = [*keys, *(edges.new_join(workflow_id) for _ in range(order.joins))]
        edges.next.extend((keys[before], keys[after]) for before, after in order.edges)
        edges.first.extend((workflow_id, keys[index]) for index in order.first)
        return [keys[index] for index in order.last]

    def _add_origins(self, edges: _Edges, workflow_id: str, workflow: NodeAttributes) -> None:
        """Add the edges from what started a workflow and from what it was forked from."""
        starters = self.starters.get(workflow_id, ())
        edges.starts.extend((key, workflow_id) for key in starters)
        parent = workflow.get("parent")
        if parent in self.workflows and not any(
            self.nodes[key]["workflow_id"] == parent for key in starters
        ):
            # It was started outside a step, or the step was not recorded.
            edges.starts.append((parent, workflow_id))
        original = workflow.get("forked_from")
        if original in self.workflows:
            step = self._first_own_step(original, workflow_id)
            attributes: EdgeAttributes = {"kind": "forked_from"}
            if step is not None:
                attributes["step"] = step
            edges.forked.append((original, workflow_id, attributes))

    def _first_own_step(self, original: str, fork: str) -> int | None:
        """Return the start step of a fork: the first that was not copied with its times."""
        fork_steps, original_steps = self.steps_of.get(fork, ()), self.steps_of.get(original, ())
        compared = ("function_id", "name", "started_at", "completed_at")
        count = 0
        for fork_step, original_step in zip(fork_steps, original_steps, strict=False):
            if any(fork_step.get(name) != original_step.get(name) for name in compared):
                break
            if "started_at" not in fork_step and "child_workflow_id" not in fork_step:
                return None  # without times a copy cannot be distinguished from a new execution
            count += 1
        for steps in (fork_steps, original_steps):
            if count < len(steps):
                return int(steps[count]["function_id"])
        return None


class _Edges:
    """Edges by kind, collected and then added to the graph."""

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        self._graph = graph
        self._joins: dict[str, int] = {}
        self.first: list[Pair] = []
        self.next: list[Pair] = []
        self.starts: list[Pair] = []
        self.returns: list[Pair] = []
        self.forked: list[tuple[Key, Key, EdgeAttributes]] = []

    def new_join(self, workflow_id: str) -> Key:
        """Add a join node and return its key."""
        number = self._joins[workflow_id] = self._joins.get(workflow_id, 0) + 1
        key = (workflow_id, f"join {number}")
        self._graph.add_node(key, kind="join", name="join", workflow_id=workflow_id)
        return key

    def join(self, workflow_id: str, predecessors: Sequence[Key]) -> Key:
        """Add a join node after other nodes and return its key."""
        key = self.new_join(workflow_id)
        self.next.extend((predecessor, key) for predecessor in predecessors)
        return key

    def write(self, messages: Iterable[Pair]) -> None:
        """Add the edges. Two nodes have one edge; order and starts take precedence over others."""
        graph = self._graph
        graph.add_edges_from(self.returns, kind="returns")
        graph.add_edges_from(self.starts, kind="starts")
        graph.add_edges_from(self.next, kind="next")
        graph.add_edges_from(self.first, kind="first")
        message: EdgeAttributes = {"kind": "message", "inferred": True}
        others = [*self.forked, *((tail, head, message) for tail, head in messages)]
        for tail, head, attributes in others:
            if not graph.has_edge(tail, head):
                graph.add_edge(tail, head, **attributes)


_MESSAGE = tuple(
    column
    for column in MESSAGE
    if column.name in ("workflow_id", "created_at", "consumed_by_function_id")
)
# The stored result of a sleep is the time when it wakes.
_WAKE = (
    Column("_wakes", "text", "", "output"),
    Column("_wakes_serialization", "text", "", "serialization"),
)


@dataclass(frozen=True)
class Rows:
    """The rows of an execution graph.

    ``workflows`` has a ``depth`` column, ``messages`` the received messages, ``wakes`` the ends of
    sleeps, and ``copied`` the steps that forks copied.
    """

    roots: tuple[str, ...]
    workflows: pd.DataFrame
    steps: pd.DataFrame
    messages: pd.DataFrame
    wakes: pd.DataFrame
    copied: pd.DataFrame
    read_at: pd.Timestamp


def read(
    session: Session,
    queries: Queries,
    workflow_id: str,
    *,
    depth: int | None,
    forks: bool,
    load_output: bool,
) -> Rows:
    """Read a workflow and its descendants, with ``forks`` also its forks and originals."""
    roots = _family(session, queries, workflow_id) if forks else [workflow_id]
    read_at = pd.Timestamp(dt.datetime.now(dt.UTC)).floor("ms")
    workflows = listings.tree(session, queries, roots, depth, load_output=load_output)
    ids = workflows["workflow_id"].tolist()
    columns: tuple[Column, ...] = (*listings.step_columns(load_output=load_output), *_WAKE)
    statement = queries.step_select(STEP, ids, load_output=load_output)
    statement = statement.add_columns(*_wake(queries))
    steps = frames.to_frame(
        listings.typed_batches(session, statement, columns, queries.decoder), columns
    )
    wakes = _wakes(steps)
    steps = steps.drop(columns=[column.name for column in _WAKE])
    receivers = steps.loc[steps["function_name"] == "DBOS.recv", "workflow_id"]
    messages = _messages(session, queries, receivers.unique().tolist())
    copied = _copied(session, queries, workflows)
    return Rows(tuple(roots), workflows, steps, messages, wakes, copied, read_at)


def read_graph(
    store: Store,
    workflow_id: str,
    *,
    depth: int | None = None,
    forks: bool = False,
    load_output: bool = False,
) -> nx.DiGraph[Any]:
    """Read a workflow and return its execution graph, as :meth:`Client.graph` does."""
    ids = as_strings(workflow_id, "workflow_id")
    if len(ids) != 1:
        raise FilterError(f"graph takes one workflow, not {len(ids)}. Call it for each.")
    depth = check_count(depth, "depth", "a number of levels")
    rows = store.read(read, ids[0], depth=depth, forks=forks, load_output=load_output)
    return build_graph(rows, ids[0], str(store.location))


def build_graph(rows: Rows, root: str, database: str) -> nx.DiGraph[Any]:
    """Build the execution graph of rows that were read."""
    return execution_graph(
        rows.workflows,
        rows.steps,
        root=root,
        messages=rows.messages,
        wakes=rows.wakes,
        copied=rows.copied,
        database=database,
        read_at=rows.read_at,
    )


def _family(session: Session, queries: Queries, workflow_id: str) -> list[str]:
    """Return the IDs of a workflow, of its originals, and of all forks of any of these."""
    family, key = queries.fork_family([workflow_id]), queries.workflows.c.workflow_uuid
    # With a join, because the original may have been deleted.
    statement = sa.select(family.c.child).select_from(
        family.join(queries.workflows, key == family.c.child)
    )
    return list(dict.fromkeys([workflow_id, *(row["child"] for row in session.rows(statement))]))


def _messages(session: Session, queries: Queries, receivers: Sequence[str]) -> pd.DataFrame:
    """Read which step received each message, which dbos records since 3.0."""
    table = queries.catalog.table("notifications")
    receiver = queries.column(table, "consumed_by_function_id")
    if not receivers or isinstance(receiver, sa.Null):
        return pd.DataFrame({column.name: [] for column in _MESSAGE})
    statement = sa.select(*queries.select(table, _MESSAGE)).where(
        queries.member(table.c.destination_uuid, receivers), receiver.is_not(None)
    )
    return _frame(session, statement, _MESSAGE)


def _wake(queries: Queries) -> list[sa.ColumnElement[object]]:
    """Select the stored results of sleeps, which are short, and no other results."""
    table = queries.steps
    sleeps = table.c.function_name == "DBOS.sleep"
    return [
        sa.case((sleeps, queries.column(table, column.source or ""))).label(column.name)
        for column in _WAKE
    ]


def _wakes(steps: pd.DataFrame) -> pd.DataFrame:
    """Return when sleeps end: up to dbos 2.20, a sleep's row was completed when it started."""
    sleeps = steps[steps[_WAKE[0].name].notna()]
    frame = sleeps[["workflow_id", "function_id"]].assign(
        wakes_at=pd.Series(
            [
                wake_time(decode(value, None if pd.isna(serialization) else serialization))
                for value, serialization in zip(
                    *(sleeps[column.name] for column in _WAKE), strict=True
                )
            ],
            index=sleeps.index,
            dtype="datetime64[ms, UTC]",
        )
    )
    return frame[frame["wakes_at"].notna()]


def _copied(session: Session, queries: Queries, workflows: pd.DataFrame) -> pd.DataFrame:
    """Read which steps of forks are copies: those with the times of the original's step.

    With workflow times in whole seconds, the times of the fork do not identify copies.
    """
    forks = workflows.loc[workflows["forked_from"].notna(), "workflow_id"].tolist()
    table, columns = queries.workflows, ("started_at_epoch_ms", "completed_at_epoch_ms")
    if not forks or not all(name in queries.steps.c for name in columns):
        return pd.DataFrame({column.name: [] for column in STEP[:2]})
    fork_step, original_step = (
        queries.steps.alias("fork_step"),
        queries.steps.alias("original_step"),
    )
    matching = [fork_step.c[name] == original_step.c[name] for name in ("function_id", *columns)]
    statement = (
        sa.select(*queries.select(fork_step, STEP[:2]))
        .select_from(table)
        .join(fork_step, fork_step.c.workflow_uuid == table.c.workflow_uuid)
        .join(
            original_step, sa.and_(original_step.c.workflow_uuid == table.c.forked_from, *matching)
        )
        .where(queries.member(table.c.workflow_uuid, forks))
    )
    return _frame(session, statement, STEP[:2])


def _frame(
    session: Session, statement: sa.Select[tuple[object, ...]], columns: Sequence[Column]
) -> pd.DataFrame:
    schema = frames.transport_schema(columns)
    with closing(session.batches(statement, schema)) as stream:
        batches = [frames.derive(batch, columns, dt.datetime.now(dt.UTC)) for batch in stream]
    return frames.to_frame(batches, columns)
