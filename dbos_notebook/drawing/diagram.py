"""The contents of a graph's picture before layout: node cards, edges, frames, junctions."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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


def of_kind(graph: nx.DiGraph[Any], kind: str) -> list[tuple[Any, Any]]:
    """Return the (tail, head) of each edge of a kind."""
    return [(tail, head) for tail, head, data in graph.edges(data=True) if data.get("kind") == kind]


def tails(graph: nx.DiGraph[Any], head: Any, kind: str) -> list[Any]:
    """Return the nodes from which an edge of a kind leads to a node."""
    return [tail for tail in graph.pred[head] if graph.edges[tail, head].get("kind") == kind]


def heads(graph: nx.DiGraph[Any], tail: Any, kind: str) -> list[Any]:
    """Return the nodes to which an edge of a kind leads from a node."""
    return [head for head in graph.succ[tail] if graph.edges[tail, head].get("kind") == kind]


_OLDER = {"copied from the original": "copied", "from an earlier run": "earlier"}
TITLE, SMALL = 13.0, 11.0
WIDEST = 210.0
"""Room for the text of a card."""
STACK = 6.0
"""How far the cards behind a group's stick out."""
BOOKKEEPING = frozenset(OPERATIONS) - {"step", "other"}
"""Operations of DBOS itself: drawn small, because they are seldom the reason."""


@dataclass(frozen=True)
class CardLine:
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
    lines: list[CardLine]
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
    status = known_status(attributes.get("status"))
    operation = str(attributes.get("operation", "step"))
    card = Card(node_id, key, kind, status, "box", [], tooltip(key, attributes, times), None)
    card.failing = bool(attributes.get("on_failing_path"))
    card.look = card.mark = status
    card.dash, card.strong = STATUS_STYLES[status].dash, status == "ERROR"
    apply(card, attributes)
    name = text.sanitize_svg(attributes.get("name") or "", 200)
    duration = text.duration(attributes.get("duration"))
    older = times.older(key) if "function_id" in attributes else ""
    if kind == "workflow":
        _workflow_lines(card, name or "workflow", key, attributes, times)
    elif kind == "group":
        _group_lines(card, group_name(name, attributes), attributes)
    elif "function_id" not in attributes and status == "PENDING":
        card.shape, card.marked = "pill", True
        card.lines = [CardLine(f"running, {name}", SMALL, tone="status")]
    elif operation in BOOKKEEPING:
        card.shape = operation
        card.marked = (card.difference or "same") != "same" or status != "SUCCESS"
        said = _caption(graph, key, operation, name, duration)
        said = f"{said} {_OLDER[older]}".strip() if older else said
        card.lines = [CardLine(said)] if said else []
    else:
        card.shape = operation if operation == "other" else "step"
        card.lines = [
            CardLine(
                text.truncate_to_width(name or "step", TITLE, WIDEST, bold=True),
                TITLE,
                bold=True,
                tone="ink",
            ),
            CardLine(" · ".join(x for x in (_number(attributes), duration) if x)),
        ]
        if older:
            card.lines.append(CardLine(older))
    if changed := difference_label(attributes):
        fitted = text.truncate_to_width(changed, SMALL, WIDEST, bold=True)
        card.lines.append(CardLine(fitted, bold=True, tone="status"))
    else:
        _error_line(card, attributes)
    return card


def _number(attributes: dict[str, Any]) -> str:
    number = attributes.get("function_id")
    return "" if number is None else f"#{number}"


def _caption(graph: nx.DiGraph[Any], key: Any, operation: str, name: str, duration: str) -> str:
    """Say of a bookkeeping step what its shape and the links do not say already."""
    said = OPERATIONS[operation][1]
    if operation == "start_child":
        return (
            ""
            if heads(graph, key, "starts")
            else text.truncate_to_width(f"{said} {name}", SMALL, WIDEST)
        )
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
    said = (
        status_label(card.status)
        if card.status
        else text.sanitize_svg(attributes.get("status") or "", 40)
    )
    if duration:
        said += f" {'after' if card.status in TERMINAL_STATUSES else 'for'} {duration}"
    card.lines = [
        CardLine(
            text.truncate_to_width(name, TITLE, WIDEST, bold=True), TITLE, bold=True, tone="ink"
        ),
        CardLine(text.truncate_middle(text.sanitize_svg(key, 200), SMALL, WIDEST)),
        CardLine(said, SMALL, tone="status"),
    ]
    queue = attributes.get("queue_name")
    if not text.is_missing(queue):
        waits = "has waited" if run is not None and not run.over and run.began is None else "waited"
        place = text.truncate_to_width(text.sanitize_svg(queue, 60), SMALL, WIDEST - 90)
        if attributes.get("status") == "DELAYED":
            until = times.delayed(key).removeprefix("delayed ")
            card.lines.append(CardLine(text.truncate_to_width(until, SMALL, WIDEST)))
        card.lines.append(
            CardLine(f"{waits} {waited} on {place}" if waited else f"on queue {place}")
        )
    elif how := times.unstarted(key):
        # Cancelling erased which queue it was.
        card.lines += [
            CardLine(text.truncate_to_width(each, SMALL, WIDEST)) for each in how.split("; ")
        ]


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
    room = WIDEST - text.text_width(numbers, TITLE, bold=True)
    card.lines = [
        CardLine(
            numbers + text.truncate_to_width(name, TITLE, room, bold=True),
            TITLE,
            bold=True,
            tone="ink",
        )
    ]
    statuses = {str(each): int(n) for each, n in (attributes.get("statuses") or {}).items() if n}
    total = sum(statuses.values()) or 1
    order = sorted(statuses, key=severity_rank)
    card.shares = [(known_status(each), statuses[each] / total) for each in order]
    said = " · ".join(f"{statuses[each]:,} {status_label(each)}" for each in order)
    card.lines.append(CardLine(text.truncate_to_width(said, SMALL, WIDEST), tone="status"))
    inside = int(attributes.get("failures_inside") or 0)
    if inside and not any(known_status(each) == "ERROR" for each in statuses):
        card.lines.append(
            CardLine(text.plural(inside, "failure") + " inside", SMALL, bold=True, tone="ink")
        )
    low, high = attributes.get("duration_min"), attributes.get("duration_max")
    if not text.is_missing(low) and not text.is_missing(high):
        both = (text.duration(low), text.duration(high))
        card.lines.append(CardLine(both[0] if both[0] == both[1] else " – ".join(both)))


def _error_line(card: Card, attributes: dict[str, Any]) -> None:
    error = attributes.get("error_type")
    if text.is_missing(error) or not error:
        return
    # "shop.errors.PaymentDeclined": the class is what tells; the rest is in the tooltip.
    name = text.sanitize_svg(error, 300).rsplit(".", 1)[-1]
    card.lines.append(
        CardLine(text.truncate_to_width(name, SMALL, WIDEST, bold=True), bold=True, tone="status")
    )


def tooltip(key: Any, attributes: dict[str, Any], times: Times) -> str:
    """Say all that is known of a node, in lines."""
    workflow = attributes.get("workflow_id", key)
    lines = [text.sanitize_svg(attributes.get("name") or "", 500)]
    if attributes.get("kind") == "group":
        counted = text.plural(int(attributes.get("count", 0)), str(attributes.get("of", "node")))
        lines.append(f"{counted} folded into one")
        lines.append(f"open with open=[{text.sanitize_svg(attributes.get('group', ''), 200)!r}]")
        total = text.duration(attributes.get("duration_total"))
        lines += [f"{total} in all"] if total else []
    else:
        lines.append(f"workflow {text.sanitize_svg(workflow, 300)}")
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
        if text.is_missing(value) or value == "":
            continue
        if column == "executor_id" and never_ran(
            attributes.get("status"), attributes.get("recovery_attempts")
        ):
            continue
        if column in ("duration", "queue_wait"):
            value = text.duration(value)
            if times.coarse and attributes.get("kind") == "workflow":
                value = times.took(key) if column == "duration" else times.waited(key)
        elif column.endswith("_at") or column == "delay_until":
            value = text.timestamp(value)
        lines.append(f"{said}: {text.sanitize_svg(value, 200)}")
    error = [attributes.get("error_type"), attributes.get("error_message")]
    told = ": ".join(
        text.sanitize_svg(each) for each in error if not text.is_missing(each) and each
    )
    if told:
        lines.append(told)
    return "\n".join(line for line in lines if line)


def measure(card: Card) -> None:
    """Give a card the size that its lines need."""
    mark = 20 if card.marked else 0
    wide = max((text.text_width(x.text, x.size, bold=x.bold) for x in card.lines), default=0)
    badge = text.text_width(card.badge, 10, bold=True) + 8 if card.badge else 0
    slant = 20 if card.shape in BOOKKEEPING else 12
    card.width = max(30.0, mark + wide + slant + (10 if wide else 0) + badge)
    bar = 8 if card.shares else 0
    card.height = max(
        23.0, sum(line.size + 4 for line in card.lines) + bar + 8 + (2 if mark else 0)
    )


_SIDES = ("", "_second")


def apply(card: Card, attributes: dict[str, Any]) -> None:
    """Make a card one of a comparison, if its node is."""
    difference = text.sanitize_svg(attributes.get("difference") or "", 40)
    if difference not in DIFFERENCES:
        return
    card.difference = card.mark = difference
    style = DIFFERENCES[difference]
    card.look, card.dash = style.status, style.dash
    card.marked = card.marked or difference != "same"
    card.strong = difference == "changed error"


def difference_label(attributes: dict[str, Any]) -> str:
    """Say what changed: "340 ms → 1.2 s", "succeeded → CourierError"; ``""``: not to be said."""
    difference = attributes.get("difference")
    if difference in ("slower", "faster"):
        both = [text.duration(attributes.get(f"duration{side}")) for side in _SIDES]
    elif difference == "changed error":
        both = [_ended(attributes, side) for side in _SIDES]
    elif difference == "changed result":
        both = [status_label(attributes.get(f"status{side}")) for side in _SIDES]
    else:
        return ""
    return " → ".join(both) if both[0] != both[1] else str(difference)


def _ended(attributes: dict[str, Any], side: str) -> str:
    error = attributes.get(f"error_type{side}")
    if text.is_missing(error) or not error:
        return status_label(attributes.get(f"status{side}"))
    return text.sanitize_svg(error, 300).rsplit(".", 1)[-1]


def counted(graph: nx.DiGraph[Any]) -> str:
    """Count the differences of a comparison's graph, the gravest first."""
    found: Counter[str] = Counter(
        str(node["difference"])
        for node in graph.nodes.values()
        if node.get("difference") in DIFFERENCES
    )
    return " · ".join(f"{found[each]:,} {each}" for each in DIFFERENCES if found[each])


@dataclass
class Link:
    """An edge as it is drawn. ``tail`` and ``head`` are the cards' ids."""

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
    """A workflow's own ground, behind its cards."""

    id: str
    status: str
    cards: list[str]
    failing: bool = False
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass
class Scene:
    """All that a picture of a graph shows."""

    cards: dict[str, Card]
    links: list[Link]
    frames: list[Frame]
    junctions: dict[str, tuple[str | None, float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def build(graph: nx.DiGraph[Any], times: Times, critical: dict[Any, str] | None = None) -> Scene:
    """Make the scene of an execution graph.

    Parameters
    ----------
    graph
        Of ``Client.graph``, folded or not, or of ``graphs.compare``.
    times
        Of the whole graph.
    critical
        The nodes on the critical path, with the share of time that each took.
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
        card = card_of(graph, times, key, ids[key])
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
    links = [
        _link(ids[tail], ids[head], cards, attributes)
        for tail, head, attributes in graph.edges(data=True)
    ]
    _only_through_children(links)
    scene = Scene(cards, links, list(frames.values()))
    for key in joins:
        owner = graph.nodes[key].get("workflow_id")
        scene.junctions[ids[key]] = (frames[owner].id if owner in frames else None, 0.0, 0.0)
    _return_from_the_end(scene)
    _join_crowds(scene)
    for card in cards.values():
        measure(card)
    return scene


def _only_through_children(links: list[Link]) -> None:
    """Lead the critical path through a child, not past it as well."""
    into_child = {link.tail for link in links if link.critical and link.kind == "starts"}
    for link in links:
        if link.kind == "next" and link.tail in into_child:
            link.critical = False


def _inside(attributes: dict[str, Any]) -> bool:
    kind = attributes.get("kind")
    return kind == "step" or (kind == "group" and attributes.get("of") == "step")


def _link(tail: str, head: str, cards: dict[str, Card], attributes: dict[str, Any]) -> Link:
    kind = str(attributes.get("kind", "next"))
    link = Link(tail, head, kind)
    if tail in cards and head in cards:
        both = (cards[tail], cards[head])
        link.failing = kind in ("starts", "returns") and all(card.failing for card in both)
        link.failing = link.failing and not both[0].difference
        link.critical = all(card.critical for card in both)
    link.faint = attributes.get("difference") == "only in first"
    if kind == "forked_from" and not text.is_missing(attributes.get("step")):
        link.tooltip = text.sanitize_svg(f"forked from step {attributes['step']}")
    return link


def _return_from_the_end(scene: Scene) -> None:
    """Let results leave a child's frame behind its last step, not beside its first."""
    framed = {frame.id: frame for frame in scene.frames}
    followed = {link.tail for link in scene.links if link.kind in ("next", "first")}
    for link in scene.links:
        tail = scene.cards.get(link.tail)
        if link.kind == "returns" and tail is not None and tail.kind == "workflow" and tail.frame:
            last = [each for each in framed[tail.frame].cards if each not in followed]
            if last:
                link.tail, link.from_frame = last[-1], tail.frame


def _join_crowds(scene: Scene) -> None:
    """Lead many-to-many links through one junction: m + n lines instead of m × n.

    When several steps all had to end before any of several others began, each of the first is
    linked to each of the others.
    """
    heads: dict[str, list[str]] = {}
    by_pair: dict[tuple[str, str], Link] = {}
    for link in scene.links:
        if link.kind == "next" and link.tail in scene.cards and link.head in scene.cards:
            heads.setdefault(link.tail, []).append(link.head)
            by_pair[link.tail, link.head] = link
    crowds: dict[tuple[str, ...], list[str]] = {}
    for tail, found in heads.items():
        crowds.setdefault(tuple(sorted(found)), []).append(tail)
    gone: set[tuple[str, str]] = set()
    for into, out_of in crowds.items():
        if len(into) < 2 or len(out_of) < 2 or len(into) * len(out_of) <= 4:
            continue
        joint = "j" + short_id((tuple(out_of), into))[1:]
        scene.junctions[joint] = (scene.cards[into[0]].frame, 0.0, 0.0)
        pairs = [by_pair[tail, head] for tail in out_of for head in into]
        gone.update((link.tail, link.head) for link in pairs)
        for tail in out_of:
            mine = [link for link in pairs if link.tail == tail]
            scene.links.append(_joined(tail, joint, mine))
        for head in into:
            mine = [link for link in pairs if link.head == head]
            scene.links.append(_joined(joint, head, mine))
    scene.links = [link for link in scene.links if (link.tail, link.head) not in gone]


def _joined(tail: str, head: str, links: list[Link]) -> Link:
    return Link(
        tail,
        head,
        "next",
        failing=any(link.failing for link in links),
        critical=any(link.critical for link in links),
    )
