"""The order of the steps of one workflow, with as few edges as possible.

A step precedes another if it completed before the other started: an *interval order*. Steps that
overlap in time are concurrent. Steps are indexes into a list ordered by function_id; this module
does not depend on graphs or tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_EDGES, MAX_EDGES_PER_STEP = 64, 4
"""A workflow with more edges than both limits gets joins instead."""


@dataclass
class Order:
    """Edges between steps, given by their indexes.

    Attributes
    ----------
    edges
        Pairs (earlier, later).
    joins
        The number of joins. A join is an index at or above the number of steps; everything with an
        edge to it precedes everything with an edge from it.
    first
        The steps without a predecessor.
    last
        The steps without a successor.
    """

    edges: list[tuple[int, int]] = field(default_factory=list)
    joins: int = 0
    first: Sequence[int] = ()
    last: Sequence[int] = ()


def sequential_order(count: int) -> Order:
    """Order steps one after another, by function_id.

    Examples
    --------
    >>> sequential_order(3).edges
    [(0, 1), (1, 2)]
    """
    if not count:
        return Order()
    return Order([(index, index + 1) for index in range(count - 1)], 0, (0,), (count - 1,))


def is_sequential(starts: Sequence[int | None], ends: Sequence[int | None]) -> bool:
    """Return whether each step has times and ended before the next one started."""
    reached = None
    for start, end in zip(starts, ends, strict=True):
        if start is None or end is None or end < start:
            return False
        if reached is not None and start < reached:
            return False
        reached = end
    return True


def order_by_time(starts: Sequence[int | None], ends: Sequence[int | None]) -> Order:
    """Order steps by their start and completion times.

    Parameters
    ----------
    starts, ends
        The times of each step, ``None`` where not recorded.

    Returns
    -------
    Order
        For steps with times, the transitive reduction of "completed before the other started".
        Where that needs too many edges, as between two large blocks of concurrent steps, joins
        replace them without changing the order. A step without times, or one that ends before it
        starts, comes after all steps with smaller and before all with larger function_ids.

    Notes
    -----
    DBOS records whole milliseconds. Where one step ends in the millisecond in which another
    starts, the smaller function_id comes first.

    Examples
    --------
    Two concurrent steps, and one after both:

    >>> order = order_by_time([0, 1, 6], [5, 6, 9])
    >>> order.edges, order.first, order.last
    ([(0, 2), (1, 2)], (0, 1), (2,))
    """
    if is_sequential(starts, ends):
        return sequential_order(len(starts))
    count = len(starts)
    order = Order()
    start = 0  # the start of the current run of steps with times
    for index in range(count + 1):
        if index < count and _sane(starts[index], ends[index]):
            continue
        if start < index:
            part = _interval_order(starts[start:index], ends[start:index])  # type: ignore[arg-type]  # checked by _sane
            _append(order, part, start, index - start, count)
        if index < count:
            _append(order, Order([], 0, (0,), (0,)), index, 1, count)
        start = index + 1
    return order


def _sane(start: int | None, end: int | None) -> bool:
    return start is not None and end is not None and start <= end


def _append(order: Order, part: Order, offset: int, count: int, total: int) -> None:
    """Append a part whose steps all follow the previous ones."""

    def shifted(index: int) -> int:
        return index + offset if index < count else total + order.joins + index - count

    order.edges.extend((shifted(tail), shifted(head)) for tail, head in part.edges)
    first = tuple(shifted(index) for index in part.first)
    if order.last:
        # One side is a single step, since steps without times separate the parts with times.
        order.edges.extend((tail, head) for tail in order.last for head in first)
    else:
        order.first = first
    order.last = tuple(shifted(index) for index in part.last)
    order.joins += part.joins


def _interval_order(starts: Sequence[int], ends: Sequence[int]) -> Order:
    if is_sequential(starts, ends):
        return sequential_order(len(starts))
    count = len(starts)
    # The index breaks ties, so that no two steps precede each other.
    by_end = sorted((end, index) for index, end in enumerate(ends))
    by_start = sorted((start, index) for index, start in enumerate(starts))
    blocks = list(_blocks(by_end, by_start, starts))
    order = Order(
        first=tuple(sorted(blocks[0][2])),
        last=tuple(sorted(index for end, index in by_end if (end, index) >= by_start[-1])),
    )
    blocks = blocks[1:]
    direct = sum((high - low) * len(steps) for low, high, steps in blocks)
    if direct <= max(MAX_EDGES, MAX_EDGES_PER_STEP * count):
        order.edges = [
            (by_end[position][1], index)
            for low, high, steps in blocks
            for position in range(low, high)
            for index in steps
        ]
    else:
        _through_joins(order, blocks, [index for _, index in by_end])
    return order


def _blocks(
    by_end: Sequence[tuple[int, int]],
    by_start: Sequence[tuple[int, int]],
    starts: Sequence[int],
) -> Iterator[tuple[int, int, list[int]]]:
    """Group steps with the same immediate predecessors, as (low, high, steps).

    The predecessors are ``by_end[low:high]``: all steps that ended before the step started, except
    those that also ended before the latest start among them, which lies in between. So they depend
    on ``high`` alone. The first group has no predecessors.
    """
    high = low = 0
    latest = (starts[by_end[0][1]], -1)
    steps: list[int] = []
    for step_start in by_start:
        previous_high = high
        while by_end[high] < step_start:
            index = by_end[high][1]
            latest = max(latest, (starts[index], index))
            high += 1
        if high > previous_high:
            yield low, previous_high, steps
            steps = []
            while by_end[low] < latest:
                low += 1
        steps.append(step_start[1])
    yield low, high, steps


def _through_joins(
    order: Order, blocks: Sequence[tuple[int, int, list[int]]], ended: Sequence[int]
) -> None:
    """Add edges through a chain of joins, at most three edges per step."""
    count = len(ended)
    previous, covered = None, 0
    for low, high, steps in blocks:
        predecessor_count, successor_count = high - low, len(steps)
        if (
            predecessor_count * successor_count <= predecessor_count + successor_count
            and predecessor_count <= 8
        ):
            order.edges.extend((ended[index], step) for index in range(low, high) for step in steps)
            continue
        join = count + order.joins
        order.joins += 1
        if previous is not None and covered > low:
            # What precedes the previous join also precedes this one.
            order.edges.append((previous, join))
            low = covered
        order.edges.extend((ended[index], join) for index in range(low, high))
        order.edges.extend((join, step) for step in steps)
        previous, covered = join, high
