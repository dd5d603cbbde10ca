"""The subcommands of the command line: demo, JupyterLab, dashboard, report and check."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from dbos_notebook.database.location import ENVIRONMENT_VARIABLE, locate
from dbos_notebook.demo.runner import run
from dbos_notebook.demo.workload import MIN_HISTORY, MIN_WORKFLOWS
from dbos_notebook.errors import FilterError, LocationError, MissingPackageError, OutputError
from dbos_notebook.text import is_missing, leaf_name, sanitize, timestamp

if TYPE_CHECKING:
    from dbos_notebook.analysis.diagnosis import Diagnosis
    from dbos_notebook.analysis.findings import Severity
    from dbos_notebook.client import Client

NOTEBOOK_DIRECTORY = "dbos_notebooks"
MAX_FILE_NAME = 100
IDLE_SECONDS, IDLE_CHECK_SECONDS = 180, 30
"""How long the kernel of a closed page of the dashboard is kept."""
KERNELS = "dbos_notebook.server.kernels.DashboardKernels"
MAX_P_VALUE = 0.05
MAX_CHECKED_IDS = 100
"""IDs of a finding in the JSON of a check."""
# Voilà's page without the icons that it would load from another server.
_VOILA_TEMPLATE = """\
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
@media (prefers-color-scheme: dark) {
  :root:root {
    --jp-layout-color0: #111; --jp-layout-color1: #1c1c1c; --jp-layout-color2: #2c2c2c;
    --jp-ui-font-color0: #fff; --jp-ui-font-color1: #e3e3e3; --jp-ui-font-color2: #b5b5b5;
    --jp-content-font-color1: #e3e3e3; color-scheme: dark;
  }
  body { background: var(--jp-layout-color0); color: var(--jp-ui-font-color1); }
}
</style>
<script>
// A page whose kernel ended while it was asked for stays empty: another request gets another one.
(() => {
  const begun = Date.now();
  const note = document.createElement("p");
  note.style.cssText = "padding: 1rem; font-family: sans-serif";
  note.setAttribute("role", "alert");
  const say = (text) => {
    if (note.textContent === text) return;
    note.textContent = text;
    document.body.prepend(note);
  };
  const reloads = Number(sessionStorage.getItem("dn-reloads") ?? 0);
  const isEnded = async () => {
    try {
      const { baseUrl, kernelId } = JSON.parse(document.getElementById("jupyter-config-data").text);
      return (await fetch(`${baseUrl}api/kernels/${kernelId}`)).status === 404;
    } catch {
      return false; // the server does not answer, which the page itself reports
    }
  };
  const check = async () => {
    if (document.querySelector(".dn-console")) {
      sessionStorage.removeItem("dn-reloads");
      note.remove();
      return;
    }
    const ended = document.readyState === "complete" && await isEnded();
    const waited = Date.now() - begun;
    if ((ended || waited > 30_000) && reloads < 2) {
      say("The page got no answer from Python. It is loaded again.");
      sessionStorage.setItem("dn-reloads", String(reloads + 1));
      setTimeout(() => location.reload(), 1_500); // time to read why
      return;
    }
    if (ended || waited > 30_000) {
      sessionStorage.removeItem("dn-reloads");
      say("The dashboard did not start. The terminal of its command says why.");
      if (ended) return;
    } else if (waited > 10_000) {
      say("Still waiting for an answer from Python …");
    }
    setTimeout(check, 1_000);
  };
  setTimeout(check, 2_000);
})();
</script>
{%- endblock notebook_css -%}
"""
# Inside the installed package; beside the package in a source tree.
_NOTEBOOKS = [Path(__file__).parents[level] / "notebooks" for level in (1, 2)]


def demo(
    database: str,
    workflows: int = 200,
    seed: int = 0,
    *,
    history: int = 6_000,
    force: bool = False,
) -> int:
    """Run the demo applications, and print how to open their database.

    Parameters
    ----------
    database
        URL or SQLite file.
    workflows
        The number of workflows to run.
    seed
        The random seed of the sample data.
    history
        The number of workflows of the week before, real runs that are aged and multiplied; 0 for
        none.
    force
        Use a database that holds another application's data.

    Returns
    -------
    int
        The exit status.
    """
    if workflows < MIN_WORKFLOWS:
        raise LocationError(f"--workflows {workflows} is too few. Use at least {MIN_WORKFLOWS}.")
    if history and history < MIN_HISTORY:
        raise LocationError(
            f"--history {history} is too few. Use 0 for none, or at least {MIN_HISTORY}."
        )
    # disable=None: a progress bar on a terminal, nothing in a pipe.
    with tqdm(total=workflows + history, unit=" workflows", disable=None) as bar:

        def progress(finished: int) -> None:
            bar.update(finished)

        run(database, workflows, seed, progress, history=history, force=force)
    location = locate(database)
    if history:
        print(
            f"The shop ran just now. The week before, {history:,} workflows of the application "
            "demo-documents, consists of real DBOS runs that were then aged and multiplied."
        )
    print(f'Open it:  import dbos_notebook as dn; db = dn.connect("{location.path or location}")')
    return 0


def lab(database: str | None = None, *, directory: str = ".", browser: bool = True) -> int:
    """Open JupyterLab on copies of the notebooks, with the database connected.

    Parameters
    ----------
    database
        As in :func:`dbos_notebook.connect`.
    directory
        Where the directory ``dbos_notebooks`` is created. An existing notebook is kept.
    browser
        Whether to open a browser.

    Returns
    -------
    int
        The exit status of JupyterLab.

    Raises
    ------
    MissingPackageError
        JupyterLab is not installed.
    LocationError
        No database was given or configured.
    """
    _require("jupyterlab", "lab")
    environment = _environment(database)
    notebooks = copy_notebooks(Path(directory))
    options = [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    return _run(["-m", "jupyterlab", str(notebooks), *options], environment)


def copy_notebooks(directory: Path) -> Path:
    """Copy the notebooks of this package to a directory, without replacing existing ones.

    Examples
    --------
    >>> import tempfile
    >>> copied = copy_notebooks(Path(tempfile.mkdtemp()))
    >>> (copied / "quickstart.ipynb").exists()
    True
    """
    target = directory / NOTEBOOK_DIRECTORY
    target.mkdir(parents=True, exist_ok=True)
    source = next(filter(Path.is_dir, _NOTEBOOKS), None)
    for notebook in source.glob("*.ipynb") if source else ():
        if not (target / notebook.name).exists():
            shutil.copyfile(notebook, target / notebook.name)
    return target


def dashboard(
    database: str | None = None,
    *,
    schema: str = "dbos",
    read_only: bool = False,
    port: int = 8866,
    browser: bool = True,
) -> int:
    """Serve the views as a web application, on this machine only and protected by a token.

    Parameters
    ----------
    database, schema
        As in :func:`dbos_notebook.connect`.
    read_only
        Hide cancel, resume and fork.
    port
        The port on 127.0.0.1; 0 for any free one.
    browser
        Whether to open a browser.

    Returns
    -------
    int
        The exit status of Voilà.

    Raises
    ------
    MissingPackageError
        Voilà is not installed.
    NotebookError
        The database cannot be read; see :func:`dbos_notebook.connect`.
    """
    from dbos_notebook.client import connect

    _require("voila", "dashboard")
    connect(database, schema=schema).close()
    with tempfile.TemporaryDirectory(prefix="dbos_notebook") as directory:
        notebook = Path(directory) / "dashboard.ipynb"
        notebook.write_text(_dashboard_notebook(schema, read_only=read_only), encoding="utf-8")
        options = [
            f"--template={_write_template(Path(directory))}",
            # Of the port 0, Voilà would print and open the address as it is.
            f"--port={port or _free_port()}",
            "--Voila.ip=127.0.0.1",
            "--token",  # Voilà creates one and prints it with the address
            "--VoilaConfiguration.show_tracebacks=False",
            # One kernel is ready before a page asks for it: a page opens in a second, not in five.
            "--preheat_kernel=True",
            "--pool_size=1",
            # Voilà's page does not end its kernel when it is closed or reloaded.
            f"--MappingKernelManager.cull_idle_timeout={IDLE_SECONDS}",
            f"--MappingKernelManager.cull_interval={IDLE_CHECK_SECONDS}",
            f"--VoilaConfiguration.multi_kernel_manager_class={KERNELS}",
            # Voilà loads it where Notebook is installed, and it fails in Voilà.
            "--VoilaConfiguration.extension_denylist=@jupyter-notebook/lab-extension",
        ]
        if not browser:
            options.append("--no-browser")
        environment = _environment(database)
        paths = [directory, environment.get("JUPYTER_PATH", "")]
        environment["JUPYTER_PATH"] = os.pathsep.join(filter(None, paths))
        return _run(["-m", "voila", str(notebook), *options], environment)


def report(
    workflow_id: str,
    database: str | None = None,
    *,
    schema: str = "dbos",
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Path:
    """Write one workflow as one HTML file: graph, timeline, steps and payloads.

    The file opens without a kernel and without a network. It contains inputs, outputs and errors:
    consider who will read it.

    Parameters
    ----------
    workflow_id
        The workflow.
    database, schema
        As in :func:`dbos_notebook.connect`.
    output
        The file. By default, it is named after the workflow, in the working directory.
    force
        Replace an existing file.

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

    # An ID may contain characters that a file name may not.
    name = re.sub(r"[^\w.-]+", "_", workflow_id).strip("._")[:MAX_FILE_NAME] or "workflow"
    target = Path(output).expanduser() if output else Path(f"{name}.html")
    if target.exists() and not force:
        raise OutputError(f"{target} exists. Choose another --output, or replace it with --force.")
    with connect(database, schema=schema, read_only=True) as db:
        view = db.inspect(workflow_id)
        try:
            return view.save_html(target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror}.") from None
        finally:
            view.close()


FOUND = 2
"""The exit status of a check that found something; 1 is that of an error."""


def check(
    database: str | None = None,
    *,
    schema: str = "dbos",
    severity: Severity = "warning",
    format: Literal["text", "json"] = "text",  # noqa: A002 - the name of the option
    against: str | None = None,
    release: str | None = None,
) -> int:
    """Print what is wrong now; see :meth:`dbos_notebook.Client.diagnose`. It changes nothing.

    With ``against``, also print what became slower or fails more often since that version; see
    :meth:`dbos_notebook.Client.compare_versions`.

    Parameters
    ----------
    database, schema
        As in :func:`dbos_notebook.connect`.
    severity
        The least severity that counts. All findings are printed.
    format
        ``"text"`` for people, or one JSON document.
    against
        The application version with which ``release`` is compared. What became worse counts as a
        warning.
    release
        The application version to check; by default the latest one of the same application.

    Returns
    -------
    int
        0 if nothing was found at or above the severity, otherwise 2.

    Raises
    ------
    NotebookError
        The database cannot be read; see :func:`dbos_notebook.connect`. Or a version does not exist.

    Examples
    --------
    >>> check(str(example_database), severity="critical")
    critical: executor local, version v1: PENDING under an executor that appears to be dead (1)
    ...
    2
    """
    from dbos_notebook.client import connect

    with connect(database, schema=schema, read_only=True) as db:
        diagnosis = db.diagnose()
        counted = len(diagnosis.at_least(severity))
        worse: list[dict[str, Any]] | None = None
        if release is not None and against in (None, release):
            raise FilterError(
                f"--release {release!r} is compared with another version. Name it with --against."
            )
        if against is not None:
            release = release or _latest_version(db, against)
            worse = _worse(db, against, release)
            counted += len(worse) if severity != "critical" else 0
        if format == "json":
            document = _check_document(db, diagnosis, severity, counted)
            if worse is not None:
                document |= {"against": against, "release": release, "worse": worse}
            print(json.dumps(document, indent=2))
        else:
            print(_check_text(db, diagnosis))
            if worse is not None:
                print(_worse_text(worse, str(against), str(release)))
    return FOUND if counted else 0


def _latest_version(db: Client, against: str) -> str:
    """Return the latest version of the application that has a version."""
    versions = db.versions()
    owners = versions.loc[versions["version_name"] == against, "application_name"]
    if not owners.empty and owners.notna().all():
        versions = versions[versions["application_name"].isin(owners)]
    others = versions[versions["version_name"] != against].sort_values("version_timestamp")
    if others.empty:
        raise FilterError(
            f"--against {against!r}: no other version is registered. Name the one to check with "
            "--release."
        )
    return str(others["version_name"].iloc[-1])


def _worse(db: Client, against: str, release: str) -> list[dict[str, Any]]:
    """Return the workflows and steps that became slower or fail more often, and new causes."""
    compared = db.compare_versions(against, release)
    is_worse = compared["verdict"].str.contains("slower|more errors", regex=True)
    # A cause that occurred once may have been there before, only unseen.
    is_new = (compared["of"] == "failure") & (compared["verdict"] == "new")
    is_worse |= is_new & (compared["p_value"] <= MAX_P_VALUE)
    rows = []
    for row in compared[is_worse].to_dict("records"):
        kept = {
            name: None if is_missing(value) else value
            for name, value in row.items()
            if isinstance(name, str)
        }
        rows.append(
            {
                name: value.total_seconds() if isinstance(value, dt.timedelta) else value
                for name, value in kept.items()
            }
        )
    return rows


def _worse_text(worse: list[dict[str, Any]], against: str, release: str) -> str:
    versions = f"{sanitize(release)} against {sanitize(against)}"
    if not worse:
        return f"{versions}: no evidence that anything became slower or fails more often"
    lines = []
    for row in worse:
        subject = f"workflow {leaf_name(str(row['name']))}"
        if row["function_name"]:
            subject = f"step {leaf_name(str(row['function_name']))} of {subject}"
        if row["of"] == "failure":
            error = f"{leaf_name(str(row['error_type']))}: {row['message']}"
            subject = f"failures of {subject} ({error})"
        lines.append(f"warning: {sanitize(subject)}: {row['verdict']} ({versions})")
        for column, words in (("p50", "p50"), ("p99", "p99"), ("error_rate", "failures")):
            low, high = (row[f"{column}_change_{end}"] for end in ("low", "high"))
            if low is None or high is None or not (low > 0 or high < 0):
                continue
            unit = " percentage points" if column == "error_rate" else " %"
            lines.append(
                f"  {words} {100 * row[f'{column}_change']:+.1f}{unit}, "
                f"interval {100 * low:+.1f} to {100 * high:+.1f}"
            )
    return "\n".join(lines)


def _check_document(
    db: Client, diagnosis: Diagnosis, severity: Severity, counted: int
) -> dict[str, Any]:
    return {
        "database": str(db.location),
        "read_at": diagnosis.read_at.isoformat(timespec="seconds"),
        "severity": severity,
        "counted": counted,
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "subject": finding.subject,
                "affected": finding.affected,
                "since": None if finding.since is None else finding.since.isoformat(),
                "evidence": finding.evidence,
                "remedy": finding.remedy,
                "plan": finding.plan or None,
                "workflow_ids": list(finding.workflow_ids[:MAX_CHECKED_IDS]),
            }
            for finding in diagnosis
        ],
    }


def _check_text(db: Client, diagnosis: Diagnosis) -> str:
    if not len(diagnosis):
        return f"{sanitize(db.location)}: nothing found that is wrong now"
    lines = []
    for finding in diagnosis:
        lines.append(sanitize(finding, 1_000))
        if finding.since is not None:
            lines.append(f"  since {timestamp(finding.since, milliseconds=False)}")
        # IDs and names may hold control characters that a terminal would act upon.
        lines += [
            f"  {sanitize(text, 10_000)}"
            for text in (finding.evidence, finding.remedy, finding.plan)
            if text
        ]
    return "\n".join(lines)


def _dashboard_notebook(schema: str, *, read_only: bool) -> str:
    import nbformat

    v4: Any = nbformat.v4  # without type hints
    connect = (
        f"import dbos_notebook as dn\n\ndb = dn.connect(schema={schema!r}, read_only={read_only!r})"
    )
    cells = [v4.new_code_cell(source) for source in (connect, "db.open(sync_url=True)")]
    metadata = {
        "title": "DBOS workflows",
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    }
    return str(v4.writes(v4.new_notebook(cells=cells, metadata=metadata)))


def _free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with closing(socket.socket()) as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _write_template(directory: Path) -> str:
    """Write a template for Voilà; return its name."""
    template = directory / "voila" / "templates" / "dbos_notebook"
    template.mkdir(parents=True)
    (template / "conf.json").write_text('{"base_template": "lab"}')
    (template / "index.html.j2").write_text(_VOILA_TEMPLATE)
    return template.name


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{package} is not installed. Run: pip install 'dbos-notebook[{extra}]'"
        )


def _environment(database: str | None) -> dict[str, str]:
    """Return the environment of this process with the database, wherever it was configured."""
    return {**os.environ, ENVIRONMENT_VARIABLE: locate(database).address()}


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen([sys.executable, *arguments], env=environment)  # noqa: S603
    # Terminating this program terminates the server.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Ctrl-C reached the server too, which asks for confirmation or stops.
            continue
