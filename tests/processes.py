"""Run a function in a child process, optionally as another user."""

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

TIMEOUT_SECONDS = 60


def require_root() -> None:
    """Skip if the tests do not run as root and so cannot change their user."""
    if os.geteuid() != 0:
        require("root, to run processes of two users")


def in_child(call: Callable[[], Any], user: str | None = None) -> Any:
    """Call a function in a child process and return its result or raise its error."""
    with child(call, user) as result:
        return result()


@contextmanager
def child(call: Callable[[], Any], user: str | None = None) -> Iterator[Callable[[], Any]]:
    """Call a function in a child process; yield a function that waits for its result."""
    read_end, write_end = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read_end)
        try:
            if user is not None:
                become(user)
            outcome: tuple[bool, Any] = (True, call())
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            outcome = (False, error)
        with os.fdopen(write_end, "wb") as pipe:
            try:
                pipe.write(pickle.dumps(outcome))
            except Exception:  # noqa: BLE001 - pickling may raise any error
                pipe.write(pickle.dumps((False, RuntimeError(repr(outcome)))))
        os._exit(0)
    os.close(write_end)

    def result() -> Any:
        data = bytearray()
        while True:
            if not select.select([read_end], [], [], TIMEOUT_SECONDS)[0]:
                os.kill(process, signal.SIGKILL)
                raise TimeoutError(f"the child gave no result in {TIMEOUT_SECONDS} s")
            part = os.read(read_end, 1 << 16)
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
        os.close(read_end)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def become(user: str) -> None:
    """Change the user of this process permanently."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
