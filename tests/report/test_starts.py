"""The page on the first trials with a pretrained language model: fails where the data turn; tables and figure."""

import matplotlib.pyplot as plt
import nbformat
import pytest
from fakes import legible, start_trials
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from lrd import ROOT, results
from lrd.analysis import starts as trials
from lrd.presets import read_preset
from lrd.report import figures, setup, starts
from lrd.report.text import NOTHING


def executed(runs, monkeypatch) -> str:
    """The page's HTML with these runs."""
    monkeypatch.setenv("LRD_RUNS", str(runs))
    notebook = nbformat.read(ROOT / "notebooks" / "starts.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}, timeout=180).execute()
    return "".join(o.data.get("text/html", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o)


@pytest.mark.slow
def test_the_page_of_the_published_runs(monkeypatch):
    html = executed(ROOT / "runs", monkeypatch)
    assert "15 finished" in html and "pass@8 0.255" in html and "All weights trained on the worked solutions" in html
    assert html.count("does not meet the rule") == 4 and "did not come true" in html
    assert html.count("cell.html") == 15


def test_the_page_without_runs(tmp_path, monkeypatch):
    html = executed(tmp_path, monkeypatch)
    assert "36 absent" in html and NOTHING in html and "nan" not in html


def ends_more(step, seen, i):
    """One problem of a template is cut before RL, and none after it."""
    return dict(truncated=step == 0 and i == 4, answered=step > 0 or i < 4)


def reaches_unseen(step, seen, i):
    """Unseen templates gain as much as seen ones."""
    right = i <= step // 100
    return dict(correct=right, length=40 if right else 12)


def falls(step, seen, i):
    """Two problems of a seen template are right before RL, and one after it."""
    return dict(correct=seen and i < 2 - step // 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("turn", "sentence"),
    [
        (falls, "pass@1 rises in every cell at the smaller rate"),
        (ends_more, "in no cell do more completions end and box an answer"),
        (reaches_unseen, "on unseen templates no cell gains significantly"),
    ],
)
def test_the_page_fails_where_the_data_turn(turn, sentence, tmp_path, monkeypatch):
    start_trials(tmp_path, turn)
    with pytest.raises(CellExecutionError, match=f"AssertionError.*{sentence}"):
        executed(tmp_path, monkeypatch)


@pytest.fixture
def found(tmp_path):
    start_trials(tmp_path)
    return results.load("smollm-starts", tmp_path)


def test_expectations_are_the_presets_and_turn(found):
    frame = trials.table(found)
    words = {clause: word for clause, word, _ in starts.expected(frame)}
    prediction = read_preset("smollm-starts")["about"]["prediction"]
    assert all(clause in prediction for clause in words)
    assert list(words.values()) == ["came true", "came true"]  # all gain 24 of the 150 problems
    lesser = frame[frame.part != "worked"].assign(
        change=[trials.Estimate(0.1, 0.0, 0.2, 30)] * (frame.part != "worked").sum()
    )
    assert [word for _, word, _ in starts.expected(lesser)] == [NOTHING, "did not come true"]
    assert {word for _, word, _ in starts.expected(frame[:0])} == {NOTHING}


def test_verdicts_name_the_starts(found):
    assert starts.verdict(found) == "Start a, b, c and d: undecided."  # two of three seeds are missing
    low = found.cells.assign(base=found.cells.base / 2)
    assert starts.verdict(results.replace(found, cells=low)) == "No start of the 4 meets the rule."


def test_every_try_has_a_row(found):
    rows = starts.tried(
        found, {"models": {"a/student": {"habits": {"direct": [0, 0.5], "skip": [0, 0]}, "pass@8": 0.25}}}
    )
    assert [row[0] for row in rows[:2]] == ["start a: direct 0 to 0.5", f"start b: {NOTHING}"]
    assert rows[0][1] == "greedy 0.160; sampled pass@8 0.250"
    assert rows[0][2] == (
        "Full fine-tuning at 1e-05: +0.160; rank 16 at 0.0001: +0.160; rank 16 at 0.000316: +0.160. It is undecided."
    )
    assert rows[4:] == setup.tried("smollm") and len(rows) == 12


def test_the_figure_and_that_of_nothing(found, tmp_path):
    for each in (found, results.load("smollm-starts", tmp_path / "none")):
        figure = figures.starts(each, trials.GAIN)
        legible(figure)
        assert [ax.get_title(loc="left") for ax in figure.axes] == [f"start {name}" for name in "abcd"]
        assert {len(ax.lines) for ax in figure.axes} == {3 + 1 if each is found else 0}
        top = figure.axes[0].get_ylim()[1]
        assert top > 0.32 or each is not found
        plt.close(figure)
