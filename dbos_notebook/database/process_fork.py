"""Replace connections, threads and locks in a forked child process.

If a child closes an inherited connection, the parent's session ends with it. A lock that another
thread held during the fork is never released in the child.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol


class Forkable(Protocol):
    """An object that holds connections, threads or locks."""

    def after_fork(self) -> None:
        """Reset the object in a forked child without touching the parent's resources."""
        ...


_objects: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[object] = []


def reset_after_fork(instance: Forkable) -> None:
    """Register an object: ``after_fork()`` is called in each child forked from this process."""
    _objects.add(instance)


def keep_for_parent(*resources: object) -> None:
    """Keep a reference to inherited resources, because their finalizers would close them."""
    _inherited.extend(resources)


class ForkableLock:
    """A lock that is free in a forked child, even if it was held in the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock: the thread that held it does not exist in the child."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


def _after_fork() -> None:
    for instance in list(_objects):
        instance.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=_after_fork)
