"""What functions over graphs were given: whether they can work with it, and if not, what to pass.

Checks of arguments, and their errors. What the rows of a database say of each other is not here.
"""

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
    """Refuse what is no execution graph: an ID, a table, a graph that has no directions."""
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        shown = sanitize(repr(graph)) if isinstance(graph, str | None) else type(graph).__name__
        asked = shown if isinstance(graph, str) else "workflow_id"
        raise GraphError(f"Not a graph of a run, but {shown}. Pass db.graph({asked}).")
    if isinstance(graph.graph.get("read_at"), str):
        raise GraphError(
            "This is a plain copy of a graph, with texts instead of times. "
            "Pass the graph that it was made of."
        )


def is_folded(graph: nx.DiGraph[Any]) -> bool:
    """Whether some of its nodes stand for several."""
    return any(node.get("kind") == "group" for node in graph.nodes.values())


def texts(value: Iterable[str], name: str) -> list[str]:
    """Return one text or several as a list."""
    if isinstance(value, str):
        return [value]
    try:
        found = list(value)
        hash(tuple(found))
    except TypeError:
        raise GraphError(
            f"{name} takes a text or a list of texts, not {sanitize(repr(value))}. "
            "Leave it out for none."
        ) from None
    return found


def share(value: float, name: str) -> float:
    """Return a number from 0 on."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not 0 <= value < math.inf:
        raise GraphError(f"{name} takes a number from 0 on, not {sanitize(repr(value))}.")
    return value


def span(value: str | pd.Timedelta, name: str) -> pd.Timedelta:
    """Return a span of time, which is not negative."""
    found = None
    # A number has no unit: pandas would take it for nanoseconds.
    if not isinstance(value, int | float):
        with suppress(ValueError, TypeError):
            found = pd.Timedelta(value)
    if found is None or not found >= pd.Timedelta(0):
        raise GraphError(
            f"{name} takes a span of time such as '10ms', not {sanitize(repr(value))}."
        )
    return found


def check_rows(workflows: pd.DataFrame, steps: pd.DataFrame, root: str | None) -> None:
    """Refuse rows of which no graph can be made, and a root that is none of them."""
    for rows, name, keys in (
        (workflows, "workflows", ["workflow_id"]),
        (steps, "steps", ["workflow_id", "function_id"]),
    ):
        known = rows[keys].dropna()
        twice = known.loc[known.duplicated()].astype("str")
        if len(twice):
            shown = sanitize(", ".join(twice.iloc[0].tolist()))
            raise GraphError(f"{name} has more than one row of {shown}. Pass each row once.")
    if root is not None and not workflows["workflow_id"].eq(root).any():
        raise GraphError(
            f"root={sanitize(root)!r} is none of the workflows. Pass the ID of one of the rows."
        )
