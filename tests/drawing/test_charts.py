"""``plot()``: what each chart shows, that it is static and harmless, in both themes."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.drawing.theme import DARK, LIGHT, SERIES_DARK, SERIES_LIGHT
from dbos_notebook.errors import PictureError
from dbos_notebook.tables.frames import mark_listing

MARKUP = "\"'><script>window.ran=1</script><img src=x onerror=ran=1>"
TIMES = pd.date_range("2026-11-20", periods=48, freq="3h", tz="UTC").as_unit("ms")


def labels(picture: dn.Picture) -> list[str]:
    """Return the texts of a chart."""
    root = ElementTree.fromstring(picture.svg)
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def statistics(names: list[str], kind: str = "step_statistics") -> pd.DataFrame:
    seconds = pd.Series(np.geomspace(0.004, 4000, len(names)))
    frame = pd.DataFrame(
        {"function_name": pd.Categorical(names), "count": range(1, len(names) + 1)}
    )
    for name, factor in (("p50", 1), ("p90", 2), ("p99", 5)):
        frame[name] = pd.to_timedelta(seconds * factor, unit="s").astype("timedelta64[ms]")
    return mark_listing(frame, kind)


def levels() -> pd.DataFrame:
    numbers = np.arange(len(TIMES)) % 7
    frame = pd.DataFrame({"time": TIMES})
    for state in ("running", "waiting"):
        frame = frame.assign(
            **{state: numbers, f"{state}_mean": numbers + 0.5, f"{state}_max": numbers + 3}
        )
    return frame


def test_names_that_end_alike_are_told_apart() -> None:
    names = [f"shop.pipelines.{kind}.index" for kind in ("invoice", "claim")] + ["shop.charge"]
    shown = labels(dn.plot(statistics(names)))
    assert {"invoice.index", "claim.index", "charge"} <= set(shown)
    assert {"10 ms", "1 s", "1 min", "1 h"} <= set(shown)


def test_the_groups_that_are_left_out_are_counted() -> None:
    shown = labels(dn.plot(statistics([f"step_{n}" for n in range(45)])))
    assert any("15 more groups are not drawn" in text for text in shown)


def test_percentiles_over_time_are_lines() -> None:
    frame = pd.concat([statistics(["charge"])] * len(TIMES), ignore_index=True)
    frame.insert(0, "created_at", TIMES)
    picture = dn.plot(mark_listing(frame, "workflow_statistics"))
    assert {"p50", "p90", "p99", "21 Nov"} <= set(labels(picture))
    for dashes in ("1,0", "5,3", "2,3"):
        assert picture.svg.count(f'stroke-dasharray="{dashes}"') == 1


def test_a_queue_is_drawn_with_its_limit() -> None:
    frame = levels().assign(
        queue_wait_p50=pd.to_timedelta(np.arange(len(TIMES)), unit="s"),
        queue_wait_p99=pd.to_timedelta(np.arange(len(TIMES)) * 9, unit="s"),
    )
    frame.attrs["limits"] = {"concurrency": 4, "worker_concurrency": None, "rate": 50}
    picture = dn.plot(mark_listing(frame, "queue_history"))
    shown = labels(picture)
    # In the legend and in the chart.
    for dashes in ("1,0", "5,3"):
        assert picture.svg.count(f'stroke-dasharray="{dashes}"') == 2
    assert {"Queue: waiting and running", "waiting", "running", "1 s", "1 min"} <= set(shown)
    assert any("limits: concurrency 4, rate limit 50" in text for text in shown)


def test_throughput_and_concurrency() -> None:
    numbers = np.arange(len(TIMES))
    frame = pd.DataFrame({"time": TIMES, "created": numbers, "started": numbers})
    frame = frame.assign(succeeded=numbers, failed=1, cancelled=0)
    shown = labels(dn.plot(mark_listing(frame, "throughput")))
    assert {"Throughput", "succeeded", "failed", "cancelled"} <= set(shown)
    shown = labels(dn.plot(mark_listing(levels(), "concurrency")))
    assert {"Concurrency", "waiting", "running"} <= set(shown)
    grouped = levels()
    grouped.insert(1, "name", ["shop.order", "shop.refund"] * (len(TIMES) // 2))
    shown = labels(dn.plot(mark_listing(grouped, "concurrency")))
    assert {"order", "refund"} <= set(shown)


@pytest.mark.parametrize("theme", ["light", "dark", "auto"])
def test_each_theme_has_its_colors(theme: str) -> None:
    svg = dn.plot(statistics(["charge", "ship"]), theme=theme).svg
    attributes = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', svg))
    ground, other = (DARK, LIGHT) if theme == "dark" else (LIGHT, DARK)
    series = SERIES_DARK if theme == "dark" else SERIES_LIGHT
    assert {ground.ground, ground.muted, series[0]} <= attributes
    assert not {other.ground, other.muted} & attributes
    assert ("prefers-color-scheme:dark" in svg) == (theme == "auto")


def test_hostile_names_stay_text() -> None:
    for name in (
        MARKUP,
        "a\x00b\x07c",
        "datum.value; alert(1)",
        "العربية שלום 日本",
        "e\u0301" * 9,
    ):
        svg = dn.plot(statistics([name, "ship"])).svg
        root = ElementTree.fromstring(svg)
        tags = {each.tag.rpartition("}")[2] for each in root.iter()}
        assert tags <= {"svg", "style", "g", "path", "rect", "line", "text", "tspan", "title"}
        assert "ship" in labels(dn.plot(statistics([name, "ship"])))


def test_a_chart_is_a_picture(tmp_path: Path) -> None:
    picture = dn.plot(statistics(["charge", "ship"]))
    data, metadata = picture._repr_mimebundle_()
    assert {"image/svg+xml", "image/png", "text/plain"} == set(data)
    assert metadata["image/png"]["alt"] == "step statistics"
    assert "charge" in repr(picture)
    assert picture.save(tmp_path / "chart.pdf").read_bytes()[:4] == b"%PDF"
    assert picture.chart is not None
    with pytest.raises(PictureError, match="no DOT source"):
        _ = picture.dot


def test_a_frame_of_another_kind_is_refused() -> None:
    with pytest.raises(PictureError, match=r"no chart for this DataFrame.*step_statistics"):
        dn.plot(pd.DataFrame({"a": [1]}))
    with pytest.raises(
        PictureError, match=r"needs the columns count, p50, p90, p99, and .* lacks p50"
    ):
        dn.plot(statistics(["charge"])[["function_name", "count", "p90", "p99"]])
    with pytest.raises(PictureError, match=r"dn\.draw\(\) draws graphs"):
        dn.plot(nx.DiGraph())  # type: ignore[arg-type]
    with pytest.raises(PictureError, match="step_statistics returned no rows"):
        dn.plot(statistics(["charge"]).iloc[:0])


def test_times_are_utc_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = mark_listing(levels(), "concurrency")
    monkeypatch.setenv("TZ", "America/New_York")
    assert "21 Nov" in labels(dn.plot(frame))
