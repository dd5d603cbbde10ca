"""An executor of the demo that keeps running, for forks and resumed workflows in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Self

from dbos_notebook.database.location import Location, locate
from dbos_notebook.demo.runner import URL_VARIABLE, DemoError
from dbos_notebook.demo.workload import DOCUMENTS, VERSIONS


class Executor:
    """A process of a demo application, started by :func:`start`.

    :meth:`stop` or the end of a ``with`` block stops it.
    It ends when the process that started it ends for any reason.
    """

    def __init__(self, location: Location, version: str) -> None:
        self.version = version
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        # The URL is passed in the environment, because other users can see arguments.
        self._process = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-m", f"dbos_notebook.demo.{_worker(version)}", "serve", version],
            env={**os.environ, URL_VARIABLE: location.url()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            # Ctrl-C in a terminal or a notebook is meant for the cell only.
            start_new_session=True,
        )
        if not (self._process.stdout and self._process.stdout.readline()):
            status = self._process.wait()
            self._messages.seek(0)
            last = location.redact(self._messages.read()).strip()[-2000:]
            self.stop()
            raise DemoError(
                f"Version {version} of the demo ended with exit status {status}:\n{last}"
            )

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop the process, if it is running."""
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
        return f"<Executor of the demo, version {self.version}, {state}>"


def start(database: str | os.PathLike[str] | None = None, version: str = VERSIONS[-1]) -> Executor:
    """Start an executor of the demo, and return when it accepts work.

    An executor of the documents application also recovers the approvals that wait for an answer.

    Parameters
    ----------
    database
        The database that :func:`run` filled, as for ``connect``.
    version
        Of the shop ``"1.0"``, which has bugs, or ``"2.0"``; of the documents application
        ``"1.4.1"``, ``"1.4.2"``, which has a bug, or ``"1.4.3"``.

    Raises
    ------
    DemoError
        The version does not exist, or the process did not start.
    """
    versions = (*VERSIONS, *DOCUMENTS)
    if version not in versions:
        raise DemoError(f"The demo has no version {version!r}. It has {', '.join(versions)}.")
    return Executor(locate(database), version)


def _worker(version: str) -> str:
    return "documents_worker" if version in DOCUMENTS else "worker"
