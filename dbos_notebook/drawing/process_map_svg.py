"""Draw a process map: a table of steps for each kind of workflow, linked to the kinds it starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dbos_notebook import text
from dbos_notebook.drawing import svg
from dbos_notebook.drawing.diagram import (
    Card,
    CardLine,
    Diagram,
    Edge,
    Frame,
    display_id,
    display_name,
    short_id,
)
from dbos_notebook.drawing.dot import to_graphviz
from dbos_notebook.drawing.legend import Legend
from dbos_notebook.drawing.picture import Drawing, Picture, picture_id
from dbos_notebook.drawing.theme import MARGIN, MIN_WIDTH, OPERATIONS
from dbos_notebook.drawing.title import Title
from dbos_notebook.drawing.transitions_svg import (
    FlowLine,
    flow_lines,
    gutter,
    place_lines,
    weight,
)
from dbos_notebook.status import (
    FAILED_STATUSES,
    STATUSES_BY_SEVERITY,
    TERMINAL_STATUSES,
    known_status,
    severity_rank,
    status_label,
)
from dbos_notebook.types import Theme

if TYPE_CHECKING:
    import graphviz
    import networkx as nx

MAX_WIDTH = 1_040.0
"""Blocks are placed side by side up to this width; wider pictures would be scaled down."""
MAX_ROWS = 14
"""A kind of workflow with more kinds of steps shows its first ones and those that failed."""
MAX_ROWS_OF_MANY = 30
"""Of many runs, which have more kinds of steps than one."""
MAX_BLOCKS = 40
MAX_ERRORS = 2
MAX_NAME_WIDTH = 280.0
NAME_SIZE, TEXT_SIZE = 12.0, 11.0
_HEADER_HEIGHT, _ROW_HEIGHT, _ERROR_HEIGHT = 23.0, 18.0, 14.0
_PADDING = 8.0
_MARK_WIDTH = 20.0
_COLUMN_GAP = 12.0
_GAP = 30.0
"""The space between blocks, for the lines that lead to them."""
_ROW_GAP = 12.0
_LEVEL_GAP = 40.0
_HEADINGS_HEIGHT = 16.0
_LANES = 5
HEADINGS = ("count", "median", "longest")
HEADINGS_OF_MANY = ("count", "median", "p95")
"""Of many runs, the longest is rarely typical."""


@dataclass
class MapRow:
    """A row of a block: the kind of workflow itself, or a kind of its steps."""

    id: str
    key: Any
    status: str
    name: str
    values: tuple[str, str, str]
    shares: list[tuple[str, float]]
    errors: list[str]
    tooltip: str
    is_header: bool
    y: float = 0.0
    height: float = 0.0


@dataclass
class MapBlock:
    """A kind of workflow with its steps; ``more`` says what is left out.

    ``flows`` are lines between its rows, in a ``gutter`` at its right; ``undrawn`` counts others.
    """

    key: Any
    rows: list[MapRow]
    more: str = ""
    parents: list[Any] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    headings: bool = False
    flows: list[FlowLine] = field(default_factory=list)
    gutter: float = 0.0
    undrawn: int = 0


@dataclass
class MapLine:
    """A line from a kind of workflow to one that it starts."""

    path: str
    tip: tuple[float, float]
    tooltip: str
    width: float = 1.2


def draw_process_map(graph: nx.DiGraph[Any], theme: Theme, max_width: float = MAX_WIDTH) -> Picture:
    """Draw a process map, as ``draw`` does, if possible at most ``max_width`` pixels wide."""

    def drawing() -> Drawing:
        return _render(graph, theme, max_width)

    def dot() -> graphviz.Digraph:
        return to_graphviz(_diagram(graph), "LR", "dark" if theme == "dark" else "light")

    return Picture(drawing, lambda: _tree(graph), dot, graph)


def blocks_of(graph: nx.DiGraph[Any]) -> list[MapBlock]:
    """Return the blocks of a process map, without positions."""
    steps: dict[str, list[Any]] = {}
    owners: dict[str, Any] = {}
    for key, node in graph.nodes.items():
        if node["of"] == "step":
            steps.setdefault(node["workflow_name"], []).append(key)
        else:
            owners[node["workflow_name"]] = key
    blocks: list[MapBlock] = []
    for name in dict.fromkeys([*owners, *steps]):
        owner, own_steps = owners.get(name), steps.get(name, [])
        shown = own_steps
        most = MAX_ROWS_OF_MANY if _is_of_many(graph) else MAX_ROWS
        if len(own_steps) > most:
            kept = set(own_steps[:most])
            failing = [key for key in own_steps if _has_failed(graph.nodes[key])][:most]
            shown = [key for key in own_steps if key in kept or key in failing]
        rows = [_row(graph, key) for key in ([owner] if owner is not None else []) + shown]
        left_out = len(own_steps) - len(shown)
        more = f"and {text.plural(left_out, 'more kind of step', 'more kinds of steps')}"
        block = MapBlock(
            owner if owner is not None else own_steps[0], rows, more if left_out else ""
        )
        if owner is not None:
            block.parents = [
                tail
                for tail, _, edge in graph.in_edges(owner, data=True)
                if edge["kind"] == "starts"
            ]
        if _is_of_many(graph):
            block.flows, block.undrawn = flow_lines(graph, [row.key for row in rows])
            block.gutter = gutter(block.flows)
        blocks.append(block)
    return blocks


def _is_of_many(graph: nx.DiGraph[Any]) -> bool:
    """Return whether it is a map of many runs, whose edges have weights."""
    return "runs" in graph.graph


def _headings(graph: nx.DiGraph[Any]) -> tuple[str, str, str]:
    return HEADINGS_OF_MANY if _is_of_many(graph) else HEADINGS


def _has_failed(node: dict[str, Any]) -> bool:
    return any(node["statuses"].get(status) for status in FAILED_STATUSES)


def _row(graph: nx.DiGraph[Any], key: Any) -> MapRow:
    node = graph.nodes[key]
    is_header = node["of"] == "workflow"
    statuses = {str(status): int(count) for status, count in node["statuses"].items() if count}
    order = sorted(statuses, key=severity_rank)
    shares = [(known_status(status), statuses[status] / node["count"]) for status in order]
    counts = ", ".join(f"{statuses[status]:,} {status_label(status) or status}" for status in order)
    failed = sum(statuses.get(status, 0) for status in FAILED_STATUSES)
    # A step that awaits a child repeats its error: the child's step has it.
    repeats = node.get("operation") == "get_result" or (is_header and _steps_failed(graph, key))
    errors = [] if repeats else list(node.get("error_types", {}).items())
    lines = [f"{count:,} × {_class_name(name)}" for name, count in errors[:MAX_ERRORS]]
    if len(errors) > MAX_ERRORS:
        others = sum(count for _, count in errors[MAX_ERRORS:])
        lines.append(f"{others:,} × {text.plural(len(errors) - MAX_ERRORS, 'other error')}")
    if is_header and (itself := graph.edges.get((key, key), {}).get("count")):
        lines.append(f"starts itself {itself:,} ×")
    name = display_name(node) or node["of"]
    if node.get("operation") not in (None, "step", "other"):
        name = {"get_result": "waits for a child"}.get(
            node["operation"], OPERATIONS[node["operation"]][1] or name
        )
    tooltip = [text.sanitize_svg(node["name"], 500), counts]
    tooltip += [f"{failed / node['count']:.0%} failed"] if failed else []
    durations = [
        f"{label} {value}"
        for label, value in (
            ("median", text.duration(node.get("duration_median"))),
            ("95th percentile", text.duration(node.get("duration_p95"))),
            ("longest", text.duration(node.get("duration_max"))),
            ("total", text.duration(node.get("duration_total"))),
        )
        if value
    ]
    tooltip += [", ".join(durations)] if durations else []
    tooltip += [f"{count:,} × {text.sanitize_svg(error, 200)}" for error, count in errors[:10]]
    return MapRow(
        short_id(key),
        key,
        known_status(order[0]) if order else "",
        name,
        (
            f"{node['count']:,}",
            text.duration(node.get("duration_median")),
            text.duration(node.get("duration_p95" if _is_of_many(graph) else "duration_max")),
        ),
        shares,
        lines,
        "\n".join(line for line in tooltip if line),
        is_header,
    )


def _class_name(error: str) -> str:
    return text.sanitize_svg(error, 200).rsplit(".", 1)[-1]


def _steps_failed(graph: nx.DiGraph[Any], key: Any) -> bool:
    """Return whether steps of a kind of workflow failed, so that they show the errors."""
    name = graph.nodes[key]["workflow_name"]
    return any(
        node["of"] == "step" and node["workflow_name"] == name and _has_failed(node)
        for node in graph.nodes.values()
    )


def levels_of(blocks: list[MapBlock]) -> list[list[MapBlock]]:
    """Return the blocks by the length of the shortest path of starts that leads to them."""
    by_key = {block.key: block for block in blocks}
    depth: dict[Any, int] = {}
    current = [
        block.key
        for block in blocks
        if not any(parent in by_key and parent != block.key for parent in block.parents)
    ] or [block.key for block in blocks[:1]]
    level = 0
    while current:
        depth.update(dict.fromkeys(current, level))
        level += 1
        current = [
            block.key
            for block in blocks
            if block.key not in depth and any(parent in current for parent in block.parents)
        ]
    for block in blocks:  # kinds that start each other in a cycle
        depth.setdefault(block.key, level)
    found: list[list[MapBlock]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for block in blocks:
        found[depth[block.key]].append(block)
    return [level for level in found if level]


def arrange(levels: list[list[MapBlock]], max_width: float = MAX_WIDTH) -> tuple[float, float]:
    """Set the positions of blocks and rows; return the width and height in pixels.

    The blocks of a level fill columns from top to bottom. A single root is in the first column of
    the level below it.
    """
    columns = _column_widths(row for level in levels for block in level for row in block.rows)
    y, width = 0.0, 0.0
    if len(levels) > 1 and len(levels[0]) == 1:
        levels = [[*levels[0], *levels[1]], *levels[2:]]
        y = 14.0  # for the lines from the root to the other columns
    for number, level in enumerate(levels):
        # Numbers of a level are below each other.
        most_gutter = max(block.gutter for block in level)
        for block in level:
            block.gutter = most_gutter
        y += (_LEVEL_GAP if number else 0) + _HEADINGS_HEIGHT
        block_width = min(_block_width(level, columns) + most_gutter, max_width - _GAP / 2)
        for block in level:
            block.width = block_width
            _place_rows(block, columns)
        most = max(1, int((max_width + _GAP) // (block_width + _GAP)))
        height = _fill_columns(level, most, y)
        width = max(width, *(block.x + block_width for block in level))
        y += height
    return width, y


def _block_width(level: list[MapBlock], columns: list[float]) -> float:
    names = [
        text.text_width(row.name, _size(row), bold=row.is_header) + _MARK_WIDTH
        for block in level
        for row in block.rows
    ]
    errors = [
        text.text_width(line, TEXT_SIZE, bold=True) + _MARK_WIDTH - sum(columns)
        for block in level
        for row in block.rows
        for line in row.errors
    ]
    name_width = min(max([90.0, *names, *errors]), MAX_NAME_WIDTH + _MARK_WIDTH)
    return name_width + sum(columns) + 2 * _PADDING


def _fill_columns(level: list[MapBlock], most: int, top: float) -> float:
    """Place blocks in at most so many columns, as low as possible; return their height."""
    heights = [block.height + _ROW_GAP for block in level]
    count = min(most, len(level))
    low, high = max(heights), sum(heights)
    while high - low > 1:  # the lowest height into which the blocks fit
        middle = (low + high) / 2
        if _columns_needed(heights, middle) <= count:
            high = middle
        else:
            low = middle
    column, y = 0, 0.0
    for block, height in zip(level, heights, strict=True):
        if y and y + height > high:
            column, y = column + 1, 0.0
        block.x, block.y = _GAP / 2 + column * (block.width + _GAP), top + y
        block.headings = not y
        y += height
    return high - _ROW_GAP


def _columns_needed(heights: list[float], limit: float) -> int:
    count, y = 1, 0.0
    for height in heights:
        if y and y + height > limit:
            count, y = count + 1, 0.0
        y += height
    return count


def _size(row: MapRow) -> float:
    return NAME_SIZE if row.is_header else TEXT_SIZE


def _column_widths(rows: Iterable[MapRow]) -> list[float]:
    widths = [text.text_width(heading, TEXT_SIZE) for heading in HEADINGS]
    for row in rows:
        for number, value in enumerate(row.values):
            size = text.text_width(value, TEXT_SIZE, bold=row.is_header)
            widths[number] = max(widths[number], size)
    return [width + _COLUMN_GAP for width in widths]


def _place_rows(block: MapBlock, columns: list[float]) -> None:
    y = 4.0
    available = block.width - 2 * _PADDING - block.gutter
    for row in block.rows:
        row.y = y
        size = _size(row) * (1.12 if row.is_header else 1)
        # Half a pixel more, so that the widest name is not truncated due to rounding.
        row.name = text.truncate_middle(row.name, size, available - sum(columns) - 19.5)
        row.errors = [
            text.truncate_to_width(line, TEXT_SIZE, available - _MARK_WIDTH, bold=True)
            for line in row.errors
        ]
        row.height = _HEADER_HEIGHT if row.is_header else _ROW_HEIGHT
        row.height += _ERROR_HEIGHT * len(row.errors)
        y += row.height
    block.height = y + (_ROW_HEIGHT if block.more else 2)
    centers = [row.y + (10 if row.is_header else 8) for row in block.rows]
    place_lines(block.flows, centers, block.width - _PADDING - block.gutter)


def _connections(graph: nx.DiGraph[Any], levels: list[list[MapBlock]]) -> list[MapLine]:
    """Return the lines to the blocks of each level, through the gaps at the left of blocks."""
    n = svg.format_number
    connections: list[MapLine] = []
    starts = [edge["count"] for *_, edge in graph.edges.data() if edge["kind"] == "starts"]
    for above, level in pairwise(levels):
        by_key = {block.key: (lane % _LANES, block) for lane, block in enumerate(above)}
        top = min(block.y for block in [*level, *(above if len(above) == 1 else ())])
        for block in level:
            for parent_key in block.parents:
                if parent_key not in by_key:
                    continue
                lane, parent = by_key[parent_key]
                bus = top - _HEADINGS_HEIGHT - 8 - lane * 5
                out, into = parent.x - 8 - lane * 2, block.x - 8 - lane * 2
                start = parent.y + (16 if bus < parent.y else parent.height - 10)
                end = block.y + _HEADER_HEIGHT / 2 + 1
                if len(above) == 1 and block.x > parent.x and bus < parent.y:
                    # Beside the root: from its right, over the columns between them if any.
                    right = parent.x + parent.width
                    start = parent.y + _HEADER_HEIGHT / 2 + 1
                    path = f"M{n(right)} {n(start)}H{n(right + _GAP / 2)}"
                    if into > right + _GAP:
                        path += f"V{n(bus)}H{n(into)}"
                else:
                    path = f"M{n(parent.x)} {n(start)}H{n(out)}"
                    path += "" if out == into and start < end else f"V{n(bus)}H{n(into)}"
                path += f"V{n(end)}H{n(block.x - 5)}"
                count = graph.edges[parent_key, block.key]["count"]
                tooltip = f"{_name(graph, parent_key)} starts {count:,} × {_name(graph, block.key)}"
                line = MapLine(path, (block.x, end), tooltip)
                if _is_of_many(graph):
                    line.width = weight(count, max(starts)) * 0.75
                connections.append(line)
    return connections


def _name(graph: nx.DiGraph[Any], key: Any) -> str:
    return display_name(graph.nodes[key])


def _render(graph: nx.DiGraph[Any], theme: Theme, max_width: float) -> Drawing:
    blocks = blocks_of(graph)
    left_out = len(blocks) - MAX_BLOCKS
    levels = levels_of(blocks[:MAX_BLOCKS])
    map_width, map_height = arrange(levels, max_width)
    width = max(map_width + 2 * MARGIN, min(MIN_WIDTH, max_width))
    title = _title(graph, left_out, sum(block.undrawn for block in blocks)).fitted(
        width - 2 * MARGIN
    )
    legend = Legend()
    statuses = {status for block in blocks for row in block.rows for status, _ in row.shares}
    for status in (*STATUSES_BY_SEVERITY, ""):
        if status in statuses:
            legend.add("status", status, status_label(status))
    legend.add("share", "", "share of each outcome")
    legend.arrange(width - 2 * MARGIN)
    shown = [row for level in levels for block in level for row in block.rows]
    picture = picture_id("m", graph, [row.id for row in shown], title, theme)
    top = 64.0
    markup = svg.render(
        "process_map.svg.j2",
        theme,
        picture,
        title=title,
        blocks=[block for level in levels for block in level],
        connections=_connections(graph, levels),
        legend=legend,
        width=width,
        height=top + map_height + 26 + legend.height,
        left=MARGIN,
        top=top,
        headings=_headings(graph),
        columns=_column_widths(shown),
        padding=_PADDING,
        mark_width=_MARK_WIDTH,
        NAME_SIZE=NAME_SIZE,
        TEXT_SIZE=TEXT_SIZE,
    )
    return Drawing(markup, {f"{picture}-{row.id}": row.key for row in shown}, title.label)


def _title(graph: nx.DiGraph[Any], left_out: int, undrawn: int) -> Title:
    root = graph.graph.get("root")
    key = next(
        (key for key, node in graph.nodes.items() if root is not None and root in node["members"]),
        None,
    )
    node = graph.nodes[key] if key is not None else {}
    name = display_name(node) or "workflows"
    status = known_status(node.get("status")) if node.get("count") == 1 else ""
    outcome = status_label(status) if status else ""
    lasted = text.duration(node.get("duration_max")) if status else ""
    if lasted:
        outcome += f" {'after' if status in TERMINAL_STATUSES else 'for'} {lasted}"
    counts = {
        of: (sum(each["count"] for each in nodes), len(nodes))
        for of in ("workflow", "step")
        if (nodes := [each for each in graph.nodes.values() if each["of"] == of])
    }
    facts = [
        f"{text.plural(total, of)} of {text.plural(kinds, 'kind')}"
        for of, (total, kinds) in counts.items()
    ]
    facts = facts or ["no workflows"]
    if left_out > 0:
        facts.append(f"{text.plural(left_out, 'kind')} of workflows not shown")
    if undrawn:
        facts.append(f"{text.plural(undrawn, 'rarer transition')} not drawn")
    if rare := graph.graph.get("left_out"):
        words = {"steps": "kind of step", "failures": "failure in them", "edges": "transition"}
        plurals = {"steps": "kinds of steps", "failures": "failures in them"}
        counts_left = (text.plural(rare[w], words[w], plurals.get(w)) for w in words if w in rare)
        facts.append(f"left out as rare: {', '.join(counts_left)}")
    full_name = text.sanitize_svg(node.get("name") or name, 200)
    facts_text = " · ".join(facts)
    return Title(
        name,
        "" if root is None else display_id(root, {}),
        status,
        outcome,
        facts_text,
        "",
        text.sanitize_svg(f"Process map of {full_name} {'' if root is None else root}"),
        text.sanitize_svg(f"{outcome} · {facts_text}"),
    )


def _diagram(graph: nx.DiGraph[Any]) -> Diagram:
    """Return a process map as a diagram, for DOT."""
    cards: dict[str, Card] = {}
    frames: list[Frame] = []
    for block in blocks_of(graph):
        frame = Frame("f" + short_id(block.key)[1:], block.rows[0].status, [])
        for row in block.rows:
            card = Card(row.id, row.key, "aggregate", row.status, "step", [], row.tooltip, frame.id)
            card.color_status = row.status
            numbers = " · ".join(value for value in row.values if value)
            card.lines = [CardLine(row.name, bold=True), CardLine(numbers)]
            cards[row.id] = card
            frame.cards.append(row.id)
        frames.append(frame)
    edges = [
        Edge(short_id(tail), short_id(head), edge["kind"])
        for tail, head, edge in graph.edges(data=True)
        if short_id(tail) in cards and short_id(head) in cards and edge["kind"] != "returns"
    ]
    return Diagram(cards, edges, frames)


def _tree(graph: nx.DiGraph[Any]) -> str:
    """Return a process map as indented text."""
    lines = []
    for level, blocks in enumerate(levels_of(blocks_of(graph))):
        for block in blocks:
            for row in block.rows:
                indent = "  " * (level + (not row.is_header))
                statuses = ", ".join(
                    f"{count:,} {status_label(status)}"
                    for status, count in graph.nodes[row.key]["statuses"].items()
                )
                median, other = row.values[1:]
                times = f"median {median}, {_headings(graph)[2]} {other}" if median else ""
                parts = [f"{row.values[0]} × {row.name}", statuses, times, *row.errors]
                lines.append(indent + "  ".join(part for part in parts if part))
            if block.more:
                lines.append("  " * (level + 1) + block.more)
    return "\n".join(lines)
