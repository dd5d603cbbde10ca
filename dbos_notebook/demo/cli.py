"""The demo as a command: a progress bar, and how to go on."""

from __future__ import annotations

from tqdm import tqdm

from dbos_notebook.database.locate import locate
from dbos_notebook.demo.plan import SMALLEST
from dbos_notebook.demo.run import run
from dbos_notebook.errors import LocationError


def demo(database: str, workflows: int, seed: int, *, force: bool = False) -> int:
    """Run the demo application and say how to open what it wrote; return the exit status."""
    if workflows < SMALLEST:
        raise LocationError(f"--workflows {workflows} is too few: take at least {SMALLEST}.")
    # disable=None: a bar on a terminal, nothing in a pipe.
    with tqdm(total=workflows, unit=" workflows", disable=None) as bar:

        def progress(done: int) -> None:
            bar.update(done)

        run(database, workflows, seed, progress, force=force)
    location = locate(database)
    shown = location.path if location.path else location
    print(f'Open it:  import dbos_notebook as dn; db = dn.connect("{shown}")')
    return 0
