"""Pictures of graphs, drawn by a real Graphviz: what is in them, and what can never be."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import graphviz
import networkx as nx
import pytest
import sample_graphs

import dbos_notebook as dn
from dbos_notebook import graphs
from dbos_notebook.drawing import layout
from dbos_notebook.drawing.layout import render
from dbos_notebook.graphs.comparison import DIFFERENCES

SVG = "{http://www.w3.org/2000/svg}"
ALLOWED = {
    "svg", "title", "desc", "style", "g", "rect", "path", "text", "tspan", "circle", "defs",
    "pattern",
}  # fmt: skip
"""Every element that a picture is made of: none can run, load or lead anywhere."""


def parse(picture: dn.Picture) -> ElementTree.Element:
    """Parse a picture's SVG as XML, and check it for what never may be in it."""
    root = ElementTree.fromstring(picture.svg)
    ids = []
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in ALLOWED
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert "href" not in name
            if name == "id":
                ids.append(value)
            if "url(" in value:
                assert value.startswith(f"url(#{root.get('id')}-")
    assert len(ids) == len(set(ids))
    return root


def texts(picture: dn.Picture) -> list[str]:
    return ["".join(each.itertext()) for each in parse(picture).iter(f"{SVG}text")]


def boxes(picture: dn.Picture) -> dict[object, tuple[float, float]]:
    """Return where the middle of each node's card is."""
    places = {}
    for element in parse(picture).iter(f"{SVG}g"):
        if element.get("id") in picture.nodes:
            x, y = element.get("transform", "").removeprefix("translate(")[:-1].split()
            places[picture.nodes[element.get("id", "")]] = (float(x), float(y))
    return places


def test_every_node_is_drawn_with_its_key(db: dn.Client) -> None:
    graph = db.graph("checkout-1")
    picture = dn.draw(graph)
    assert set(picture.nodes.values()) == set(graph)
    drawn = {each.get("id") for each in parse(picture).iter() if each.get("data-node")}
    assert drawn == set(picture.nodes)


def test_time_runs_in_the_drawing_direction() -> None:
    for direction, axis in (("LR", 0), ("TB", 1)):
        graph = sample_graphs.failing()
        places = boxes(dn.draw(graph, direction=direction))
        for tail, head in graph.edges:
            assert places[tail][axis] < places[head][axis], (direction, tail, head)


def test_concurrent_steps_are_side_by_side() -> None:
    places = boxes(dn.draw(sample_graphs.concurrent(), direction="LR"))
    fetches = {places["report-1", number] for number in range(3, 11)}
    cleans = {places["report-1", number] for number in range(11, 17)}
    middle = [sum(x for x, _ in each) / len(each) for each in (fetches, cleans)]
    assert len({y for _, y in fetches}) == 8
    assert max(x for x, _ in fetches) - min(x for x, _ in fetches) < 60
    assert middle[0] < middle[1]
    for direction, axis in (("LR", 1), ("TB", 0)):  # and the first one first
        places = boxes(dn.draw(sample_graphs.concurrent(), direction=direction))
        order = [places["report-1", number][axis] for number in range(3, 11)]
        assert order == sorted(order), direction


def test_many_to_many_edges_meet_in_a_join() -> None:
    graph = sample_graphs.concurrent()
    assert sum(kind == "next" for *_, kind in graph.edges(data="kind")) == 48 + 8 + 6 + 4
    svg = dn.draw(graph).svg
    # 8 + 6 lines with the junction instead of 48.
    assert svg.count("<circle cx=") == 1
    assert svg.count('fill="none" class="line"') < 45


def test_a_failure_shows_its_step_and_error() -> None:
    picture = dn.draw(sample_graphs.failing())
    said = texts(picture)
    assert (
        "failed in order › fulfil › ship › book_courier #3 — "
        "CourierError: nobody drives to Kraków today"
    ) in said
    assert said.count("CourierError") == 6
    red = [each for each in parse(picture).iter(f"{SVG}path") if each.get("stroke-width") == "2.2"]
    assert len(red) == 4  # two starts, two returns


def test_a_workflow_whose_own_code_failed() -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow(
        "w", "order", 0, 1, "ERROR", error_type="builtins.KeyError", error_message="'sku'",
        on_failing_path=True,
    )  # fmt: skip
    sample.step("w", 1, "price", 0, 0.5)
    assert "failed in the code of order, not in a step — KeyError: 'sku'" in texts(
        dn.draw(sample.graph)
    )


def test_a_card_says_since_when_a_workflow_waits() -> None:
    """A time that goes on would be wrong a second later, because the picture stays as it is."""
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, None, "ENQUEUED", queue_name="mail")
    drawn = texts(dn.draw(sample.graph))
    assert "waits on mail" in drawn
    assert any(re.fullmatch(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", each) for each in drawn)


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED"])
def test_a_workflow_with_no_steps(status: str) -> None:
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, None, status)
    picture = dn.draw(sample.graph)
    assert status.lower() in texts(picture)
    assert picture.png.startswith(b"\x89PNG")


def test_an_empty_graph() -> None:
    picture = dn.draw(nx.DiGraph())
    parse(picture)
    assert picture.nodes == {}


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_hostile_names_are_escaped(theme: str) -> None:
    picture = dn.draw(sample_graphs.hostile(), theme=theme, fold=None)
    said = texts(picture)
    assert any("<script>" in each for each in said)
    assert max(map(len, said)) < 400
    assert len(picture.svg) < 200_000
    assert picture.png.startswith(b"\x89PNG")


def test_hostile_names_in_dot_are_shown_literally() -> None:
    picture = dn.draw(sample_graphs.hostile(), fold=None)
    root = ElementTree.fromstring(render(picture.dot.source, "svg").decode())
    shown = {"".join(each.itertext()) for each in root.iter(f"{SVG}text")}
    for name in (
        "<b>bold</b>",
        "back\\slash \\N \\G \\L \\n \\l",
        "\"quoted\" 'single' `back`",
        "&lt;script&gt; &amp; &#60;",
        "<>",
        "a;b{}[]->--|",
        "مرحبا بالعالم",
    ):
        assert name in shown, name
    assert not list(root.iter(f"{SVG}script"))


def test_an_edited_dot_string_is_drawn() -> None:
    dot = dn.draw(sample_graphs.failing()).dot
    assert isinstance(dot, graphviz.Digraph)
    dot.node("mine", "my own note")
    assert "my own note" in dn.draw(dot).svg


def test_the_same_graph_gives_the_same_drawing() -> None:
    pictures = [dn.draw(sample_graphs.concurrent()).svg for _ in range(3)]
    assert len(set(pictures)) == 1


def test_two_drawings_share_no_ids() -> None:
    one, two = dn.draw(sample_graphs.failing()), dn.draw(sample_graphs.failing(), theme="dark")
    ids = [{each.get("id") for each in parse(p).iter() if each.get("id")} for p in (one, two)]
    assert not ids[0] & ids[1]
    marks = [
        {e.get("data-node") for e in parse(p).iter() if e.get("data-node")} for p in (one, two)
    ]
    assert marks[0] == marks[1]


def test_a_drawing_has_a_title_and_labels_for_screen_readers() -> None:
    root = parse(dn.draw(sample_graphs.failing()))
    assert root.get("role") == "img"
    named = root.get("aria-labelledby", "").split()
    said = {each.get("id"): each.text for each in root if each.get("id") in named}
    assert said[named[0]] == "Execution graph of order order-17"
    assert "CourierError" in (said[named[1]] or "")


def test_the_dark_theme_styles_one_drawing_only() -> None:
    picture = dn.draw(sample_graphs.failing())
    root = parse(picture)
    (style,) = root.iter(f"{SVG}style")
    rules = (style.text or "").removeprefix("@media (prefers-color-scheme:dark){")[:-1]
    for rule in rules.split("}")[:-1]:
        assert rule.startswith(f"#{root.get('id')} .")
    for theme in ("light", "dark"):
        assert not list(parse(dn.draw(sample_graphs.failing(), theme=theme)).iter(f"{SVG}style"))


def test_a_drawing_is_saved_in_each_file_format(tmp_path: Path) -> None:
    picture = dn.draw(sample_graphs.failing())
    begins = {
        "svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "dot": b"digraph", "gv": b"digraph",
        "txt": b"order", "html": b"<!doctype html>",
    }  # fmt: skip
    for suffix, start in begins.items():
        target = picture.save(tmp_path / f"picture.{suffix}")
        assert target.read_bytes().startswith(start), suffix
    with pytest.raises(dn.PictureError, match=r"'picture.jpg' .* \.svg, \.png"):
        picture.save(tmp_path / "picture.jpg")
    assert not (tmp_path / "picture.jpg").exists()


def test_the_mime_bundle_of_a_drawing() -> None:
    picture = dn.draw(sample_graphs.failing())
    data, metadata = picture._repr_mimebundle_()
    assert set(data) == {"image/svg+xml", "image/png", "text/plain"}
    assert metadata["image/png"] == {
        "width": picture.size[0],
        "height": picture.size[1],
        "alt": "Execution graph of order order-17",
    }
    assert set(picture._repr_mimebundle_(include={"text/plain"})[0]) == {"text/plain"}
    assert "image/png" not in picture._repr_mimebundle_(exclude={"image/png"})[0]


def test_without_graphviz_a_text_tree_and_the_reason_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    picture = dn.draw(sample_graphs.failing())
    with pytest.raises(dn.GraphvizNotFoundError, match="pip install pygraphviz"):
        _ = picture.svg
    data, _ = picture._repr_mimebundle_()
    assert set(data) == {"text/plain"}
    assert "pip install pygraphviz" in data["text/plain"]
    assert "book_courier" in data["text/plain"]


def test_the_installed_dot_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name on the PATH: here one that hands on to pygraphviz's Graphviz."""
    program = tmp_path / "dot"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys, pygraphviz\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(' '.join(sys.argv[1:]))\n"
        "graph = pygraphviz.AGraph(sys.stdin.read())\n"
        "sys.stdout.buffer.write(graph.draw(format=sys.argv[1][2:], prog='dot'))\n"
    )
    program.chmod(0o755)
    without = dn.draw(sample_graphs.failing()).svg
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert dn.draw(sample_graphs.failing()).svg == without
    assert (tmp_path / "asked").read_text() == "-Tjson0"


def test_a_dot_that_fails_or_hangs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dot"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program.write_text("#!/bin/sh\necho out of memory >&2; exit 3\n")
    program.chmod(0o755)
    with pytest.raises(dn.PictureError, match="failed with exit status 3: out of memory"):
        _ = dn.draw(sample_graphs.failing()).svg
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(layout, "TIMEOUT_SECONDS", 0.3)
    begun = time.monotonic()
    with pytest.raises(dn.PictureError, match="stopped after"):
        _ = dn.draw(sample_graphs.failing()).svg
    assert time.monotonic() - begun < 30  # the program sleeps for 60 s


def test_too_many_nodes_are_refused_at_once() -> None:
    with pytest.raises(dn.PictureError, match=r"5,401 nodes .* fold='auto'"):
        dn.draw(sample_graphs.many(900), fold=None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"theme": "drak"}, "Did you mean 'dark'"),
        ({"direction": "RL"}, "'LR'"),
        ({"fold": 0}, "fold=0"),
        ({"fold": "always"}, "fold='always'"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(dn.PictureError, match=said):
        dn.draw(sample_graphs.failing(), **arguments)  # type: ignore[arg-type]


def test_hide_takes_names_of_operations() -> None:
    with pytest.raises(dn.GraphError, match="Did you mean 'sleep'"):
        dn.draw(sample_graphs.failing(), hide="sleeps")
    hidden = dn.draw(sample_graphs.failing(), hide=["sleep", "get_result"])
    assert "sleep 1.0 s" in texts(dn.draw(sample_graphs.failing()))
    assert "sleep 1.0 s" not in texts(hidden)
    # What failed is never hidden.
    assert ("order-17", 4) in hidden.nodes.values()


def test_every_status_is_readable_without_colour() -> None:
    """Each has a mark of a form of its own."""
    from dbos_notebook.drawing.theme import LIGHT

    forms = set()
    for status in LIGHT.statuses:
        sample = sample_graphs.Sample("w")
        sample.workflow("w", "order", 0, 1, status)
        root = parse(dn.draw(sample.graph, theme="light"))
        mark = next(e for e in root.iter(f"{SVG}g") if e.get("transform") == "translate(7 17)")
        forms.add("".join(str(e.get("d") or e.get("r")) for e in mark))
    assert len(forms) == len(LIGHT.statuses)


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colors as WCAG reckons it."""

    def light(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    a, b = sorted((light(one), light(two)), reverse=True)
    return (a + 0.05) / (b + 0.05)


def test_text_and_marks_have_enough_contrast() -> None:
    from dbos_notebook.drawing.theme import DARK, LIGHT

    for palette in (LIGHT, DARK):
        for ground in (palette.ground, palette.frame):
            assert contrast(palette.ink, ground) >= 7
            assert contrast(palette.muted, ground) >= 4.5
            for ink in palette.statuses.values():
                assert contrast(ink.text, ground) >= 4.5
                assert contrast(ink.line, ground) >= 3
        for ink in palette.statuses.values():
            assert contrast(ink.text, ink.fill) >= 4.5
            assert contrast(palette.ink, ink.fill) >= 7
            assert contrast(palette.muted, ink.fill) >= 4.5


def test_a_copied_step_of_a_fork_is_marked(shop: dn.Client) -> None:
    said = texts(dn.draw(shop.graph("fork-of-order-1-1.0-0006")))
    assert "copied" in said


def test_a_comparison_shows_what_changed(shop: dn.Client) -> None:
    original, fork = "order-1-1.0-0006", "fork-of-order-1-1.0-0006"
    compared = graphs.compare(*(shop.graph(each, load_output=True) for each in (original, fork)))
    picture = dn.draw(compared.graph)
    said = texts(picture)
    assert "CouponError → succeeded" in said
    assert f"{original} → {fork}" in said
    counts = compared.frame["difference"].value_counts()
    assert any(f"{counts['only in second']} only in second" in each for each in said)
    marks = {each.get("id"): each for each in parse(picture).iter() if each.get("data-node")}
    assert len(marks) == len(compared.frame)


def test_every_difference_has_its_own_mark() -> None:
    forms = set()
    for difference in DIFFERENCES:
        sample = sample_graphs.Sample("w")
        sample.graph.graph["root_second"] = "v"
        sample.workflow("w", "order", 0, 1, difference=difference)
        root = parse(dn.draw(sample.graph, theme="light"))
        (card,) = (e for e in root.iter(f"{SVG}g") if e.get("data-node"))
        mark = next(e for e in card.iter(f"{SVG}g") if e is not card)
        forms.add("".join(str(e.get("d") or e.get("r")) for e in mark))
    assert len(forms) == len(DIFFERENCES)


def test_the_critical_path_goes_through_children() -> None:
    picture = dn.draw(sample_graphs.failing(), critical_path=True)
    said = texts(picture)
    shares = [int(each[:-1]) for each in said if each.endswith("%") and each[:-1].isdigit()]
    assert len(shares) > 5
    assert sum(shares) == pytest.approx(100, abs=len(shares))
    black = [e for e in parse(picture).iter(f"{SVG}path") if e.get("opacity") == ".28"]
    path = graphs.critical_path(sample_graphs.failing())
    # Not past a child as well: neither of the two edges from a start to its wait.
    assert len(black) == len(dict.fromkeys(path["node"])) - 1


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0"])
def test_every_kind_of_workflow_of_every_version_draws(
    corpus_sqlite: Callable[[str], Path], version: str
) -> None:
    with dn.connect(corpus_sqlite(version)) as db:
        for key in db.workflows(limit=None).drop_duplicates(["name", "status"])["workflow_id"]:
            graph = db.graph(key, forks=True)
            picture = dn.draw(graph, critical_path=True)
            assert picture.text.count("\n") == len(graph) - 1
            for each in (picture, db.timeline(key)):
                parse(each)
            render(dn.draw(graph).dot.source, "json0")


def test_steps_numbered_from_0_as_typescripts_are(corpus_postgres: Callable[[str], str]) -> None:
    with dn.connect(corpus_postgres("ts-5.3.0")) as db:
        steps = db.steps(db.workflows(limit=None))
        first = steps[steps["function_id"] == 0].iloc[0]
        said = texts(db.timeline(first["workflow_id"]))
        assert "#0" in said


def test_a_large_layout_runs_in_a_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    graph = sample_graphs.many(50)
    picture = dn.draw(graph, fold=None)
    assert set(picture.nodes.values()) == set(graph)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "TIMEOUT_SECONDS", 0.01)
        with pytest.raises(dn.PictureError, match="stopped after"):
            _ = dn.draw(graph, fold=None).svg


def test_pictures_drawn_by_several_threads_at_once() -> None:
    graphs_of = [sample_graphs.failing() for _ in range(24)]
    alone = dn.draw(sample_graphs.failing()).svg
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda graph: dn.draw(graph).svg, graphs_of))
    assert set(drawn) == {alone}


def test_a_failing_png_falls_back_to_svg_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from dbos_notebook.drawing import raster

    monkeypatch.setattr(raster, "_CHILD", "import sys; sys.exit('no memory')")
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "山田", 0, 1)
    picture = dn.draw(sample.graph)
    with pytest.warns(UserWarning, match="no memory"):
        data, _ = picture._repr_mimebundle_()
    assert set(data) == {"image/svg+xml", "text/plain"}
    with pytest.raises(dn.PictureError, match=r"picture\.save\('picture\.svg'\)"):
        _ = picture.png
