"""The types of the nodes and edges of execution graphs; docs/graphs.md documents the attributes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, TypedDict, cast

import networkx as nx
import pandas as pd

Key = Hashable
"""The key of a node, such as ``"checkout-1"`` or ``("checkout-1", 3)``."""
EdgeKind = Literal["first", "next", "starts", "returns", "message", "forked_from"]


class NodeAttributes(TypedDict, total=False):
    """The attributes of a workflow, a step, a join or a group; unknown values are absent."""

    kind: Literal["workflow", "step", "join", "group"]
    workflow_id: str
    name: str
    status: str
    completed_at: pd.Timestamp
    duration: pd.Timedelta
    error_type: str
    error_message: str
    error_wrapper: str
    error_attempts: int
    on_failing_path: bool
    output_digest: str
    # Workflows and steps.
    started_at: pd.Timestamp
    # Workflows.
    parent: str
    created_at: pd.Timestamp
    dequeued_at: pd.Timestamp
    enqueued_at: pd.Timestamp
    ended_at: pd.Timestamp
    delay_until: pd.Timestamp
    queue_wait: pd.Timedelta
    recovery_attempts: int
    queue_name: str
    app_version: str
    executor_id: str
    forked_from: str
    failed_step: str
    failed_step_id: int
    failed_workflow_id: str
    approximate: bool  # in a comparison: whether the duration is accurate to the second only
    # Steps.
    function_id: int
    operation: str
    child_workflow_id: str
    copied: bool
    wakes_at: pd.Timestamp
    timeout_of: int


class GroupAttributes(NodeAttributes, total=False):
    """The attributes of a group in a folded graph."""

    of: Literal["workflow", "step"]
    group: str
    members: Sequence[Key]
    count: int
    parts: dict[str, int]
    statuses: dict[str, int]
    failed_workflows: Sequence[str]
    failed_step: str
    duration_min: pd.Timedelta
    duration_max: pd.Timedelta
    duration_total: pd.Timedelta
    failures_inside: int
    levels: int


class AggregateAttributes(TypedDict, total=False):
    """The attributes of a node of a process map: all workflows or steps of a kind."""

    kind: Literal["aggregate"]
    of: Literal["workflow", "step"]
    name: str
    workflow_name: str
    operation: str
    members: Sequence[Key]
    count: int
    workflows: int
    statuses: dict[str, int]
    status: str
    failure_rate: float
    failed_workflows: Sequence[str]
    error_types: dict[str, int]
    on_failing_path: bool
    duration_min: pd.Timedelta
    duration_median: pd.Timedelta
    duration_p95: pd.Timedelta
    duration_max: pd.Timedelta
    duration_total: pd.Timedelta
    started_at: pd.Timestamp


class EdgeAttributes(TypedDict, total=False):
    """The attributes of an edge."""

    kind: EdgeKind
    step: int
    inferred: bool
    count: int


def nodes_of(graph: nx.DiGraph[Any]) -> dict[Key, NodeAttributes]:
    """Return the attributes of all nodes, which networkx does not type, by key."""
    return cast("dict[Key, NodeAttributes]", dict(graph.nodes.items()))
