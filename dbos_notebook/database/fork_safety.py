"""What a forked child must not share with its parent: connections, threads, locks.

A child that closes a connection ends the parent's session with it, and a lock that another thread
held during the fork is never released in the child.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol


class Forkable(Protocol):
    """An object that holds connections, threads or locks."""

    def after_fork(self) -> None:
        """Start anew in a forked child, without touching what belongs to the parent."""
        ...


_objects: weakref.WeakSet[Any] = weakref.WeakSet()
_of_parent: list[object] = []


def reset_after_fork(each: Forkable) -> None:
    """Have ``each.after_fork()`` called in every child that is forked from this process."""
    _objects.add(each)


def keep_for_parent(*resources: object) -> None:
    """Keep what a child inherited, so that it is never finalized, which would close it."""
    _of_parent.extend(resources)


class ForkableLock:
    """A lock that a forked child finds free, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Start anew: the thread that held it is not in the child."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


def _after_fork() -> None:
    for each in list(_objects):
        each.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
