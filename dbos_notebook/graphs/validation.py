"""Validate the arguments of graph functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import networkx as nx
import pandas as pd

from dbos_notebook.errors import GraphError
from dbos_notebook.text import sanitize


def check_graph(graph: object) -> None:
    """Raise GraphError unless the argument is a directed execution graph with its times."""
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        given = sanitize(repr(graph)) if isinstance(graph, str | None) else type(graph).__name__
        argument = given if isinstance(graph, str) else "workflow_id"
        raise GraphError(f"Expected an execution graph, not {given}. Pass db.graph({argument}).")
    if isinstance(graph.graph.get("read_at"), str):
        raise GraphError(
            "This is a serializable copy of a graph, with strings instead of times. "
            "Pass the original graph."
        )


def is_folded(graph: nx.DiGraph[Any]) -> bool:
    """Return whether a graph contains groups."""
    return any(node.get("kind") == "group" for node in graph.nodes.values())


def string_list(value: Iterable[str], name: str) -> list[str]:
    """Return a string or an iterable of strings as a list."""
    if isinstance(value, str):
        return [value]
    try:
        strings = list(value)
        hash(tuple(strings))
    except TypeError:
        raise GraphError(
            f"{name} must be a string or a list of strings, not {sanitize(repr(value))}. "
            "Omit it for none."
        ) from None
    return strings


def check_fraction(value: float, name: str) -> float:
    """Return a finite number that is not negative, or raise GraphError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise GraphError(
            f"{name} must be a number that is not negative, not {sanitize(repr(value))}."
        )
    return value


def check_duration(value: str | pd.Timedelta, name: str) -> pd.Timedelta:
    """Return a duration that is not negative, or raise GraphError."""
    duration = None
    # A number has no unit; pandas would interpret it as nanoseconds.
    if not isinstance(value, int | float):
        with suppress(ValueError, TypeError):
            duration = pd.Timedelta(value)
    if duration is None or not duration >= pd.Timedelta(0):
        raise GraphError(f"{name} must be a duration such as '10ms', not {sanitize(repr(value))}.")
    return duration


def check_rows(workflows: pd.DataFrame, steps: pd.DataFrame, root: str | None) -> None:
    """Raise GraphError for duplicate rows, and for a root without a row."""
    for rows, name, keys in (
        (workflows, "workflows", ["workflow_id"]),
        (steps, "steps", ["workflow_id", "function_id"]),
    ):
        keyed = rows[keys].dropna()
        duplicates = keyed.loc[keyed.duplicated()].astype("str")
        if len(duplicates):
            duplicate = sanitize(", ".join(duplicates.iloc[0].tolist()))
            raise GraphError(f"{name} has more than one row for {duplicate}. Pass each row once.")
    if root is not None and not workflows["workflow_id"].eq(root).any():
        raise GraphError(
            f"root={sanitize(root)!r} is not in workflows. Pass the ID of one of the rows."
        )
