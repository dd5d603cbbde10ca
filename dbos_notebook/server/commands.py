"""The commands of the command line: JupyterLab, the dashboard, a report, the demo."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from dbos_notebook.database.location import ENVIRONMENT_VARIABLE, locate
from dbos_notebook.demo.runner import run
from dbos_notebook.demo.workload import MIN_WORKFLOWS
from dbos_notebook.errors import LocationError, MissingPackageError, OutputError

FOLDER = "dbos_notebooks"
# Voilà's own page, but for the icons that it would fetch from elsewhere.
_TEMPLATE = """\
{%- extends "lab/index.html.j2" -%}
{% import "spinner.macro.html.j2" as spinner %}
{%- block notebook_css -%}
{{ resources.include_js("static/voila-style.js") }}
{{ spinner.css() }}
{{ super.super() }}
<style>
.jp-mod-noOutputs.jp-mod-noInput { display: none; }
html, body { height: auto; overflow: auto; contain: none; }
#rendered_cells { padding: 0 1rem; }
</style>
{%- endblock notebook_css -%}
"""
_PACKAGE = Path(__file__).parents[1]
# Inside an installed package; beside the package in a source tree.
_SHIPPED = next(
    (path for path in (_PACKAGE / "notebooks", _PACKAGE.parent / "notebooks") if path.is_dir()),
    None,
)


def lab(database: str | None = None, *, directory: str = ".", browser: bool = True) -> int:
    """Open JupyterLab on copies of the notebooks, with the database connected.

    Parameters
    ----------
    database
        As :func:`dbos_notebook.connect` takes it.
    directory
        Where the folder ``dbos_notebooks`` is made; a notebook that is there already stays.
    browser
        Whether to open one.

    Returns
    -------
    int
        JupyterLab's exit status, when it ends.

    Raises
    ------
    MissingPackageError
        JupyterLab is not installed.
    LocationError
        Nothing names a database.
    """
    _require("jupyterlab", "lab")
    environment = _environment(database)
    folder = copy_notebooks(Path(directory))
    options = [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    return _run(["-m", "jupyterlab", str(folder), *options], environment)


def copy_notebooks(directory: Path) -> Path:
    """Copy the notebooks of this package into a folder; leave those that are there.

    Examples
    --------
    >>> import tempfile
    >>> folder = copy_notebooks(Path(tempfile.mkdtemp()))
    >>> (folder / "quickstart.ipynb").exists()
    True
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(_SHIPPED.glob("*.ipynb") if _SHIPPED else ()):
        target = folder / notebook.name
        if not target.exists():
            shutil.copyfile(notebook, target)
    return folder


def dashboard(
    database: str | None = None,
    *,
    schema: str = "dbos",
    read_only: bool = False,
    port: int = 8866,
    browser: bool = True,
) -> int:
    """Serve the widgets as a web application, on this machine and behind a token.

    Parameters
    ----------
    database, schema
        As :func:`dbos_notebook.connect` takes them.
    read_only
        Leave out cancel, resume and fork.
    port
        Of 127.0.0.1; 0 for any free one.
    browser
        Whether to open one.

    Returns
    -------
    int
        Voilà's exit status, when it ends.

    Raises
    ------
    MissingPackageError
        Voilà is not installed.
    NotebookError
        The database cannot be read, as :func:`dbos_notebook.connect` tells it.
    """
    from dbos_notebook.client import connect

    _require("voila", "dashboard")
    connect(database, schema=schema).close()
    with tempfile.TemporaryDirectory(prefix="dbos_notebook") as folder:
        page = Path(folder) / "dashboard.ipynb"
        page.write_text(_page(schema, read_only=read_only), encoding="utf-8")
        options = [
            f"--template={_template(Path(folder))}",
            f"--port={port}",
            "--Voila.ip=127.0.0.1",
            "--token",  # one of its own making, which it prints with the address
            "--VoilaConfiguration.show_tracebacks=False",
            # Voilà would load it where Notebook is installed, and it fails there.
            "--VoilaConfiguration.extension_denylist=@jupyter-notebook/lab-extension",
        ]
        if not browser:
            options.append("--no-browser")
        environment = _environment(database)
        paths = [folder, environment.get("JUPYTER_PATH", "")]
        environment["JUPYTER_PATH"] = os.pathsep.join(filter(None, paths))
        return _run(["-m", "voila", str(page), *options], environment)


def report(
    workflow_id: str,
    database: str | None = None,
    *,
    schema: str = "dbos",
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Path:
    """Write one workflow as one HTML file: graph, timeline, steps and what each of them did.

    It opens anywhere, without a kernel and without a network. It holds inputs, outputs and
    errors: think of who will read it.

    Parameters
    ----------
    workflow_id
        The workflow.
    database, schema
        As :func:`dbos_notebook.connect` takes them.
    output
        The file; ``None``: named after the workflow, in the working directory.
    force
        Replace a file that exists.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OutputError
        The file exists, or cannot be written.
    WorkflowNotFoundError
        No workflow has this ID.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "checkout.html"
    >>> report("checkout-1", str(example_database), output=target).name
    'checkout.html'
    """
    from dbos_notebook.client import connect

    # An ID may hold whatever it likes; a file's name may not.
    name = re.sub(r"[^\w.-]+", "_", workflow_id).strip("._")[:100] or "workflow"
    target = Path(output).expanduser() if output else Path(f"{name}.html")
    if target.exists() and not force:
        raise OutputError(f"{target} exists. Give another --output, or --force to replace it.")
    with connect(database, schema=schema, read_only=True) as db:
        view = db.inspect(workflow_id)
        try:
            return view.save_html(target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror}.") from None
        finally:
            view.close()


def _page(schema: str, *, read_only: bool) -> str:
    from typing import Any, cast

    import nbformat

    made = cast(Any, nbformat).v4
    opening = (
        f"import dbos_notebook as dn\n\ndb = dn.connect(schema={schema!r}, read_only={read_only!r})"
    )
    cells = [made.new_code_cell(source) for source in (opening, "db.board()", "db.explore()")]
    metadata = {
        "title": "DBOS workflows",
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    }
    return cast(str, cast(Any, nbformat).writes(made.new_notebook(cells=cells, metadata=metadata)))


def _template(folder: Path) -> str:
    """Write a template for Voilà: its own without the icons that it fetches from elsewhere."""
    name = "dbos_notebook"
    template = folder / "voila" / "templates" / name
    template.mkdir(parents=True)
    (template / "conf.json").write_text('{"base_template": "lab"}')
    (template / "index.html.j2").write_text(_TEMPLATE)
    return name


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{package} is not installed. Run: pip install 'dbos-notebook[{extra}]'"
        )


def _environment(database: str | None) -> dict[str, str]:
    """Return this process's environment with the database in it, wherever it was named."""
    return {**os.environ, ENVIRONMENT_VARIABLE: locate(database).address()}


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen([sys.executable, *arguments], env=environment)  # noqa: S603
    # Who ends this program ends the server with it.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The same Ctrl-C reached the server, which asks or ends.
            continue


def demo(database: str, workflows: int, seed: int, *, force: bool = False) -> int:
    """Run the demo application and say how to open what it wrote; return the exit status."""
    if workflows < MIN_WORKFLOWS:
        raise LocationError(f"--workflows {workflows} is too few: take at least {MIN_WORKFLOWS}.")
    # disable=None: a bar on a terminal, nothing in a pipe.
    with tqdm(total=workflows, unit=" workflows", disable=None) as bar:

        def progress(done: int) -> None:
            bar.update(done)

        run(database, workflows, seed, progress, force=force)
    location = locate(database)
    shown = location.path if location.path else location
    print(f'Open it:  import dbos_notebook as dn; db = dn.connect("{shown}")')
    return 0
