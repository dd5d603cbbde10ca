"""The state of a machine that runs pickles: its bytes, its stack, its memo."""

from __future__ import annotations

from typing import Any

from dbos_notebook.payloads.bounds import PickleError, Work
from dbos_notebook.payloads.values import Reference

_PLAIN = (type(None), bool, float)
MAX_PLACES = 1_000_000
"""Places of the memo; a number beyond them is no pickler's, and could be chosen to be slow."""


class Machine:
    """What one pickle has done so far.

    Attributes
    ----------
    instructions
        How many were run.
    containers
        How many containers were made: a bound on how deep the value is.
    repeated
        How many characters of texts and bytes were used again.
    shared
        Whether anything else was used twice, so that the value may be bigger than its record.
    work
        What it may still cost.
    """

    __slots__ = (
        *("below", "containers", "data", "instructions", "memo", "place", "repeated", "shared"),
        *("stack", "work"),
    )

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies below each mark
        self.memo: dict[int, Any] = {}
        self.instructions = 0
        self.containers = 0
        self.repeated = 0
        self.shared = False
        self.work = Work(len(data))

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.place + count
        if end > len(self.data):
            raise PickleError("it is cut short")
        piece = self.data[self.place : end]
        self.place = end
        return piece

    def line(self) -> bytes:
        """Return the bytes up to the next newline."""
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise PickleError("it is cut short")
        piece = self.data[self.place : end]
        self.place = end + 1
        return piece

    def number(self, size: int) -> int:
        """Return an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def contain(self, value: Any) -> None:
        """Push a container."""
        self.containers += 1
        self.stack.append(value)

    def push_again(self, value: Any) -> None:
        """Push what was pushed before."""
        kind = type(value)
        if kind is str or kind is bytes:
            self.repeated += len(value)
        elif kind is Reference:
            self.repeated += len(value.type)
        elif kind not in _PLAIN:
            self.shared = True
        self.stack.append(value)

    def get(self, place: int) -> None:
        """Push what was memorised."""
        self.push_again(self.memo[place])

    def put(self, place: int) -> None:
        """Memorise what is on top."""
        if not 0 <= place < MAX_PLACES:
            raise PickleError(f"it numbers its parts beyond {MAX_PLACES:,}")
        self.memo[place] = self.stack[-1]
