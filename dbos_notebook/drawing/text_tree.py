"""A graph as an indented text tree, for terminals and logs."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from dbos_notebook import text
from dbos_notebook.drawing.diagram import (
    display_id,
    display_name,
    duration_range,
    edges_of_kind,
    error_name,
    group_title,
)
from dbos_notebook.graphs.intervals import Times
from dbos_notebook.status import status_label

if TYPE_CHECKING:
    import networkx as nx

MAX_LINES = 200


def tree(graph: nx.DiGraph[Any], times: Times | None = None) -> str:
    """Return one line per workflow, step and group, indented below what started it.

    ``times`` are those of the whole graph if ``graph`` is folded.

    Examples
    --------
    >>> import networkx
    >>> graph = networkx.DiGraph(root="w")
    >>> graph.add_node("w", kind="workflow", name="order", status="SUCCESS")
    >>> graph.add_node(("w", 1), kind="step", name="pay", workflow_id="w", function_id=1)
    >>> graph.add_edge("w", ("w", 1), kind="first")
    >>> print(tree(graph))
    order  w  succeeded
      1 pay  unknown
    """
    times = times or Times(graph)
    lines = [f"{'  ' * depth}{_line(key, graph.nodes[key], times)}" for key, depth in walk(graph)]
    if len(lines) > MAX_LINES:
        omitted = len(lines) - MAX_LINES
        lines = [*lines[:MAX_LINES], f"… and {text.plural(omitted, 'line')} more"]
    return "\n".join(lines)


def walk(graph: nx.DiGraph[Any], skip: Collection[Any] = ()) -> list[tuple[Any, int]]:
    """Return each node once with its depth: a workflow, its steps, and the children of each step.

    Workflows that no node of the graph started, such as forks, come last. Nodes in ``skip`` are
    left out, and the nodes below them move up one level.
    """
    started = {head for _, head in edges_of_kind(graph, "starts")}
    parts: dict[Any, list[Any]] = {}
    children: dict[Any, list[Any]] = {}
    for key, attributes in graph.nodes(data=True):
        if attributes.get("kind") in ("workflow", "join"):
            continue
        owner = attributes.get("workflow_id")
        if owner in graph and not (attributes.get("of") == "workflow" and key in started):
            parts.setdefault(owner, []).append(key)
    for tail, head in edges_of_kind(graph, "starts"):
        children.setdefault(tail, []).append(head)
    nodes: list[tuple[Any, int]] = []
    seen: set[Any] = set()
    root = graph.graph.get("root")
    roots = [root] if root in graph else []
    roots += [key for key in graph if key not in started and key != root]
    # In hand-edited data, workflows may start each other in a cycle.
    roots += list(graph)
    for start in roots:
        stack = [(start, 0)]
        while stack:
            key, depth = stack.pop()
            if key in seen or graph.nodes[key].get("kind") == "join":
                continue
            owner = graph.nodes[key].get("workflow_id")
            if depth == 0 and owner != key and owner in graph and owner not in seen:
                continue  # it is added with its workflow
            seen.add(key)
            if key not in skip:
                nodes.append((key, depth))
                depth += 1
            contents = parts.get(key, []) + children.get(key, [])
            stack += [(child, depth) for child in reversed(contents)]
    return nodes


def _line(key: Any, attributes: dict[str, Any], times: Times) -> str:
    name = display_name(attributes, 80)
    kind = attributes.get("kind")
    if kind == "group":
        name = text.truncate(group_title(name, attributes), 120)
        status = ", ".join(
            f"{n:,} {status_label(status)}"
            for status, n in (attributes.get("statuses") or {}).items()
            if n
        )
        if step := attributes.get("failed_step"):
            status += f" at {text.sanitize_svg(text.leaf_name(str(step)), 80)}"
        duration = duration_range(attributes, times)
    else:
        if kind == "workflow":
            name = f"{name}  {display_id(key, attributes, 80)}"
        elif "function_id" in attributes:
            name = f"{attributes['function_id']} {name}"
        status = status_label(attributes.get("status"))
        duration = (
            times.summary(key) if kind == "workflow" else text.duration(attributes.get("duration"))
        )
        if "function_id" in attributes and (origin := times.origin(key)):
            duration = f"{duration}  {origin}"
    error = error_name(attributes, limit=80)
    if error:
        message = attributes.get("error_message")
        if not text.is_missing(message) and message:
            error += f": {text.sanitize_svg(message, 80)}"
    return "  ".join(part for part in (name, status, duration, error) if part)
