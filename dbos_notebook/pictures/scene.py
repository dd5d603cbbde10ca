"""What a picture of a graph shows, before it is laid out: cards, links, frames, words.

Text is clean from here on. Positions come from ``layout``, markup from the templates.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbos_notebook.pictures import words
from dbos_notebook.pictures.theme import GRAVEST, OPERATIONS, SAID, known

if TYPE_CHECKING:
    import networkx as nx

TITLE, SMALL = 13.0, 11.0
WIDEST = 210.0
"""Room for the text of a card."""
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
    """A node as it is drawn."""

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
    shares: list[tuple[str, float]] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0


@dataclass
class Link:
    """An edge as it is drawn. ``tail`` and ``head`` are the cards' ids."""

    tail: str
    head: str
    kind: str
    tooltip: str = ""
    failing: bool = False
    critical: bool = False
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


def build(graph: nx.DiGraph[Any], critical: dict[Any, str] | None = None) -> Scene:
    """Make the scene of an execution graph.

    Parameters
    ----------
    graph
        Of ``Client.graph``, folded or not, or of ``graphs.compare``.
    critical
        The nodes on the critical path, with the share of time that each took.
    """
    critical = critical or {}
    ids = {key: short_id(key) for key in graph}
    with_steps = {
        attributes.get("workflow_id")
        for _, attributes in graph.nodes(data=True)
        if _inside(attributes)
    }
    cards: dict[str, Card] = {}
    frames: dict[Any, Frame] = {}
    for key, attributes in graph.nodes(data=True):
        owner = attributes.get("workflow_id", key)
        framed = owner in with_steps and (
            _inside(attributes) or attributes.get("kind") == "workflow"
        )
        card = _card(graph, key, attributes, ids[key])
        card.critical = key in critical
        card.badge = critical.get(key, "") or card.badge
        cards[card.id] = card
        if framed:
            frame = frames.setdefault(owner, Frame("f" + short_id(owner)[1:], "", []))
            frame.cards.append(card.id)
            card.frame = frame.id
            if attributes.get("kind") == "workflow":
                frame.status, frame.failing = card.status, card.failing
    links = [
        _link(cards[ids[tail]], cards[ids[head]], attributes)
        for tail, head, attributes in graph.edges(data=True)
    ]
    scene = Scene(cards, links, list(frames.values()))
    _return_from_the_end(scene)
    _join_crowds(scene)
    for card in cards.values():
        _measure(card)
    return scene


def _inside(attributes: dict[str, Any]) -> bool:
    kind = attributes.get("kind")
    return kind == "step" or (kind == "group" and attributes.get("of") == "step")


def _link(tail: Card, head: Card, attributes: dict[str, Any]) -> Link:
    kind = str(attributes.get("kind", "next"))
    link = Link(tail.id, head.id, kind)
    link.failing = tail.failing and head.failing and kind in ("first", "next", "starts", "returns")
    link.critical = tail.critical and head.critical
    if kind == "forked_from" and not words.missing(attributes.get("step")):
        link.tooltip = words.clean(f"forked from step {attributes['step']}")
    return link


def _return_from_the_end(scene: Scene) -> None:
    """Let results leave a child's frame behind its last step, not beside its first."""
    framed = {frame.id: frame for frame in scene.frames}
    followed = {link.tail for link in scene.links if link.kind in ("next", "first")}
    for link in scene.links:
        tail = scene.cards[link.tail]
        if link.kind == "returns" and tail.kind == "workflow" and tail.frame:
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
        if link.kind == "next":
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
    scene.links = [
        link for link in scene.links if link.kind != "next" or (link.tail, link.head) not in gone
    ]


def _joined(tail: str, head: str, links: list[Link]) -> Link:
    return Link(
        tail,
        head,
        "next",
        failing=any(link.failing for link in links),
        critical=any(link.critical for link in links),
    )


def _card(graph: nx.DiGraph[Any], key: Any, attributes: dict[str, Any], node_id: str) -> Card:
    kind = str(attributes.get("kind", "step"))
    status = known(attributes.get("status"))
    operation = str(attributes.get("operation", "step"))
    card = Card(node_id, key, kind, status, "box", [], tooltip(key, attributes), None)
    card.failing = bool(attributes.get("on_failing_path"))
    card.difference = words.clean(attributes.get("difference") or "", 40)
    name = words.clean(attributes.get("name") or "", 200)
    duration = words.took(attributes.get("duration"))
    if kind == "workflow":
        _workflow_lines(card, name or "workflow", key, attributes, duration)
    elif kind == "group":
        _group_lines(card, name, attributes)
    elif isinstance(key, tuple) and key[-1:] == ("running",):
        card.shape, card.marked = "pill", True
        card.lines = [Line(f"running, {name}", SMALL, tone="status")]
    elif operation in BOOKKEEPING:
        card.shape, card.marked = operation, status != "SUCCESS"
        said = _said(graph, key, operation, name, duration)
        card.lines = [Line(said)] if said else []
    else:
        card.shape = operation if operation == "other" else "step"
        card.lines = [
            Line(words.fit(name or "step", TITLE, WIDEST, bold=True), TITLE, True, "ink"),
            Line(" · ".join(x for x in (_number(key), duration) if x)),
        ]
    _error_line(card, attributes)
    if card.difference and card.difference != "same":
        card.lines.append(Line(card.difference, SMALL, bold=True, tone="ink"))
    return card


def _number(key: Any) -> str:
    return f"#{key[1]}" if isinstance(key, tuple) and isinstance(key[1], int) else ""


def _said(graph: nx.DiGraph[Any], key: Any, operation: str, name: str, duration: str) -> str:
    """Say of a bookkeeping step what its shape and the links do not say already."""
    said = OPERATIONS[operation][1]
    if operation == "start_child":
        linked = any(kind == "starts" for _, _, kind in graph.out_edges(key, data="kind"))
        return "" if linked else words.fit(f"{said} {name}", SMALL, WIDEST)
    if operation == "get_result":
        linked = any(kind == "returns" for _, _, kind in graph.in_edges(key, data="kind"))
        said = "" if linked else f"{said} a child"
    if operation in ("set_event", "stream"):
        return ""
    return " ".join(part for part in (said, duration) if part)


def _workflow_lines(
    card: Card, name: str, key: Any, attributes: dict[str, Any], duration: str
) -> None:
    card.shape = "workflow"
    said = SAID[card.status] if card.status else words.clean(attributes.get("status") or "", 40)
    if duration:
        ended = card.status in ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
        said += f" {'after' if ended else 'for'} {duration}"
    card.lines = [
        Line(words.fit(name, TITLE, WIDEST, bold=True), TITLE, bold=True, tone="ink"),
        Line(words.fit_ends(words.clean(key, 200), SMALL, WIDEST)),
        Line(said, SMALL, tone="status"),
    ]
    created, dequeued = attributes.get("created_at"), attributes.get("dequeued_at")
    queue = attributes.get("queue_name")
    if not words.missing(queue):
        waited = ""
        if not words.missing(created) and not words.missing(dequeued):
            waited = words.took(dequeued - created)
        place = words.fit(words.clean(queue, 60), SMALL, WIDEST - 90)
        card.lines.append(Line(f"waited {waited} on {place}" if waited else f"on queue {place}"))


def _group_lines(card: Card, name: str, attributes: dict[str, Any]) -> None:
    card.shape = "group"
    count = int(attributes.get("count", 0))
    numbers = f"{count:,} × "
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


def tooltip(key: Any, attributes: dict[str, Any]) -> str:
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
        if isinstance(key, tuple) and isinstance(key[1], int):
            lines.append(f"step {key[1]}")
    for column, said in (
        ("status", "status"),
        ("duration", "took"),
        ("created_at", "created"),
        ("dequeued_at", "dequeued"),
        ("started_at", "started"),
        ("completed_at", "completed"),
        ("queue_name", "queue"),
        ("app_version", "version"),
        ("executor_id", "executor"),
        ("difference", "difference"),
    ):
        value = attributes.get(column)
        if words.missing(value) or value == "":
            continue
        if column == "duration":
            value = words.took(value)
        elif column.endswith("_at"):
            value = words.moment(value)
        lines.append(f"{said}: {words.clean(value, 200)}")
    error = [attributes.get("error_type"), attributes.get("error_message")]
    told = ": ".join(words.clean(each) for each in error if not words.missing(each) and each)
    if told:
        lines.append(told)
    return "\n".join(line for line in lines if line)


def _measure(card: Card) -> None:
    mark = 20 if card.marked else 0
    wide = max((words.width(x.text, x.size, bold=x.bold) for x in card.lines), default=0)
    badge = words.width(card.badge, 10, bold=True) + 8 if card.badge else 0
    slant = 20 if card.shape in BOOKKEEPING else 12
    card.width = max(30.0, mark + wide + slant + (10 if wide else 0) + badge)
    bar = 8 if card.shares else 0
    card.height = max(23.0, sum(line.size + 4 for line in card.lines) + bar + 8 + (2 if mark else 0))
