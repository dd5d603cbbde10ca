"""Timelines: bars where the times are, waits told apart, and what is too much made readable."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest
import sample_graphs
from test_drawing import SVG, parse, texts

import dbos_notebook as dn
from dbos_notebook import graphs
from dbos_notebook.drawing.axis import Axis
from dbos_notebook.drawing.timeline import TimelineRow, _tick, build, timeline
from dbos_notebook.graphs.intervals import Times

FORK = "fork-of-order-1-1.0-0006"


def rows_of(graph: nx.DiGraph[Any]) -> dict[Any, TimelineRow]:
    return {row.key: row for row in build(graph, graph, Times(graph), [])}


def parts(row: TimelineRow) -> list[tuple[float, float, str]]:
    begin = sample_graphs.START.timestamp()
    return [(round(s.start - begin, 3), round(s.end - begin, 3), s.part) for s in row.spans]


def test_every_row_has_the_key_of_its_node(db: dn.Client) -> None:
    graph = db.graph("checkout-1")
    picture = db.timeline("checkout-1")
    merged = {tail for tail, _, kind in graph.edges(data="kind") if kind == "starts"}
    assert set(picture.nodes.values()) == set(graph) - merged
    drawn = {each.get("id") for each in parse(picture).iter() if each.get("data-node")}
    assert drawn == set(picture.nodes)


def test_a_workflow_bar_distinguishes_its_waits() -> None:
    rows = rows_of(sample_graphs.failing())
    assert parts(rows["order-17-3"]) == [
        (1.3, 1.9, "queue"),
        (1.9, 2.7, "run"),
        (2.7, 5.0, "children"),
        (5.0, 5.1, "own"),
    ]
    assert parts(rows["order-17-3-2"]) == [
        (2.9, 3.4, "run"),
        (3.4, 4.4, "sleep"),
        (4.4, 4.8, "run"),
        (4.8, 4.9, "own"),
    ]
    assert [s.status for s in rows["order-17-3-2"].spans][:3] == ["SUCCESS", "ERROR", "ERROR"]


def test_the_parts_of_a_bar_cover_its_whole_time() -> None:
    for graph in (sample_graphs.failing(), sample_graphs.concurrent(), sample_graphs.many(20)):
        for row in rows_of(graph).values():
            if row.kind == "workflow":
                assert row.spans[0].start == pytest.approx(
                    graph.nodes[row.key]["created_at"].timestamp()
                )
                for one, two in zip(row.spans, row.spans[1:], strict=False):
                    assert one.end == two.start
                ended = graph.nodes[row.key]["completed_at"].timestamp()
                assert row.spans[-1].end == pytest.approx(ended)


def test_children_are_below_the_step_that_started_them() -> None:
    rows = list(rows_of(sample_graphs.failing()).values())
    assert [(row.depth, row.name) for row in rows] == [
        (0, "order"),
        (1, "price"),
        (1, "charge"),
        (1, "fulfil"),
        (2, "reserve"),
        (2, "ship"),
        (3, "pick_courier"),
        (3, "sleep"),
        (3, "book_courier"),
        (2, "waits for ship"),
        (1, "waits for fulfil"),
    ]


def test_bars_are_positioned_by_time() -> None:
    picture = timeline(sample_graphs.concurrent(), critical_path=False, theme="light")
    nodes = {key: mark for mark, key in picture.nodes.items()}
    root = parse(picture)

    def bar(number: int) -> tuple[float, float]:
        (group,) = (e for e in root.iter(f"{SVG}g") if e.get("id") == nodes["report-1", number])
        rect = next(e for e in group.iter(f"{SVG}rect") if e.get("rx") == "2")
        x, wide = float(rect.get("x", "")), float(rect.get("width", ""))
        return x, x + wide

    # All fetches begin at once and end in order; cleaning begins after the last of them.
    assert len({bar(number)[0] for number in range(3, 11)}) == 1
    ends = [bar(number)[1] for number in range(3, 11)]
    assert ends == sorted(ends)
    assert bar(11)[0] > ends[-1]
    per_second = (bar(17)[1] - bar(17)[0]) / 1.2
    assert bar(18)[1] - bar(18)[0] == pytest.approx(1.2 * per_second, abs=0.2)


def test_a_long_wait_is_drawn_shortened_and_marked() -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, 3610, queued=7200)
    first = sample.step("w", 1, "price", 0, 4)
    nap = sample.step("w", 2, "DBOS.sleep", 4, 3604, after=first, operation="sleep")
    sample.step("w", 3, "charge", 3604, 3610, after=nap)
    said = texts(timeline(sample.graph, critical_path=False))
    assert "2 h" in said
    assert "1 h" in said
    assert any(each.startswith("+") for each in said)


def test_a_long_step_is_never_drawn_shortened() -> None:
    spans = [(0.0, 1.0, True), (1.0, 1000.0, True), (1000.0, 1001.0, True)]
    time_axis = Axis(spans, 500)
    assert time_axis.breaks == []
    assert time_axis(500.5) == pytest.approx(250)
    idle = Axis([(0.0, 1.0, True), (1.0, 1000.0, False), (1000.0, 1001.0, True)], 500)
    assert len(idle.breaks) == 1
    assert idle(1.0) == pytest.approx(227)


def test_ticks_do_not_overlap_and_stay_inside() -> None:
    for end in (0.002, 0.4, 7, 95, 4000, 90_000, 10**7):
        for middle in (0.3, 0.001):
            time_axis = Axis([(0, end * middle, True), (end * middle, end, False)], 600)
            places = [tick.x for tick in time_axis.ticks]
            assert all(0 <= x <= 600.001 for x in places)
            assert all(b - a > 40 for a, b in pairwise(places)), end
            assert 2 <= len(places) <= 14, (end, len(places))


def test_tick_labels_are_distinct() -> None:
    for end in (0.001, 0.002, 0.003, 0.013, 0.9, 1.2, 61, 4000):
        for wide in (300, 1000, 1900):
            said = [_tick(tick) for tick in Axis([(0, end, True)], wide).ticks]
            assert len(set(said)) == len(said), said


@pytest.mark.parametrize("seconds", [0.9, 2.1, 4.6, 31, 59, 200, 4000, 100_000])
def test_a_narrow_axis_has_a_scale(seconds: float) -> None:
    assert len(Axis([(0, seconds, True)], 170).ticks) > 1


def test_the_end_of_a_long_name_is_shown() -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "monthly_invoices", 0, 3)
    sample.step("w", 1, "acme.Invoices.invoice_customer", 0.1, 0.9)
    sample.step("w", 2, "acme.Invoices.push_to_ledger", 1.1, 1.9)
    shown = texts(timeline(sample.graph, width=420))
    assert "invoice_customer" in shown
    assert "push_to_ledger" in shown


def test_the_longest_name_fits_its_measured_width() -> None:
    for name in ("price", "reserve", "set event", "waits for fulfil", "charge_card", "a", "iiimmm"):
        for number in (1, 7, 23):
            sample = sample_graphs.Sample("w")
            sample.workflow("w", "o", 0, 1)
            sample.step("w", number, name, 0.1, 0.9)
            assert name in texts(timeline(sample.graph, width=1200)), name


def test_a_running_workflow_has_an_open_end(shop: dn.Client) -> None:
    picture = shop.timeline("unpaid-1-1.0-0001")
    said = texts(picture)
    assert any("apparently for a message" in each for each in said)
    assert any(re.fullmatch(r"running for .+", each) for each in said)


def test_an_enqueued_workflow() -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, None, "ENQUEUED", queue_name="mail")
    (row,) = rows_of(sample.graph).values()
    assert [span.part for span in row.spans] == ["queue"]
    assert row.running
    assert "1 d 3 h · has waited" in texts(timeline(sample.graph, critical_path=False))


def test_copied_steps_of_a_fork_have_no_bar(shop: dn.Client) -> None:
    said = texts(shop.timeline(FORK))
    assert any("copied from the original" in each for each in said)
    graph = shop.graph(FORK)
    copied = [row for row in rows_of(graph).values() if row.note == "copied from the original"]
    assert [row.key[1] for row in copied] == [1]
    assert not copied[0].spans


@pytest.mark.parametrize("key", [FORK, "order-1-1.0-0006"])
def test_a_workflow_bar_covers_its_steps(shop: dn.Client, key: str) -> None:
    """SQLite's times of workflows are whole seconds."""
    rows = rows_of(shop.graph(key))
    for row in rows.values():
        if row.kind == "step" and row.spans:
            owner = rows[row.key[0]].spans
            assert owner[0].start <= row.spans[0].start + 0.002
            assert owner[-1].end >= row.spans[-1].end - 0.002


def test_only_enqueued_workflows_have_queue_time(shop: dn.Client) -> None:
    keys = shop.workflows(has_parent=False, status=["SUCCESS", "ERROR"], limit=None)
    for key in keys.drop_duplicates(["name", "status"])["workflow_id"]:
        graph = shop.graph(key)
        for row in rows_of(graph).values():
            if any(span.part == "queue" for span in row.spans):
                assert "dequeued_at" in graph.nodes[row.key], row.key


def test_steps_without_times(corpus_sqlite: Any) -> None:
    """Databases of dbos 2.0 have no times of steps."""
    with dn.connect(corpus_sqlite("2.0.0")) as db:
        picture = db.timeline("checkout-1")
        assert "no times recorded" in texts(picture)
        assert parse(dn.draw(db.graph("checkout-1"))) is not None


def test_a_step_that_ends_before_it_begins_is_marked() -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, 1)
    sample.step("w", 1, "price", 0.5, 0.4)
    assert "−100 ms · ends before it starts: clocks differ" in texts(
        timeline(sample.graph, critical_path=False)
    )


def test_thousands_of_rows_are_folded_and_counted() -> None:
    graph = sample_graphs.many(2_000)
    picture = timeline(graph, critical_path=False)
    said = texts(picture)
    assert any("12,001 rows folded to" in each for each in said)
    assert any("1,998 × import_one" in each for each in said)
    assert any("up to" in each and "at once" in each for each in said)
    assert sum(each == "ValueError" for each in said) == 2
    assert len(picture.svg) < 60_000


def test_a_group_shows_its_concurrency() -> None:
    """Against counting at each instant."""
    graph = sample_graphs.many(300, failed=0)
    shown = dn.draw(graph)  # folds
    assert shown.nodes
    spans = [
        (graph.nodes[f"batch-{n}"]["dequeued_at"], graph.nodes[f"batch-{n}"]["completed_at"])
        for n in range(300)
    ]
    instants = [begin for begin, _ in spans]
    most = max(sum(b <= instant < e for b, e in spans) for instant in instants)
    assert any(f"up to {most} at once" in each for each in texts(timeline(graph)))


def test_the_text_of_a_narrow_timeline_is_not_on_its_bars() -> None:
    graph = sample_graphs.many(300, failed=0)
    root = parse(timeline(graph, width=380))

    def top(element: Any) -> float:
        return float(element.get("transform").split()[1].rstrip(")"))

    labels = [each for each in root.iter(f"{SVG}text") if "up to" in "".join(each.itertext())]
    layer = next(each for each in root.iter(f"{SVG}g") if labels[0] in list(each))
    baselines = [top(layer) + float(each.get("y", "")) for each in labels]
    areas = [
        (top(row), top(each))
        for row in root.iter(f"{SVG}g")
        for each in row.iter(f"{SVG}path")
        if row.get("data-node") and each.get("transform", "").startswith("translate(0 ")
    ]
    assert len(areas) == len(labels) > 0
    # An area begins below the lines of text of its row.
    for baseline, (row, area) in zip(baselines, areas, strict=True):
        assert row < baseline < row + area


def test_a_group_is_opened_by_name() -> None:
    graph = sample_graphs.many(200, failed=0)
    folded = timeline(graph, critical_path=False)
    (group,) = (
        node
        for node in dn.graphs.fold(graph, budget=150).nodes.values()
        if node["kind"] == "group" and node["of"] == "workflow"
    )
    opened = timeline(graph, critical_path=False, open=[group["group"]])
    assert len(opened.nodes) > len(folded.nodes)


def test_many_steps_in_one_bar_stay_a_small_svg() -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, 1000)
    last: Any = None
    for number in range(1, 4001):
        bad = number == 2000
        begin = number / 4.1
        last = sample.step(
            "w", number, "tick", begin, begin + 0.1, after=last,
            status="ERROR" if bad else "SUCCESS",
        )  # fmt: skip
    picture = timeline(sample.graph, critical_path=False, theme="light")
    assert len(picture.svg) < 60_000
    row = next(
        e for e in parse(picture).iter(f"{SVG}g") if picture.nodes.get(e.get("id", "")) == "w"
    )
    bars = [e for e in row.iter(f"{SVG}rect") if e.get("rx") == "2"]
    # The one that failed is seen among thousands.
    assert sum("ERROR-mark" in (e.get("class") or "") for e in bars) == 1


@pytest.mark.parametrize("theme", ["auto", "dark"])
def test_hostile_names_are_escaped(theme: Any) -> None:
    picture = timeline(sample_graphs.hostile(), fold=None, theme=theme, critical_path=False)
    said = texts(picture)
    assert any("<script>" in each for each in said)
    assert max(map(len, said)) < 400
    assert len(picture.svg) < 200_000
    assert picture.png.startswith(b"\x89PNG")
    assert picture.pdf.startswith(b"%PDF")
    # Nothing of it spoils the pictures that come after.
    plain = timeline(sample_graphs.failing(), critical_path=False)
    assert plain.png.startswith(b"\x89PNG")


def changed(path: Path, status: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE workflow_status SET completed_at = NULL, status = ?"
            " WHERE workflow_uuid = 'checkout-1'",
            [status],
        )
    return path


def test_a_root_of_an_unknown_status(corpus_sqlite: Callable[[str], Path]) -> None:
    """A later dbos may know a status that we do not; whether it has ended is not known."""
    with dn.connect(changed(corpus_sqlite("3.4.0"), "PAUSED")) as db:
        picture = db.timeline("checkout-1", critical_path=True)
        assert "validate" in texts(picture)
        assert "critical path" not in texts(picture)
        # Who asks for the path, and for nothing else, is told.
        with pytest.raises(dn.GraphError, match="no times"):
            graphs.critical_path(db.graph("checkout-1"))


@pytest.mark.parametrize("status", ["SUCCESS", "CANCELLED"])
def test_a_root_whose_end_was_not_recorded(
    corpus_sqlite: Callable[[str], Path], status: str
) -> None:
    """An older dbos recorded none: its last change is the end. Cancelling erased the beginning."""
    with dn.connect(changed(corpus_sqlite("3.4.0"), status)) as db:
        said = texts(db.timeline("checkout-1", critical_path=True))
        first = db.steps("checkout-1")["started_at"].min()
        assert "critical path" in said
        assert graphs.critical_path(db.graph("checkout-1"))["start"].iloc[0] == first
        assert ("its start is not recorded" in said) == (status == "CANCELLED")


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE operation_outputs SET started_at_epoch_ms = -62135596800000",
        "UPDATE operation_outputs SET completed_at_epoch_ms = 253402300799999",
        "UPDATE workflow_status SET created_at = -62135596800000",
        "UPDATE workflow_status SET created_at = 253402300799999",
    ],
)
def test_times_that_are_centuries_apart(corpus_sqlite: Callable[[str], Path], edit: str) -> None:
    """A clock that was wrong, or a row edited by hand; pandas' usual spans end at 292 years."""
    path = corpus_sqlite("3.4.0")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(edit)
    with dn.connect(path) as db:
        graph, other = db.graph("checkout-1"), db.graph("checkout-2")
        timeline_of_it = db.timeline("checkout-1")
    for picture in (timeline_of_it, dn.draw(graph), dn.draw(graph, fold=3)):
        parse(picture)
        assert picture.text
    compared = graphs.compare(other, graph, tolerance=1e6)
    parse(dn.draw(compared.graph))


def test_the_same_workflow_gives_the_same_drawing() -> None:
    assert timeline(sample_graphs.failing()).svg == timeline(sample_graphs.failing()).svg


def test_a_timeline_has_no_dot() -> None:
    with pytest.raises(dn.PictureError, match=r"dn\.draw"):
        _ = timeline(sample_graphs.failing()).dot


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(dn.PictureError, match="5,401 rows"):
        timeline(sample_graphs.many(900), fold=None)


def test_an_unknown_workflow(db: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError):
        db.timeline("checkout-0")


DURATIONS = [
    ("0.9996s", "1.0 s"), ("59.94s", "59.9 s"), ("59.96s", "1 m"), ("3599.6s", "1 h"),
    ("86400s", "1 d"), ("90061s", "1 d 1 h"), ("0.4ms", "0 ms"), ("-2s", "−2.0 s"),
]  # fmt: skip


@pytest.mark.parametrize(("span", "said"), DURATIONS)
def test_durations_are_formatted(span: str, said: str) -> None:
    from dbos_notebook.text import duration

    assert duration(pd.Timedelta(span)) == said


def test_every_transform_is_valid_svg() -> None:
    """A browser ignores an invalid transform, and draws the element in the wrong place."""
    for picture in (timeline(sample_graphs.failing()), dn.draw(sample_graphs.failing())):
        transforms = [e.get("transform") for e in parse(picture).iter() if e.get("transform")]
        assert transforms
        for transform in transforms:
            assert re.fullmatch(r"((translate|scale)\([-\d. ]+\) ?)+", str(transform))
