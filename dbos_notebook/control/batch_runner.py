"""Run a control call in batches: concurrently, with progress, and safe under Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dbos_notebook.control.display import Progress
from dbos_notebook.control.transactions import Attempt
from dbos_notebook.errors import DatabaseConnectionError, NotebookError

if TYPE_CHECKING:
    from dbos_notebook.control.client_pool import ClientPool

T = TypeVar("T")
PATIENCE = 3
"""So many interrupts end a call whatever it was about to tell."""


class InterruptCounter:
    """Counts Ctrl-C instead of raising it; the call looks at the count.

    Only where Python's own handler is in place, and on the main thread, where signals come:
    whoever has another handler keeps it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counting = False
        self._raising = False

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._raising or self.count >= PATIENCE:
            signal.default_int_handler(number, frame)

    def interruptible(self, call: Callable[[], T]) -> T | None:
        """Call something that Ctrl-C ends at once, before anything was changed.

        ``None``: it was pressed, and is counted.
        """
        if self.count:
            return None
        self._raising = True
        try:
            return call()
        except KeyboardInterrupt:
            self.count = self.count or 1
            return None
        finally:
            self._raising = False

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._counting = True
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._counting:
            signal.signal(signal.SIGINT, signal.default_int_handler)


INTERRUPTED_SECONDS, FAILED_SECONDS = 0.25, 2.0
"""How long a broken-off call waits, after Ctrl-C and after a fault, before it gives calls up."""
GIVEN_UP_SECONDS, GIVEN_UP_FILE_SECONDS = 0.15, 0.5
"""How long calls that were given up may take to roll back: more, and nobody answers. A file has no
network before it, and a disk that may be slow."""
MOST_TRIES = 20
"""How often a call is begun for which no connection is to be had."""
TURN_SECONDS = 0.1
LOOK_SECONDS = 2.0
"""From when on, and how often, a call that has not returned is looked after."""


Call = Callable[[Any, Sequence[Any]], dict[str, str] | None]
LookAfter = Callable[[Sequence[Attempt]], None]


@dataclass
class Batch:
    """One call of DBOS, for one workflow or a batch, and how it went."""

    items: Sequence[Any]
    begun: bool = False
    ended: bool = False
    error: BaseException | None = None
    # The IDs that DBOS chose, by the item's.
    made: dict[str, str] = field(default_factory=dict)
    # In a batch that was taken apart, each one's own error.
    errors: dict[int, BaseException] = field(default_factory=dict)
    attempt: Attempt | None = None

    def state(self) -> tuple[object, ...]:
        """Return how far it has come, to be compared."""
        fates = [each.fate for each in self.attempt.transactions] if self.attempt else []
        return self.begun, self.ended, self.error, fates


class BatchRunner:
    """Runs batches until they are done, one is fatal, or Ctrl-C comes."""

    def __init__(
        self,
        pool: ClientPool,
        call: Call,
        interrupts: InterruptCounter,
        *,
        server: int = 0,
        watch_waits: LookAfter | None = None,
    ) -> None:
        self._door = pool
        self._interrupts = interrupts
        self._call = call
        self.server = server
        self._watch_waits = watch_waits
        self._lock = threading.Lock()
        self._stopped = False
        self.fatal: NotebookError | None = None
        self.interrupted = False
        # Whether the fault came late, so that little time is left to find out what was done.
        self.took_long = False
        # Whether row-level security applies, so that a row which is seen may not be changed.
        self.filtered = False

    def run(self, batches: Sequence[Batch], title: str) -> None:
        """Run them. Each unit then tells whether it began, ended, and with what error."""
        waiting = list(reversed(batches))
        under_way: set[Future[None]] = set()
        total = sum(len(unit.items) for unit in batches)
        with self._door.in_use():
            try:
                with Progress(title, total) as progress:
                    while (
                        (waiting or under_way) and not self._stopped and not self._interrupts.count
                    ):
                        while waiting and len(under_way) < 2 * self._door.width:
                            unit = waiting.pop()
                            under_way.add(self._door.submit(partial(self._work, unit)))
                        # In turns, to look for Ctrl-C.
                        wait(under_way, TURN_SECONDS, FIRST_COMPLETED)
                        ended = {each for each in under_way if each.done()}
                        under_way -= ended
                        if any(each.cancelled() for each in ended):
                            # wait() never returns a future that shutdown() has cancelled.
                            raise self._door.closed_error()
                        progress.show(sum(len(unit.items) for unit in batches if unit.ended))
                        self._look(batches)
            except KeyboardInterrupt:
                self.interrupted = True
            except NotebookError as error:
                # The pool was closed by another thread.
                self.fatal = self.fatal or error
            self._drain(batches)

    def _look(self, batches: Sequence[Batch]) -> None:
        """Have somebody find out what calls wait for that take long: it may be a lock."""
        if self._watch_waits is None or self._door.location.path:
            return
        limit = self._door.statement_timeout
        pause = LOOK_SECONDS if limit is None else min(LOOK_SECONDS, limit / 2)
        now = time.monotonic()
        late = [
            unit.attempt
            for unit in batches
            if unit.attempt and not unit.ended and now - unit.attempt.looked_at > pause
        ]
        if late:
            for attempt in late:
                attempt.looked_at = now
            threading.Thread(target=self._watch_waits, args=[late], daemon=True).start()

    def _work(self, unit: Batch) -> None:
        with self._lock:
            if self._stopped:
                return
            unit.attempt = Attempt(self._door.statement_timeout, self.server)
            unit.begun = True
        try:
            for left in reversed(range(MOST_TRIES)):
                with self._door.attempting(unit.attempt):
                    if not self._try(unit, last=left == 0):
                        break
        finally:
            unit.ended = True

    def _try(self, unit: Batch, *, last: bool) -> bool:
        """Call DBOS; return whether to call again, because no connection was to be had."""
        from dbos import error as dbos_error

        try:
            client = self._door.client()
            if unit.attempt is not None:
                # The first call loads DBOS, which is no fault of the database's.
                unit.attempt.restart()
            try:
                unit.made = self._call(client, unit.items) or {}
            except dbos_error.DBOSNonExistentWorkflowError:
                if len(unit.items) == 1:
                    raise
                # One of the batch has gone since it was read, and DBOS did none of them.
                self._one_by_one(client, unit, dbos_error.DBOSNonExistentWorkflowError)
        except Exception as error:  # noqa: BLE001 - whatever it is, the receipt tells it
            if not last and not self._stopped and self._door.make_do(error):
                return True
            unit.error = error
            fatal = self._door.fatal(error, unit.attempt)
            if fatal is not None:
                began = unit.attempt.began if unit.attempt else time.monotonic()
                with self._lock:
                    self._stopped = True
                    self.fatal = self.fatal or fatal
                    self.took_long = self.took_long or time.monotonic() - began > LOOK_SECONDS
        return False

    def _one_by_one(self, client: Any, unit: Batch, gone: type[Exception]) -> None:
        for number, item in enumerate(unit.items):
            try:
                self._call(client, [item])
            except gone as error:
                unit.errors[number] = error

    def _drain(self, batches: Sequence[Batch]) -> None:
        """Let nothing more begin, and wait a little for what has begun."""
        with self._lock:
            self._stopped = True
        self.interrupted = self.interrupted or self._interrupts.count > 0
        hasty = self.interrupted or isinstance(self.fatal, DatabaseConnectionError)
        if self._wait(batches, INTERRUPTED_SECONDS if hasty else FAILED_SECONDS):
            return
        for unit in batches:
            if unit.attempt is not None and not unit.ended:
                unit.attempt.give_up()
        self._wait(batches, GIVEN_UP_FILE_SECONDS if self._door.location.path else GIVEN_UP_SECONDS)

    def _wait(self, batches: Sequence[Batch], seconds: float) -> bool:
        """Wait for the batches that have begun; return whether all have ended."""
        deadline = time.monotonic() + seconds
        while any(unit.begun and not unit.ended for unit in batches):
            try:
                # Pressed again: whoever does not want to wait gets "unknown" for the rest.
                if time.monotonic() > deadline or self._interrupts.count > 1:
                    return False
                time.sleep(0.02)
            except KeyboardInterrupt:
                self.interrupted = True
                return False
        return True
