"""Which node of one run is which of another: the same step, or the same child."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

from dbos_notebook.graphs.shapes import Key, Source

T = TypeVar("T")
MOST_COMPARED = 1_000_000
"""Sequences whose lengths multiply to more are paired by counting, not by the best alignment."""


class Pair(NamedTuple):
    """A node of the first run and the one of the second that it is; one may be missing."""

    first: Key | None
    second: Key | None
    depth: int


def pairs(first: Source, second: Source) -> Iterator[Pair]:
    """Pair the nodes of two runs, from their roots down: a workflow, its steps, their children."""
    # An explicit stack: trees may be deeper than Python's.
    waiting: list[Iterator[Pair | tuple[str | None, str | None, int]]] = []
    waiting.append(iter([(first.root, second.root, 0)]))
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif isinstance(found, Pair):
            yield found
        else:
            yield Pair(*found)
            waiting.append(_within(first, second, *found))


def _within(
    first: Source, second: Source, one: str | None, other: str | None, depth: int
) -> Iterator[Pair | tuple[str | None, str | None, int]]:
    """Pair what two workflows hold: steps, each followed by the children that it started."""
    mine, theirs = _children(first, one), _children(second, other)
    for step, match in aligned(_steps(first, one), _steps(second, other)):
        yield Pair(step, match, depth + 1)
        # Those under None were started by no step, also not by one that the other run lacks.
        started = mine.pop(step, ()) if step is not None else ()
        others = theirs.pop(match, ()) if match is not None else ()
        for child, twin in zip_longest(started, others):
            yield child, twin, depth + 1
    for child, twin in aligned(_named(first, mine), _named(second, theirs)):
        yield child, twin, depth + 1


def _steps(source: Source, workflow_id: str | None) -> dict[Key, Hashable]:
    if workflow_id is None:
        return {}
    return {step: source.like(step) for step in source.steps_of.get(workflow_id, ())}


def _children(source: Source, workflow_id: str | None) -> dict[Key | None, list[str]]:
    """Return a workflow's children by the step that started them; ``None`` where none did."""
    found: dict[Key | None, list[str]] = {}
    if workflow_id is not None:
        for child in source.children_of.get(workflow_id, ()):
            found.setdefault(source.starter.get(child), []).append(child)
    return found


def _named(source: Source, children: Mapping[Any, Sequence[str]]) -> dict[str, Hashable]:
    left = [child for some in children.values() for child in some]
    return {child: source.nodes[child].get("name") for child in left}


def aligned(
    first: Mapping[T, Hashable], second: Mapping[T, Hashable]
) -> Iterator[tuple[T | None, T | None]]:
    """Pair items of two sequences that are like each other, in order; the others stay alone.

    Examples
    --------
    >>> list(aligned({1: "a", 2: "b", 3: "c"}, {1: "a", 2: "new", 3: "b", 4: "c"}))
    [(1, 1), (None, 2), (2, 3), (3, 4)]
    """
    ones, others = list(first), list(second)
    likes, theirs = list(first.values()), list(second.values())
    begun, ended = 0, 0
    shorter = min(len(ones), len(others))
    while begun < shorter and likes[begun] == theirs[begun]:
        begun += 1
    while ended < shorter - begun and likes[-1 - ended] == theirs[-1 - ended]:
        ended += 1
    yield from zip(ones[:begun], others[:begun], strict=True)
    middle = slice(begun, len(ones) - ended), slice(begun, len(others) - ended)
    yield from _matched(ones[middle[0]], others[middle[1]], likes[middle[0]], theirs[middle[1]])
    yield from zip(ones[len(ones) - ended :], others[len(others) - ended :], strict=True)


def _matched(
    ones: Sequence[T],
    others: Sequence[T],
    likes: Sequence[Hashable],
    theirs: Sequence[Hashable],
) -> Iterator[tuple[T | None, T | None]]:
    if len(ones) * len(others) > MOST_COMPARED:
        yield from _counted(ones, others, likes, theirs)
        return
    place = other = 0
    matcher = SequenceMatcher(None, likes, theirs, autojunk=False)
    for match in matcher.get_matching_blocks():
        yield from ((one, None) for one in ones[place : match.a])
        yield from ((None, one) for one in others[other : match.b])
        place, other = match.a + match.size, match.b + match.size
        yield from zip(ones[match.a : place], others[match.b : other], strict=True)


def _counted(
    ones: Sequence[T],
    others: Sequence[T],
    likes: Sequence[Hashable],
    theirs: Sequence[Hashable],
) -> Iterator[tuple[T | None, T | None]]:
    """Pair the first of a kind with the first, the second with the second, and so on."""
    waiting: dict[Hashable, list[T]] = {}
    for one, like in zip(reversed(others), reversed(theirs), strict=True):
        waiting.setdefault(like, []).append(one)
    for one, like in zip(ones, likes, strict=True):
        yield one, waiting[like].pop() if waiting.get(like) else None
    left = {one for some in waiting.values() for one in some}
    yield from ((None, one) for one in others if one in left)
