"""The explore page live: widgets that choose, and figures and a table that follow."""

import json

import matplotlib

matplotlib.use("agg")

import ipywidgets as widgets
import pytest
from fakes import write_run

from lrd import ROOT, results
from lrd.report import explore, figures

EVERYTHING = {"regimes": ["outcome", "process"], "arms": ["r1", "full"], "seeds": [0, 1], "steps": (0, 20)}


@pytest.fixture
def found(tmp_path):
    """Two finished cells, one that failed after ten steps."""
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 15, 20: 16})
    write_run(tmp_path, "outcome", None, 1, {0: 5, 10: 15, 20: 18})
    failed = write_run(tmp_path, "process", 1, 0, {0: 5, 10: 2})
    (failed / "done.json").unlink()
    (failed / "failed.json").write_text('{"error": "Diverged"}')
    return results.load("tiny", tmp_path)


@pytest.fixture
def shown(monkeypatch):
    """What `draw` shows, and which metrics it drew of which cells."""
    seen = []
    monkeypatch.setattr(explore, "show", seen.append)
    return seen


def chooser(panel, name):
    lists, steps, _ = panel.children
    return next(w for w in [*lists.children, steps] if w.description == name)


def test_a_choice_changes_figures_and_table(found, shown):
    panel = explore.panel(found)
    figure, table = shown
    assert len(figure.axes) == 3 and "outcome-r1-s0" in table and "0.8 (0.25 to 0.8)" in table
    assert chooser(panel, "steps").value == (0, 20)

    chooser(panel, "regimes").value = ["outcome"]
    chooser(panel, "arms").value = ["full"]
    shown.clear()
    chooser(panel, "metrics").value = ["pass@1", "reward"]
    *drawn, table = shown
    assert [len(figure.axes) for figure in drawn] == [1, 1]
    assert "outcome-full-s1" in table and "outcome-r1-s0" not in table and "2 (0.1 to 2)" in table

    shown.clear()
    chooser(panel, "steps").value = (5, 10)
    assert "0.75 (0.75 to 0.75)" in shown[-1] and "1 (0.5 to 1)" in shown[-1]


def test_only_what_was_measured_can_be_chosen(found, tmp_path):
    offered = [value for _, value in chooser(explore.panel(found), "metrics").options]
    assert "pass@1" in offered and "reward" in offered and "entropy" not in offered and "kl" not in offered
    nothing = explore.panel(results.load("tiny", tmp_path / "none"))
    assert isinstance(nothing, widgets.Widget) and chooser(nothing, "metrics").value == ("pass@1",)


def test_lines_of_cells(found):
    figure = figures.every_cell(found, "pass@1", **EVERYTHING)
    outcome, process = figure.axes
    lines = [line for line in outcome.lines if len(line.get_xdata()) == 3]
    assert [line.get_ydata().tolist() for line in lines] == [[0.25, 0.75, 0.9], [0.25, 0.75, 0.8]]  # full, then r1
    assert lines[1].get_xdata().tolist() == [0, 10, 20] and min(lines[0].get_xdata()) > 20  # arms side by side
    styles = {line.get_linestyle() for line in process.lines if len(line.get_xdata()) == 2 and line.get_alpha() == 0.8}
    assert styles == {":"} and lines[0].get_linestyle() == "-"  # dotted: it did not finish
    assert outcome.get_ylim()[0] < 0 and figure.get_supylabel() == "greedy pass@1"


@pytest.mark.filterwarnings("error:Attempting to set identical", "error::RuntimeWarning")
@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_a_metric_that_never_changes_has_a_range(tmp_path, value):
    path = write_run(tmp_path, "outcome", 1, 0, {0: 0, 10: 0}) / "metrics.jsonl"
    rows = [json.loads(line) | {"kl": value} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for metric in ("kl", "pass@1"):
        low, high = figures.every_cell(results.load("tiny", tmp_path), metric).axes[0].get_ylim()
        assert low < 0 <= high or low <= 0 < high


def test_the_notebook_shows_its_figures_without_the_book(tmp_path, monkeypatch):
    """No cell has markup that only the book reads, and its second code cell gives one open figure and six more."""
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 15})
    monkeypatch.setenv("LRD_RUNS", str(tmp_path))
    notebook = json.loads((ROOT / "notebooks" / "explore.ipynb").read_text())
    text = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    assert not any(mark in source for source in text for mark in (":::", "```{"))
    names: dict = {}
    for source in ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"][:2]:
        exec(source, names)
    page = names["page"]
    assert page.count("<img src='data:image/svg+xml;base64,") == page.count("<details") == 7
    assert page.count("<details name='lrd-figures' open>") == 1 and "alt='Greedy pass@1 on" in page


@pytest.mark.parametrize("narrowed", [{"regimes": []}, {"arms": []}, {"seeds": []}, {"steps": (90, 99)}])
def test_nothing_chosen_is_drawn_and_shown(found, narrowed):
    figures.every_cell(found, "reward", **EVERYTHING | narrowed).canvas.draw()
    assert "nan" not in explore.within(found, ["reward"], **EVERYTHING | narrowed)
    figures.every_cell(found, "no such metric").canvas.draw()
