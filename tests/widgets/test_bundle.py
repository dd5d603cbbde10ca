"""The scripts and style sheets of the views, and constants that Python and JavaScript share."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from dbos_notebook import text
from dbos_notebook.status import OUTCOME_STYLES, STATUS_STYLES, STATUSES, STATUSES_BY_SEVERITY
from dbos_notebook.widgets import bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMPORTED = """async ([script, name]) => {
    const blob = new Blob([`${script}\\nexport default $${name};`], { type: "text/javascript" });
    window.imported = (await import(URL.createObjectURL(blob))).default;
}"""


@pytest.mark.parametrize("view", ["board", "controls", "explore", "inspect", "offline"])
def test_a_script_has_each_module_once_and_before_what_imports_it(view: str) -> None:
    script = bundle.module(view)
    written = re.findall(r"^const \$(\w+) = \(\(\) =>", script, re.MULTILINE)
    assert len(written) > 5
    assert len(written) == len(set(written))
    assert written[-1] == view
    parts = re.split(r"^const \$\w+ = \(\(\) =>", script, flags=re.MULTILINE)[1:]
    for place, part in enumerate(parts):
        imported = re.findall(r"^const \{[^}]*\} = \$(\w+);", part, re.MULTILINE)
        assert set(imported) <= set(written[:place])


def test_durations_are_written_as_in_python(chromium: Browser) -> None:
    pick = random.Random(7)
    milliseconds = [0, 1, 999, 9949, 9950, 10_000, 59_949, 59_950, 60_000, 3_600_000, 86_400_000]
    milliseconds += [round(10 ** pick.uniform(0, 12)) for _ in range(2000)]
    milliseconds += [-each for each in milliseconds[:200] if each]
    page = chromium.new_page()
    page.evaluate(IMPORTED, [bundle.module("format"), "format"])
    written = page.evaluate("(all) => all.map(window.imported.formatDuration)", milliseconds)
    page.close()
    assert written == [text.duration(each / 1000) for each in milliseconds]


def test_statuses_and_outcomes_are_those_of_python(chromium: Browser) -> None:
    page = chromium.new_page()
    page.evaluate(IMPORTED, [bundle.module("status"), "status"])
    assert page.evaluate("window.imported.STATUS_NAMES") == list(STATUSES_BY_SEVERITY)
    page.evaluate(IMPORTED, [bundle.module("status_data"), "status_data"])
    marks = page.evaluate("window.imported.STATUSES.map((one) => one.mark.map((path) => path.d))")
    outcomes = page.evaluate("window.imported.OUTCOMES")
    page.close()
    assert marks == [[path.d for path in STATUS_STYLES[one].mark] for one in STATUSES_BY_SEVERITY]
    assert outcomes == {name: style._asdict() for name, style in OUTCOME_STYLES.items()}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_status_has_its_color_and_an_unknown_one_has_none(
    chromium: Browser, theme: str
) -> None:
    page = chromium.new_page()
    chips = "".join(f'<i class="dn-chip" data-status="{one}"></i>' for one in (*STATUSES, "PAUSED"))
    view = f'<div class="dn-view" data-theme="{theme}">{chips}</div>'
    page.set_content(f"<style>{bundle.style('base')}</style>{view}")
    shown = page.locator("i").evaluate_all("(all) => all.map((one) => getComputedStyle(one).color)")
    page.close()
    wanted = [getattr(STATUS_STYLES[one], theme).text for one in (*STATUSES, "")]
    assert shown == [
        f"rgb({', '.join(str(int(each[i : i + 2], 16)) for i in (1, 3, 5))})" for each in wanted
    ]
