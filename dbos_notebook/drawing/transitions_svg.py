"""The lines between the rows of a process map of many runs: what followed what, how often."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos_notebook import text
from dbos_notebook.drawing import svg

if TYPE_CHECKING:
    import networkx as nx

MAX_LINES = 12
"""In one block, this many lines are drawn besides those to the next row: the most frequent."""
_LANE = 8.0
_FIRST_LANE = 11.0
_LOOP_DASH = "3 2"


@dataclass
class FlowLine:
    """A line from one row of a block to another, right of its numbers.

    Attributes
    ----------
    tail, head
        The indexes of the rows; a line to an earlier row is a loop.
    lane
        Its distance from the numbers; 0 for a line to the next row.
    width
        The width of its stroke, which grows with its count.
    """

    tail: int
    head: int
    width: float
    tooltip: str
    lane: int = 0
    path: str = ""
    tip: str = ""
    dash: str = ""


def flow_lines(graph: nx.DiGraph[Any], keys: Sequence[Any]) -> tuple[list[FlowLine], int]:
    """Return the lines between the rows of a block, and how many edges have none."""
    place = {key: index for index, key in enumerate(keys)}
    edges = [
        (place[tail], place[head], edge)
        for tail in keys
        for head, edge in graph.adj[tail].items()
        if head in place and edge["kind"] in ("first", "next")
    ]
    largest = max((edge["count"] for _, _, edge in edges), default=1)
    shown = sorted(edges, key=lambda each: -each[2]["count"])
    far = [each for each in shown if each[1] != each[0] + 1]
    left_out = far[MAX_LINES:]
    lines = [
        FlowLine(tail, head, weight(edge["count"], largest), _tooltip(graph, keys, tail, head))
        for tail, head, edge in shown
        if (tail, head, edge) not in left_out
    ]
    _assign_lanes(lines)
    return lines, len(left_out)


def weight(count: int, largest: int) -> float:
    """Return the width of a line: 1 to 3.5 pixels, by the square root of its share of the most."""
    return 1 + 2.5 * math.sqrt(count / max(largest, 1))


def gutter(lines: Iterable[FlowLine]) -> float:
    """Return the width that lines need, in pixels."""
    lanes = [line.lane for line in lines]
    return _FIRST_LANE + _LANE * max(lanes) + 8 if lanes else 0.0


def place_lines(lines: Iterable[FlowLine], centers: Sequence[float], x: float) -> None:
    """Set the paths of lines; ``centers`` are the y of the rows and ``x`` is where numbers end."""
    n = svg.format_number
    for line in lines:
        right = x + _FIRST_LANE + _LANE * line.lane
        start, end = centers[line.tail] + 3, centers[line.head] - 3
        if line.tail == line.head:
            start, end = end - 1, start + 1
        size = 2.6 + line.width / 2
        if line.lane == 0:
            line.path = f"M{n(right)} {n(start)}V{n(end - size)}"
            line.tip = _triangle([(right, end), (right - size, end - 1.6 * size)], right)
            continue
        left = x + 6
        line.path = f"M{n(left)} {n(start)}H{n(right)}V{n(end)}H{n(left + 1.6 * size)}"
        corners = [(left + 1.6 * size, end - size), (left + 1.6 * size, end + size)]
        line.tip = f"M{n(left)} {n(end)}" + "".join(f"L{n(a)} {n(b)}" for a, b in corners) + "Z"
        line.dash = _LOOP_DASH if line.head <= line.tail else ""


def _triangle(points: Sequence[tuple[float, float]], center: float) -> str:
    n = svg.format_number
    (x, y), (left, top) = points
    return f"M{n(x)} {n(y)}L{n(left)} {n(top)}L{n(2 * center - left)} {n(top)}Z"


def _assign_lanes(lines: Sequence[FlowLine]) -> None:
    """Put lines that overlap into different lanes, short ones inside."""
    taken: list[list[tuple[int, int]]] = []
    for line in sorted(lines, key=lambda each: (abs(each.head - each.tail), each.tail)):
        if line.head == line.tail + 1:
            continue
        low, high = sorted((line.tail, line.head))
        free = (
            lane
            for lane, spans in enumerate(taken)
            if all(high < start or end < low for start, end in spans)
        )
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        line.lane = lane + 1


def _tooltip(graph: nx.DiGraph[Any], keys: Sequence[Any], tail: int, head: int) -> str:
    edge: Mapping[str, Any] = graph.edges[keys[tail], keys[head]]
    names = [graph.nodes[keys[index]]["name"] for index in (tail, head)]
    names[0] = "start" if edge["kind"] == "first" else names[0]
    before, after = (text.sanitize_svg(name, 200) for name in names)
    lines = [f"{before} → {after}", f"{edge['count']:,} times, in {edge['share']:.0%} of the runs"]
    median, p95 = (text.duration(edge.get(f"between_{name}")) for name in ("median", "p95"))
    if median:
        lines.append(f"between: median {median}, 95th percentile {p95}")
    return "\n".join(lines)
