"""What a picture of a graph shows, before it is laid out: cards, links, frames, junctions.

Text is clean from here on. Positions come from ``layout``, markup from the templates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbos_notebook.pictures import words
from dbos_notebook.pictures.nodes import Card, card_of, measure, short_id
from dbos_notebook.pictures.times import Times

if TYPE_CHECKING:
    import networkx as nx


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
    if kind == "forked_from" and not words.missing(attributes.get("step")):
        link.tooltip = words.clean(f"forked from step {attributes['step']}")
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
