"""The order of concurrent steps, against the definition worked out pair by pair."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbos_notebook.graphs import ordering as module
from dbos_notebook.graphs.ordering import Order, order_by_time, sequential_order

INTERVALS = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 9)), max_size=16)
SPARSE = st.lists(
    st.none() | st.tuples(st.integers(0, 25), st.integers(-3, 9)), min_size=1, max_size=16
)


def drawn(order: Order, count: int) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count + order.joins))
    graph.add_edges_from(order.edges)
    assert len(order.edges) == graph.number_of_edges(), "an edge is given twice"
    return graph


def by_definition(starts: list[int], ends: list[int]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(starts)))
    graph.add_edges_from(
        (one, other)
        for one in graph
        for other in graph
        if one != other and (ends[one], one) < (starts[other], other)
    )
    return graph


def check_ends(order: Order, whole: nx.DiGraph) -> None:
    assert list(order.first) == [place for place in whole if not whole.in_degree(place)]
    assert list(order.last) == [place for place in whole if not whole.out_degree(place)]


@given(INTERVALS)
def test_edges_are_the_transitive_reduction(intervals: list[tuple[int, int]]) -> None:
    starts = [start for start, _ in intervals]
    ends = [start + length for start, length in intervals]
    order = order_by_time(starts, ends)
    whole = by_definition(starts, ends)
    assert not order.joins
    assert set(order.edges) == set(nx.transitive_reduction(whole).edges)
    check_ends(order, whole)


@given(INTERVALS)
def test_joins_do_not_change_the_partial_order(intervals: list[tuple[int, int]]) -> None:
    starts = [start for start, _ in intervals]
    ends = [start + length for start, length in intervals]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_EDGES", 0)
        patch.setattr(module, "MAX_EDGES_PER_STEP", 0)
        order = order_by_time(starts, ends)
    count = len(starts)
    whole = by_definition(starts, ends)
    reached = nx.transitive_closure_dag(drawn(order, count))
    assert {pair for pair in reached.edges if max(pair) < count} == set(whole.edges)
    assert len(order.edges) <= 11 * count + 1
    check_ends(order, whole)


@given(SPARSE)
def test_a_step_without_times_is_ordered_by_function_id(
    intervals: list[tuple[int, int] | None],
) -> None:
    starts = [None if one is None else one[0] for one in intervals]
    ends = [None if one is None else sum(one) for one in intervals]
    count = len(intervals)
    bad = [place for place, one in enumerate(intervals) if one is None or one[1] < 0]
    reached = nx.transitive_closure_dag(drawn(order_by_time(starts, ends), count))
    for one in range(count):
        for other in range(count):
            if any(min(one, other) <= place <= max(one, other) for place in bad):
                expected = one < other
            else:
                expected = one != other and (ends[one], one) < (starts[other], other)
            assert reached.has_edge(one, other) == expected


def test_steps_in_the_same_millisecond_follow_their_function_ids() -> None:
    assert order_by_time([5, 5, 5], [5, 5, 5]).edges == [(0, 1), (1, 2)]


def test_no_steps() -> None:
    assert order_by_time([], []) == sequential_order(0) == Order()


@pytest.mark.parametrize("shape", ["two blocks", "pool of 100", "sequence"])
def test_the_number_of_edges_is_bounded(shape: str) -> None:
    count = 100_000
    if shape == "two blocks":
        starts, lasts = [0] * (count // 2) + [1000] * (count // 2), [900] * count
    elif shape == "pool of 100":
        starts, lasts = [place * 7 for place in range(count)], [700] * count
    else:
        starts, lasts = [place * 7 for place in range(count)], [5] * count
    ends = [start + last for start, last in zip(starts, lasts, strict=True)]
    order = order_by_time(starts, ends)
    assert len(order.edges) < 4 * count
    assert nx.is_directed_acyclic_graph(drawn(order, count))
