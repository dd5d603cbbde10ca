"""The command line: ``dbos-notebook`` and ``python -m dbos_notebook``. An error is one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dbos_notebook import __version__
from dbos_notebook.errors import NotebookError

DATABASE_HELP = (
    "URL or SQLite file (default: $DBOS_SYSTEM_DATABASE_URL, then dbos-config.yaml). "
    "A password is safer in the variable or in ~/.pgpass than here"
)
SEVERITIES = ("info", "warning", "critical")
SCHEMA_HELP = "the schema of DBOS's tables (default: %(default)s)"


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; return the exit status.

    Parameters
    ----------
    arguments
        The arguments after the program's name; ``None`` takes those of the process.

    Returns
    -------
    int
        0 on success, 1 after an error, 2 after a check that found something, 130 after Ctrl-C,
        otherwise that of the started program.

    Examples
    --------
    >>> main(["demo", "--database", "mysql://x"])
    1
    """
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    if url := options.pop("url", None):
        options["database"] = url

    from dbos_notebook.server import commands

    programs: dict[str, Callable[..., int | Path]] = {
        "demo": commands.demo,
        "lab": commands.lab,
        "dashboard": commands.dashboard,
        "report": commands.report,
        "check": commands.check,
    }
    try:
        result = programs[command](**options)
    except NotebookError as error:
        print(f"dbos-notebook {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if isinstance(result, int):
        return result
    print(result)
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser; the names of options are those of the functions in ``commands``."""
    parser = argparse.ArgumentParser(
        prog="dbos-notebook",
        description="List, inspect, control and analyze DBOS workflows from a notebook.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="run a sample DBOS application that creates data")
    demo.add_argument(
        "--database",
        default="sqlite:///dbos_demo.sqlite",
        help="URL or SQLite file (default: %(default)s)",
    )
    demo.add_argument(
        "--workflows", type=int, default=200, help="number of workflows (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    demo.add_argument(
        "--history",
        type=int,
        default=6_000,
        help="number of workflows of the week before, 0 for none (default: %(default)s)",
    )
    demo.add_argument(
        "--force", action="store_true", help="use a database that holds another application's data"
    )

    lab = commands.add_parser("lab", help="open JupyterLab with the database connected")
    _add_database(lab)
    lab.add_argument(
        "--directory", default=".", help="where the notebooks are copied to (default: %(default)s)"
    )
    _add_browser(lab)

    dashboard = commands.add_parser("dashboard", help="serve the views as a web application")
    _add_database(dashboard)
    dashboard.add_argument("--schema", default="dbos", help=SCHEMA_HELP)
    dashboard.add_argument("--read-only", action="store_true", help="hide cancel, resume and fork")
    dashboard.add_argument(
        "--port", type=int, default=8866, help="port, 0 for any free one (default: %(default)s)"
    )
    _add_browser(dashboard)

    report = commands.add_parser("report", help="write one workflow as a self-contained HTML page")
    report.add_argument("workflow_id")
    report.add_argument("--database", help=DATABASE_HELP)
    report.add_argument("--schema", default="dbos", help=SCHEMA_HELP)
    report.add_argument("--output", help="file to write (default: the workflow's ID with .html)")
    report.add_argument("--force", action="store_true", help="replace an existing file")

    check = commands.add_parser(
        "check",
        help="print what is wrong now, and exit with status 2 if anything is",
        description="Print what is wrong now. The exit status is 0 if nothing is found at or above "
        "the severity, 2 if something is, and 1 after an error, so that cron or CI can act on it.",
    )
    check.add_argument("--database", help=DATABASE_HELP)
    check.add_argument("--schema", default="dbos", help=SCHEMA_HELP)
    check.add_argument(
        "--severity",
        choices=SEVERITIES,
        default="warning",
        help="the least severity that counts (default: %(default)s)",
    )
    check.add_argument(
        "--format", choices=("text", "json"), default="text", help="default: %(default)s"
    )
    check.add_argument(
        "--against", metavar="VERSION", help="also print what became worse since this version"
    )
    check.add_argument(
        "--release",
        metavar="VERSION",
        help="the version that --against compares (default: the latest of the same application)",
    )
    return parser


def _add_database(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("url", nargs="?", metavar="URL", help=DATABASE_HELP)
    group.add_argument("--database", metavar="URL", help="the same as an option")


def _add_browser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="only print the address"
    )
