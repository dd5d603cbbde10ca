"""The state of a machine that runs pickles: its bytes, its stack, its memo."""

from __future__ import annotations

from typing import Any

from dbos_notebook.payloads.values import Opaque


class PickleError(Exception):
    """A pickle that cannot be decoded; the text says why."""


NESTING = (list, dict, tuple, set, frozenset, Opaque)


class Machine:
    """What one pickle has done so far.

    Attributes
    ----------
    instructions
        How many were run.
    containers
        How many containers were made: a bound on how deep the value is.
    shared
        Whether a container was used twice, so that the value may be bigger than its record.
    """

    __slots__ = ("below", "containers", "data", "instructions", "memo", "place", "shared", "stack")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies below each mark
        self.memo: dict[int, Any] = {}
        self.instructions = 0
        self.containers = 0
        self.shared = False

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

    def get(self, key: int) -> None:
        """Push what was memorised."""
        value = self.memo[key]
        if isinstance(value, NESTING):
            self.shared = True
        self.stack.append(value)
