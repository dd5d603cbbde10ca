"""Executors of ``control_application`` in processes, and the side effects of their steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# To import dbos takes a second; each executor is forked from a process that has done so.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["dbos", "psycopg", "sqlalchemy.dialects.postgresql.psycopg"])


def _run_application(*arguments: Any) -> None:
    # In the executor's process alone: the import registers the workflows with DBOS.
    sys.path.insert(0, str(Path(__file__).parent))
    import control_application

    control_application.main(*arguments)


class ExecutorProcess:
    """One executor: a process that runs a version of the application."""

    def __init__(self, url: str, version: str, executor: str, effects: Path, **config: Any) -> None:
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(
            target=_run_application,
            args=(url, version, executor, str(effects), config, theirs),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._expect("ready")

    def _expect(self, answer: str) -> None:
        try:
            found = self._pipe.recv()
        except EOFError:
            self._process.join()
            found = f"the application exited with {self._process.exitcode}"
        assert found == answer, found

    def send(self, do: str, **arguments: Any) -> None:
        """Send a command and wait until it is done."""
        self._pipe.send({"do": do, **arguments})
        self._expect("ok")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """Kill the process, as a crash would end it."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


class LiveApplication:
    """A system database with running executors, and the side effects of their steps."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._effects = directory / "effects"
        self._effects.touch()
        self._gates = directory / "gates"
        self._gates.mkdir()
        self._processes: dict[str, ExecutorProcess] = {}

    def start(self, version: str) -> ExecutorProcess:
        """Start an executor of a version; its ID is ``executor-VERSION``."""
        process = ExecutorProcess(self.url, version, f"executor-{version}", self._effects)
        self._processes[version] = process
        return process

    def send(self, version: str, do: str, **arguments: Any) -> None:
        """Send the executor of a version a command and wait until it is done."""
        self._processes[version].send(do, **arguments)

    def stop(self, version: str | None = None) -> None:
        """Kill the executor of a version, or all of them."""
        for each in [version] if version else list(self._processes):
            self._processes.pop(each).stop()

    def signal(self, number: signal.Signals) -> None:
        """Send every executor a signal."""
        for process in self._processes.values():
            process.signal(number)

    def open(self, gate: str) -> None:
        """Let the steps that wait for a gate continue."""
        (self._gates / gate).touch()

    def effects(self, workflow_id: str | None = None) -> Counter[str]:
        """Count started steps: by name for one workflow, else by workflow and name."""
        lines = [line.split(" ") for line in self._effects.read_text().splitlines()]
        if workflow_id is None:
            return Counter(f"{workflow} {step}" for workflow, step, _ in lines)
        return Counter(step for workflow, step, _ in lines if workflow == workflow_id)

    def versions(self, workflow_id: str) -> dict[str, str]:
        """Return the application version that last ran each step of a workflow."""
        lines = [line.split(" ") for line in self._effects.read_text().splitlines()]
        return {step: version for workflow, step, version in lines if workflow == workflow_id}


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Call a condition until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")
