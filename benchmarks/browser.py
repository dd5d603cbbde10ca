"""Response times of the views in JupyterLab and Chromium on the large database."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

import dbos_notebook as dn
from benchmarks.measure import Measurement, Report, milliseconds, seconds
from dbos_notebook.widgets import bundle

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Opened, notebooks, running_chromium, running_jupyter  # noqa: E402

from scripts.system_packages import CHROMIUM, find_chromium  # noqa: E402

ROUNDS = 5
CHILDREN, STEPS = 166, 5
ROW_SELECTOR = ".dn-row"
TYPED_NAME = "workflow_17"
WORKFLOW_ID = "bench-wide"

_RUN = """async ([place, wanted, count]) => {
    const { content } = window.jupyterapp.shell.currentWidget;
    content.activeCellIndex = place;
    const started = performance.now();
    const seen = new Promise((resolve) => {
        const check = () => (document.querySelectorAll(wanted).length >= count
            ? resolve(performance.now() - started) : requestAnimationFrame(check));
        requestAnimationFrame(check);
    });
    window.jupyterapp.commands.execute("notebook:run-cell");
    return seen;
}"""
_RESTART = """async () => {
    const { sessionContext } = window.jupyterapp.shell.currentWidget;
    await sessionContext.restartKernel();
}"""
# From the last key to the first rows that all contain the string, or to the message of no match.
_WATCH = """(text) => {
    const search = document.querySelector(".dn-search");
    const body = document.querySelector(".dn-list tbody");
    let last = 0;
    search.addEventListener("input", () => (last = performance.now()));
    window.dnTyped = new Promise((resolve) => {
        const check = () => {
            if (search.value !== text) return;
            const rows = [...body.querySelectorAll(".dn-row")];
            const found = rows.length && rows.every((row) =>
                row.textContent.includes(text) || row.dataset.id.includes(text));
            if (found || body.textContent.includes("No workflow matches")) {
                requestAnimationFrame(() => resolve(performance.now() - last));
            }
        };
        new MutationObserver(check).observe(body, { childList: true, subtree: true });
    });
}"""


def views(report: Report, url: str, rows: int) -> None:
    """Measure the list and one run, from the start of the cell and from the last key."""
    _size(report)
    path = find_chromium()
    if path is None:
        print(f"The views were not measured; not found: {CHROMIUM}.")
        return
    _add_wide_workflow(url)
    _kernel_response(report, url, rows)
    connect = f"import dbos_notebook as dn\ndb = dn.connect({url!r}, statement_timeout=None)"
    cells = (f"{connect}\ndb.explore()", connect, "db.explore()", f"db.inspect({WORKFLOW_ID!r})")
    with (
        tempfile.TemporaryDirectory(prefix="dnb") as home,
        running_jupyter(Path(home)) as jupyter,
        running_chromium(str(path)) as chromium,
        notebooks(jupyter, chromium) as open_notebook,
    ):
        opened = open_notebook(*cells, width=1200, height=1000)
        _first_pages(report, opened, rows)
        _typing(report, opened, url, rows)
        _inspect(report, opened)


def _size(report: Report) -> None:
    modules: dict[str, str] = {}
    whole = []
    for name in ("explore", "inspect", "board", "controls", "offline"):
        whole.append(bundle.module(name))
        bundle._scopes(name, modules)
    own = sum(len(text.encode()) for text in modules.values())
    most = max(len(text.encode()) for text in whole)
    report.add(
        Measurement(
            "JavaScript of all views; of the largest as it is sent",
            "",
            f"{own / 1000:.0f} kB; {most / 1000:.0f} kB",
            "",
            "",
            "≤ 150 kB",
            own <= 150_000,
        )
    )


def _kernel_response(report: Report, url: str, rows: int) -> None:
    """Measure the kernel's share of a first page: its SQL and the response."""
    with dn.connect(url) as db:
        widget = db.explore()
        took = seconds({"page": lambda: widget.answer({"kind": "page", "view": {}})}, 25)["page"]
    report.add(
        Measurement(
            "explore(): the kernel's answer for a first page",
            f"{rows:,}",
            milliseconds(took),
            "",
            "",
            "≤ 50 ms",
            took <= 0.05,
        )
    )


def _restart_kernel(opened: Opened) -> None:
    opened.command("notebook:clear-all-cell-outputs")
    opened.page.evaluate(_RESTART)
    opened.page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )


def _run(opened: Opened, place: int, wanted: str, count: int = 1) -> float:
    took: float = opened.page.evaluate(_RUN, [place, wanted, count])
    return took / 1000


def _first_pages(report: Report, opened: Opened, rows: int) -> None:
    cold, first, again = [], [], []
    for _ in range(ROUNDS):
        _restart_kernel(opened)
        cold.append(_run(opened, 0, ROW_SELECTOR, 50))
        _restart_kernel(opened)
        opened.page.evaluate(_RUN, [1, ".jp-CodeCell:nth-of-type(1)", 0])
        opened.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )
        first.append(_run(opened, 2, ROW_SELECTOR, 50))
        opened.command("notebook:clear-all-cell-outputs")
        again.append(_run(opened, 2, ROW_SELECTOR, 50))
    variants = (
        ("in a kernel's first cell, with import and connect", cold, None),
        ("the first in its kernel", first, 1.5),
        ("again", again, 1.5),
    )
    for name, times, bound in variants:
        name = f"explore(): from the cell's start to 50 rows on screen, {name}"
        _add_median(report, name, f"{rows:,}", times, bound)


def _typing(report: Report, opened: Opened, url: str, rows: int) -> None:
    page = opened.page
    with dn.connect(url) as db:
        oldest = str(db.workflows(limit=1, sort_desc=False)["workflow_id"].iloc[0])
    searches = (
        ("the name of one in twenty workflows", TYPED_NAME, 0.3),
        ("the user of one in two thousand", "user-496", 0.3),
        ("the ID of the oldest workflow", oldest, 0.3),
        ("a string without matches", "no such thing", None),
    )
    for name, text, bound in searches:
        times = []
        for _ in range(ROUNDS):
            opened.command("notebook:clear-all-cell-outputs")
            _run(opened, 2, ROW_SELECTOR, 50)
            page.wait_for_selector(".dn-status b")
            page.evaluate(_WATCH, text)
            search = page.locator(".dn-search")
            if text == oldest:
                search.fill(text)  # an ID is pasted
            else:
                search.press_sequentially(text, delay=80)
            found: float = page.evaluate("window.dnTyped")
            times.append(found / 1000)
        name = f"explore(): from the last key to the results: {name}"
        _add_median(report, name, f"{rows:,}", times, bound)


def _inspect(report: Report, opened: Opened) -> None:
    times = []
    for _ in range(ROUNDS):
        opened.command("notebook:clear-all-cell-outputs")
        times.append(_run(opened, 3, ".dn-picture [data-node]"))
    name = "inspect(): from the cell's start to the graph on screen"
    _add_median(report, name, f"{1 + CHILDREN * (STEPS + 2):,} nodes", times, 2)


def _add_median(
    report: Report, name: str, size: str, times: Sequence[float], bound: float | None
) -> None:
    """Add the median, with the fastest and slowest in the column of the ratio."""
    took = statistics.median(times)
    spread = f"{milliseconds(min(times))} to {milliseconds(max(times))}"
    target = "" if bound is None else f"≤ {milliseconds(bound)}"
    met = None if bound is None else took <= bound
    report.add(Measurement(name, size, milliseconds(took), "", spread, target, met))


def _add_wide_workflow(url: str) -> None:
    """Add a run of a thousand nodes: a workflow with children of five steps each."""
    started = 1_780_000_000_000
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"""INSERT INTO dbos.workflow_status (workflow_uuid, status, name, created_at,
                updated_at, completed_at, application_version, parent_workflow_id, serialization)
            SELECT CASE WHEN i = 0 THEN '{WORKFLOW_ID}' ELSE '{WORKFLOW_ID}-' || i END, 'SUCCESS',
                CASE WHEN i = 0 THEN 'wide' ELSE 'child_' || (i % 3) END, {started} + i,
                {started} + 1000, {started} + 1000, 'v1', CASE WHEN i > 0 THEN '{WORKFLOW_ID}' END,
                'py_pickle'
            FROM generate_series(0, {CHILDREN}) AS g(i)
            ON CONFLICT DO NOTHING""".encode()
        )
        connection.execute(
            f"""INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name,
                child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization,
                retention_timestamp)
            SELECT '{WORKFLOW_ID}', i, 'child_' || (i % 3), '{WORKFLOW_ID}-' || i, {started} + i,
                {started} + i, 'py_pickle', 1
            FROM generate_series(1, {CHILDREN}) AS g(i)
            UNION ALL
            SELECT '{WORKFLOW_ID}-' || i, s, 'step_' || s, NULL, {started} + i + 10 * s,
                {started} + i + 10 * s + 9, 'py_pickle', 1
            FROM generate_series(1, {CHILDREN}) AS g(i), generate_series(1, {STEPS}) AS h(s)
            ON CONFLICT DO NOTHING""".encode()
        )
