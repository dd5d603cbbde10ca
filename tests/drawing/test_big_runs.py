"""Pictures of large runs: they fit a notebook's cell at a legible size."""

from __future__ import annotations

import re

import big_runs
import pytest
import sample_graphs
from test_drawing import parse, texts

import dbos_notebook as dn
from dbos_notebook.drawing.graph_svg import MIN_TEXT_SIZE, is_legible
from dbos_notebook.drawing.process_map_svg import draw_process_map
from dbos_notebook.graphs import process_map


def text_sizes(picture: dn.Picture) -> list[float]:
    return [float(size) for size in re.findall(r'<text[^>]* font-size="([\d.]+)"', picture.svg)]


@pytest.mark.parametrize("children", [300, 10_000])
def test_the_overview_of_a_big_run_is_legible_in_a_cell(children: int) -> None:
    picture = dn.draw(process_map(big_runs.fan_out(children)))
    width, height = picture.size
    scale = min(1, 1000 / width, 560 / (height - 90))  # without title and legend
    assert min(text_sizes(picture)) * scale >= MIN_TEXT_SIZE
    assert is_legible(picture)
    assert not is_legible(picture, width=400)
    said = texts(picture)
    for name in ("process_invoice_document", *big_runs.STEPS, "list_documents"):
        assert name in said
    assert "longest" in said
    if children == 300:
        assert said.count("3 × UpstreamServiceTemporarilyUnavailableError") == 3
        assert "301 workflows of 6 kinds · 2,020 steps of 33 kinds" in "".join(said)


def test_a_row_of_the_overview_is_a_node() -> None:
    overview = process_map(big_runs.fan_out(60))
    picture = dn.draw(overview)
    assert set(picture.nodes.values()) == set(overview)
    drawn = {each.get("id") for each in parse(picture).iter() if each.get("data-node")}
    assert drawn == set(picture.nodes)
    assert "12 × process_invoice_document  " in picture.text
    assert "subgraph" in picture.dot.source


@pytest.mark.parametrize("width", [380, 700, 1600])
def test_the_overview_is_as_wide_as_the_view(width: int) -> None:
    picture = draw_process_map(process_map(big_runs.fan_out(60)), "light", width)
    assert picture.size[0] <= width + 40
    assert min(text_sizes(picture)) >= MIN_TEXT_SIZE
    parse(picture)


def test_the_folded_graph_of_a_big_run_names_what_it_groups() -> None:
    said = texts(dn.draw(big_runs.fan_out(300)))
    for line in (
        "300 × starts process_*_document",
        "13 × process_*_document",
        "13 failed at extract_text_with_layout_model",
        "UpstreamServiceTemporarilyUnavailableError",
        "56 × process_contract_document",
        "nightly_ingestion_fan_out",
    ):
        assert line in said
    assert not any("various" in line or "acme" in line for line in said)


def test_a_deep_chain_is_drawn_as_nested_levels() -> None:
    graph = big_runs.chain(1000)
    said = texts(dn.draw(graph))
    assert any(re.fullmatch(r"9\d\d levels of recurse", line) for line in said)
    assert "starts itself 1,000 ×" in texts(dn.draw(process_map(graph)))


def test_a_loop_is_one_group() -> None:
    said = texts(dn.draw(big_runs.loop(100)))
    assert sum("× (poll_page → write_page)" in line for line in said) == 2
    assert len(dn.draw(big_runs.loop(100)).graph or ()) < 10


@pytest.mark.parametrize("theme", ["auto", "dark"])
def test_hostile_names_are_escaped(theme: str) -> None:
    picture = dn.draw(process_map(sample_graphs.hostile()), theme=theme)
    said = texts(picture)
    assert any("<script>" in each for each in said)
    assert max(map(len, said)) < 400
    assert len(picture.svg) < 300_000
    assert picture.png.startswith(b"\x89PNG")


def test_ids_and_names_show_what_distinguishes_them() -> None:
    graph = big_runs.fan_out(5)
    said = texts(dn.draw(graph, fold=None))
    assert big_runs.ROOT in said
    assert {f"…-{number}" for number in range(2, 7)} <= set(said)
    assert "upsert_into_vector_index" in said
    picture = dn.draw(graph, fold=None)
    assert f"{big_runs.MODULE}.steps.receipt.chunk" in picture.svg  # in the tooltip
    assert "process_invoice_document  …-2  succeeded" in picture.text
