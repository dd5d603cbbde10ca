"""More hands for many forks: processes beside this one, each with a ``DBOSClient`` of its own.

DBOS has no public call that forks many workflows, and composes some ten statements for each. It is
milliseconds of Python, which one process does one at a time, however many threads it has.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dbos_notebook import errors

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.control.calls import Door

MANY = 400
"""Forks from which on the seconds are repaid that processes take to start."""
MOST_PROCESSES = 4
STARTING_SECONDS, ENDING_SECONDS = 30.0, 2.0


class ForkFailedError(Exception):
    """DBOS refused one fork, with the reason that it gave."""


def fork(
    client: DBOSClient | Hands,
    new_id: str,
    workflow_id: str,
    start_step: int,
    options: Mapping[str, Any],
) -> None:
    """Fork one workflow under an ID of ours."""
    if isinstance(client, Hands):
        client.fork(new_id, workflow_id, start_step, options)
        return
    from dbos import SetWorkflowID

    with SetWorkflowID(new_id):
        client.fork_workflow(workflow_id, start_step, **options)


@contextmanager
def hands(door: Door, count: int) -> Iterator[Hands | None]:
    """Give hands for so many forks; ``None`` where they are not worth it, or cannot be had.

    SQLite, which has one writer, gains nothing. One core is left to whatever else runs here: with
    none, an application beside it was measured to feel them, and they were no faster.
    """
    number = min((os.cpu_count() or 1) - 1, MOST_PROCESSES, door.width)
    if count < MANY or number < 2:
        yield None
        return
    try:
        found = Hands(door, number)
    except OSError:
        # No process may be started here: one's own threads do it too.
        yield None
        return
    try:
        yield found if found.ready() else None
    finally:
        found.close()


class Hands:
    """Some processes, asked in turn. Any thread may ask, and waits for its answer."""

    def __init__(self, door: Door, number: int) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._hands = [_Hand(door, math.ceil(door.width / number)) for _ in range(number)]

    def ready(self) -> bool:
        """Wait until all are there; false where one is not to be had."""
        return all(hand.answers({}) for hand in self._hands)

    def fork(
        self, new_id: str, workflow_id: str, start_step: int, options: Mapping[str, Any]
    ) -> None:
        """Have one of them fork a workflow.

        Raises
        ------
        NotebookError
            What ends the whole call.
        ForkFailedError
            What is about this fork alone.
        """
        with self._lock:
            self._next += 1
            hand = self._hands[self._next % len(self._hands)]
        answer = hand.ask(
            {"new": new_id, "of": workflow_id, "step": start_step, "options": dict(options)}
        ).result()
        if fatal := answer.get("fatal"):
            raise getattr(errors, fatal)(answer["text"])
        if "text" in answer:
            raise ForkFailedError(answer["text"])

    def close(self) -> None:
        """End the processes: those that answer by the end of their input, others at once."""
        for hand in self._hands:
            hand.close()


class _Hand:
    """One process of ``hand``, and a thread that hears its answers."""

    def __init__(self, door: Door, threads: int) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._number = 0
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dbos_notebook.control.hand"],
            # It must find what is found here, an editable install or a path put in by hand too.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # Ctrl-C in a terminal is for this process: what is under way is waited for.
            start_new_session=True,
        )
        # By its input, which nobody else sees: the address holds the password.
        self._write(
            {
                "address": door.location.address(),
                "schema": door.schema,
                "application_name": door.application_name,
                "threads": threads,
            }
        )
        threading.Thread(target=self._hear, name="dbos_control_hand", daemon=True).start()

    def answers(self, message: dict[str, Any]) -> bool:
        try:
            return "text" not in self.ask(message).result(STARTING_SECONDS)
        except (errors.NotebookError, TimeoutError):
            return False

    def ask(self, message: dict[str, Any]) -> Future[dict[str, Any]]:
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            if self._ended:
                answer.set_exception(_gone())
                return answer
            self._waiting[number] = answer
            self._write({**message, "number": number})
        return answer

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for above
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            # It has ended; whoever hears it tells all that wait.
            return

    def _hear(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(answer["number"])
            waiting.set_result(answer)
        with self._lock:
            self._ended = True
            left, self._waiting = list(self._waiting.values()), {}
        for waiting in left:
            waiting.set_exception(_gone())

    def close(self) -> None:
        process = self._process
        with self._lock:
            busy = bool(self._waiting)
            if process.stdin is not None:
                # One that has ended left unread what was last written to it.
                with suppress(BrokenPipeError):
                    process.stdin.close()
        if busy:
            process.kill()
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _gone() -> errors.NotebookError:
    return errors.NotebookError("A process that called DBOS has ended by itself.")
