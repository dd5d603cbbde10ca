"""The contents of a graph's picture before layout: cards, edges, frames and junctions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook import text
from dbos_notebook.drawing.theme import DIFFERENCES, OPERATIONS
from dbos_notebook.graphs.intervals import Times
from dbos_notebook.status import (
    STATUS_STYLES,
    TERMINAL_STATUSES,
    known_status,
    severity_rank,
    status_label,
)
from dbos_notebook.tables.timing import never_ran

if TYPE_CHECKING:
    import networkx as nx


def edges_of_kind(graph: nx.DiGraph[Any], kind: str) -> list[tuple[Any, Any]]:
    """Return the edges of a kind as (tail, head)."""
    return [(tail, head) for tail, head, data in graph.edges(data=True) if data.get("kind") == kind]


def predecessors(graph: nx.DiGraph[Any], head: Any, kind: str) -> list[Any]:
    """Return the predecessors of a node along edges of a kind."""
    return [tail for tail in graph.pred[head] if graph.edges[tail, head].get("kind") == kind]


def successors(graph: nx.DiGraph[Any], tail: Any, kind: str) -> list[Any]:
    """Return the successors of a node along edges of a kind."""
    return [head for head in graph.succ[tail] if graph.edges[tail, head].get("kind") == kind]


_OLDER = {"copied from the original": "copied", "from an earlier run": "earlier"}
TITLE_SIZE, TEXT_SIZE = 13.0, 11.0
MAX_TEXT_WIDTH = 300.0
"""The maximum width of text on a card, in pixels."""
MAX_ERROR_WIDTH = 360.0
"""The maximum width of a line with an error, which is what one looks for first."""
MAX_ID_LENGTH = 36
"""IDs of at most this length, such as UUIDs, are shown whole."""
STACK_OFFSET = 6.0
"""The offset of the stacked cards behind a group's card, in pixels."""
COMPACT_OPERATIONS = frozenset(OPERATIONS) - {"step", "other"}
"""Operations of DBOS itself, drawn small because they rarely matter."""


@dataclass(frozen=True)
class CardLine:
    """A line of text on a card; ``tone`` is "ink", "muted" or "status"."""

    text: str
    size: float = TEXT_SIZE
    bold: bool = False
    tone: str = "muted"


@dataclass
class Card:
    """A drawn node. ``color_status`` is the status whose colors it has."""

    id: str
    key: Any
    kind: str
    status: str
    shape: str
    lines: list[CardLine]
    tooltip: str
    frame: str | None
    width: float = 0.0
    height: float = 0.0
    has_mark: bool = True
    failing: bool = False
    critical: bool = False
    badge: str = ""
    difference: str = ""
    color_status: str = ""
    mark: str = ""
    dash: str = ""
    bold_outline: bool = False
    shares: list[tuple[str, float]] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0


def short_id(key: Any) -> str:
    """Return a stable name for a node that is safe in SVG, DOT and HTML.

    Examples
    --------
    >>> short_id("order-17") == short_id("order-17") != short_id(("order-17", 1))
    True
    """
    # repr() distinguishes keys of different types, such as the workflow "1" and the number 1.
    digest = hashlib.blake2b(
        repr(key).encode("utf-8", "backslashreplace"), digest_size=6
    ).hexdigest()
    return f"n{digest}"


def display_name(attributes: Mapping[str, Any], max_length: int = 200) -> str:
    """Return the name of a node as pictures show it: without the module.

    Examples
    --------
    >>> display_name({"name": "acme.billing.charge_card"}), display_name({})
    ('charge_card', '')
    """
    name = str(attributes.get("name") or "")
    # Truncated first, so that a name of 100 kB costs no more than a short one.
    return text.sanitize_svg(text.leaf_name(name[: 2 * max_length]), max_length)


def display_id(key: Any, attributes: Mapping[str, Any], max_length: int = MAX_ID_LENGTH) -> str:
    """Return a workflow's ID as pictures show it: relative to its parent's, or shortened.

    Examples
    --------
    >>> display_id("order-7-9", {"parent": "order-7"}), display_id("order-7", {})
    ('…-9', 'order-7')
    """
    parent = attributes.get("parent")
    shown = text.shorten_id(str(key), max_length, parent if isinstance(parent, str) else None)
    return text.sanitize_svg(shown, 200)


def make_card(graph: nx.DiGraph[Any], times: Times, key: Any, node_id: str) -> Card:
    """Return the card of a node, without its position."""
    attributes = graph.nodes[key]
    kind = str(attributes.get("kind", "step"))
    status = known_status(attributes.get("status"))
    operation = str(attributes.get("operation", "step"))
    card = Card(node_id, key, kind, status, "box", [], tooltip(key, attributes, times), None)
    card.failing = bool(attributes.get("on_failing_path"))
    card.color_status = card.mark = status
    card.dash, card.bold_outline = STATUS_STYLES[status].dash, status == "ERROR"
    apply_difference(card, attributes)
    name = display_name(attributes)
    duration = text.duration(attributes.get("duration"))
    origin = times.origin(key) if "function_id" in attributes else ""
    if kind == "workflow":
        _workflow_lines(card, name or "workflow", key, attributes, times)
    elif kind == "group":
        _group_lines(card, name, attributes, times)
    elif "function_id" not in attributes and status == "PENDING":
        card.shape, card.has_mark = "pill", True
        card.lines = [CardLine(running_label(name, operation), TEXT_SIZE, tone="status")]
    elif operation in COMPACT_OPERATIONS:
        card.shape = operation
        card.has_mark = (card.difference or "same") != "same" or status != "SUCCESS"
        label = _caption(graph, key, operation, name, duration)
        label = f"{label} {_OLDER[origin]}".strip() if origin else label
        card.lines = [CardLine(label)] if label else []
    else:
        card.shape = operation if operation == "other" else "step"
        card.lines = [
            _fitted(name or "step", TITLE_SIZE, bold=True, tone="ink"),
            CardLine(" · ".join(x for x in (_number(attributes), duration) if x)),
        ]
        if origin:
            card.lines.append(CardLine(origin))
    if changed := difference_label(attributes):
        card.lines.append(
            _fitted(changed, bold=True, tone="status", max_width=1.5 * MAX_ERROR_WIDTH)
        )
    elif error := error_name(attributes):
        card.lines += _error_lines(error, attributes)
    return card


def running_label(name: str, operation: str) -> str:
    """Return the label of what a workflow does now.

    Examples
    --------
    >>> running_label("after step 6", "other"), running_label("waiting in step 7", "recv")
    ('running, after step 6', 'waiting in step 7, apparently for a message or an event')
    """
    if operation == "recv":
        return f"{name}, apparently for a message or an event"
    return f"running, {name}"


def _fitted(
    line: str,
    size: float = TEXT_SIZE,
    *,
    bold: bool = False,
    tone: str = "muted",
    max_width: float = MAX_TEXT_WIDTH,
) -> CardLine:
    """Return a line of a card, truncated to its maximum width."""
    return CardLine(text.truncate_to_width(line, size, max_width, bold=bold), size, bold, tone)


def _error_lines(error: str, attributes: dict[str, Any]) -> list[CardLine]:
    """Return the class of an error and, where the node stands for several, an example's message."""
    lines = [_fitted(error, bold=True, tone="status", max_width=MAX_ERROR_WIDTH)]
    message = attributes.get("error_message")
    if attributes.get("kind") == "group" and not text.is_missing(message) and message:
        example = text.sanitize_svg(message, 300)
        lines.append(_fitted(f"such as: {example}", max_width=MAX_ERROR_WIDTH))
    return lines


def _number(attributes: dict[str, Any]) -> str:
    number = attributes.get("function_id")
    return "" if number is None else f"#{number}"


def _caption(graph: nx.DiGraph[Any], key: Any, operation: str, name: str, duration: str) -> str:
    """Return what the shape and the edges of a DBOS step do not show already."""
    label = OPERATIONS[operation][1]
    if operation == "sleep" and "timeout_of" in graph.nodes[key]:
        return "timeout"  # of the step beside it; nothing slept
    if operation == "start_child":
        return (
            ""
            if successors(graph, key, "starts")
            else text.truncate_to_width(f"{label} {name}", TEXT_SIZE, MAX_TEXT_WIDTH)
        )
    if operation == "get_result":
        label = "" if predecessors(graph, key, "returns") else f"{label} a child"
    if operation in ("set_event", "stream"):
        return ""
    return " ".join(part for part in (label, duration) if part)


def _workflow_lines(
    card: Card, name: str, key: Any, attributes: dict[str, Any], times: Times
) -> None:
    card.shape = "workflow"
    duration, waited, run = times.duration(key), times.queue_wait(key), times.workflow(key)
    label = (
        status_label(card.status)
        if card.status
        else text.sanitize_svg(attributes.get("status") or "", 40)
    )
    if duration:
        label += f" {'after' if card.status in TERMINAL_STATUSES else 'for'} {duration}"
    if card.difference == "repaired":
        # The run that repaired it is what counts.
        second = _compared_duration(attributes, "_second")
        label = f"{status_label('SUCCESS')} after {second}" if second else status_label("SUCCESS")
    card.lines = [
        _fitted(name, TITLE_SIZE, bold=True, tone="ink"),
        CardLine(text.truncate_middle(display_id(key, attributes), TEXT_SIZE, MAX_TEXT_WIDTH)),
        CardLine(label, TEXT_SIZE, tone="status"),
    ]
    queue = attributes.get("queue_name")
    if not text.is_missing(queue):
        queue_label = text.truncate_to_width(
            text.sanitize_svg(queue, 60), TEXT_SIZE, MAX_TEXT_WIDTH - 90
        )
        if attributes.get("status") == "DELAYED":
            until = times.delayed(key).removeprefix("delayed ")
            card.lines.append(_fitted(until))
        waits = run is not None and not run.completed and run.started is None
        if waited and waits and run is not None and run.enqueued is not None:
            # Not for how long: a live picture is drawn again only when its run changes.
            since = pd.Timestamp(run.enqueued, unit="s", tz="UTC").round("s")
            card.lines.append(CardLine(f"waits on {queue_label}"))
            card.lines.append(_fitted(f"since {text.timestamp(since, milliseconds=False)}"))
        else:
            card.lines.append(
                CardLine(
                    f"waited {waited} on {queue_label}" if waited else f"on queue {queue_label}"
                )
            )
    elif unstarted := times.unstarted(key):
        # Cancelling erased the name of the queue.
        card.lines += map(_fitted, unstarted.split("; "))


def group_name(name: str, attributes: dict[str, Any]) -> str:
    """Return the name of a group; for DBOS's own steps, what they do."""
    operation = attributes.get("operation")
    if attributes.get("of") != "step" or operation not in COMPACT_OPERATIONS:
        return name
    label = OPERATIONS[operation][1]
    return {"start_child": f"{label} {name}", "get_result": f"{label} a child"}.get(
        operation, label
    )


def group_count(attributes: dict[str, Any]) -> str:
    """Return how many nodes a group stands for, as a prefix of its name.

    Examples
    --------
    >>> group_count({"count": 1200}), group_count({"count": 1200, "levels": 1200})
    ('1,200 × ', '1,200 levels of ')
    """
    if attributes.get("parts"):
        return ""  # its name counts each kind of member
    count = int(attributes.get("count", 0))
    return f"{count:,} levels of " if attributes.get("levels") else f"{count:,} × "


def group_title(name: str, attributes: dict[str, Any]) -> str:
    """Return what a group stands for, such as "3 × charge" or "200 × (poll → write)"."""
    name = group_name(name, attributes)
    return group_count(attributes) + (f"({name})" if " → " in name else name)


def extreme_durations(attributes: Mapping[str, Any], times: Times) -> tuple[Any, Any]:
    """Return the shortest and the longest duration of a group's members; ``None`` if unknown."""
    if times.coarse and attributes.get("of") == "workflow":
        # The recorded durations are in whole seconds; those of single workflows are refined.
        runs = filter(None, map(times.workflow, attributes.get("members") or ()))
        lasted = [run.ended - run.started for run in runs if run.started is not None]
        if lasted:
            return min(lasted), max(lasted)
    return attributes.get("duration_min"), attributes.get("duration_max")


def _refined_extremes(attributes: Mapping[str, Any], times: Times) -> tuple[str, str] | None:
    """Return the shortest and the longest duration, as the members themselves show them."""
    lasted = {
        member: run.ended - run.started
        for member in attributes.get("members") or ()
        if (run := times.workflow(member)) is not None and run.started is not None
    }
    if not lasted:
        return None
    shortest, longest = min(lasted, key=lasted.__getitem__), max(lasted, key=lasted.__getitem__)
    return times.duration(shortest), times.duration(longest)


def duration_range(attributes: dict[str, Any], times: Times) -> str:
    """Return the shortest and the longest duration of a group's members, such as "1 s – 3 s"."""
    shortest, longest = map(text.duration, extreme_durations(attributes, times))
    if times.coarse and attributes.get("of") == "workflow":
        shortest, longest = _refined_extremes(attributes, times) or (shortest, longest)
    return shortest if shortest == longest else f"{shortest} – {longest}"


def _group_lines(card: Card, name: str, attributes: dict[str, Any], times: Times) -> None:
    card.shape = "group"
    titles = [group_title(name, attributes)]
    if attributes.get("parts"):
        titles = name.split(", ")
    card.lines = [
        _fitted(title, TITLE_SIZE, bold=True, tone="ink", max_width=MAX_ERROR_WIDTH)
        for title in titles
    ]
    statuses = {
        str(status): int(n) for status, n in (attributes.get("statuses") or {}).items() if n
    }
    total = sum(statuses.values()) or 1
    order = sorted(statuses, key=severity_rank)
    card.shares = [(known_status(status), statuses[status] / total) for status in order]
    label = " · ".join(f"{statuses[status]:,} {status_label(status)}" for status in order)
    if step := attributes.get("failed_step"):
        label += f" at {text.sanitize_svg(text.leaf_name(str(step)), 200)}"
    card.lines.append(_fitted(label, tone="status", max_width=MAX_ERROR_WIDTH))
    failures = int(attributes.get("failures_inside") or 0)
    if (
        failures
        and not attributes.get("failed_step")
        and not any(known_status(status) == "ERROR" for status in statuses)
    ):
        card.lines.append(
            CardLine(text.plural(failures, "failure") + " inside", TEXT_SIZE, bold=True, tone="ink")
        )
    if durations := duration_range(attributes, times):
        card.lines.append(CardLine(durations))


def error_name(attributes: dict[str, Any], column: str = "error_type", limit: int = 300) -> str:
    """Return the class of an error without its module, such as "PaymentDeclined", or ``""``."""
    error = attributes.get(column)
    if text.is_missing(error) or not error:
        return ""
    return text.sanitize_svg(error, limit).rsplit(".", 1)[-1]


def tooltip(key: Any, attributes: dict[str, Any], times: Times) -> str:
    """Return the tooltip of a node: its attributes, one per line."""
    workflow = attributes.get("workflow_id", key)
    lines = [text.sanitize_svg(attributes.get("name") or "", 500)]
    if attributes.get("kind") == "group":
        counted = text.plural(int(attributes.get("count", 0)), str(attributes.get("of", "node")))
        lines.append(f"{counted} folded into one node")
        lines.append(f"show with open=[{text.sanitize_svg(attributes.get('group', ''), 200)!r}]")
        if step := attributes.get("failed_step"):
            lines.append(f"failed at step {text.sanitize_svg(step, 300)}")
        total = text.duration(attributes.get("duration_total"))
        lines += [f"{total} in total"] if total else []
    else:
        lines.append(f"workflow {text.sanitize_svg(workflow, 300)}")
        if "function_id" in attributes:
            lines.append(f"step {attributes['function_id']}")
    for column, label in (
        ("status", "status"),
        ("duration", "took"),
        ("queue_wait", "waited"),
        ("created_at", "created"),
        ("dequeued_at", "dequeued"),
        ("started_at", "started"),
        ("completed_at", "completed"),
        ("delay_until", "delayed until"),
        ("queue_name", "queue"),
        ("app_version", "version"),
        ("executor_id", "executor"),
        ("difference", "difference"),
    ):
        value = attributes.get(column)
        if text.is_missing(value) or value == "":
            continue
        if column == "executor_id" and never_ran(
            attributes.get("status"), attributes.get("recovery_attempts")
        ):
            continue
        if column in ("duration", "queue_wait"):
            value = text.duration(value)
            if times.coarse and attributes.get("kind") == "workflow":
                value = times.duration(key) if column == "duration" else times.queue_wait(key)
        elif column.endswith("_at") or column == "delay_until":
            value = text.timestamp(value)
        lines.append(f"{label}: {text.sanitize_svg(value, 200)}")
    error = [attributes.get("error_type"), attributes.get("error_message")]
    error_text = ": ".join(
        text.sanitize_svg(part) for part in error if not text.is_missing(part) and part
    )
    if error_text:
        attempts = attributes.get("error_attempts")
        lines.append(text.describe_failure(None, error_text, attempts))
    return "\n".join(line for line in lines if line)


def measure(card: Card) -> None:
    """Set the size of a card to fit its lines."""
    mark = 20 if card.has_mark else 0
    text_width = max((text.text_width(x.text, x.size, bold=x.bold) for x in card.lines), default=0)
    badge = text.text_width(card.badge, 10, bold=True) + 8 if card.badge else 0
    slant = 20 if card.shape in COMPACT_OPERATIONS else 12
    card.width = max(30.0, mark + text_width + slant + (10 if text_width else 0) + badge)
    bar = 8 if card.shares else 0
    card.height = max(
        23.0, sum(line.size + 4 for line in card.lines) + bar + 8 + (2 if mark else 0)
    )


_SIDES = ("", "_second")


def apply_difference(card: Card, attributes: dict[str, Any]) -> None:
    """Set the style of a card whose node is part of a comparison."""
    difference = text.sanitize_svg(attributes.get("difference") or "", 40)
    if difference not in DIFFERENCES:
        return
    card.difference = card.mark = difference
    style = DIFFERENCES[difference]
    card.color_status, card.dash = style.status, style.dash
    card.has_mark = card.has_mark or difference != "same"
    card.bold_outline = difference == "changed error"


def difference_label(attributes: dict[str, Any]) -> str:
    """Return what changed, such as "340 ms → 1.2 s"; ``""`` if there is nothing to show."""
    difference = attributes.get("difference")
    if difference in ("slower", "faster"):
        values = [_compared_duration(attributes, side) for side in _SIDES]
    elif difference in ("changed error", "repaired"):
        values = [
            error_name(attributes, f"error_type{side}")
            or status_label(attributes.get(f"status{side}"))
            for side in _SIDES
        ]
    elif difference == "changed result":
        values = [status_label(attributes.get(f"status{side}")) for side in _SIDES]
    else:
        return ""
    return " → ".join(values) if values[0] != values[1] else str(difference)


def _compared_duration(attributes: Mapping[str, Any], side: str) -> str:
    approximate = bool(attributes.get(f"approximate{side}"))
    return text.duration(attributes.get(f"duration{side}"), approximate=approximate)


def count_differences(graph: nx.DiGraph[Any]) -> str:
    """Return the number of nodes per difference of a comparison, the most severe first."""
    counts: Counter[str] = Counter(
        str(node["difference"])
        for node in graph.nodes.values()
        if node.get("difference") in DIFFERENCES
    )
    return " · ".join(
        f"{counts[difference]:,} {difference}" for difference in DIFFERENCES if counts[difference]
    )


@dataclass
class Edge:
    """A drawn edge; ``tail`` and ``head`` are the IDs of cards."""

    tail: str
    head: str
    kind: str
    tooltip: str = ""
    failing: bool = False
    critical: bool = False
    faint: bool = False
    from_frame: str | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    tip: tuple[float, float] | None = None


@dataclass
class Frame:
    """The frame of a workflow, behind its cards."""

    id: str
    status: str
    cards: list[str]
    failing: bool = False
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass
class Diagram:
    """Everything that the picture of a graph shows."""

    cards: dict[str, Card]
    edges: list[Edge]
    frames: list[Frame]
    junctions: dict[str, tuple[str | None, float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def build(graph: nx.DiGraph[Any], times: Times, critical: dict[Any, str] | None = None) -> Diagram:
    """Make the diagram of an execution graph.

    Parameters
    ----------
    graph
        An execution graph, folded or not, or the graph of a comparison.
    times
        The times of the whole graph.
    critical
        The nodes on the critical path, with the share of the time of each.
    """
    critical = critical or {}
    joins = {key for key, node in graph.nodes(data=True) if node.get("kind") == "join"}
    ids = {key: ("j" if key in joins else "n") + short_id(key)[1:] for key in graph}
    with_steps = {
        attributes.get("workflow_id")
        for _, attributes in graph.nodes(data=True)
        if _inside(attributes)
    }
    cards: dict[str, Card] = {}
    frames: dict[Any, Frame] = {}
    for key, attributes in graph.nodes(data=True):
        if key in joins:
            continue
        owner = attributes.get("workflow_id", key)
        framed = owner in with_steps and (
            _inside(attributes) or attributes.get("kind") == "workflow"
        )
        card = make_card(graph, times, key, ids[key])
        card.critical = key in critical
        card.badge = critical.get(key, "") or card.badge
        cards[card.id] = card
        if framed:
            frame = frames.setdefault(owner, Frame("f" + short_id(owner)[1:], "", []))
            frame.cards.append(card.id)
            card.frame = frame.id
            if attributes.get("kind") == "workflow":
                frame.status, frame.failing = card.status, card.failing
                if card.difference:
                    frame.status, frame.failing = "", False
    edges = [
        _link(ids[tail], ids[head], cards, attributes)
        for tail, head, attributes in graph.edges(data=True)
    ]
    _route_critical_path_through_children(edges)
    diagram = Diagram(cards, edges, list(frames.values()))
    for key in joins:
        owner = graph.nodes[key].get("workflow_id")
        diagram.junctions[ids[key]] = (frames[owner].id if owner in frames else None, 0.0, 0.0)
    _move_returns_to_last_step(diagram)
    _add_junctions(diagram)
    for card in cards.values():
        measure(card)
    return diagram


def _route_critical_path_through_children(edges: list[Edge]) -> None:
    """Draw the critical path through a child workflow only, not past it as well."""
    into_child = {edge.tail for edge in edges if edge.critical and edge.kind == "starts"}
    for edge in edges:
        if edge.kind == "next" and edge.tail in into_child:
            edge.critical = False


def _inside(attributes: dict[str, Any]) -> bool:
    kind = attributes.get("kind")
    return kind == "step" or (kind == "group" and attributes.get("of") == "step")


def _link(tail: str, head: str, cards: dict[str, Card], attributes: dict[str, Any]) -> Edge:
    kind = str(attributes.get("kind", "next"))
    edge = Edge(tail, head, kind)
    if tail in cards and head in cards:
        ends = (cards[tail], cards[head])
        edge.failing = kind in ("starts", "returns") and all(card.failing for card in ends)
        edge.failing = edge.failing and not ends[0].difference
        edge.critical = all(card.critical for card in ends)
    edge.faint = attributes.get("difference") == "only in first"
    if kind == "forked_from" and not text.is_missing(attributes.get("step")):
        edge.tooltip = text.sanitize_svg(f"forked from step {attributes['step']}")
    return edge


def _move_returns_to_last_step(diagram: Diagram) -> None:
    """Start "returns" edges at the last step of a child's frame, not at its workflow card."""
    framed = {frame.id: frame for frame in diagram.frames}
    followed = {edge.tail for edge in diagram.edges if edge.kind in ("next", "first")}
    for edge in diagram.edges:
        tail = diagram.cards.get(edge.tail)
        if edge.kind == "returns" and tail is not None and tail.kind == "workflow" and tail.frame:
            last_cards = [
                card_id for card_id in framed[tail.frame].cards if card_id not in followed
            ]
            if last_cards:
                edge.tail, edge.from_frame = last_cards[-1], tail.frame


def _add_junctions(diagram: Diagram) -> None:
    """Draw many-to-many edges through a junction: m + n lines instead of m × n.

    Where several steps all ended before any of several others started, there is an edge between
    each pair.
    """
    successors: dict[str, list[str]] = {}
    by_pair: dict[tuple[str, str], Edge] = {}
    for edge in diagram.edges:
        if edge.kind == "next" and edge.tail in diagram.cards and edge.head in diagram.cards:
            successors.setdefault(edge.tail, []).append(edge.head)
            by_pair[edge.tail, edge.head] = edge
    bundles: dict[tuple[str, ...], list[str]] = {}
    for tail, heads in successors.items():
        bundles.setdefault(tuple(sorted(heads)), []).append(tail)
    replaced: set[tuple[str, str]] = set()
    for heads_key, tails in bundles.items():
        if len(heads_key) < 2 or len(tails) < 2 or len(heads_key) * len(tails) <= 4:
            continue
        junction = "j" + short_id((tuple(tails), heads_key))[1:]
        diagram.junctions[junction] = (diagram.cards[heads_key[0]].frame, 0.0, 0.0)
        pairs = [by_pair[tail, head] for tail in tails for head in heads_key]
        replaced.update((edge.tail, edge.head) for edge in pairs)
        for tail in tails:
            merged = [edge for edge in pairs if edge.tail == tail]
            diagram.edges.append(_joined(tail, junction, merged))
        for head in heads_key:
            merged = [edge for edge in pairs if edge.head == head]
            diagram.edges.append(_joined(junction, head, merged))
    diagram.edges = [edge for edge in diagram.edges if (edge.tail, edge.head) not in replaced]


def _joined(tail: str, head: str, edges: list[Edge]) -> Edge:
    return Edge(
        tail,
        head,
        "next",
        failing=any(edge.failing for edge in edges),
        critical=any(edge.critical for edge in edges),
    )
