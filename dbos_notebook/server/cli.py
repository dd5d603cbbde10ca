"""The command line: ``dbos-notebook`` and ``python -m dbos_notebook``. An error is one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from dbos_notebook import __version__
from dbos_notebook.errors import NotebookError

DATABASE_HELP = (
    "URL or SQLite file; else $DBOS_SYSTEM_DATABASE_URL, else dbos-config.yaml. "
    "A password is safer in the variable or in ~/.pgpass than here"
)


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; return the exit status.

    Examples
    --------
    >>> main(["demo", "--database", "mysql://x"])
    1
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = chosen.run
    try:
        return run(chosen)
    except NotebookError as error:
        print(f"dbos-notebook {chosen.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dbos-notebook", description="See and steer DBOS workflows from a notebook."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="run a lifelike DBOS application, to have data")
    demo.add_argument(
        "--database", default="sqlite:///dbos_demo.sqlite", help="URL or file (%(default)s)"
    )
    demo.add_argument("--workflows", type=int, default=200, help="how many (%(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="what chooses (%(default)s)")
    demo.add_argument("--force", action="store_true", help="write beside another application")
    demo.set_defaults(run=_demo)

    lab = commands.add_parser("lab", help="open JupyterLab with the database connected")
    lab.add_argument("--database", help=DATABASE_HELP)
    lab.add_argument("--no-browser", action="store_true", help="only print the address")
    lab.add_argument("--directory", default=".", help="where notebooks are kept (%(default)s)")
    lab.set_defaults(run=_lab)

    dashboard = commands.add_parser("dashboard", help="serve the widgets as a web application")
    dashboard.add_argument("--database", help=DATABASE_HELP)
    dashboard.add_argument("--schema", default="dbos", help="of DBOS's tables (%(default)s)")
    dashboard.add_argument("--read-only", action="store_true", help="hide cancel, resume, fork")
    dashboard.add_argument("--port", type=int, default=8866, help="%(default)s; 0: a free one")
    dashboard.add_argument("--no-browser", action="store_true", help="only print the address")
    dashboard.set_defaults(run=_dashboard)

    report = commands.add_parser("report", help="write one workflow as a page that needs no kernel")
    report.add_argument("workflow_id")
    report.add_argument("--database", help=DATABASE_HELP)
    report.add_argument("--schema", default="dbos", help="of DBOS's tables (%(default)s)")
    report.add_argument("--output", help="the file (the workflow's ID with .html)")
    report.add_argument("--force", action="store_true", help="replace a file that exists")
    report.set_defaults(run=_report)
    return parser


def _demo(chosen: argparse.Namespace) -> int:
    from dbos_notebook.server.commands import demo

    return demo(chosen.database, chosen.workflows, chosen.seed, force=chosen.force)


def _lab(chosen: argparse.Namespace) -> int:
    from dbos_notebook.server.commands import lab

    return lab(chosen.database, directory=chosen.directory, browser=not chosen.no_browser)


def _dashboard(chosen: argparse.Namespace) -> int:
    from dbos_notebook.server.commands import dashboard

    return dashboard(
        chosen.database,
        schema=chosen.schema,
        read_only=chosen.read_only,
        port=chosen.port,
        browser=not chosen.no_browser,
    )


def _report(chosen: argparse.Namespace) -> int:
    from dbos_notebook.server.commands import report

    print(
        report(
            chosen.workflow_id,
            chosen.database,
            schema=chosen.schema,
            output=chosen.output,
            force=chosen.force,
        )
    )
    return 0
