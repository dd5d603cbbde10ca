"""The subcommands of the command line, without a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dbos_notebook.server import commands
from dbos_notebook.server.cli import main


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "dbos-notebook"
    process = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == __import__("dbos_notebook").__version__


def test_notebooks_are_copied_once_and_never_overwritten(tmp_path: Path) -> None:
    folder = commands.copy_notebooks(tmp_path)
    copied = folder / "quickstart.ipynb"
    assert json.loads(copied.read_text())["nbformat"] == 4
    copied.write_text("my own")
    assert commands.copy_notebooks(tmp_path) == folder
    assert copied.read_text() == "my own"


@pytest.mark.parametrize("command", ["lab", "dashboard"])
def test_without_a_database_the_command_prints_one_line_and_exits_1(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBOS_SYSTEM_DATABASE_URL", raising=False)
    assert main([command]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"dbos-notebook {command}: No system database was given")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_two_databases_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dashboard", "a.sqlite", "--database", "b.sqlite"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_dashboard_without_a_database_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--database", "postgresql://ada:s3cret@127.0.0.1:1/shop"]) == 1
    error = capsys.readouterr().err
    assert "Cannot reach postgresql://ada@127.0.0.1:1/shop" in error
    assert "s3cret" not in error


@pytest.mark.parametrize("option", [[], ["--database"]])
def test_a_password_is_passed_by_the_environment_only(
    option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://ada:s3cret@db.example/shop"
    calls: list[tuple[list[str], dict[str, str]]] = []

    def run(arguments: list[str], environment: dict[str, str]) -> int:
        calls.append((arguments, environment))
        return 0

    monkeypatch.setattr(commands, "_run", run)  # a server is not what this is about
    monkeypatch.setattr(commands, "copy_notebooks", lambda directory: directory)
    assert main(["lab", *option, url]) == 0
    arguments, environment = calls[0]
    assert "s3cret" not in " ".join(arguments)
    assert "s3cret" in environment["DBOS_SYSTEM_DATABASE_URL"]
