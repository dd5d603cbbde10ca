"""Fold a graph: group similar nodes into one counted node until the graph is easy to read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import networkx as nx
import pandas as pd

from dbos_notebook.errors import GraphError, nearest
from dbos_notebook.graphs.attributes import GroupAttributes, Key, NodeAttributes
from dbos_notebook.graphs.build import garbage_collection_paused
from dbos_notebook.graphs.contraction import contract, remove_joins, remove_nodes
from dbos_notebook.graphs.group_names import common_pattern, group_name
from dbos_notebook.graphs.similarity import RepeatedRun, Similarity, WorkflowTree
from dbos_notebook.graphs.validation import check_graph, is_folded, string_list
from dbos_notebook.status import FAILED_STATUSES, STATUSES_BY_SEVERITY, severity_rank
from dbos_notebook.text import sanitize

MIN_LEVELS = 3
"""The minimum number of levels of a deep tree that become a group."""
MIN_LOOP_REPEATS, MIN_LOOP_STEPS = 5, 10
"""A loop of so many repeats and steps becomes a group in a graph of any size."""
MAX_SINGLE_FAILURES = 3
"""Up to this many failures of a kind are shown individually; more become a group."""


@dataclass(frozen=True)
class Level:
    """How much is folded.

    Attributes
    ----------
    min_run
        The minimum length of a run of similar steps that becomes a group.
    patterns
        Whether repeated patterns of several steps become groups as well.
    similarity
        When child workflows are similar: see ``WorkflowTree.shape``.
    loops_only
        Whether nothing but long loops becomes groups.
    max_depth
        Workflows at this depth become one node with all their contents.
    merge
        Which dissimilar steps are merged into groups: those between failures, or all.
    """

    min_run: int = 3
    patterns: bool = False
    similarity: Similarity = "exact"
    max_depth: int | None = None
    merge: Literal["between failures", "all"] | None = None
    loops_only: bool = False


LOOPS = Level(min_run=MIN_LOOP_STEPS, patterns=True, loops_only=True)
"""What is folded in a graph of any size."""
LEVELS = (
    Level(),
    Level(patterns=True, similarity="loose"),
    Level(min_run=2, patterns=True, similarity="name"),
    *(
        Level(2, patterns=True, similarity="name", max_depth=max_depth, merge="between failures")
        for max_depth in (8, 4, 3, 2, 1)
    ),
    Level(2, patterns=True, similarity="any", max_depth=1, merge="all"),
)
"""From the finest to the coarsest; the first that stays within the budget is used."""


@dataclass(frozen=True)
class FoldUnit:
    """A node of the folded graph: one of the original, or a group.

    Attributes
    ----------
    members
        Steps, or workflows that stand for all their descendants as well.
    group
        The name of the group; ``None`` for a single node.
    within
        The workflow that contains the group.
    repeats
        The number of repetitions of a pattern of steps.
    levels
        Whether the members are workflows that each started the next. The spine below the last one
        is not part of the group.
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
    """Consecutive steps that become a group if there are enough of them, or stay single."""

    members: list[Key]
    kind: Literal["succeeded", "failed", "single"]
    repeats: int | None = None
    number: int = 0


@dataclass
class FoldPlan:
    """The nodes at a level of folding: ``units``, in no defined order.

    Without ``opened`` it is a trial that is abandoned when it exceeds the budget.
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
        while waiting and not self.over_budget:
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
            if workflow_id not in self.source.nodes:  # a subgraph may lack the workflow
                self._steps(workflow_id)

    def _fold_spine(self) -> None:
        """Group the middle levels of a long spine; its first and last levels are shown."""
        spine = self.source.spine
        ends = max(3, self.budget // 12)
        middle = spine[ends:-ends]
        if len(middle) >= MIN_LEVELS and self.source.spine_size() > max(6 * ends, self.budget // 2):
            name = self.source.nodes[middle[0]].get("name", "")
            within = spine[ends - 1]
            self._add_levels(middle, f"levels of {name} from {json.dumps(middle[0])}", within)

    def _add_levels(self, members: Sequence[str], group: str, within: str) -> None:
        """Add a group of levels; if it is opened, its parts, or none if all levels are shown."""
        if group not in (self.opened or ()):
            self._levels[members[0]] = FoldUnit(members, group, within, levels=True)
        elif len(members) > max(3, self.budget // 6):
            for name, part in self._split(members, group, max(2, self.budget // 12)):
                self._add_levels(part, name, within)
                within = part[-1]

    def _after(self, workflow_id: Key) -> list[str]:
        """Return the children of a workflow that are on the spine."""
        children = self.source.children_of.get(workflow_id, ())  # type: ignore[call-overload]  # spines have string keys
        return [child for child in children if child in self._spine]

    @property
    def over_budget(self) -> bool:
        """Whether this trial exceeds the budget, so that the next level has to be tried."""
        return self.opened is None and len(self.units) > self.budget

    def _steps(self, workflow_id: str) -> dict[Key, int]:
        """Add units for a workflow's steps, and return the part of each step."""
        part_of: dict[Key, int] = {}
        for part in self._merged_parts(workflow_id):
            part_of.update(dict.fromkeys(part.members, part.number))
            if part.kind == "single" or len(part.members) < self.level.min_run:
                self.units.extend(FoldUnit([member]) for member in part.members)
            else:
                self._add_group(part.members, workflow_id, part.repeats)
            if self.over_budget:
                break
        return part_of

    def _parts(self, workflow_id: str) -> Iterator[_Part]:
        """Split a workflow's steps into runs, with failures separate."""
        source, level = self.source, self.level
        runs = source.runs(workflow_id, shortest=level.min_run, patterns=level.patterns)
        for number, run in enumerate(runs):
            if level.loops_only and not self._is_long_loop(run):
                yield _Part(list(run.steps), "single", None, number)
                continue
            succeeded: list[Key] = []
            single: list[Key] = []
            failed: dict[str, list[Key]] = {}
            for step in run.steps:
                kind = source.failure(step)
                if source.on_path(step) or "function_id" not in source.nodes[step]:
                    single.append(step)
                elif kind is None:
                    succeeded.append(step)
                else:
                    failed.setdefault(kind, []).append(step)
            if succeeded:
                is_whole_run = len(succeeded) == len(run.steps) and run.period > 1
                repeats = len(succeeded) // run.period if is_whole_run else None
                yield _Part(succeeded, "succeeded", repeats, number)
            for steps in failed.values():
                few = len(steps) <= MAX_SINGLE_FAILURES or level.loops_only
                yield _Part(steps, "single" if few else "failed", None, number)
            if single:
                yield _Part(single, "single", None, number)

    def _is_long_loop(self, run: RepeatedRun) -> bool:
        """Return whether a run is a loop to fold in any graph: long, and without children."""
        return len(run.steps) >= MIN_LOOP_REPEATS * run.period and not any(
            "child_workflow_id" in self.source.nodes[step] for step in run.steps[: run.period]
        )

    def _merged_parts(self, workflow_id: str) -> Iterable[_Part]:
        """Merge consecutive parts, or all parts of a kind, as the level requires."""
        level = self.level
        if not level.merge:
            return self._parts(workflow_id)
        cache_key = workflow_id, level.min_run, level.patterns, level.merge
        if cache_key not in self.source.merged_parts:
            self.source.merged_parts[cache_key] = self._joined(self._parts(workflow_id))
        merged: list[_Part] = self.source.merged_parts[cache_key]
        return merged

    def _joined(self, parts: Iterable[_Part]) -> list[_Part]:
        joined: list[_Part] = []
        everywhere = self.level.merge == "all"
        last_of_kind: dict[str, _Part] = {}
        for part in parts:
            kind = part.kind
            if everywhere and not any(map(self.source.on_path, part.members)):
                # Failures are merged too, even if they are few or of different kinds.
                failed = self.source.failure(part.members[0]) is not None
                kind = "failed" if failed else kind
            if not everywhere and kind != "succeeded":
                last_of_kind.clear()
            previous = last_of_kind.get(kind)
            if kind == "single" or previous is None:
                previous = _Part(list(part.members), kind, part.repeats, len(joined))
                joined.append(previous)
                last_of_kind[kind] = previous
            else:
                previous.members.extend(part.members)
                previous = replace(previous, repeats=None)
                joined[previous.number] = last_of_kind[kind] = previous
        return joined

    def _siblings(
        self, parent: str | None, children: Sequence[str], part_of: Mapping[Key, int]
    ) -> list[str]:
        """Add units for similar workflows; return those that are shown with their contents."""
        source, level = self.source, self.level
        unfolded: list[str] = []
        similar: dict[Any, list[str]] = {}
        root = source.root
        for child in children:
            if child == root or source.on_path(child) or child in self._spine or level.loops_only:
                unfolded.append(child)
                continue
            failure: Hashable = source.workflow_failure(child)
            # Children of any kind that failed at the same step with the same error are similar.
            kind = source.shape(child, level.similarity) if failure is None else None
            if level.similarity == "any":
                failure = failure and "failed"
            starter = source.starter.get(child)
            part = None if starter is None else part_of.get(starter)
            similar.setdefault((failure, kind, part), []).append(child)
        for (failure, *_), members in similar.items():
            deep = level.max_depth is not None and source.depth[members[0]] >= level.max_depth
            max_single = 1 if failure is None or level.similarity == "any" else MAX_SINGLE_FAILURES
            # A workflow that is opened is shown beside the group of the others.
            folded = [member for member in members if member not in (self.opened or ())]
            if len(members) <= max_single and not deep:
                unfolded += members
                continue
            unfolded += [member for member in members if member not in folded]
            if len(members) > max_single:
                unfolded += self._add_group(folded, parent, first=members[0])
                continue
            for member in folded:
                foldable = source.has_contents(member)
                unfolded += self._add_group([member], parent) if foldable else [member]
        return unfolded

    def _add_group(
        self,
        members: Sequence[Any],
        within: str | None,
        repeats: int | None = None,
        first: Any = None,
    ) -> list[Any]:
        """Add a group; if it is opened, add its steps, or return its workflows."""
        if not members:
            return []
        names = [self.source.nodes[member].get("name", "") for member in members]
        title = common_pattern(names) if len(set(names)) > 1 else names[0]
        # Named by its first member, so that the name is stable while members are added.
        name = f"{title or 'various'} from {json.dumps(members[0] if first is None else first)}"
        return self._add_or_open(members, name, within, repeats)

    def _add_or_open(
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
        unfolded: list[Any] = []
        for name, part in self._split(members, group, max(2, self.budget // 2)):
            unfolded += self._add_or_open(part, name, within, None)
        return unfolded

    def _split(
        self, members: Sequence[Any], group: str, parts: int
    ) -> Iterator[tuple[str, Sequence[Any]]]:
        """Split a group that is too large to be opened into parts."""
        size = -(-len(members) // parts)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            yield f"{group} [{start}:{start + len(part)}]", part

    def _is_workflow(self, member: Any) -> bool:
        # In a comparison, not every workflow's key is a string.
        return bool(self.source.nodes[member]["kind"] == "workflow")

    def group_of(self, graph: nx.DiGraph[Any]) -> dict[Key, Key]:
        """Return the folded node of each node of the graph."""
        groups: dict[Key, Key] = {}
        for unit in self.units:
            for member, contents in self._inside(unit):
                if unit.group is not None and self._is_workflow(member):
                    groups.update(dict.fromkeys(contents, unit.key))
                else:
                    groups[member] = unit.key
        for key, node in graph.nodes.items():
            if node["kind"] == "join":
                workflow = node["workflow_id"]
                group = groups.get(workflow, workflow)
                groups[key] = key if group == workflow else group
        return groups

    def _inside(self, unit: FoldUnit) -> Iterator[tuple[Key, Iterable[Key]]]:
        """Yield each member of a unit with all nodes that it stands for."""
        following: list[Any] = [*unit.members[1:], None]
        if unit.levels:
            following[-1] = next(iter(self._after(unit.members[-1])), None)
        for member, next_member in zip(unit.members, following, strict=True):
            if unit.levels:
                yield member, self.source.level(member, next_member)  # type: ignore[arg-type]  # spines have string keys
            else:
                yield member, self.source.within(member)

    def nodes(self, graph: nx.DiGraph[Any]) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield the nodes of the folded graph with their attributes."""
        single_keys = {unit.key for unit in self.units if unit.group is None}
        for unit in self.units:
            if unit.group is None:
                yield unit.key, dict(self.source.nodes[unit.key])
            else:
                yield unit.key, dict(self._group_attributes(unit, unit.group))
        for key, node in graph.nodes.items():
            workflow = node["workflow_id"]
            is_orphan = workflow not in self.source.nodes
            if node["kind"] == "join" and (workflow in single_keys or is_orphan):
                yield key, dict(node)

    def _group_attributes(self, unit: FoldUnit, name: str) -> GroupAttributes:
        """Return the attributes of a group."""
        nodes = [self.source.nodes[member] for member in unit.members]
        statuses = Counter(node["status"] for node in nodes)
        title, parts = group_name(nodes, unit.repeats)
        attributes: GroupAttributes = {
            "kind": "group",
            "of": "workflow" if nodes[0]["kind"] == "workflow" else "step",
            "name": title,
            "group": name,
            "members": tuple(unit.members),
            "count": unit.repeats if unit.repeats and " → " in title else len(unit.members),
            "statuses": {
                status: statuses[status] for status in STATUSES_BY_SEVERITY if status in statuses
            },
            "status": min(statuses, key=severity_rank),
        }
        if parts:
            attributes["parts"] = parts
        if unit.within is not None:
            attributes["workflow_id"] = unit.within
        common: Literal["operation", "error_type"]
        for common in ("operation", "error_type"):
            values = {node.get(common) for node in nodes}
            if len(values) == 1 and (value := values.pop()) is not None:
                attributes[common] = value
        if failed := failed_workflows(nodes):
            attributes["failed_workflows"] = failed
        if attributes["of"] == "step":
            attributes.setdefault("operation", "other")
        else:
            attributes["failures_inside"] = sum(
                self.source.nodes[key]["status"] in FAILED_STATUSES
                for member, contents in self._inside(unit)
                for key in contents
                if key != member
            )
            self._describe_failure(attributes)
        if unit.levels:
            attributes["levels"] = len(unit.members)
            attributes["on_failing_path"] = any(node.get("on_failing_path") for node in nodes)
        attributes.update(_times(nodes))
        return attributes

    def _describe_failure(self, attributes: GroupAttributes) -> None:
        """Set at which step the workflows of a group failed, and with what error."""
        failures = set(map(self.source.workflow_failure, attributes["members"]))  # type: ignore[arg-type]  # workflows
        failure = failures.pop() if len(failures) == 1 else None
        if failure is None:
            return
        if failure.step:
            attributes["failed_step"] = failure.step
        if failure.error_type:
            attributes["error_type"] = failure.error_type
        cause = self.source.cause(attributes["members"][0])  # type: ignore[arg-type]  # a workflow
        node = self.source.nodes[attributes["members"][0]] if cause is None else cause
        if message := node.get("error_message"):
            attributes["error_message"] = message


def failed_workflows(nodes: Iterable[NodeAttributes]) -> tuple[str, ...]:
    """Return the workflows that failed: the nodes', or those that steps of a parent awaited."""
    failed = (node for node in nodes if node["status"] in FAILED_STATUSES)
    ids = (node.get("child_workflow_id") or node["workflow_id"] for node in failed)
    return tuple(dict.fromkeys(ids))


def members(graph: nx.DiGraph[Any], group: Key, *, failed: bool = False) -> list[Key]:
    """Return the nodes that a group stands for.

    Parameters
    ----------
    graph
        A folded graph or a process map.
    group
        The key of the group, or the ``group`` attribute of its node.
    failed
        Whether to return the IDs of the workflows that failed instead, for ``Client.fork`` and
        ``Client.resume``: the members, or where the members are steps of a parent, the workflows
        that they awaited.

    Returns
    -------
    list
        Keys of the whole graph, in order.

    Raises
    ------
    GraphError
        The graph has no such group.

    Examples
    --------
    >>> graph = fold(dbos_notebook.connect(example_database).graph("checkout-4"), budget=8)
    >>> groups = [key for key, node in graph.nodes.items() if node["kind"] == "group"]
    >>> len(members(graph, groups[0])), members(graph, groups[0], failed=True)
    (6, [])
    """
    check_graph(graph)
    key = group if group in graph else ("group", group)
    node = graph.nodes[key] if key in graph else {}
    if "members" not in node:
        groups = [str(each["group"]) for each in graph.nodes.values() if "group" in each]
        hint = nearest(str(group), groups)
        raise GraphError(
            f"The graph has no group {sanitize(repr(group))}.{hint} Pass the key of a group."
        )
    return list(node.get("failed_workflows", ()) if failed else node["members"])


def _times(nodes: Sequence[NodeAttributes]) -> GroupAttributes:
    attributes: GroupAttributes = {}
    durations = [node["duration"] for node in nodes if "duration" in node]
    if durations:
        attributes["duration_min"] = min(durations)
        attributes["duration_max"] = max(durations)
        attributes["duration_total"] = sum(durations, pd.Timedelta(0).as_unit("ms"))
    # A step's start, a workflow's last dequeuing, or its creation if it was not queued.
    names: tuple[Literal["started_at", "dequeued_at", "created_at"], ...]
    names = ("started_at", "dequeued_at", "created_at")
    starts = [next((node[name] for name in names if name in node), None) for node in nodes]
    if known_starts := [start for start in starts if start is not None]:
        attributes["started_at"] = min(known_starts)
    ends = [node["completed_at"] for node in nodes if "completed_at" in node]
    if len(ends) == len(nodes):
        attributes["completed_at"] = max(ends)
    return attributes


SYSTEM_OPERATIONS = frozenset({"get_event", "get_result", "other", "set_event", "sleep", "stream"})
"""The operations that ``hide="system"`` hides: DBOS's own steps."""
OPERATIONS = SYSTEM_OPERATIONS | {"recv", "send", "start_child", "step"}


def fold(
    graph: nx.DiGraph[Any],
    *,
    budget: int = 80,
    open: Iterable[str] = (),  # noqa: A002 - the clearest name
    hide: Iterable[str] = (),
    loops: bool = True,
) -> nx.DiGraph[Any]:
    """Group similar nodes of an execution graph until at most ``budget`` nodes remain.

    In a graph within the budget, only long loops are folded. Otherwise child workflows with the
    same name and the same steps become one counted node with all their descendants, and so do runs
    of similar steps. If that is not enough, similarity is defined more loosely, and deep workflows
    are shown without their contents. Failures are separate from successes: a few are shown
    individually, many children that failed at the same step with the same error become a group. The
    failure path is never in a group, except that the middle levels of a path through more workflows
    than the budget allows become one group, as do those above the deepest workflow of a very deep
    tree.

    Parameters
    ----------
    graph
        An execution graph.
    budget
        The maximum number of nodes, which is exceeded only for the failure path and opened groups.
    open
        Groups whose members are shown, by the ``group`` attribute of their nodes. A group with
        more members than the budget opens into parts, which can be opened in turn. Other groups
        do not change. Unknown names are ignored, so that a view can keep them while a run
        continues. The ID of a workflow shows it beside the group of the others.
    hide
        Operations to leave out, such as ``"sleep"``, or ``"system"`` for DBOS's own steps: events,
        results, sleeps, streams and others. Failed steps are never hidden.
    loops
        Whether to fold long loops in a graph within the budget: at least 10 steps that repeat at
        least 5 times.

    Returns
    -------
    networkx.DiGraph
        An acyclic graph. The key of a group is ``("group", name)``; docs/graphs.md lists its
        attributes. The ``count`` of an edge is the number of edges that it stands for.

    Raises
    ------
    GraphError
        ``budget`` is below 1, ``hide`` contains an unknown operation, or the graph is already
        folded.

    Examples
    --------
    >>> graph = dbos_notebook.connect(example_database).graph("checkout-1")
    >>> len(graph), len(fold(graph)), len(fold(graph, budget=8))
    (14, 14, 6)
    >>> [node["name"] for _, node in fold(graph, hide="system").nodes.items()][:4]
    ['checkout', 'validate', 'charge', 'ship']
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise GraphError(f"budget must be an integer above 0, not {budget!r}.")
    check_graph(graph)
    opened = frozenset(string_list(open, "open"))
    graph = remove_nodes(graph, _hidden(graph, string_list(hide, "hide")))
    is_small = len(graph) <= budget
    if is_small and (not loops or is_folded(graph)):
        return graph.copy()
    if is_folded(graph):
        raise GraphError(
            "This graph is already folded. Pass the graph that db.graph(...) returned."
        )
    with garbage_collection_paused():
        tree = WorkflowTree.of(graph)
        levels = (LOOPS,) if is_small else LEVELS
        level = next(
            (level for level in levels if not FoldPlan(tree, level, budget).over_budget), levels[-1]
        )
        plan = FoldPlan(tree, level, budget, opened)
        if is_small and all(unit.group is None for unit in plan.units):
            return graph.copy()
        folded = contract(graph, plan.group_of(graph), plan.nodes(graph))
        remove_joins(folded)
    return folded


def _hidden(graph: nx.DiGraph[Any], hide: Iterable[str]) -> list[Key]:
    hidden = set(hide)
    choices = sorted(OPERATIONS | {"system"})
    if unknown := hidden.difference(choices):
        operation = min(unknown, key=str)
        raise GraphError(
            f"hide contains {operation!r}, which is not an operation.{nearest(operation, choices)} "
            f"Use some of: {', '.join(choices)}."
        )
    if "system" in hidden:
        hidden |= SYSTEM_OPERATIONS
    return [
        key
        for key, node in graph.nodes.items()
        if node.get("operation") in hidden
        and "function_id" in node
        and node["status"] not in FAILED_STATUSES
        and not node.get("on_failing_path")
    ]
