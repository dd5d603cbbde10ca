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
    return Order([(one, one + 1) for one in range(count - 1)], 0, (0,), (count - 1,))


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
    whole = Order()
    begun = 0  # the start of the current run of steps with times
    for place in range(count + 1):
        if place < count and _sane(starts[place], ends[place]):
            continue
        if begun < place:
            part = _interval_order(starts[begun:place], ends[begun:place])  # type: ignore[arg-type]  # checked by _sane
            _append(whole, part, begun, place - begun, count)
        if place < count:
            _append(whole, Order([], 0, (0,), (0,)), place, 1, count)
        begun = place + 1
    return whole


def _sane(start: int | None, end: int | None) -> bool:
    return start is not None and end is not None and start <= end


def _append(whole: Order, part: Order, offset: int, count: int, total: int) -> None:
    """Append a part: everything before precedes all of it."""

    def moved(place: int) -> int:
        return place + offset if place < count else total + whole.joins + place - count

    whole.edges.extend((moved(one), moved(other)) for one, other in part.edges)
    first = tuple(moved(place) for place in part.first)
    if whole.last:
        # One side is a single step, since steps without times separate the parts with times.
        whole.edges.extend((one, other) for one in whole.last for other in first)
    else:
        whole.first = first
    whole.last = tuple(moved(place) for place in part.last)
    whole.joins += part.joins


def _interval_order(starts: Sequence[int], ends: Sequence[int]) -> Order:
    if is_sequential(starts, ends):
        return sequential_order(len(starts))
    count = len(starts)
    # The index breaks ties, so that no two steps precede each other.
    by_end = sorted((end, place) for place, end in enumerate(ends))
    by_start = sorted((start, place) for place, start in enumerate(starts))
    blocks = list(_blocks(by_end, by_start, starts))
    order = Order(
        first=tuple(sorted(blocks[0][2])),
        last=tuple(sorted(place for end, place in by_end if (end, place) >= by_start[-1])),
    )
    blocks = blocks[1:]
    direct = sum((high - low) * len(later) for low, high, later in blocks)
    if direct <= max(MAX_EDGES, MAX_EDGES_PER_STEP * count):
        order.edges = [
            (by_end[earlier][1], place)
            for low, high, later in blocks
            for earlier in range(low, high)
            for place in later
        ]
    else:
        _through_joins(order, blocks, [place for _, place in by_end])
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
    later: list[int] = []
    for moment in by_start:
        reached = high
        while by_end[high] < moment:
            place = by_end[high][1]
            latest = max(latest, (starts[place], place))
            high += 1
        if high > reached:
            yield low, reached, later
            later = []
            while by_end[low] < latest:
                low += 1
        later.append(moment[1])
    yield low, high, later


def _through_joins(
    order: Order, blocks: Sequence[tuple[int, int, list[int]]], ended: Sequence[int]
) -> None:
    """Add edges through a chain of joins, at most three edges per step."""
    count = len(ended)
    previous, covered = None, 0
    for low, high, later in blocks:
        wide, long = high - low, len(later)
        if wide * long <= wide + long and wide <= 8:
            order.edges.extend((ended[place], one) for place in range(low, high) for one in later)
            continue
        join = count + order.joins
        order.joins += 1
        if previous is not None and covered > low:
            # What precedes the previous join also precedes this one.
            order.edges.append((previous, join))
            low = covered
        order.edges.extend((ended[place], join) for place in range(low, high))
        order.edges.extend((join, one) for one in later)
        previous, covered = join, high
