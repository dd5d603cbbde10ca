"""The command line of the demo: arguments, a progress bar, and how to go on."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from dbos_notebook.database.locate import locate
from dbos_notebook.demo.plan import SMALLEST
from dbos_notebook.demo.run import run
from dbos_notebook.errors import NotebookError

DEFAULT = "sqlite:///dbos_demo.sqlite"


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m dbos_notebook``; return the exit status."""
    parser = argparse.ArgumentParser(prog="dbos-notebook", description="DBOS in a notebook.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run a lifelike DBOS application, to have data")
    demo.add_argument("--database", default=DEFAULT, help="URL or SQLite file (%(default)s)")
    demo.add_argument("--workflows", type=int, default=200, help="how many (%(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="what chooses (%(default)s)")
    demo.add_argument("--force", action="store_true", help="write beside another application")
    chosen = parser.parse_args(arguments)
    if chosen.workflows < SMALLEST:
        parser.error(f"--workflows must be at least {SMALLEST}")
    try:
        # disable=None: a bar on a terminal, nothing in a pipe.
        with tqdm(total=chosen.workflows, unit=" workflows", disable=None) as bar:

            def progress(done: int) -> None:
                bar.update(done)

            run(chosen.database, chosen.workflows, chosen.seed, progress, force=chosen.force)
    except NotebookError as error:
        print(f"dbos-notebook demo: {error}", file=sys.stderr)
        return 1
    location = locate(chosen.database)
    shown = location.path if location.path else location
    print(f'Open it:  import dbos_notebook as dn; db = dn.connect("{shown}")')
    return 0
