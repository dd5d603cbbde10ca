"""Calling DBOS for many workflows: concurrently, with progress, and stoppable at any moment.

It knows batches and threads; not what is called, nor what it means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from dbos_notebook.control.live import Progress
from dbos_notebook.errors import NotebookError

if TYPE_CHECKING:
    from dbos_notebook.control.calls import Door
    from dbos_notebook.control.presses import Presses

GRACE_SECONDS = 10.0
"""How long an interrupted call waits for what is under way, to know how it ended."""


Call = Callable[[Any, Sequence[Any]], dict[str, str] | None]


@dataclass
class Unit:
    """One call of DBOS, for one workflow or a batch, and how it went."""

    items: Sequence[Any]
    begun: bool = False
    ended: bool = False
    error: BaseException | None = None
    # The IDs that DBOS chose, by the item's.
    made: dict[str, str] = field(default_factory=dict)
    # In a batch that was taken apart, each one's own error.
    errors: dict[int, BaseException] = field(default_factory=dict)


class Course:
    """Runs units until they are done, one is fatal, or Ctrl-C comes."""

    def __init__(self, door: Door, call: Call, presses: Presses) -> None:
        self._door = door
        self._presses = presses
        self._call = call
        self._lock = threading.Lock()
        self._stopped = False
        self.fatal: NotebookError | None = None
        self.interrupted = False

    def run(self, units: Sequence[Unit], title: str) -> None:
        """Run them. Each unit then tells whether it began, ended, and with what error."""
        waiting = list(reversed(units))
        under_way: set[Future[None]] = set()
        total = sum(len(unit.items) for unit in units)
        try:
            with Progress(title, total) as progress:
                while (waiting or under_way) and not self._stopped and not self._presses.count:
                    while waiting and len(under_way) < 2 * self._door.width:
                        unit = waiting.pop()
                        under_way.add(self._door.submit(partial(self._work, unit)))
                    # In turns, to look for Ctrl-C.
                    _, under_way = wait(under_way, 0.2, FIRST_COMPLETED)
                    progress.show(sum(len(unit.items) for unit in units if unit.ended))
        except KeyboardInterrupt:
            self.interrupted = True
        except NotebookError as error:
            # The door was closed by another thread.
            self.fatal = self.fatal or error
        self._drain(units)

    def _work(self, unit: Unit) -> None:
        with self._lock:
            if self._stopped:
                return
            unit.begun = True
        try:
            self._try(unit)
        finally:
            unit.ended = True

    def _try(self, unit: Unit) -> None:
        from dbos import error as dbos_error

        try:
            client = self._door.client()
            try:
                unit.made = self._call(client, unit.items) or {}
            except dbos_error.DBOSNonExistentWorkflowError:
                if len(unit.items) == 1:
                    raise
                # One of the batch has gone since it was read, and DBOS did none of them.
                self._one_by_one(client, unit, dbos_error.DBOSNonExistentWorkflowError)
        except Exception as error:  # noqa: BLE001 - whatever it is, the receipt tells it
            unit.error = error
            fatal = self._door.fatal(error)
            if fatal is not None:
                with self._lock:
                    self._stopped = True
                    self.fatal = self.fatal or fatal

    def _one_by_one(self, client: Any, unit: Unit, gone: type[Exception]) -> None:
        for number, item in enumerate(unit.items):
            try:
                self._call(client, [item])
            except gone as error:
                unit.errors[number] = error

    def _drain(self, units: Sequence[Unit]) -> None:
        """Let nothing more begin, and wait a little for what has begun."""
        with self._lock:
            self._stopped = True
        self.interrupted = self.interrupted or self._presses.count > 0
        deadline = time.monotonic() + GRACE_SECONDS
        while any(unit.begun and not unit.ended for unit in units):
            try:
                # Pressed again: whoever does not want to wait gets "unknown" for the rest.
                if time.monotonic() > deadline or self._presses.count > 1:
                    return
                time.sleep(0.02)
            except KeyboardInterrupt:
                self.interrupted = True
                return
