"""A node as a card: the lines on it, its size, and what is said when one points at it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbos_notebook.pictures import differences, words
from dbos_notebook.pictures.edges import heads, tails
from dbos_notebook.pictures.theme import DASHES, ENDED, GRAVEST, OPERATIONS, SAID, known
from dbos_notebook.pictures.times import Times
from dbos_notebook.tables.timing import never_ran

if TYPE_CHECKING:
    import networkx as nx

_OLDER = {"copied from the original": "copied", "from an earlier run": "earlier"}
TITLE, SMALL = 13.0, 11.0
WIDEST = 210.0
"""Room for the text of a card."""
STACK = 6.0
"""How far the cards behind a group's stick out."""
BOOKKEEPING = frozenset(OPERATIONS) - {"step", "other"}
"""Operations of DBOS itself: drawn small, because they are seldom the reason."""


@dataclass(frozen=True)
class Line:
    """A line of text on a card. ``tone``: "ink", "muted", or "status"."""

    text: str
    size: float = SMALL
    bold: bool = False
    tone: str = "muted"


@dataclass
class Card:
    """A node as it is drawn. ``look`` is the status that its colours are of."""

    id: str
    key: Any
    kind: str
    status: str
    shape: str
    lines: list[Line]
    tooltip: str
    frame: str | None
    width: float = 0.0
    height: float = 0.0
    marked: bool = True
    failing: bool = False
    critical: bool = False
    badge: str = ""
    difference: str = ""
    look: str = ""
    mark: str = ""
    dash: str = ""
    strong: bool = False
    shares: list[tuple[str, float]] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0


def short_id(key: Any) -> str:
    """Name a node so that any ID is safe in SVG, DOT and HTML, and the same each time.

    Examples
    --------
    >>> short_id("order-17") == short_id("order-17") != short_id(("order-17", 1))
    True
    """
    # By type too: the workflow "1" is not the step 1. repr() tells such keys apart.
    digest = hashlib.blake2b(
        repr(key).encode("utf-8", "backslashreplace"), digest_size=6
    ).hexdigest()
    return f"n{digest}"


def card_of(graph: nx.DiGraph[Any], times: Times, key: Any, node_id: str) -> Card:
    """Return the card of a node, without its place."""
    attributes = graph.nodes[key]
    kind = str(attributes.get("kind", "step"))
    status = known(attributes.get("status"))
    operation = str(attributes.get("operation", "step"))
    card = Card(node_id, key, kind, status, "box", [], tooltip(key, attributes, times), None)
    card.failing = bool(attributes.get("on_failing_path"))
    card.look = card.mark = status
    card.dash, card.strong = DASHES[status], status == "ERROR"
    differences.apply(card, attributes)
    name = words.clean(attributes.get("name") or "", 200)
    duration = words.took(attributes.get("duration"))
    older = times.older(key) if "function_id" in attributes else ""
    if kind == "workflow":
        _workflow_lines(card, name or "workflow", key, attributes, times)
    elif kind == "group":
        _group_lines(card, group_name(name, attributes), attributes)
    elif "function_id" not in attributes and status == "PENDING":
        card.shape, card.marked = "pill", True
        card.lines = [Line(f"running, {name}", SMALL, tone="status")]
    elif operation in BOOKKEEPING:
        card.shape = operation
        card.marked = (card.difference or "same") != "same" or status != "SUCCESS"
        said = _said(graph, key, operation, name, duration)
        said = f"{said} {_OLDER[older]}".strip() if older else said
        card.lines = [Line(said)] if said else []
    else:
        card.shape = operation if operation == "other" else "step"
        card.lines = [
            Line(words.fit(name or "step", TITLE, WIDEST, bold=True), TITLE, bold=True, tone="ink"),
            Line(" · ".join(x for x in (_number(attributes), duration) if x)),
        ]
        if older:
            card.lines.append(Line(older))
    if changed := differences.said(attributes):
        fitted = words.fit(changed, SMALL, WIDEST, bold=True)
        card.lines.append(Line(fitted, bold=True, tone="status"))
    else:
        _error_line(card, attributes)
    return card


def _number(attributes: dict[str, Any]) -> str:
    number = attributes.get("function_id")
    return "" if number is None else f"#{number}"


def _said(graph: nx.DiGraph[Any], key: Any, operation: str, name: str, duration: str) -> str:
    """Say of a bookkeeping step what its shape and the links do not say already."""
    said = OPERATIONS[operation][1]
    if operation == "start_child":
        return "" if heads(graph, key, "starts") else words.fit(f"{said} {name}", SMALL, WIDEST)
    if operation == "get_result":
        said = "" if tails(graph, key, "returns") else f"{said} a child"
    if operation in ("set_event", "stream"):
        return ""
    return " ".join(part for part in (said, duration) if part)


def _workflow_lines(
    card: Card, name: str, key: Any, attributes: dict[str, Any], times: Times
) -> None:
    card.shape = "workflow"
    duration, waited, run = times.took(key), times.waited(key), times.workflow(key)
    said = SAID[card.status] if card.status else words.clean(attributes.get("status") or "", 40)
    if duration:
        said += f" {'after' if card.status in ENDED else 'for'} {duration}"
    card.lines = [
        Line(words.fit(name, TITLE, WIDEST, bold=True), TITLE, bold=True, tone="ink"),
        Line(words.fit_ends(words.clean(key, 200), SMALL, WIDEST)),
        Line(said, SMALL, tone="status"),
    ]
    queue = attributes.get("queue_name")
    if not words.missing(queue):
        waits = "has waited" if run is not None and not run.over and run.began is None else "waited"
        place = words.fit(words.clean(queue, 60), SMALL, WIDEST - 90)
        if attributes.get("status") == "DELAYED":
            until = times.delayed(key).removeprefix("delayed ")
            card.lines.append(Line(words.fit(until, SMALL, WIDEST)))
        card.lines.append(Line(f"{waits} {waited} on {place}" if waited else f"on queue {place}"))
    elif how := times.unstarted(key):
        # Cancelling erased which queue it was.
        card.lines += [Line(words.fit(each, SMALL, WIDEST)) for each in how.split("; ")]


def group_name(name: str, attributes: dict[str, Any]) -> str:
    """Name what a group holds: of DBOS's own steps, what they do."""
    operation = attributes.get("operation")
    if attributes.get("of") != "step" or operation not in BOOKKEEPING:
        return name
    said = OPERATIONS[operation][1]
    return {"start_child": f"{said} {name}", "get_result": f"{said} a child"}.get(operation, said)


def group_count(attributes: dict[str, Any]) -> str:
    """Say how many a group stands for, to be put before its name.

    Examples
    --------
    >>> group_count({"count": 1200}), group_count({"count": 1200, "levels": 1200})
    ('1,200 × ', '1,200 levels of ')
    """
    count = int(attributes.get("count", 0))
    return f"{count:,} levels of " if attributes.get("levels") else f"{count:,} × "


def _group_lines(card: Card, name: str, attributes: dict[str, Any]) -> None:
    card.shape = "group"
    numbers = group_count(attributes)
    room = WIDEST - words.width(numbers, TITLE, bold=True)
    card.lines = [
        Line(numbers + words.fit(name, TITLE, room, bold=True), TITLE, bold=True, tone="ink")
    ]
    statuses = {str(each): int(n) for each, n in (attributes.get("statuses") or {}).items() if n}
    total = sum(statuses.values()) or 1
    order = sorted(statuses, key=lambda each: GRAVEST.index(known(each)))
    card.shares = [(known(each), statuses[each] / total) for each in order]
    said = " · ".join(f"{statuses[each]:,} {SAID[known(each)]}" for each in order)
    card.lines.append(Line(words.fit(said, SMALL, WIDEST), tone="status"))
    inside = int(attributes.get("failures_inside") or 0)
    if inside and not any(known(each) == "ERROR" for each in statuses):
        card.lines.append(
            Line(words.count(inside, "failure") + " inside", SMALL, bold=True, tone="ink")
        )
    low, high = attributes.get("duration_min"), attributes.get("duration_max")
    if not words.missing(low) and not words.missing(high):
        both = (words.took(low), words.took(high))
        card.lines.append(Line(both[0] if both[0] == both[1] else " – ".join(both)))


def _error_line(card: Card, attributes: dict[str, Any]) -> None:
    error = attributes.get("error_type")
    if words.missing(error) or not error:
        return
    # "shop.errors.PaymentDeclined": the class is what tells; the rest is in the tooltip.
    name = words.clean(error, 300).rsplit(".", 1)[-1]
    card.lines.append(Line(words.fit(name, SMALL, WIDEST, bold=True), bold=True, tone="status"))


def tooltip(key: Any, attributes: dict[str, Any], times: Times) -> str:
    """Say all that is known of a node, in lines."""
    workflow = attributes.get("workflow_id", key)
    lines = [words.clean(attributes.get("name") or "", 500)]
    if attributes.get("kind") == "group":
        counted = words.count(int(attributes.get("count", 0)), str(attributes.get("of", "node")))
        lines.append(f"{counted} folded into one")
        lines.append(f"open with open=[{words.clean(attributes.get('group', ''), 200)!r}]")
        total = words.took(attributes.get("duration_total"))
        lines += [f"{total} in all"] if total else []
    else:
        lines.append(f"workflow {words.clean(workflow, 300)}")
        if "function_id" in attributes:
            lines.append(f"step {attributes['function_id']}")
    for column, said in (
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
        if words.missing(value) or value == "":
            continue
        if column == "executor_id" and never_ran(
            attributes.get("status"), attributes.get("recovery_attempts")
        ):
            continue
        if column in ("duration", "queue_wait"):
            value = words.took(value)
            if times.coarse and attributes.get("kind") == "workflow":
                value = times.took(key) if column == "duration" else times.waited(key)
        elif column.endswith("_at") or column == "delay_until":
            value = words.moment(value)
        lines.append(f"{said}: {words.clean(value, 200)}")
    error = [attributes.get("error_type"), attributes.get("error_message")]
    told = ": ".join(words.clean(each) for each in error if not words.missing(each) and each)
    if told:
        lines.append(told)
    return "\n".join(line for line in lines if line)


def measure(card: Card) -> None:
    """Give a card the size that its lines need."""
    mark = 20 if card.marked else 0
    wide = max((words.width(x.text, x.size, bold=x.bold) for x in card.lines), default=0)
    badge = words.width(card.badge, 10, bold=True) + 8 if card.badge else 0
    slant = 20 if card.shape in BOOKKEEPING else 12
    card.width = max(30.0, mark + wide + slant + (10 if wide else 0) + badge)
    bar = 8 if card.shares else 0
    card.height = max(
        23.0, sum(line.size + 4 for line in card.lines) + bar + 8 + (2 if mark else 0)
    )
