"""Folding: what is alike becomes one counted node, until a graph is small enough to be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import networkx as nx

from dbos_notebook.errors import GraphError, nearest
from dbos_notebook.graphs.given import check_graph, is_folded, texts
from dbos_notebook.graphs.groups import LEVELS, Plan
from dbos_notebook.graphs.pause import uncollected
from dbos_notebook.graphs.quotient import put_together, without, without_joins
from dbos_notebook.graphs.shapes import FAILED, Key, Source

BOOKKEEPING = frozenset({"get_event", "get_result", "other", "set_event", "sleep", "stream"})
"""The operations that ``hide={"bookkeeping"}`` stands for."""
OPERATIONS = BOOKKEEPING | {"recv", "send", "start_child", "step"}


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
        Operations to leave out ("sleep", "set_event", …), or "bookkeeping" for all of
        ``fold.BOOKKEEPING``. What failed is not hidden.

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
    >>> [node["name"] for _, node in fold(graph, hide="bookkeeping").nodes.items()][:4]
    ['checkout', 'validate', 'charge', 'ship']
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise GraphError(f"budget takes a whole number above 0, not {budget!r}.")
    check_graph(graph)
    opened = frozenset(texts(open, "open"))
    graph = without(graph, _hidden(graph, texts(hide, "hide")))
    if len(graph) <= budget:
        return graph.copy()
    if is_folded(graph):
        raise GraphError("This graph is folded. Pass the one that db.graph(...) gave.")
    with uncollected():
        source = Source.of(graph)
        level = next(
            (each for each in LEVELS if not Plan(source, each, budget).excessive), LEVELS[-1]
        )
        plan = Plan(source, level, budget, opened)
        folded = put_together(graph, plan.group_of(graph), plan.shown(graph))
        without_joins(folded)
    return folded


def _hidden(graph: nx.DiGraph[Any], hide: Iterable[str]) -> list[Key]:
    wanted = set(hide)
    known = sorted(OPERATIONS | {"bookkeeping"})
    if unknown := wanted.difference(known):
        word = min(unknown, key=str)
        raise GraphError(
            f"hide takes operations, and {word!r} is none.{nearest(word, known)} "
            f"Use some of: {', '.join(known)}."
        )
    if "bookkeeping" in wanted:
        wanted |= BOOKKEEPING
    return [
        key
        for key, node in graph.nodes.items()
        if node.get("operation") in wanted
        and "function_id" in node
        and node["status"] not in FAILED
        and not node.get("on_failing_path")
    ]
