"""Views in a real JupyterLab and Chromium, on the big database: what a person waits for."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

import dbos_notebook as dn
from benchmarks.measure import Report, Row, milliseconds, seconds
from dbos_notebook.widgets import bundle

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Opened, notebooks, running_chromium, running_jupyter  # noqa: E402

from scripts.system_packages import CHROMIUM, find_chromium  # noqa: E402

ROUNDS = 5
CHILDREN, STEPS = 166, 5
PAGE = ".dn-row"
TYPED = "workflow_17"
NAMED = "bench-wide"

_RUN = """async ([place, wanted, count]) => {
    const { content } = window.jupyterapp.shell.currentWidget;
    content.activeCellIndex = place;
    const begun = performance.now();
    const seen = new Promise((resolve) => {
        const look = () => (document.querySelectorAll(wanted).length >= count
            ? resolve(performance.now() - begun) : requestAnimationFrame(look));
        requestAnimationFrame(look);
    });
    window.jupyterapp.commands.execute("notebook:run-cell");
    return seen;
}"""
_RESTART = """async () => {
    const { sessionContext } = window.jupyterapp.shell.currentWidget;
    await sessionContext.restartKernel();
}"""
# From the last key to the first rows that all hold the text, or to the word that there are none.
_WATCH = """(text) => {
    const search = document.querySelector(".dn-search");
    const body = document.querySelector(".dn-list tbody");
    let last = 0;
    search.addEventListener("input", () => (last = performance.now()));
    window.dnTyped = new Promise((resolve) => {
        const look = () => {
            if (search.value !== text) return;
            const rows = [...body.querySelectorAll(".dn-row")];
            const found = rows.length && rows.every((row) =>
                row.textContent.includes(text) || row.dataset.id.includes(text));
            if (found || body.textContent.includes("No workflow matches")) {
                requestAnimationFrame(() => resolve(performance.now() - last));
            }
        };
        new MutationObserver(look).observe(body, { childList: true, subtree: true });
    });
}"""


def views(report: Report, url: str, rows: int) -> None:
    """Measure the list and one run, from the cell's start and from the last key."""
    _size(report)
    path = find_chromium()
    if path is None:
        print(f"The views were not measured; not found: {CHROMIUM}.")
        return
    _wide(url)
    _answer(report, url, rows)
    connect = f"import dbos_notebook as dn\ndb = dn.connect({url!r}, statement_timeout=None)"
    cells = (f"{connect}\ndb.explore()", connect, "db.explore()", f"db.inspect({NAMED!r})")
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
        Row(
            "JavaScript of all views; of the largest as it is sent",
            "",
            f"{own / 1000:.0f} kB; {most / 1000:.0f} kB",
            "",
            "",
            "≤ 150 kB",
            own <= 150_000,
        )
    )


def _answer(report: Report, url: str, rows: int) -> None:
    """Measure the kernel's own part of a first page: all its SQL, and the answer made of it."""
    with dn.connect(url) as db:
        widget = db.explore()
        took = seconds({"page": lambda: widget.answer({"kind": "page", "view": {}})}, 25)["page"]
    report.add(
        Row(
            "explore(): the kernel's answer for a first page",
            f"{rows:,}",
            milliseconds(took),
            "",
            "",
            "≤ 50 ms",
            took <= 0.05,
        )
    )


def _fresh(opened: Opened) -> None:
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
        _fresh(opened)
        cold.append(_run(opened, 0, PAGE, 50))
        _fresh(opened)
        opened.page.evaluate(_RUN, [1, ".jp-CodeCell:nth-of-type(1)", 0])
        opened.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )
        first.append(_run(opened, 2, PAGE, 50))
        opened.command("notebook:clear-all-cell-outputs")
        again.append(_run(opened, 2, PAGE, 50))
    told = (
        ("in a kernel's first cell, with import and connect", cold, None),
        ("the first in its kernel", first, 1.5),
        ("again", again, 1.5),
    )
    for what, taken, bound in told:
        what = f"explore(): from the cell's start to 50 rows seen, {what}"
        _tell(report, what, f"{rows:,}", taken, bound)


def _typing(report: Report, opened: Opened, url: str, rows: int) -> None:
    page = opened.page
    with dn.connect(url) as db:
        oldest = str(db.workflows(limit=1, sort_desc=False)["workflow_id"].iloc[0])
    texts = (
        ("a name that one in twenty has", TYPED, 0.3),
        ("a user that one in two thousand has", "user-496", 0.3),
        ("the ID of the oldest", oldest, 0.3),
        ("a text that nothing has, to the end of all", "no such thing", None),
    )
    for what, text, bound in texts:
        taken = []
        for _ in range(ROUNDS):
            opened.command("notebook:clear-all-cell-outputs")
            _run(opened, 2, PAGE, 50)
            page.wait_for_selector(".dn-status b")
            page.evaluate(_WATCH, text)
            search = page.locator(".dn-search")
            if text == oldest:
                search.fill(text)  # an ID is pasted
            else:
                search.press_sequentially(text, delay=80)
            found: float = page.evaluate("window.dnTyped")
            taken.append(found / 1000)
        what = f"explore(): from the last key to what was found: {what}"
        _tell(report, what, f"{rows:,}", taken, bound)


def _inspect(report: Report, opened: Opened) -> None:
    taken = []
    for _ in range(ROUNDS):
        opened.command("notebook:clear-all-cell-outputs")
        taken.append(_run(opened, 3, ".dn-picture [data-node]"))
    what = "inspect(): from the cell's start to the graph seen"
    _tell(report, what, f"{1 + CHILDREN * (STEPS + 2):,} nodes", taken, 2)


def _tell(
    report: Report, what: str, size: str, taken: Sequence[float], bound: float | None
) -> None:
    """Add the median, with the fastest and the slowest where others have their ratio."""
    took = statistics.median(taken)
    spread = f"{milliseconds(min(taken))} to {milliseconds(max(taken))}"
    target = "" if bound is None else f"≤ {milliseconds(bound)}"
    met = None if bound is None else took <= bound
    report.add(Row(what, size, milliseconds(took), "", spread, target, met))


def _wide(url: str) -> None:
    """Add a run of a thousand nodes: a workflow that starts children of five steps each."""
    begun = 1_780_000_000_000
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"""INSERT INTO dbos.workflow_status (workflow_uuid, status, name, created_at,
                updated_at, completed_at, application_version, parent_workflow_id, serialization)
            SELECT CASE WHEN i = 0 THEN '{NAMED}' ELSE '{NAMED}-' || i END, 'SUCCESS',
                CASE WHEN i = 0 THEN 'wide' ELSE 'child_' || (i % 3) END, {begun} + i,
                {begun} + 1000, {begun} + 1000, 'v1', CASE WHEN i > 0 THEN '{NAMED}' END,
                'py_pickle'
            FROM generate_series(0, {CHILDREN}) AS g(i)
            ON CONFLICT DO NOTHING""".encode()
        )
        connection.execute(
            f"""INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name,
                child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization,
                retention_timestamp)
            SELECT '{NAMED}', i, 'child_' || (i % 3), '{NAMED}-' || i, {begun} + i, {begun} + i,
                'py_pickle', 1
            FROM generate_series(1, {CHILDREN}) AS g(i)
            UNION ALL
            SELECT '{NAMED}-' || i, s, 'step_' || s, NULL, {begun} + i + 10 * s,
                {begun} + i + 10 * s + 9, 'py_pickle', 1
            FROM generate_series(1, {CHILDREN}) AS g(i), generate_series(1, {STEPS}) AS h(s)
            ON CONFLICT DO NOTHING""".encode()
        )
