"""The timeline of a run: a row per workflow and step on one time axis."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from dbos_notebook import text
from dbos_notebook.drawing.axis import Axis, Tick
from dbos_notebook.drawing.diagram import (
    display_id,
    display_name,
    duration_range,
    edges_of_kind,
    error_name,
    group_title,
    predecessors,
    running_label,
    short_id,
    tooltip,
)
from dbos_notebook.drawing.graph_svg import THEMES, check_choice, fold_for_drawing
from dbos_notebook.drawing.legend import Legend
from dbos_notebook.drawing.picture import Drawing, Picture, picture_id
from dbos_notebook.drawing.text_tree import walk
from dbos_notebook.drawing.theme import MARGIN, OPERATIONS
from dbos_notebook.errors import GraphError, PictureError
from dbos_notebook.graphs.critical_path import critical_path_intervals
from dbos_notebook.graphs.intervals import Run, Times
from dbos_notebook.status import ERROR_STATUSES, STATUSES_BY_SEVERITY, known_status, status_label
from dbos_notebook.types import Theme

if TYPE_CHECKING:
    import networkx as nx

PARTS = {
    "run": "running a step",
    "own": "between steps",
    "children": "waiting for children",
    "sleep": "sleeping",
    "message": "waiting for a message or an event",
    "queue": "waiting in the queue",
}
"""The labels of the parts of a bar."""
_WAITS = {"get_result": "children", "sleep": "sleep", "recv": "message", "get_event": "message"}
# If a workflow did several of these at once, its row shows the first.
_FIRST = ("failed", "run", "children", "message", "sleep")


class TimelineSpan(NamedTuple):
    """A part of a bar, with times in seconds since 1970."""

    start: float
    end: float
    part: str
    status: str


@dataclass
class TimelineRow:
    """A row of the timeline, before it has a position."""

    id: str
    key: Any
    kind: str
    status: str
    name: str
    depth: int
    tooltip: str
    spans: list[TimelineSpan] = field(default_factory=list)
    took: str = ""
    error: str = ""
    note: str = ""
    number: str = ""
    short_id: str = ""
    detail: str = ""
    failing: bool = False
    running: bool = False
    count: int = 0
    is_approximate: bool = False
    """Whether the times of its members are accurate to the second only."""
    members: list[tuple[float, float]] = field(default_factory=list)
    critical: list[tuple[float, float]] = field(default_factory=list)


def build(
    graph: nx.DiGraph[Any],
    folded: nx.DiGraph[Any],
    times: Times,
    critical: list[tuple[Any, float, float]],
) -> list[TimelineRow]:
    """Make the rows of a timeline.

    Parameters
    ----------
    graph
        The whole graph, which has the times of folded nodes.
    folded
        The same graph, folded or not.
    times
        The times of the whole graph.
    critical
        The result of ``critical_path_intervals``, or an empty list.
    """
    # The row of a child replaces the row of the step that started it.
    merged = {
        tail
        for tail, _ in edges_of_kind(folded, "starts")
        if folded.nodes[tail].get("operation") == "start_child"
    }
    rows = [_row(graph, folded, times, key, depth) for key, depth in walk(folded, skip=merged)]
    if critical:
        _mark(rows, folded, critical)
    return rows


def _mark(
    rows: list[TimelineRow], folded: nx.DiGraph[Any], critical: list[tuple[Any, float, float]]
) -> None:
    by_key = {row.key: row for row in rows}
    for row in rows:
        for member in folded.nodes[row.key].get("members") or ():
            by_key.setdefault(member, row)
    for node, start, end in critical:
        # The step that started a child has no row; the child's workflow has.
        owner = node[0] if isinstance(node, tuple) else node
        if critical_row := by_key.get(node) or by_key.get(owner):
            critical_row.critical.append((start, end))


def _row(
    graph: nx.DiGraph[Any], folded: nx.DiGraph[Any], times: Times, key: Any, depth: int
) -> TimelineRow:
    attributes = folded.nodes[key]
    kind = str(attributes.get("kind", "step"))
    row = TimelineRow(
        short_id(key),
        key,
        kind,
        known_status(attributes.get("status")),
        display_name(attributes) or kind,
        depth,
        tooltip(key, attributes, times),
        error=error_name(attributes),
        failing=bool(attributes.get("on_failing_path")),
    )
    if kind == "workflow":
        _workflow_row(graph, times, row, attributes)
    elif kind == "group":
        _group_row(graph, times, row, attributes)
    else:
        _step_row(folded, times, row, attributes)
    return row


def _workflow_row(
    graph: nx.DiGraph[Any], times: Times, row: TimelineRow, attributes: dict[str, Any]
) -> None:
    row.short_id = display_id(row.key, attributes)
    run = times.workflow(row.key)
    if run is None:
        row.note = "no times recorded"
        return
    row.running = not run.completed
    if run.enqueued is not None and (run.started is None or run.started > run.enqueued):
        until = run.ended if run.started is None else run.started
        row.spans.append(TimelineSpan(run.enqueued, until, "queue", row.status))
    if run.started is not None:
        row.spans += _shares(graph, times, row, run)
    if run.started is not None and not run.start_erased:
        row.took = times.duration(row.key)
    elif run.start_erased:
        row.note = "its start is not recorded"
    elif run.completed:
        row.note = times.unstarted(row.key)
    elif run.enqueued is not None:
        row.took, row.note = times.queue_wait(row.key), "has waited"
    else:
        row.note = times.delayed(row.key)
    totals: dict[str, float] = {}
    for span in row.spans:
        if span.part == "queue" and times.coarse:
            continue  # its bar starts at a whole second; the exact wait is above
        totals[span.part] = totals.get(span.part, 0.0) + span.end - span.start
    row.tooltip += "".join(
        f"\n{label}: {text.duration(totals[part])}"
        for part, label in PARTS.items()
        if totals.get(part)
    )


def _shares(
    graph: nx.DiGraph[Any], times: Times, row: TimelineRow, run: Run[float]
) -> list[TimelineSpan]:
    """Split a workflow's time into parts by what its steps did."""
    run_start, run_end = run.started or 0.0, run.ended
    changes: list[tuple[float, int, str]] = []
    for step in times.steps.get(row.key, ()):
        attributes = graph.nodes[step]
        span = times.step(step)
        if span is None or times.origin(step) or "function_id" not in attributes:
            continue
        part = _WAITS.get(str(attributes.get("operation")), "run")
        if part == "run" and attributes.get("status") == "ERROR":
            part = "failed"
        start, end = max(span[0], run_start), min(span[1], run_end)
        if end > start:
            changes += [(start, 1, part), (end, -1, part)]
    changes.sort()
    active = dict.fromkeys(_FIRST, 0)
    spans: list[TimelineSpan] = []
    position = run_start
    for time, change, part in [*changes, (run_end, 0, "run")]:
        if time > position:
            current = next((name for name in _FIRST if active[name]), "own")
            # Running steps have their own status, other parts that of the workflow.
            status = {"failed": "ERROR", "run": "SUCCESS"}.get(current, row.status)
            current = "run" if current == "failed" else current
            if run.start_erased and current == "own":
                position = time  # it may not have run between these steps
                active[part] += change
                continue
            if spans and spans[-1][1:] == (position, current, status):
                spans[-1] = spans[-1]._replace(end=time)
            else:
                spans.append(TimelineSpan(position, time, current, status))
            position = time
        active[part] += change
    return spans or (
        [] if run.start_erased else [TimelineSpan(run_start, run_end, "own", row.status)]
    )


def _group_row(
    graph: nx.DiGraph[Any], times: Times, row: TimelineRow, attributes: dict[str, Any]
) -> None:
    row.count = int(attributes.get("count", 0))
    row.name = group_title(row.name, attributes)
    for member in attributes.get("members") or ():
        if member not in graph:
            continue
        if graph.nodes[member].get("kind") == "workflow":
            run = times.workflow(member)
            row.is_approximate = times.coarse
            start = run and (run.enqueued if run.started is None else run.started)
            if run is not None and start is not None:
                row.members.append((start, run.ended))
        elif not times.origin(member) and (span := times.step(member)):
            row.members.append(span)
    row.took = duration_range(attributes, times)
    failed = sum(
        int(n)
        for status, n in (attributes.get("statuses") or {}).items()
        if status in ERROR_STATUSES
    )
    row.note = f"{failed:,} failed" if 0 < failed < row.count else ""
    if step := attributes.get("failed_step"):
        row.detail = f"failed at {text.sanitize_svg(text.leaf_name(str(step)), 80)}"
    if not row.members:
        row.note = row.note or "no times recorded"


def _step_row(
    folded: nx.DiGraph[Any], times: Times, row: TimelineRow, attributes: dict[str, Any]
) -> None:
    operation = str(attributes.get("operation", "step"))
    label = OPERATIONS.get(operation, ("", ""))[1]
    row.number = f"#{attributes['function_id']}" if "function_id" in attributes else ""
    if not row.number and row.status == "PENDING":
        row.name, row.running = running_label(row.name, operation), True
    elif operation == "get_result":
        owners = [
            folded.nodes[tail].get("workflow_id", tail)
            for tail in predecessors(folded, row.key, "returns")
        ]
        child = display_name(folded.nodes[owners[0]]) if owners and owners[0] in folded else ""
        row.name = f"{label} {child or 'a child'}"
    elif operation == "start_child":
        row.name = f"{label} {row.name}"
    elif label:
        row.name = label
    if origin := times.origin(row.key):
        row.note = origin
        row.took = text.duration(attributes.get("duration"))
        return
    span = times.step(row.key)
    if span is None:
        row.note = "no times recorded"
        return
    part = "own" if row.running and operation == "other" else _WAITS.get(operation, "run")
    row.spans = [TimelineSpan(*span, part, row.status)]
    row.took = text.duration(span[1] - span[0])
    duration = attributes.get("duration", pd.NaT)
    if duration < pd.Timedelta(0):  # false for NaT
        row.took, row.note = text.duration(duration), "ends before it starts: clocks differ"


DEFAULT_MAX_ROWS = 150
"""About as many rows as a reader scrolls through."""
MAX_ROWS = 5_000
DEFAULT_WIDTH = 940.0
"""Fits a notebook, a page on GitHub, and paper in landscape orientation."""
_LABEL_WIDTH = (300.0, 0.36)
"""The width of names before the bars: a maximum, and a share of the whole width."""
_INDENT = 14.0
_MAX_INDENTS = 10
_TEXT_WIDTH = (70.0, 330.0, 0.34)
_ERROR_WIDTH = 230.0
"""The width of text after the bars: minimum, maximum, and maximum share of the whole width; and
how much of it an error may take."""
_NARROW = 560.0
"""Up to this width, text that fits neither after nor before a bar stands on lines above it."""
_NARROW_TEXT_WIDTH = 24.0
_LINE_HEIGHT = 12.0
_MIN_BAR_WIDTH = 2.0
_BIN = 2.0
"""Pixels per value where values are aggregated: concurrency, and bars of very many parts."""
_MAX_BARS = 300
_CLASS_NAME = re.compile(r"(?:\b[^\W\d]\w*\.)+(?=\w)")
_AT_ONCE = "up to {}{:,} at once"


@dataclass
class Bar:
    """A drawn part of a row."""

    x: float
    width: float
    part: str
    status: str


@dataclass
class PlacedRow:
    """A row with the positions of everything drawn in it."""

    row: TimelineRow
    y: float
    height: float
    x: float
    label: str
    suffix: str
    detail: str = ""
    bars: list[Bar] = field(default_factory=list)
    critical: list[tuple[float, float]] = field(default_factory=list)
    area: str = ""
    text: str = ""
    error: str = ""
    text_x: float = 0.0
    error_x: float = 0.0
    is_stacked: bool = False
    lift: float = 0.0
    """The height of the text above the bar."""
    suffix_x: float = 0.0
    point: float | None = None
    until: float = 0.0


def timeline(
    graph: nx.DiGraph[Any],
    *,
    fold: Literal["auto"] | int | None = "auto",
    open: Iterable[str] = (),  # noqa: A002 - as graphs.fold
    hide: Iterable[str] = (),
    theme: Theme = "auto",
    critical_path: bool = False,
    width: float = DEFAULT_WIDTH,
) -> Picture:
    """Draw the timeline of an execution graph, ``width`` pixels wide.

    The other arguments are documented at ``Client.timeline``.
    """
    check_choice(theme, THEMES, "theme")
    if fold is None and len(graph) > MAX_ROWS:
        raise PictureError(
            f"{len(graph):,} rows are too many for a timeline ({MAX_ROWS:,}). "
            "Use fold='auto', and open=[…] for the groups to show in detail."
        )
    folded = fold_for_drawing(graph, DEFAULT_MAX_ROWS if fold == "auto" else fold, open, hide)

    def drawing() -> Drawing:
        return _render(graph, folded, theme, width, critical_path=critical_path)

    def text() -> str:
        from dbos_notebook.drawing.text_tree import tree

        return tree(folded, Times(graph))

    return Picture(drawing, text, graph=folded)


def _render(
    graph: nx.DiGraph[Any],
    folded: nx.DiGraph[Any],
    theme: Theme,
    width: float,
    *,
    critical_path: bool,
) -> Drawing:
    from dbos_notebook.drawing import svg
    from dbos_notebook.drawing.title import make_title

    times = Times(graph)
    rows = build(graph, folded, times, _critical(graph, times) if critical_path else [])
    spans = [
        (span.start, span.end, span.part == "run" and row.kind == "step")
        for row in rows
        for span in row.spans
    ]
    spans += [(start, end, True) for row in rows for start, end in row.members]
    maximum, max_share = _LABEL_WIDTH
    maximum = min(maximum, max_share * width)
    # Rounded up, so that the measured text still fits after subtracting the indents.
    longest = math.ceil(max(map(_label_width, rows), default=0.0))
    label_width = min(maximum, longest) + 12
    minimum, maximum, max_share = _TEXT_WIDTH
    maximum = min(maximum, max_share * width)
    text_width = min(
        maximum, max([minimum, *(_row_text_width(row) for row in rows if row.spans or row.members)])
    )
    is_narrow = width <= _NARROW
    if is_narrow:
        text_width = min(text_width, _NARROW_TEXT_WIDTH)
    time_axis = Axis(spans, width - 2 * MARGIN - label_width - text_width)
    notes = [f"{len(graph):,} rows folded to {len(rows):,}"] if len(folded) < len(graph) else []
    title = make_title(graph, times, "Timeline", notes).fitted(width - 2 * MARGIN)
    names = Counter(row.name for row in rows if row.kind == "workflow")
    placed_rows: list[PlacedRow] = []
    y = 0.0
    for row in rows:
        placed = _place(row, time_axis, y, label_width, repeated=names[row.name] > 1)
        _place_text(placed, time_axis.width + text_width, is_narrow=is_narrow)
        y += placed.height
        placed_rows.append(placed)
    legend = _legend(placed_rows)
    legend.arrange(width - 2 * MARGIN)
    picture = picture_id("t", graph, [row.id for row in rows], title, theme, critical_path)
    top = 106.0 if title.reason else 88.0
    markup = svg.render(
        "timeline.svg.j2",
        theme,
        picture,
        title=title,
        rows=placed_rows,
        guides=_guides(placed_rows),
        time_axis=time_axis,
        tick_label=_tick,
        took=text.duration,
        legend=legend,
        width=width,
        height=top + y + 26 + legend.height,
        left=MARGIN,
        axis=MARGIN + label_width,
        top=top,
        depth=y,
    )
    return Drawing(markup, {f"{picture}-{row.id}": row.key for row in rows}, title.label)


def _critical(graph: nx.DiGraph[Any], times: Times) -> list[tuple[Any, float, float]]:
    try:
        return critical_path_intervals(graph)
    except GraphError:
        return []  # the root has no times; the rows are shown without it


def _label_width(row: TimelineRow) -> float:
    size = 12 if row.kind == "workflow" else 11
    number = text.text_width(row.number, 10) + 6 if row.number else 0
    name_width = text.text_width(row.name, size, bold=row.kind != "step")
    name_width = max(name_width + number, text.text_width(row.detail, 10))
    return min(row.depth, _MAX_INDENTS) * _INDENT + _mark_width(row) + name_width


def _row_text(row: TimelineRow) -> str:
    return " · ".join(part for part in (row.took, row.note) if part)


def _row_text_width(row: TimelineRow) -> float:
    error = text.truncate_to_width(row.error, 11, _ERROR_WIDTH, bold=True)
    label = _row_text(row)
    if row.members and "at once" not in row.note:  # added when the area is drawn
        label += f" · {_at_once(row, len(row.members))}"
    widths = text.text_width(label, 11), text.text_width(f" {error}", 11, bold=True)
    return (max(widths) if _is_stacked(row) else sum(widths)) + 16


def _at_once(row: TimelineRow, count: int) -> str:
    return _AT_ONCE.format("about " if row.is_approximate and count > 1 else "", count)


def _is_stacked(row: TimelineRow) -> bool:
    """Return whether an error is below the other text: the rows of groups are high enough."""
    return bool(row.members and row.error)


def _mark_width(row: TimelineRow) -> int:
    return 20 if row.kind != "step" or row.status != "SUCCESS" else 4


def _place(
    row: TimelineRow, time_axis: Axis, y: float, label_width: float, *, repeated: bool
) -> PlacedRow:
    height = 24.0 if row.kind == "workflow" else 34.0 if row.members else 19.0
    x = min(row.depth, _MAX_INDENTS) * _INDENT
    size = 12 if row.kind == "workflow" else 11
    label = label_width - 12 - x - _mark_width(row)
    number = text.text_width(row.number, 10) + 6 if row.number else 0
    name = _fitted_name(row, size, label - number)
    suffix = row.number
    remaining = label - text.text_width(name, size, bold=True) - 10
    if repeated and remaining > 20:
        suffix = text.truncate_middle(row.short_id, 10, remaining)
    detail = row.detail
    if text.text_width(detail, 10) > label:
        detail = text.truncate_middle(_CLASS_NAME.sub("", detail), 10, label)
    drawn = PlacedRow(row, y, height, x, name, suffix, detail if row.members else "")
    drawn.suffix_x = x + _mark_width(row) + 6
    drawn.suffix_x += text.text_width(name, size, bold=row.kind != "step")
    drawn.bars = _bars(row, time_axis)
    drawn.critical = _joined(time_axis.many(np.array(row.critical).reshape(-1, 2)).tolist())
    if row.members:
        concurrency = _area(drawn, time_axis, height - 8)
        row.note = " · ".join(x for x in (row.note, _at_once(row, concurrency)) if x)
    elif not row.spans:
        drawn.point = 0.0
    return drawn


def _fitted_name(row: TimelineRow, size: float, width: float) -> str:
    """Return a name that fits: what distinguishes it is its end, not the class that it is in."""
    bold, name = row.kind != "step", row.name
    if text.text_width(name, size, bold=bold) > width:
        name = _CLASS_NAME.sub("", name)
    return text.truncate_to_width(name, size, width, bold=bold)


def _joined(lines: list[list[float]]) -> list[tuple[float, float]]:
    """Merge lines that have no visible gap between them."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(lines):
        if joined and start - joined[-1][1] < 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, max(end, start + _MIN_BAR_WIDTH)))
    return joined


def _bars(row: TimelineRow, time_axis: Axis) -> list[Bar]:
    """Return the parts of a bar; if there are very many, the dominant part of each interval."""
    edges = time_axis.many(np.array([span[:2] for span in row.spans]).reshape(-1, 2))
    if len(row.spans) <= _MAX_BARS:
        return [
            Bar(float(start), max(float(end_x - start), _MIN_BAR_WIDTH), span.part, span.status)
            for span, (start, end_x) in zip(row.spans, edges, strict=True)
        ]
    start_x, end_x = float(edges.min()), float(edges.max())
    count = max(int((end_x - start_x) / _BIN), 1)
    positions = np.linspace(start_x, end_x, count + 1)
    styles = sorted({(span.part, span.status) for span in row.spans})
    filled = np.zeros((len(styles), count))
    for number, style in enumerate(styles):
        style_edges = edges[[(span.part, span.status) == style for span in row.spans]]
        # The length before each position; the differences are the lengths between positions.
        length = np.repeat(np.cumsum(style_edges[:, 1] - style_edges[:, 0]), 2)[:-1]
        filled[number] = np.diff(
            np.interp(positions, style_edges.ravel(), np.concatenate([[0.0], length]))
        )
        if style == ("run", "ERROR"):  # a failure is always visible
            filled[number][filled[number] > 0] = np.inf
    dominant = filled.argmax(axis=0)
    starts = np.flatnonzero(np.diff(dominant, prepend=-1))
    ends = [*starts[1:].tolist(), count]
    return [
        Bar(
            float(positions[first]),
            float(positions[last] - positions[first]),
            *styles[dominant[first]],
        )
        for first, last in zip(starts.tolist(), ends, strict=True)
    ]


def _area(drawn: PlacedRow, time_axis: Axis, height: float) -> int:
    """Draw the concurrency of a group's members, and return its maximum."""
    spans = np.array(drawn.row.members)
    starts, ends = np.sort(time_axis.many(spans[:, 0])), np.sort(time_axis.many(spans[:, 1]))
    edges = np.unique(np.concatenate([starts, ends]))
    # The exact concurrency: started minus ended between any two edges.
    exact = np.searchsorted(starts, edges, "right") - np.searchsorted(ends, edges, "right")
    maximum = max(int(exact.max(initial=0)), 1)
    start_x, end = float(starts[0]), max(float(ends[-1]), float(starts[0]) + _MIN_BAR_WIDTH)
    bins = np.arange(start_x, end + _BIN, _BIN)
    level = np.array(
        [
            np.searchsorted(starts, right, "left") - np.searchsorted(ends, left, "right")
            for left, right in pairwise(bins)
        ]
        or [1]
    )
    heights = np.maximum(np.minimum(level, maximum) / maximum * height, 1.0)
    parts = [f"M{start_x:.1f} {height:.1f}"]
    last = -1.0
    for left, value in zip(bins, heights, strict=False):
        if value != last:
            parts.append(f"H{left:.1f}V{height - value:.1f}")
            last = float(value)
    drawn.area = "".join(parts) + f"H{end:.1f}V{height:.1f}Z"
    drawn.bars.append(Bar(start_x, end - start_x, "area", drawn.row.status))
    return maximum


def _place_text(drawn: PlacedRow, available_width: float, *, is_narrow: bool) -> None:
    row = drawn.row
    drawn.text = _row_text(row)
    drawn.error = text.truncate_to_width(row.error, 11, _ERROR_WIDTH, bold=True)
    row_width = _row_text_width(row)
    start = min((bar.x for bar in drawn.bars), default=0.0)
    end = max((bar.x + bar.width for bar in drawn.bars), default=6.0)
    drawn.until = end
    drawn.is_stacked = _is_stacked(row)
    if row.running:
        end += 10
    if end + row_width <= available_width + 0.1:
        drawn.text_x = end + 6
    elif start >= row_width:
        drawn.text_x = start - row_width + 10
    elif is_narrow:
        drawn.is_stacked = bool(row.error) and (drawn.is_stacked or row_width > available_width)
        drawn.text_x = 2.0
        drawn.lift = _LINE_HEIGHT * (2 if drawn.is_stacked else 1)
        drawn.height += drawn.lift
        drawn.text = text.truncate_to_width(drawn.text, 11, available_width)
        drawn.error = text.truncate_middle(drawn.error, 11.5, available_width)
    else:  # over the bar: the template draws an outline in the ground color
        drawn.text_x = available_width - row_width + 10
        if drawn.text_x < 0:  # truncated instead of drawn over the name
            drawn.text_x = 0.0
            drawn.text = text.truncate_to_width(
                drawn.text, 11, available_width - row_width + text.text_width(drawn.text, 11)
            )
    drawn.error_x = drawn.text_x
    if not drawn.is_stacked:
        drawn.error_x += text.text_width(drawn.text, 11) + 5


def _guides(drawn: list[PlacedRow]) -> list[tuple[float, float, float]]:
    """Return the vertical lines from each workflow to the last row that belongs to it."""
    guides = []
    open_rows: list[PlacedRow] = []
    ends: list[PlacedRow | None] = [*drawn, None]
    for number, placed in enumerate(ends):
        depth = placed.row.depth if placed else 0
        while open_rows and open_rows[-1].row.depth >= depth:
            workflow_row = open_rows.pop()
            last = drawn[number - 1]
            if last is not workflow_row:
                top, bottom = workflow_row.y + workflow_row.height - 3, last.y + last.height - 4
                guides.append((workflow_row.x + 7, top, bottom))
        if placed is not None and placed.row.kind == "workflow" and placed.row.depth < _MAX_INDENTS:
            open_rows.append(placed)
    return guides


def _tick(tick: Tick) -> str:
    if not tick.seconds:
        return "0"
    if tick.major:  # after a break: the time since the start
        return text.duration(tick.seconds)
    sign = "+" if tick.since != tick.seconds else ""
    return sign + text.duration(tick.since)


def _legend(drawn: list[PlacedRow]) -> Legend:
    legend = Legend()
    statuses = {placed.row.status for placed in drawn}
    for status in (*STATUSES_BY_SEVERITY, ""):
        if status in statuses:
            legend.add("status", status, status_label(status))
    parts = {bar.part for placed in drawn for bar in placed.bars}
    for part, label in PARTS.items():
        if part in parts:
            legend.add("part", part, label)
    if "area" in parts:
        legend.add("area", "", "number running at once")
    if any(placed.critical for placed in drawn):
        legend.add("critical", "", "critical path")
    return legend
