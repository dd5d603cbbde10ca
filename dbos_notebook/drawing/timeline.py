"""The timeline of a run: a row per workflow and step on one time axis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from dbos_notebook import text
from dbos_notebook.drawing.axis import Scale, Tick
from dbos_notebook.drawing.diagram import group_count, group_name, of_kind, short_id, tails, tooltip
from dbos_notebook.drawing.graph_svg import MARGIN, THEMES, check_choice, folded, picture_id
from dbos_notebook.drawing.picture import Drawing, Picture
from dbos_notebook.drawing.text_tree import walk
from dbos_notebook.drawing.theme import OPERATIONS, ThemeName
from dbos_notebook.errors import GraphError, PictureError
from dbos_notebook.graphs.critical_path import drawn_critical_path
from dbos_notebook.graphs.intervals import Run, Times
from dbos_notebook.status import ERROR_STATUSES, STATUSES_BY_SEVERITY, known_status, status_label

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.drawing.graph_svg import Legend

PARTS = {
    "run": "running a step",
    "own": "between steps",
    "children": "waiting for children",
    "sleep": "sleeping",
    "message": "waiting for a message or an event",
    "queue": "waiting in the queue",
}
"""What the parts of a bar mean."""
_WAITS = {"get_result": "children", "sleep": "sleep", "recv": "message", "get_event": "message"}
# Of what happened at once in a workflow, its own row shows the first of these.
_FIRST = ("failed", "run", "children", "message", "sleep")


class TimelineSpan(NamedTuple):
    """A part of a bar."""

    start: float
    end: float
    part: str
    status: str


@dataclass
class TimelineRow:
    """A line of the timeline."""

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
    remark: str = ""
    number: str = ""
    failing: bool = False
    running: bool = False
    count: int = 0
    members: list[tuple[float, float]] = field(default_factory=list)
    critical: list[tuple[float, float]] = field(default_factory=list)


def build(
    graph: nx.DiGraph[Any],
    shown: nx.DiGraph[Any],
    times: Times,
    critical: list[tuple[Any, float, float]],
) -> list[TimelineRow]:
    """Make the rows.

    Parameters
    ----------
    graph
        The whole graph: times of what is folded come from it.
    shown
        The same, folded, or the very same.
    times
        Of the whole graph.
    critical
        Of ``Times.critical_path``.
    """
    # The row of a child says all that the step that started it would.
    merged = {
        tail
        for tail, _ in of_kind(shown, "starts")
        if shown.nodes[tail].get("operation") == "start_child"
    }
    rows = [_row(graph, shown, times, key, depth) for key, depth in walk(shown, skip=merged)]
    if critical:
        _mark(rows, shown, critical)
    return rows


def _mark(
    rows: list[TimelineRow], shown: nx.DiGraph[Any], critical: list[tuple[Any, float, float]]
) -> None:
    by_key = {row.key: row for row in rows}
    for row in rows:
        for member in shown.nodes[row.key].get("members") or ():
            by_key.setdefault(member, row)
    for node, begin, close in critical:
        # The step that started a child has no row of its own.
        found = by_key.get(node) or (by_key.get(node[0]) if isinstance(node, tuple) else None)
        if found is not None:
            found.critical.append((begin, close))


def _row(
    graph: nx.DiGraph[Any], shown: nx.DiGraph[Any], times: Times, key: Any, depth: int
) -> TimelineRow:
    attributes = shown.nodes[key]
    kind = str(attributes.get("kind", "step"))
    row = TimelineRow(
        short_id(key),
        key,
        kind,
        known_status(attributes.get("status")),
        text.sanitize_svg(attributes.get("name") or kind, 200),
        depth,
        tooltip(key, attributes, times),
        failing=bool(attributes.get("on_failing_path")),
    )
    error = attributes.get("error_type")
    if not text.is_missing(error) and error:
        row.error = text.sanitize_svg(error, 300).rsplit(".", 1)[-1]
    if kind == "workflow":
        _workflow_row(graph, times, row, attributes)
    elif kind == "group":
        _group_row(graph, times, row, attributes)
    else:
        _step_row(shown, times, row, attributes)
    return row


def _workflow_row(
    graph: nx.DiGraph[Any], times: Times, row: TimelineRow, attributes: dict[str, Any]
) -> None:
    run = times.workflow(row.key)
    if run is None:
        row.remark = "no times recorded"
        return
    row.running = not run.over
    if run.enqueued is not None and (run.began is None or run.began > run.enqueued):
        until = run.ended if run.began is None else run.began
        row.spans.append(TimelineSpan(run.enqueued, until, "queue", row.status))
    if run.began is not None:
        row.spans += _shares(graph, times, row, run)
    if run.began is not None and not run.lost:
        row.took = times.took(row.key)
    elif run.lost:
        row.remark = "when it began is not recorded"
    elif run.over:
        row.remark = times.unstarted(row.key)
    elif run.enqueued is not None:
        row.took, row.remark = times.waited(row.key), "has waited"
    else:
        row.remark = times.delayed(row.key)
    told: dict[str, float] = {}
    for span in row.spans:
        if span.part == "queue" and times.coarse:
            continue  # its bar begins at a whole second; how long it waited stands above
        told[span.part] = told.get(span.part, 0.0) + span.end - span.start
    row.tooltip += "".join(
        f"\n{said}: {text.duration(told[part])}" for part, said in PARTS.items() if told.get(part)
    )


def _shares(graph: nx.DiGraph[Any], times: Times, row: TimelineRow, run: Run) -> list[TimelineSpan]:
    """Cut a workflow's time by what its steps did."""
    began, until = run.began or 0.0, run.ended
    moves: list[tuple[float, int, str]] = []
    for step in times.steps.get(row.key, ()):
        attributes = graph.nodes[step]
        span = times.step(step)
        if span is None or times.older(step) or "function_id" not in attributes:
            continue
        part = _WAITS.get(str(attributes.get("operation")), "run")
        if part == "run" and attributes.get("status") == "ERROR":
            part = "failed"
        start, end = max(span[0], began), min(span[1], until)
        if end > start:
            moves += [(start, 1, part), (end, -1, part)]
    moves.sort()
    active = dict.fromkeys(_FIRST, 0)
    spans: list[TimelineSpan] = []
    at = began
    for time, change, part in [*moves, (until, 0, "run")]:
        if time > at:
            now = next((each for each in _FIRST if active[each]), "own")
            # What ran shows how the step ended; the rest, how the workflow did.
            status = {"failed": "ERROR", "run": "SUCCESS"}.get(now, row.status)
            now = "run" if now == "failed" else now
            if run.lost and now == "own":
                at = time  # perhaps it did not run between these steps
                active[part] += change
                continue
            if spans and spans[-1][1:] == (at, now, status):
                spans[-1] = spans[-1]._replace(end=time)
            else:
                spans.append(TimelineSpan(at, time, now, status))
            at = time
        active[part] += change
    return spans or ([] if run.lost else [TimelineSpan(began, until, "own", row.status)])


def _group_row(
    graph: nx.DiGraph[Any], times: Times, row: TimelineRow, attributes: dict[str, Any]
) -> None:
    row.count = int(attributes.get("count", 0))
    row.name = group_count(attributes) + group_name(row.name, attributes)
    for member in attributes.get("members") or ():
        if member not in graph:
            continue
        if graph.nodes[member].get("kind") == "workflow":
            run = times.workflow(member)
            start = run and (run.enqueued if run.began is None else run.began)
            if run is not None and start is not None:
                row.members.append((start, run.ended))
        elif not times.older(member) and (span := times.step(member)):
            row.members.append(span)
    low, high = (text.duration(attributes.get(f"duration_{each}")) for each in ("min", "max"))
    row.took = low if low == high else f"{low} – {high}"
    bad = sum(
        int(n)
        for status, n in (attributes.get("statuses") or {}).items()
        if status in ERROR_STATUSES
    )
    row.remark = f"{bad:,} failed" if bad else ""
    if not row.members:
        row.remark = row.remark or "no times recorded"


def _step_row(
    shown: nx.DiGraph[Any], times: Times, row: TimelineRow, attributes: dict[str, Any]
) -> None:
    operation = str(attributes.get("operation", "step"))
    said = OPERATIONS.get(operation, ("", ""))[1]
    row.number = f"#{attributes['function_id']}" if "function_id" in attributes else ""
    if operation == "get_result":
        owners = [
            shown.nodes[tail].get("workflow_id", tail) for tail in tails(shown, row.key, "returns")
        ]
        child = shown.nodes[owners[0]].get("name") if owners and owners[0] in shown else None
        row.name = text.sanitize_svg(f"{said} {child or 'a child'}", 200)
    elif operation == "start_child":
        row.name = text.sanitize_svg(f"{said} {row.name}", 200)
    elif said:
        row.name = said
    if not row.number and row.status == "PENDING":
        row.name, row.running = f"running, {row.name}", True
    if older := times.older(row.key):
        row.remark = older
        row.took = text.duration(attributes.get("duration"))
        return
    span = times.step(row.key)
    if span is None:
        row.remark = "no times recorded"
        return
    part = "own" if row.running else _WAITS.get(operation, "run")
    row.spans = [TimelineSpan(*span, part, row.status)]
    row.took = text.duration(span[1] - span[0])
    duration = attributes.get("duration", pd.NaT)
    if duration < pd.Timedelta(0):  # false where it is not known
        row.took, row.remark = text.duration(duration), "ends before it begins: clocks differ"


BUDGET = 150
"""About how many rows a person scrolls through."""
MOST_ROWS = 5_000
WIDE = 940.0
"""As wide as a notebook, a page of GitHub, or paper on its side shows well."""
_LABEL = (300.0, 0.32)
"""Room for names before the bars: at most, and of the whole width."""
_INDENT = 14.0
_DEEPEST = 10
_AFTER = (70.0, 220.0, 0.36)
"""Room for words behind the last bar: at least, at most, and at most of the whole width."""
_THINNEST = 2.0
_BIN = 2.0
"""Pixels per value of what is shown in short: how many ran at once, bars of very many parts."""
_MOST_PARTS = 300
_AT_ONCE = "up to {:,} at once"


@dataclass
class Bar:
    """A part of a row as it is drawn."""

    x: float
    wide: float
    part: str
    status: str


@dataclass
class Drawn:
    """A row with its positions."""

    row: TimelineRow
    y: float
    high: float
    x: float
    label: str
    also: str
    bars: list[Bar] = field(default_factory=list)
    critical: list[tuple[float, float]] = field(default_factory=list)
    area: str = ""
    words: str = ""
    error: str = ""
    words_x: float = 0.0
    error_x: float = 0.0
    also_x: float = 0.0
    point: float | None = None
    until: float = 0.0


def timeline(
    graph: nx.DiGraph[Any],
    *,
    fold: Literal["auto"] | int | None = "auto",
    open: Iterable[str] = (),  # noqa: A002 - as graphs.fold
    hide: Iterable[str] = (),
    theme: ThemeName = "auto",
    critical_path: bool = True,
    width: float = WIDE,
) -> Picture:
    """Draw the timeline of an execution graph, ``width`` pixels wide.

    ``Client.timeline`` says what the other arguments are.
    """
    check_choice(theme, THEMES, "theme")
    if fold is None and len(graph) > MOST_ROWS:
        raise PictureError(
            f"{len(graph):,} rows are more than a timeline can hold ({MOST_ROWS:,}). "
            "Leave fold at 'auto', and open the groups to look into."
        )
    shown = folded(graph, BUDGET if fold == "auto" else fold, open, hide)

    def drawing() -> Drawing:
        return _render(graph, shown, theme, width, critical_path=critical_path)

    def text() -> str:
        from dbos_notebook.drawing.text_tree import tree

        return tree(shown, Times(graph))

    return Picture(drawing, text, shown=shown)


def _render(
    graph: nx.DiGraph[Any],
    shown: nx.DiGraph[Any],
    theme: ThemeName,
    wide: float,
    *,
    critical_path: bool,
) -> Drawing:
    from dbos_notebook.drawing import svg
    from dbos_notebook.drawing.title import headline

    times = Times(graph)
    rows = build(graph, shown, times, _critical(graph, times) if critical_path else [])
    spans = [
        (span.start, span.end, span.part == "run" and row.kind == "step")
        for row in rows
        for span in row.spans
    ]
    spans += [(start, end, True) for row in rows for start, end in row.members]
    most, share = _LABEL
    most = min(most, share * wide)
    # Whole, so that what it was measured for fits in what is left of it when it is drawn.
    label = min(most, math.ceil(max((_label_width(row) for row in rows), default=0.0))) + 12
    least, most, share = _AFTER
    most = min(most, share * wide)
    after = min(most, max([least, *(_said_width(row) for row in rows if row.spans or row.members)]))
    scale = Scale(spans, wide - 2 * MARGIN - label - after)
    notes = [f"{len(graph):,} rows folded to {len(rows):,}"] if len(shown) < len(graph) else []
    head = headline(graph, times, "Timeline", notes).fitted(wide - 2 * MARGIN)
    names = Counter(row.name for row in rows if row.kind == "workflow")
    drawn: list[Drawn] = []
    y = 0.0
    for row in rows:
        each = _place(row, scale, y, (label, after), again=names[row.name] > 1)
        y += each.high
        drawn.append(each)
    legend = _legend(drawn)
    legend.arrange(wide - 2 * MARGIN)
    picture = picture_id("t", graph, [row.id for row in rows], head, theme, critical_path)
    top = 106.0 if head.reason else 88.0
    markup = svg.render(
        "timeline.svg.j2",
        theme,
        picture,
        headline=head,
        rows=drawn,
        guides=_guides(drawn),
        scale=scale,
        tick_label=_tick,
        took=text.duration,
        legend=legend,
        wide=wide,
        high=top + y + 26 + legend.high,
        left=MARGIN,
        axis=MARGIN + label,
        top=top,
        depth=y,
    )
    return Drawing(markup, {f"{picture}-{row.id}": row.key for row in rows}, head.title)


def _critical(graph: nx.DiGraph[Any], times: Times) -> list[tuple[Any, float, float]]:
    try:
        return drawn_critical_path(graph)
    except GraphError:
        return []  # the root has no end, or no times: the rows are worth showing all the same


def _label_width(row: TimelineRow) -> float:
    size = 12 if row.kind == "workflow" else 11
    mark = 20 if _has_mark(row) else 4
    number = text.text_width(row.number, 10) + 6 if row.number else 0
    wide = text.text_width(row.name, size, bold=row.kind != "step")
    return min(row.depth, _DEEPEST) * _INDENT + mark + wide + number


def _said(row: TimelineRow) -> str:
    return " · ".join(each for each in (row.took, row.remark) if each)


def _said_width(row: TimelineRow) -> float:
    error = text.truncate_to_width(row.error, 11, _AFTER[1] / 2, bold=True)
    said = _said(row)
    if row.members and "at once" not in row.remark:  # it is said when the area is drawn
        said += f" · {_AT_ONCE.format(len(row.members))}"
    return text.text_width(said, 11) + text.text_width(f" {error}", 11, bold=True) + 16


def _has_mark(row: TimelineRow) -> bool:
    return row.kind != "step" or row.status != "SUCCESS"


def _place(
    row: TimelineRow, scale: Scale, y: float, room: tuple[float, float], *, again: bool
) -> Drawn:
    high = 24.0 if row.kind == "workflow" else 34.0 if row.members else 19.0
    x = min(row.depth, _DEEPEST) * _INDENT
    size = 12 if row.kind == "workflow" else 11
    label, after = room
    label -= 12 + x + (20 if _has_mark(row) else 4)
    number = text.text_width(row.number, 10) + 6 if row.number else 0
    name = text.truncate_to_width(row.name, size, label - number, bold=row.kind != "step")
    also = row.number
    left = label - text.text_width(name, size, bold=True) - 10
    if again and left > 50:
        also = text.truncate_middle(text.sanitize_svg(row.key, 200), 10, left)
    drawn = Drawn(row, y, high, x, name, also)
    drawn.also_x = x + (20 if _has_mark(row) else 4) + 6
    drawn.also_x += text.text_width(name, size, bold=row.kind != "step")
    drawn.bars = _bars(row, scale)
    drawn.critical = _joined(scale.many(np.array(row.critical).reshape(-1, 2)).tolist())
    if row.members:
        most = _area(drawn, scale, high - 8)
        row.remark = " · ".join(x for x in (row.remark, _AT_ONCE.format(most)) if x)
    elif not row.spans:
        drawn.point = 0.0
    _words(drawn, scale.wide + after)
    return drawn


def _joined(lines: list[list[float]]) -> list[tuple[float, float]]:
    """Draw lines as one where no gap between them can be seen."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(lines):
        if joined and start - joined[-1][1] < 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, max(end, start + _THINNEST)))
    return joined


def _bars(row: TimelineRow, scale: Scale) -> list[Bar]:
    """Place the parts of a bar; of more than can be seen, each place shows what is most of it."""
    edges = scale.many(np.array([span[:2] for span in row.spans]).reshape(-1, 2))
    if len(row.spans) <= _MOST_PARTS:
        return [
            Bar(float(start), max(float(end - start), _THINNEST), span.part, span.status)
            for span, (start, end) in zip(row.spans, edges, strict=True)
        ]
    begin, end = float(edges.min()), float(edges.max())
    count = max(int((end - begin) / _BIN), 1)
    places = np.linspace(begin, end, count + 1)
    looks = sorted({(span.part, span.status) for span in row.spans})
    filled = np.zeros((len(looks), count))
    for number, look in enumerate(looks):
        mine = edges[[(span.part, span.status) == look for span in row.spans]]
        # How much of it lies before each place; the difference is how much lies between two.
        length = np.repeat(np.cumsum(mine[:, 1] - mine[:, 0]), 2)[:-1]
        filled[number] = np.diff(np.interp(places, mine.ravel(), np.concatenate([[0.0], length])))
        if look == ("run", "ERROR"):  # never outvoted
            filled[number][filled[number] > 0] = np.inf
    most = filled.argmax(axis=0)
    starts = np.flatnonzero(np.diff(most, prepend=-1))
    ends = [*starts[1:].tolist(), count]
    return [
        Bar(float(places[one]), float(places[two] - places[one]), *looks[most[one]])
        for one, two in zip(starts.tolist(), ends, strict=True)
    ]


def _area(drawn: Drawn, scale: Scale, high: float) -> int:
    """Draw how many ran at once; return the most."""
    spans = np.array(drawn.row.members)
    starts, ends = np.sort(scale.many(spans[:, 0])), np.sort(scale.many(spans[:, 1]))
    edges = np.unique(np.concatenate([starts, ends]))
    # Exactly how many: those begun less those ended, between any two edges.
    exact = np.searchsorted(starts, edges, "right") - np.searchsorted(ends, edges, "right")
    most = max(int(exact.max(initial=0)), 1)
    begin, end = float(starts[0]), max(float(ends[-1]), float(starts[0]) + _THINNEST)
    bins = np.arange(begin, end + _BIN, _BIN)
    level = np.array(
        [
            np.searchsorted(starts, right, "left") - np.searchsorted(ends, left, "right")
            for left, right in pairwise(bins)
        ]
        or [1]
    )
    tall = np.maximum(np.minimum(level, most) / most * high, 1.0)
    parts = [f"M{begin:.1f} {high:.1f}"]
    last = -1.0
    for left, value in zip(bins, tall, strict=False):
        if value != last:
            parts.append(f"H{left:.1f}V{high - value:.1f}")
            last = float(value)
    drawn.area = "".join(parts) + f"H{end:.1f}V{high:.1f}Z"
    drawn.bars.append(Bar(begin, end - begin, "area", drawn.row.status))
    return most


def _words(drawn: Drawn, room: float) -> None:
    row = drawn.row
    drawn.words = _said(row)
    drawn.error = text.truncate_to_width(row.error, 11, _AFTER[1] / 2, bold=True)
    size = _said_width(row)
    begin = min((bar.x for bar in drawn.bars), default=0.0)
    end = max((bar.x + bar.wide for bar in drawn.bars), default=6.0)
    drawn.until = end
    if row.running:
        end += 10
    if end + size <= room + 0.1:
        drawn.words_x = end + 6
    elif begin >= size:
        drawn.words_x = begin - size + 10
    else:  # over the bar: the template draws it with an edge of the ground's colour
        drawn.words_x = room - size + 10
        if drawn.words_x < 0:  # nor over the name before the bar: cut
            drawn.words_x = 0.0
            drawn.words = text.truncate_to_width(
                drawn.words, 11, room - size + text.text_width(drawn.words, 11)
            )
    drawn.error_x = drawn.words_x + text.text_width(drawn.words, 11) + 5


def _guides(drawn: list[Drawn]) -> list[tuple[float, float, float]]:
    """Return a line down from each workflow to the last row that belongs to it."""
    guides = []
    open_rows: list[Drawn] = []
    ends: list[Drawn | None] = [*drawn, None]
    for number, each in enumerate(ends):
        depth = each.row.depth if each else 0
        while open_rows and open_rows[-1].row.depth >= depth:
            begun = open_rows.pop()
            last = drawn[number - 1]
            if last is not begun:
                guides.append((begun.x + 7, begun.y + begun.high - 3, last.y + last.high - 4))
        if each is not None and each.row.kind == "workflow" and each.row.depth < _DEEPEST:
            open_rows.append(each)
    return guides


def _tick(tick: Tick) -> str:
    if not tick.seconds:
        return "0"
    if tick.major:  # after a break: how long since the beginning
        return text.duration(tick.seconds)
    sign = "+" if tick.since != tick.seconds else ""
    return sign + text.duration(tick.since)


def _legend(drawn: list[Drawn]) -> Legend:
    from dbos_notebook.drawing.graph_svg import Legend

    legend = Legend()
    statuses = {each.row.status for each in drawn}
    for status in (*STATUSES_BY_SEVERITY, ""):
        if status in statuses:
            legend.add("status", status, status_label(status))
    parts = {bar.part for each in drawn for bar in each.bars}
    for part, said in PARTS.items():
        if part in parts:
            legend.add("part", part, said)
    if "area" in parts:
        legend.add("area", "", "how many ran at once")
    if any(each.critical for each in drawn):
        legend.add("critical", "", "critical path: what the end waited for")
    return legend
