"""Run a function in a process of its own, as another user if need be."""

from __future__ import annotations

import os
import pickle
import pwd
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from servers import require

SECONDS = 60


def require_root() -> None:
    """Skip where the test may not become another user."""
    if os.geteuid() != 0:
        require("root, to run processes of two users")


def in_child(call: Callable[[], Any], user: str | None = None) -> Any:
    """Fork, call there, and return what it returned, or raise what it raised."""
    with child(call, user) as result:
        return result()


@contextmanager
def child(call: Callable[[], Any], user: str | None = None) -> Iterator[Callable[[], Any]]:
    """Fork and call there; give a function that waits for the result."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            if user is not None:
                become(user)
            answer: tuple[bool, Any] = (True, call())
        except BaseException as error:  # noqa: BLE001 - it is raised in the parent
            answer = (False, error)
        with os.fdopen(writing, "wb") as pipe:
            try:
                pipe.write(pickle.dumps(answer))
            except Exception:  # noqa: BLE001 - whatever cannot be pickled
                pipe.write(pickle.dumps((False, RuntimeError(repr(answer)))))
        os._exit(0)
    os.close(writing)

    def result() -> Any:
        data = bytearray()
        while True:
            if not select.select([reading], [], [], SECONDS)[0]:
                os.kill(process, signal.SIGKILL)
                raise TimeoutError(f"the child gave no result in {SECONDS} s")
            part = os.read(reading, 1 << 16)
            if not part:
                break
            data += part
        done, value = pickle.loads(bytes(data))
        if not done:
            raise value
        return value

    try:
        yield result
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def become(user: str) -> None:
    """Go on as another user, for good."""
    known = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(known.pw_gid)
    os.setuid(known.pw_uid)
