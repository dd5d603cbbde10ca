"""How a notebook displays listings, and that they stay plain DataFrames everywhere else."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import dbos_notebook as dn
from dbos_notebook.drawing.frame_html import frame_html, register
from dbos_notebook.tables.frames import LISTING, mark_listing


def headers(frame: pd.DataFrame) -> list[str]:
    html = frame_html(frame)
    assert html is not None
    names = re.findall(r'<th scope="col"[^>]*>([^<]*?)(?: <small>UTC</small>)?</th>', html)
    return [unescape(name) for name in names[1:]]


def cells(frame: pd.DataFrame, row: int = 0) -> list[str]:
    html = frame_html(frame)
    assert html is not None
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", html)
    return [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(r"<td.*?</td>", rows[row])]


@pytest.fixture
def listing(shop_sqlite: Path) -> Iterator[pd.DataFrame]:
    with dn.connect(shop_sqlite) as client:
        yield client.workflows()


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_what_people_need_stands_first(listing: pd.DataFrame) -> None:
    first = ["workflow_id", "status", "name", "created_at", "duration"]
    assert listing.columns[:5].tolist() == headers(listing)[:5] == first


def test_empty_and_constant_columns_are_named_below(listing: pd.DataFrame) -> None:
    empty = [name for name in listing if listing[name].isna().all()]
    html = frame_html(listing)
    assert html is not None
    assert empty
    assert f"{len(empty)} empty columns are hidden: {', '.join(empty)}" in html
    assert "application_name <strong>demo-shop</strong>" in html
    assert f"{len(listing):,} rows × {len(listing.columns)} columns" in html
    assert not set(headers(listing)) & {*empty, "application_name"}


def test_columns_that_were_selected_are_all_shown(listing: pd.DataFrame) -> None:
    picked = listing[["workflow_id", "class_name", "application_name"]]
    assert headers(picked) == ["workflow_id", "class_name", "application_name"]
    assert cells(picked)[1:] == ["–", "demo-shop"]


def test_a_row_of_values() -> None:
    parent = "0190aa12-77f1-4c55-9d0e-aa61b54ffe01"
    frame = mark_listing(
        pd.DataFrame(
            {
                "workflow_id": [f"{parent}-9"],
                "status": ["ERROR"],
                "name": ["acme.documents.process_invoice"],
                "parent_workflow_id": [parent],
                "created_at": [pd.Timestamp("2026-01-02T03:04:05.678Z")],
                "duration": [pd.Timedelta("125s")],
                "error_type": ["dbos._error.DBOSMaxStepRetriesExceeded"],
                "output": [{"total": 9}],
            }
        )
    )
    assert cells(frame) == [
        f"{parent}-9",
        "✕ERROR",
        "process_invoice",
        "0190aa12-77f…a61b54ffe01",
        "2026-01-02 03:04:05.678",
        "2 m 5 s",
        "DBOSMaxStepRetriesExceeded",
        "{'total': 9}",
    ]
    html = frame_html(frame)
    assert html is not None
    assert 'title="acme.documents.process_invoice"' in html
    assert f'title="{parent}"' in html
    assert cells(frame.assign(depth=1))[0] == "…-9"


def test_names_with_the_same_leaf_are_told_apart() -> None:
    names = ["app.invoice.extract", "app.receipt.extract", "app.index", "x", "y.x"]
    frame = mark_listing(pd.DataFrame({"function_name": names}))
    shown = [cells(frame, row)[0] for row in range(len(names))]
    assert shown == ["invoice.extract", "receipt.extract", "index", "x", "y.x"]
    lists = mark_listing(pd.DataFrame({"workflow_id": ["a"], "name": [["x", "y"]]}))
    assert cells(lists)[1] == "['x', 'y']"


def test_summaries_are_written_as_values(listing: pd.DataFrame) -> None:
    summary = listing[["duration", "queue_wait"]].describe()
    assert not any("(" in cell for row in range(len(summary)) for cell in cells(summary, row))


def test_durations_of_whole_seconds_say_so() -> None:
    times = pd.to_datetime(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z"], format="ISO8601")
    frame = mark_listing(
        pd.DataFrame({"workflow_id": ["a", "b"], "created_at": times, "duration": pd.Timedelta(0)})
    )
    assert [cells(frame, row)[-1] for row in (0, 1)] == ["< 1 s", "0 ms"]


def test_rows_and_columns_are_limited_by_the_options_of_pandas(listing: pd.DataFrame) -> None:
    with pd.option_context("display.max_rows", 20, "display.min_rows", 5):
        html = frame_html(listing)
        assert html is not None
        assert html.count("<tr>") == 1 + 5 + 1
        ids = listing["workflow_id"]
        shown = [ids.iloc[position] for position in (0, 1, 2, -2, -1)]
        assert [cells(listing, row)[0] for row in (0, 1, 2, 4, 5)] == shown
        assert set(cells(listing, 3)) == {"…"}
    with pd.option_context("display.max_columns", 3):
        assert headers(listing) == ["workflow_id", "status", "name"]
        assert "more columns" in (frame_html(listing) or "")
    with pd.option_context("display.max_colwidth", 10):
        message = listing[listing["error_message"].notna()][["workflow_id", "error_message"]]
        assert len(cells(message)[1]) == 10
    with pd.option_context("display.notebook_repr_html", False):
        assert frame_html(listing) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.set_index(["status", "workflow_id"]),
        lambda frame: frame.isna().rename(columns=str.upper),
        lambda frame: frame.pivot_table(index="name", columns="status", aggfunc="size"),
        lambda frame: pd.concat([frame[["status"]], frame[["status"]]], axis=1),
        lambda frame: pd.DataFrame({"workflow_id": ["own"]}),
    ],
)
def test_other_shapes_are_displayed_by_pandas(listing: pd.DataFrame, change) -> None:  # type: ignore[no-untyped-def] # a lambda
    frame = change(listing)
    assert frame_html(frame) == frame._repr_html_()


def test_no_row_and_the_index(listing: pd.DataFrame) -> None:
    assert "0 rows × " in (frame_html(listing.head(0)) or "")
    indexed = frame_html(listing.set_index("workflow_id")[["status"]]) or ""
    assert '<th scope="col">workflow_id</th>' in indexed
    assert listing["workflow_id"].iloc[0] in indexed


def test_names_and_payloads_are_escaped() -> None:
    attack = "<img src=x onerror=alert(1)>\"'"
    frame = mark_listing(
        pd.DataFrame({"workflow_id": [attack], "name": [attack], "output": [{"a": attack}]})
    ).rename(columns={"output": attack})
    frame.index = pd.Index([attack], name=attack)
    html = frame_html(frame)
    assert html is not None
    assert "<img" not in html
    assert html.count("&lt;img") >= 4


def test_it_stays_a_plain_dataframe(listing: pd.DataFrame, tmp_path: Path) -> None:
    assert type(listing) is type(listing.head()) is pd.DataFrame
    assert "dbos-notebook-frame" not in (listing.to_html() + repr(listing))
    copy = pickle.loads(pickle.dumps(listing))
    pd.testing.assert_frame_equal(copy, listing)
    columns = ["workflow_id", "status", "created_at"]
    listing[columns].to_parquet(tmp_path / "w.parquet")
    read = pd.read_parquet(tmp_path / "w.parquet")
    assert headers(read) == columns
    both = pd.concat([listing, listing])
    assert headers(both)[:3] == headers(listing)[:3]


def test_ipython_displays_listings_with_it(listing: pd.DataFrame, shell: InteractiveShell) -> None:
    register()
    format_ = shell.display_formatter.format
    own = pd.DataFrame({"workflow_id": ["own"]})
    assert format_(listing)[0]["text/html"] == frame_html(listing)
    assert format_(listing)[0]["text/plain"] == repr(listing)
    assert format_(own)[0]["text/html"] == own._repr_html_()  # type: ignore[operator]
    del listing.attrs[LISTING]
    assert format_(listing)[0]["text/html"] == listing._repr_html_()  # type: ignore[operator]


def test_another_formatter_is_kept(listing: pd.DataFrame, shell: InteractiveShell) -> None:
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(pd.DataFrame, lambda frame: "theirs")
    register()
    assert shell.display_formatter.format(listing)[0]["text/html"] == "theirs"
