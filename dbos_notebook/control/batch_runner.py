"""Run a control call in batches: concurrently, with progress, and safe under Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dbos_notebook.control.display import progress_bar
from dbos_notebook.control.transactions import Attempt
from dbos_notebook.errors import DatabaseConnectionError, NotebookError
from dbos_notebook.imports import WholeImports

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.control.client_pool import ClientPool
    from dbos_notebook.control.interrupts import InterruptCounter
    from dbos_notebook.control.operations import PlanItem

POLL_SECONDS = 0.1
"""How often a running call checks for Ctrl-C."""
SLOW_SECONDS = 2.0
"""A batch that runs longer than this is checked for locks, and again after as long."""
INTERRUPT_GRACE_SECONDS, FAILURE_GRACE_SECONDS = 0.25, 2.0
"""How long a stopped call waits for its running batches before it aborts them: after Ctrl-C or a
lost connection, and after other failures."""
ABORT_SECONDS, ABORT_FILE_SECONDS = 0.15, 0.5
"""How long aborted batches may take to roll back. On Postgres a longer wait means that the server
does not answer. A file has no network in between, but its disk may be slow."""
MAX_TRIES = 20
"""How often a batch is tried for which no connection is available."""

Call = Callable[["DBOSClient", Sequence["PlanItem"]], dict[str, str] | None]
"""Calls DBOS for some items; returns the IDs of new workflows where only DBOS chooses them."""
WatchWaits = Callable[[Sequence[Attempt]], None]
"""Sets ``waits_for`` of attempts that take long."""


@dataclass
class Batch:
    """One call of DBOS, for one or several workflows, and its state.

    Attributes
    ----------
    new_ids
        IDs that DBOS chose for new workflows, by the original's ID.
    errors
        Errors of single items by index, where the batch was repeated item by item.
    """

    items: Sequence[PlanItem]
    started: bool = False
    finished: bool = False
    error: BaseException | None = None
    new_ids: dict[str, str] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    attempt: Attempt | None = None

    def state(self) -> tuple[object, ...]:
        """Return the state of the call and of its transactions, for comparison."""
        transactions = self.attempt.transactions if self.attempt else []
        outcomes = [transaction.outcome for transaction in transactions]
        return self.started, self.finished, self.error, outcomes


class BatchRunner:
    """Runs batches until all are finished, one fails fatally, or Ctrl-C is pressed.

    Attributes
    ----------
    fatal
        The error that stopped the call.
    interrupted
        Whether Ctrl-C stopped the call.
    failed_late
        Whether the fatal error came late, so that little time is left to read the outcome.
    row_security
        Whether row-level security applies, so that a visible row may still not be changed.
    """

    def __init__(
        self,
        pool: ClientPool,
        call: Call,
        interrupts: InterruptCounter,
        *,
        server: int = 0,
        watch_waits: WatchWaits | None = None,
    ) -> None:
        self._pool = pool
        self._interrupts = interrupts
        self._call = call
        self.server = server
        self._watch_waits = watch_waits
        self._lock = threading.Lock()
        self._stopped = False
        self.fatal: NotebookError | None = None
        self.interrupted = False
        self.failed_late = False
        self.row_security = False

    def run(self, batches: Sequence[Batch], title: str) -> None:
        """Run batches and update their states; ``title`` labels the progress bar."""
        waiting = list(reversed(batches))
        running: set[Future[None]] = set()
        total = sum(len(batch.items) for batch in batches)
        with self._pool.keep_connections():
            try:
                with progress_bar(title, total) as bar:
                    while (waiting or running) and not self._stopped and not self._interrupts.count:
                        while waiting and len(running) < 2 * self._pool.max_calls:
                            running.add(self._pool.submit(partial(self._work, waiting.pop())))
                        # With a timeout, to check for Ctrl-C.
                        wait(running, POLL_SECONDS, FIRST_COMPLETED)
                        finished = {future for future in running if future.done()}
                        running -= finished
                        if any(future.cancelled() for future in finished):
                            # wait() never returns a future that shutdown() has cancelled.
                            raise self._pool.closed_error()
                        done = sum(len(batch.items) for batch in batches if batch.finished)
                        bar.update(done - bar.n)
                        self._check_slow(batches)
            except KeyboardInterrupt:
                self.interrupted = True
            except NotebookError as error:
                # Another thread has closed the pool.
                self.fatal = self.fatal or error
            self._drain(batches)

    def _check_slow(self, batches: Sequence[Batch]) -> None:
        """Find out in the background what slow batches wait for: it may be a lock."""
        if self._watch_waits is None or self._pool.location.path:
            return
        limit = self._pool.statement_timeout
        interval = SLOW_SECONDS if limit is None else min(SLOW_SECONDS, limit / 2)
        now = time.monotonic()
        slow = [
            batch.attempt
            for batch in batches
            if batch.attempt and not batch.finished and now - batch.attempt.checked_at > interval
        ]
        if slow:
            for attempt in slow:
                attempt.checked_at = now
            threading.Thread(target=self._watch_waits, args=[slow], daemon=True).start()

    def _work(self, batch: Batch) -> None:
        with self._lock:
            if self._stopped:
                return
            batch.attempt = attempt = Attempt(self._pool.statement_timeout, self.server)
            batch.started = True
        try:
            for tries_left in reversed(range(MAX_TRIES)):
                with self._pool.register(attempt):
                    if not self._try(batch, attempt, last=tries_left == 0):
                        break
        finally:
            batch.finished = True

    def _try(self, batch: Batch, attempt: Attempt, *, last: bool) -> bool:
        """Call DBOS; return whether to try again, because no connection was available."""
        with WholeImports():
            from dbos import error as dbos_error

        try:
            client = self._pool.client()
            # The first call imports DBOS, which must not count against the database's time.
            attempt.restart()
            try:
                batch.new_ids = self._call(client, batch.items) or {}
            except dbos_error.DBOSNonExistentWorkflowError:
                if len(batch.items) == 1:
                    raise
                # One workflow was deleted since it was read, and DBOS changed none of the batch.
                self._one_by_one(client, batch, dbos_error.DBOSNonExistentWorkflowError)
        except Exception as error:  # noqa: BLE001 - the receipt reports it, whatever it is
            if not last and not self._stopped and self._pool.reduce_calls(error):
                return True
            batch.error = error
            fatal = self._pool.fatal(error, attempt)
            if fatal is not None:
                with self._lock:
                    self._stopped = True
                    self.fatal = self.fatal or fatal
                    late = time.monotonic() - attempt.started > SLOW_SECONDS
                    self.failed_late = self.failed_late or late
        return False

    def _one_by_one(self, client: DBOSClient, batch: Batch, not_found: type[Exception]) -> None:
        for index, item in enumerate(batch.items):
            try:
                self._call(client, [item])
            except not_found as error:
                batch.errors[index] = error

    def _drain(self, batches: Sequence[Batch]) -> None:
        """Start no more batches, and give running ones a moment before they are aborted."""
        with self._lock:
            self._stopped = True
        self.interrupted = self.interrupted or self._interrupts.count > 0
        hurry = self.interrupted or isinstance(self.fatal, DatabaseConnectionError)
        if self._wait(batches, INTERRUPT_GRACE_SECONDS if hurry else FAILURE_GRACE_SECONDS):
            return
        for batch in batches:
            if batch.attempt is not None and not batch.finished:
                batch.attempt.abort()
        self._wait(batches, ABORT_FILE_SECONDS if self._pool.location.path else ABORT_SECONDS)

    def _wait(self, batches: Sequence[Batch], seconds: float) -> bool:
        """Wait for the batches that have started; return whether all have finished."""
        deadline = time.monotonic() + seconds
        while any(batch.started and not batch.finished for batch in batches):
            try:
                # A second Ctrl-C ends the wait; the outcome of the rest is then "unknown".
                if time.monotonic() > deadline or self._interrupts.count > 1:
                    return False
                time.sleep(0.02)
            except KeyboardInterrupt:
                self.interrupted = True
                return False
        return True
