"""How the picture of a comparison shows what differs: marks, colours and lines of the cards."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dbos_notebook.pictures import words
from dbos_notebook.pictures.theme import SAID, known

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.pictures.nodes import Card

# The status whose colours a difference has, and the dashes of its outline.
LOOKS = {
    "changed error": ("ERROR", ""),
    "changed result": ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", ""),
    "slower": ("ENQUEUED", ""),
    "faster": ("SUCCESS", ""),
    "only in first": ("CANCELLED", "5 3"),
    "only in second": ("PENDING", ""),
    "same": ("", ""),
}
_SIDES = ("", "_second")


def apply(card: Card, attributes: dict[str, Any]) -> None:
    """Make a card one of a comparison, if its node is."""
    difference = words.clean(attributes.get("difference") or "", 40)
    if difference not in LOOKS:
        return
    card.difference = card.mark = difference
    card.look, card.dash = LOOKS[difference]
    card.marked = card.marked or difference != "same"
    card.strong = difference == "changed error"


def said(attributes: dict[str, Any]) -> str:
    """Say what changed: "340 ms → 1.2 s", "succeeded → CourierError"; ``""``: not to be said."""
    difference = attributes.get("difference")
    if difference in ("slower", "faster"):
        both = [words.took(attributes.get(f"duration{side}")) for side in _SIDES]
    elif difference == "changed error":
        both = [_ended(attributes, side) for side in _SIDES]
    elif difference == "changed result":
        both = [SAID[known(attributes.get(f"status{side}"))] for side in _SIDES]
    else:
        return ""
    return " → ".join(both) if both[0] != both[1] else str(difference)


def _ended(attributes: dict[str, Any], side: str) -> str:
    error = attributes.get(f"error_type{side}")
    if words.missing(error) or not error:
        return SAID[known(attributes.get(f"status{side}"))]
    return words.clean(error, 300).rsplit(".", 1)[-1]


def counted(graph: nx.DiGraph[Any]) -> str:
    """Count the differences of a comparison's graph, the gravest first."""
    found: Counter[str] = Counter(
        str(node["difference"]) for node in graph.nodes.values() if node.get("difference") in LOOKS
    )
    return " · ".join(f"{found[each]:,} {each}" for each in LOOKS if found[each])
