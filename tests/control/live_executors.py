"""Starting the application of ``control_app`` in processes of its own, and counting what it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

APP = Path(__file__).parent / "control_app.py"


class Process:
    """One executor: a process of the application in some version."""

    def __init__(self, url: str, version: str, executor: str, effects: Path, **config: Any) -> None:
        environment = {**os.environ, "CONTROL_URL": url, "CONTROL_EFFECTS": str(effects)}
        environment["CONTROL_CONFIG"] = json.dumps(config)
        self._process = subprocess.Popen(
            [sys.executable, str(APP), version, executor],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer("ready\n")

    def _answer(self, wanted: str) -> None:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line == wanted:
                return
            raise AssertionError(line)
        raise AssertionError(f"the application ended with {self._process.wait()}")

    def ask(self, do: str, **rest: Any) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self._process.stdin.flush()
        self._answer('"ok"\n')

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


class Live:
    """A system database with executors on it, and the side effects of their steps."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._effects = directory / "effects"
        self._effects.touch()
        self._gates = directory / "gates"
        self._gates.mkdir()
        self._processes: dict[str, Process] = {}

    def start(self, version: str) -> Process:
        """Start an executor of a version; its ID is ``executor-VERSION``."""
        process = Process(self.url, version, f"executor-{version}", self._effects)
        self._processes[version] = process
        return process

    def stop(self, version: str | None = None) -> None:
        """End one executor, or all."""
        for one in [version] if version else list(self._processes):
            self._processes.pop(one).stop()

    def signal(self, number: signal.Signals) -> None:
        """Send every executor a signal."""
        for process in self._processes.values():
            process.signal(number)

    def open(self, gate: str) -> None:
        """Let the steps go on that wait for a gate."""
        (self._gates / gate).touch()

    def effects(self, workflow_id: str | None = None) -> Counter[str]:
        """Count the steps that have begun: by name for one workflow, else by workflow and name."""
        lines = [line.split(" ") for line in self._effects.read_text().splitlines()]
        if workflow_id is None:
            return Counter(f"{who} {step}" for who, step, _ in lines)
        return Counter(step for who, step, _ in lines if who == workflow_id)

    def versions(self, workflow_id: str) -> dict[str, str]:
        """Return the version in which each step of a workflow ran last."""
        lines = [line.split(" ") for line in self._effects.read_text().splitlines()]
        return {step: version for who, step, version in lines if who == workflow_id}


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")
