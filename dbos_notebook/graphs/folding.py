"""Fold a graph: group similar nodes into one counted node until the graph is easy to read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import networkx as nx
import pandas as pd

from dbos_notebook.errors import GraphError, nearest
from dbos_notebook.graphs.build import garbage_collection_paused
from dbos_notebook.graphs.contraction import contract, remove_joins, remove_nodes
from dbos_notebook.graphs.similarity import Key, Similarity, WorkflowTree
from dbos_notebook.graphs.validation import check_graph, is_folded, string_list
from dbos_notebook.status import FAILED_STATUSES, STATUSES_BY_SEVERITY, severity_rank

MIN_LEVELS = 3
"""So many levels of a deep tree are worth a group."""
MAX_SINGLE_FAILURES = 3
"""So many failures of a kind are shown one by one; more become a group of failures."""


@dataclass(frozen=True)
class Level:
    """How much is put together.

    Attributes
    ----------
    run
        The shortest run of like steps that becomes a group.
    patterns
        Whether repeated patterns of several steps do as well.
    alike
        When child workflows are alike.
    deepest
        Workflows below so many others become one node with all that is in them.
    stretches
        Which steps that are not alike are put together: those between failures, or all.
    """

    run: int = 3
    patterns: bool = False
    alike: Similarity = "exactly"
    deepest: int | None = None
    stretches: Literal["between failures", "all"] | None = None


LEVELS = (
    Level(),
    Level(patterns=True, alike="loosely"),
    Level(run=2, patterns=True, alike="by name"),
    *(
        Level(2, patterns=True, alike="by name", deepest=deepest, stretches="between failures")
        for deepest in (8, 4, 3, 2, 1)
    ),
    Level(2, patterns=True, alike="anyhow", deepest=1, stretches="all"),
)
"""From the finest to the coarsest; the first that keeps to the budget is taken."""


@dataclass(frozen=True)
class FoldUnit:
    """A node of the folded graph: one of the original, or a group.

    Attributes
    ----------
    members
        Steps, or workflows that are put together with all below them.
    group
        The group's name; ``None`` for a node that stands for itself alone.
    within
        The workflow that a group lies in.
    repeats
        How often a pattern of steps repeats.
    levels
        Whether the members are workflows that each started the next. What the last one started
        on the spine is not part of the group.
    """

    members: Sequence[Key]
    group: str | None = None
    within: str | None = None
    repeats: int | None = None
    levels: bool = False

    @property
    def key(self) -> Key:
        """The node's key."""
        return self.members[0] if self.group is None else ("group", self.group)


@dataclass(frozen=True)
class _Part:
    """Steps that follow each other: to become a group if they are enough, or to stay alone."""

    members: list[Key]
    kind: Literal["whole", "failed", "alone"]
    repeats: int | None = None
    number: int = 0


@dataclass
class FoldPlan:
    """What is shown at a level: ``units``, in no promised order.

    Without ``opened`` it is a trial, given up where it goes over the budget.
    """

    source: WorkflowTree
    level: Level
    budget: int
    opened: Collection[str] | None = None
    units: list[FoldUnit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._spine = frozenset(self.source.spine)
        self._levels: dict[str, FoldUnit] = {}
        self._fold_spine()
        waiting = self._siblings(None, self.source.children_of.get(None, []), {})
        while waiting and not self.excessive:
            workflow_id = waiting.pop()
            if workflow_id in self._levels:
                unit = self._levels[workflow_id]
                self.units.append(unit)
                waiting += self._after(unit.members[-1])
                continue
            self.units.append(FoldUnit([workflow_id]))
            children = self.source.children_of.get(workflow_id, [])
            waiting += self._siblings(workflow_id, children, self._steps(workflow_id))
        for workflow_id in self.source.steps_of:
            if workflow_id not in self.source.nodes:  # a part of a graph may lack the workflow
                self._steps(workflow_id)

    def _fold_spine(self) -> None:
        """Put the middle of a long spine into one group: where it began and ended is shown."""
        spine = self.source.spine
        ends = max(3, self.budget // 12)
        middle = spine[ends:-ends]
        if len(middle) >= MIN_LEVELS and self.source.spine_size() > max(6 * ends, self.budget // 2):
            name = self.source.nodes[middle[0]].get("name", "")
            within = spine[ends - 1]
            self._add_levels(middle, f"levels of {name} from {json.dumps(middle[0])}", within)

    def _add_levels(self, members: Sequence[str], group: str, within: str) -> None:
        """Keep a group of levels; if it is opened, its parts, or none: then each is shown."""
        if group not in (self.opened or ()):
            self._levels[members[0]] = FoldUnit(members, group, within, levels=True)
        elif len(members) > max(3, self.budget // 6):
            for name, some in self._split(members, group, max(2, self.budget // 12)):
                self._add_levels(some, name, within)
                within = some[-1]

    def _after(self, workflow_id: Key) -> list[str]:
        """Return what a workflow of the spine started on the spine."""
        children = self.source.children_of.get(workflow_id, ())  # type: ignore[call-overload]
        return [child for child in children if child in self._spine]

    @property
    def excessive(self) -> bool:
        """Whether it is over the budget, and so left unfinished: the next level is to be tried."""
        return self.opened is None and len(self.units) > self.budget

    def _steps(self, workflow_id: str) -> dict[Key, int]:
        """Add units for a workflow's steps; say which part each step belongs to."""
        part_of: dict[Key, int] = {}
        for part in self._stretched(workflow_id):
            part_of.update(dict.fromkeys(part.members, part.number))
            if part.kind == "alone" or len(part.members) < self.level.run:
                self.units.extend(FoldUnit([member]) for member in part.members)
            else:
                self._show(part.members, workflow_id, part.repeats)
            if self.excessive:
                break
        return part_of

    def _parts(self, workflow_id: str) -> Iterator[_Part]:
        """Split a workflow's steps into runs, and set failures apart."""
        source, level = self.source, self.level
        runs = source.runs(workflow_id, shortest=level.run, patterns=level.patterns)
        for number, run in enumerate(runs):
            whole: list[Key] = []
            alone: list[Key] = []
            failed: dict[str, list[Key]] = {}
            for step in run.steps:
                kind = source.failure(step)
                if source.on_path(step) or "function_id" not in source.nodes[step]:
                    alone.append(step)
                elif kind is None:
                    whole.append(step)
                else:
                    failed.setdefault(kind, []).append(step)
            if whole:
                entire = len(whole) == len(run.steps) and run.period > 1
                repeats = len(whole) // run.period if entire else None
                yield _Part(whole, "whole", repeats, number)
            for some in failed.values():
                yield _Part(
                    some, "alone" if len(some) <= MAX_SINGLE_FAILURES else "failed", None, number
                )
            if alone:
                yield _Part(alone, "alone", None, number)

    def _stretched(self, workflow_id: str) -> Iterable[_Part]:
        """Put parts together that follow each other, or all of a kind, where the level does."""
        level = self.level
        if not level.stretches:
            return self._parts(workflow_id)
        kept = workflow_id, level.run, level.patterns, level.stretches
        if kept not in self.source.stretches:
            self.source.stretches[kept] = self._joined(self._parts(workflow_id))
        found: list[_Part] = self.source.stretches[kept]
        return found

    def _joined(self, parts: Iterable[_Part]) -> list[_Part]:
        joined: list[_Part] = []
        everywhere = self.level.stretches == "all"
        last: dict[str, _Part] = {}
        for part in parts:
            kind = part.kind
            if everywhere and not any(map(self.source.on_path, part.members)):
                # The failures of a stretch are one group, however few and whatever of.
                failed = self.source.failure(part.members[0]) is not None
                kind = "failed" if failed else kind
            if not everywhere and kind != "whole":
                last.clear()
            before = last.get(kind)
            if kind == "alone" or before is None:
                before = _Part(list(part.members), kind, part.repeats, len(joined))
                joined.append(before)
                last[kind] = before
            else:
                before.members.extend(part.members)
                before = replace(before, repeats=None)
                joined[before.number] = last[kind] = before
        return joined

    def _siblings(
        self, parent: str | None, children: Sequence[str], part_of: Mapping[Key, int]
    ) -> list[str]:
        """Add units for alike workflows; return those that are shown, to be looked into."""
        source, level = self.source, self.level
        shown: list[str] = []
        alike: dict[Any, list[str]] = {}
        root = source.root
        for child in children:
            if child == root or source.on_path(child) or child in self._spine:
                shown.append(child)
                continue
            failure = source.failure(child)
            kind = source.shape(child, level.alike)
            if level.alike == "anyhow":
                failure = failure and "failed"
            starter = source.starter.get(child)
            part = None if starter is None else part_of.get(starter)
            alike.setdefault((failure, kind, part), []).append(child)
        for (failure, *_), members in alike.items():
            closed = level.deepest is not None and source.depth[members[0]] >= level.deepest
            few = 1 if failure is None or level.alike == "anyhow" else MAX_SINGLE_FAILURES
            if len(members) > few:
                shown += self._show(members, parent)
            elif closed:
                for member in members:
                    shown += self._show([member], parent) if source.inside(member) else [member]
            else:
                shown += members
        return shown

    def _show(
        self, members: Sequence[Any], within: str | None, repeats: int | None = None
    ) -> list[Any]:
        """Add a group; if it is opened, add its members, or return workflows to be looked into."""
        names = [self.source.nodes[member].get("name", "") for member in members]
        title = names[0] if len(set(names)) == 1 else "various"
        # By its first member, so that it keeps its name while more come.
        return self._open(members, f"{title} from {json.dumps(members[0])}", within, repeats)

    def _open(
        self, members: Sequence[Any], group: str, within: str | None, repeats: int | None
    ) -> list[Any]:
        if group not in (self.opened or ()):
            self.units.append(FoldUnit(members, group, within, repeats))
            return []
        if len(members) <= self.budget or len(members) == 1:
            if self._is_workflow(members[0]):
                return list(members)
            self.units.extend(FoldUnit([member]) for member in members)
            return []
        shown: list[Any] = []
        for name, some in self._split(members, group, max(2, self.budget // 2)):
            shown += self._open(some, name, within, None)
        return shown

    def _split(
        self, members: Sequence[Any], group: str, parts: int
    ) -> Iterator[tuple[str, Sequence[Any]]]:
        """Split a group that is too large to be shown open into parts."""
        size = -(-len(members) // parts)
        for begun in range(0, len(members), size):
            some = members[begun : begun + size]
            yield f"{group} [{begun}:{begun + len(some)}]", some

    def _is_workflow(self, member: Any) -> bool:
        # By its kind: in a comparison not every workflow's key is a text.
        return bool(self.source.nodes[member]["kind"] == "workflow")

    def group_of(self, graph: nx.DiGraph[Any]) -> dict[Key, Key]:
        """Return for each node of the graph the node that it becomes."""
        found: dict[Key, Key] = {}
        for unit in self.units:
            for member, inside in self._inside(unit):
                if unit.group is not None and self._is_workflow(member):
                    found.update(dict.fromkeys(inside, unit.key))
                else:
                    found[member] = unit.key
        for key, node in graph.nodes.items():
            if node["kind"] == "join":
                workflow = node["workflow_id"]
                shown = found.get(workflow, workflow)
                found[key] = key if shown == workflow else shown
        return found

    def _inside(self, unit: FoldUnit) -> Iterator[tuple[Key, Iterable[Key]]]:
        """Give each member of a unit with all that it stands for."""
        following: list[Any] = [*unit.members[1:], None]
        if unit.levels:
            following[-1] = next(iter(self._after(unit.members[-1])), None)
        for member, next_one in zip(unit.members, following, strict=True):
            if unit.levels:
                yield member, self.source.level(member, next_one)  # type: ignore[arg-type]
            else:
                yield member, self.source.within(member)

    def shown(self, graph: nx.DiGraph[Any]) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Give the nodes of the folded graph with their attributes."""
        whole = {unit.key for unit in self.units if unit.group is None}
        for unit in self.units:
            if unit.group is None:
                yield unit.key, dict(self.source.nodes[unit.key])
            else:
                yield unit.key, self._described(unit)
        for key, node in graph.nodes.items():
            workflow = node["workflow_id"]
            lone = workflow not in self.source.nodes
            if node["kind"] == "join" and (workflow in whole or lone):
                yield key, dict(node)

    def _described(self, unit: FoldUnit) -> dict[str, Any]:
        """Return what a group says of its members."""
        nodes = [self.source.nodes[member] for member in unit.members]
        first = nodes[0]
        statuses = Counter(node["status"] for node in nodes)
        said: dict[str, Any] = {
            "kind": "group",
            "of": first["kind"],
            "name": _named(nodes, unit.repeats),
            "group": unit.group,
            "members": tuple(unit.members),
            "count": unit.repeats or len(unit.members),
            "statuses": {word: statuses[word] for word in STATUSES_BY_SEVERITY if word in statuses},
            "status": min(statuses, key=severity_rank),
        }
        if unit.within is not None:
            said["workflow_id"] = unit.within
        for name in ("operation", "error_type"):
            values = {node.get(name) for node in nodes}
            if len(values) == 1 and None not in values:
                said[name] = values.pop()
        if said["of"] == "step":
            said.setdefault("operation", "other")
        else:
            said["failures_inside"] = sum(
                self.source.nodes[key]["status"] in FAILED_STATUSES
                for member, inside in self._inside(unit)
                for key in inside
                if key != member
            )
        if unit.levels:
            said["levels"] = len(unit.members)
            said["on_failing_path"] = any(node.get("on_failing_path") for node in nodes)
        said.update(_times(nodes))
        return said


def _named(nodes: Sequence[Mapping[str, Any]], repeats: int | None) -> str:
    names = [str(node.get("name", "")) for node in nodes]
    if repeats:
        return " → ".join(names[: len(names) // repeats])
    if len(set(names)) == 1:
        return names[0]
    return "various steps" if nodes[0]["kind"] == "step" else "various workflows"


def _times(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    durations = [node["duration"] for node in nodes if "duration" in node]
    if durations:
        found["duration_min"] = min(durations)
        found["duration_max"] = max(durations)
        found["duration_total"] = sum(durations, pd.Timedelta(0).as_unit("ms"))
    # A step's start, a workflow's last leave of its queue, or its creation where it had none.
    names = ("started_at", "dequeued_at", "created_at")
    starts = [next((node[name] for name in names if name in node), None) for node in nodes]
    if known := [start for start in starts if start is not None]:
        found["started_at"] = min(known)
    ends = [node["completed_at"] for node in nodes if "completed_at" in node]
    if len(ends) == len(nodes):
        found["completed_at"] = max(ends)
    return found


SYSTEM_OPERATIONS = frozenset({"get_event", "get_result", "other", "set_event", "sleep", "stream"})
"""The operations that ``hide={"system"}`` stands for."""
OPERATIONS = SYSTEM_OPERATIONS | {"recv", "send", "start_child", "step"}


def fold(
    graph: nx.DiGraph[Any],
    *,
    budget: int = 80,
    open: Iterable[str] = (),  # noqa: A002 - the word for it
    hide: Iterable[str] = (),
) -> nx.DiGraph[Any]:
    """Put alike parts of an execution graph together, as far as ``budget`` asks.

    A graph within the budget stays as it is. Beyond it, child workflows of the same name and the
    same shape become one counted node with all below them, and so do runs of like steps; further
    on likeness is taken more loosely, and deep workflows are shown closed. Failures keep apart
    from what succeeded: a few are shown one by one, and many of a kind make a group of their own.
    The failing path is not put into a group. Only where it leads through more workflows than the
    budget has room for, the levels in its middle become one group, and so do those above the
    deepest workflow where workflows started each other very often.

    Parameters
    ----------
    graph
        An execution graph.
    budget
        How many nodes the result should have at most. Where the failing path and what is opened
        need more, it has more.
    open
        Groups to show the members of, by the ``group`` attribute of their nodes; one with more
        members than the budget opens into parts of it, which can be opened in turn. The other
        groups stay as they are. Names of groups that are not there change nothing, so that a
        view may keep them while a run goes on.
    hide
        Operations to leave out ("sleep", "set_event", …), or "system" for all of
        ``fold.SYSTEM_OPERATIONS``. What failed is not hidden.

    Returns
    -------
    networkx.DiGraph
        Acyclic. A group's key is ``("group", name)``; docs/graphs.md lists its attributes. An
        edge's ``count`` says how many edges it stands for.

    Raises
    ------
    GraphError
        ``budget`` is below 1, ``hide`` names no operation, or the graph is folded already.

    Examples
    --------
    >>> graph = dbos_notebook.connect(example_database).graph("checkout-1")
    >>> len(graph), len(fold(graph)), len(fold(graph, budget=8))
    (14, 14, 6)
    >>> [node["name"] for _, node in fold(graph, hide="system").nodes.items()][:4]
    ['checkout', 'validate', 'charge', 'ship']
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise GraphError(f"budget takes a whole number above 0, not {budget!r}.")
    check_graph(graph)
    opened = frozenset(string_list(open, "open"))
    graph = remove_nodes(graph, _hidden(graph, string_list(hide, "hide")))
    if len(graph) <= budget:
        return graph.copy()
    if is_folded(graph):
        raise GraphError("This graph is folded. Pass the one that db.graph(...) gave.")
    with garbage_collection_paused():
        source = WorkflowTree.of(graph)
        level = next(
            (each for each in LEVELS if not FoldPlan(source, each, budget).excessive), LEVELS[-1]
        )
        plan = FoldPlan(source, level, budget, opened)
        folded = contract(graph, plan.group_of(graph), plan.shown(graph))
        remove_joins(folded)
    return folded


def _hidden(graph: nx.DiGraph[Any], hide: Iterable[str]) -> list[Key]:
    wanted = set(hide)
    known = sorted(OPERATIONS | {"system"})
    if unknown := wanted.difference(known):
        word = min(unknown, key=str)
        raise GraphError(
            f"hide takes operations, and {word!r} is none.{nearest(word, known)} "
            f"Use some of: {', '.join(known)}."
        )
    if "system" in wanted:
        wanted |= SYSTEM_OPERATIONS
    return [
        key
        for key, node in graph.nodes.items()
        if node.get("operation") in wanted
        and "function_id" in node
        and node["status"] not in FAILED_STATUSES
        and not node.get("on_failing_path")
    ]
