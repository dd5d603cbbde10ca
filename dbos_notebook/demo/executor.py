"""An executor of the shop that stays: what takes forks and resumed work in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Self

from dbos_notebook.database.location import Location, locate
from dbos_notebook.demo.runner import URL_VARIABLE, DemoError
from dbos_notebook.demo.workload import VERSIONS


class Executor:
    """A process of the shop. Make it with :func:`start`; stop it with :meth:`stop` or ``with``.

    It ends with the process that started it, however that ends.
    """

    def __init__(self, location: Location, version: str) -> None:
        self.version = version
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        # The URL goes by the environment: arguments are public to every user of the machine.
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "dbos_notebook.demo.worker", "serve", version],
            env={**os.environ, URL_VARIABLE: location.url()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            # Ctrl-C in a terminal or a notebook is meant for the cell.
            start_new_session=True,
        )
        if not (self._process.stdout and self._process.stdout.readline()):
            status = self._process.wait()
            self._messages.seek(0)
            last = location.redact(self._messages.read()).strip()[-2000:]
            self.stop()
            raise DemoError(f"Version {version} of the shop ended with {status}:\n{last}")

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<Executor of the shop, version {self.version}, {state}>"


def start(database: str | os.PathLike[str] | None = None, version: str = VERSIONS[-1]) -> Executor:
    """Start an executor of the demo's shop, and return once it takes work.

    Parameters
    ----------
    database
        Where :func:`run` was; as for ``connect``.
    version
        ``"1.0"``, which has the bugs, or ``"2.0"``.

    Raises
    ------
    DemoError
        There is no such version, or the process did not start.
    """
    if version not in VERSIONS:
        raise DemoError(f"The shop has no version {version!r}. It has {' and '.join(VERSIONS)}.")
    return Executor(locate(database), version)
