"""What the benchmark's page says and shows of an invented measurement."""

import nbformat
import pytest
from fakes import write_bench
from nbclient import NotebookClient

from lrd import ROOT
from lrd.analysis import timings
from lrd.report import bench as page, figures


@pytest.fixture
def runs(tmp_path):
    write_bench(tmp_path)
    return tmp_path


@pytest.fixture
def bench(runs) -> timings.Bench:
    return timings.load(runs)[0][0]


def test_sentences(bench):
    texts = page.glued([bench], "paper")
    assert texts["headline"] == (
        "A step of ours against one of TRL's trainer: rank 16 6.0 s against 9.0 s (1.5 times as fast), "
        "full fine-tuning 7.0 s against 8.4 s (1.2 times as fast)."
    )
    assert (texts["least"], texts["copy"], texts["rate"]) == ("2.0", "4.3", "1,790")
    assert (texts["their_step"], texts["their_hours"], texts["packages"]) == ("135.8", "150", "torch 2.13.0")
    assert texts["hours"] == "not measured"  # one regime is missing: no sum of the rest passes for the whole
    assert set(texts) == set(page.glued([], "paper"))
    assert "Nothing has been measured yet" in page.glued([], "paper")["headline"]


def test_tables(bench):
    table = page.step_table(bench)
    assert "<th>ours: outcome, rank 16, 450 tokens</th><td>2.00</td>" in table
    assert "<th>ours: process, rank 16</th><td>7.50</td>" in table and "<td>75.0</td>" in table
    assert "trl: outcome, rank 16" in table
    cost = page.cost_table(bench, "paper")
    assert "<th>process, full fine-tuning</th><td>≈</td><td>8.5</td><td>3</td>" in cost
    assert "not" in page.step_table(None).lower() and page.cost_table(None, "paper")
    tokens = page.token_table(bench)
    assert "<th>drawing</th><th>products</th><th>no kernel</th>" in tokens
    assert "<th>vllm</th><td>2.50</td><td>2.25</td><td>0.25</td><td>1.50</td><td>0.75</td>" in tokens
    assert "Not measured" in page.token_table(None)


def test_the_figure_draws_every_row_to_its_length(bench):
    figure = figures.step_times(bench)
    *_, least = figure.spec["layer"]
    lengths = {}
    for row in figure.spec["layer"][0]["data"]["values"]:
        lengths[row["row"]] = lengths.get(row["row"], 0) + row["seconds"]
    assert list(lengths.values()) == pytest.approx(list(bench.rows.step))
    assert least["encoding"]["x"]["datum"] == pytest.approx(sum(bench.roofline.values()))
    assert "not told apart" in figure.svg and "nothing measured yet" in figures.step_times(None).svg


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_runs_with_a_measurement_and_without(measured, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(runs if measured else tmp_path / "none"))
    notebook = nbformat.read(ROOT / "notebooks" / "bench.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}, timeout=120).execute()
    html = "".join(o.data.get("text/html", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o)
    assert ("trl: outcome, full fine-tuning" in html) == measured
    assert ("Not measured yet" in html) != measured
    assert "<b>sampling</b>" not in html
