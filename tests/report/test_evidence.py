"""The pages on equivalence and stability over full, half, broken and absent runs: always words, never a stack trace."""

import matplotlib.pyplot as plt
import pytest
from fakes import broken, half, one_evaluation

from lrd import results
from lrd.analysis import onset
from lrd.report import evidence, figures


@pytest.mark.parametrize("make", [half, broken, one_evaluation, lambda root: root])
def test_pages_say_something_true_whatever_was_run(make, tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(make(tmp_path)))
    found = results.load("tiny")
    page = evidence.Equivalence(found)
    rows = [page.facts().values(), *page.designs(), *page.ranks()]
    rows += [row for regime in found.regimes for row in page.comparisons(regime)]
    other = evidence.Stability(found)
    rows += [other.facts().values(), *other.onset_rows(), *other.order_rows(), *other.sensitivity_rows()]
    for text in [text for row in rows for text in row]:
        assert isinstance(text, str)
        assert "nan" not in text and "equal" not in text, text
    assert all({"step", "tokens"} <= set(row) for row in other.completions())
    for figure in (
        figures.differences(found, page.final, page.margin),
        figures.onset_order(found, other.onsets, [signal.name for signal in onset.CHAIN]),
        figures.lead_lag(found, other.leads),
    ):
        figure.canvas.draw()
        plt.close(figure)


def test_what_half_a_matrix_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(half(tmp_path)))
    page = evidence.Equivalence(results.load("tiny"))
    facts = page.facts()
    assert facts["size"] == "2 seeds on 20 problems"
    assert (
        "under outcome, of 1 rank 0 within the margin, 0 above full fine-tuning, 0 below, 1 undecided"
        in facts["verdict"]
    )
    assert "under process no rank has two finished seeds in common" in facts["verdict"]
    assert facts["slope"].startswith("The slope cannot be estimated")
    assert page.comparisons("outcome")[0][1].startswith("−0.075 [")  # 16/20 against 17/20 and 18/20
    assert page.comparisons("outcome")[1][1] == "not measured"


def test_readings():
    from lrd.analysis.equivalence import Contrast

    sharp, blunt = dict(by_seed=1e-4, by_problem=1e-3, rest=1e-4), dict(by_seed=1.0, by_problem=1.0, rest=0.1)
    size = {"seeds": 3, "problems": 150}
    assert evidence.reading(Contrast(0.0, **sharp, **size)) == "within the margin"
    assert evidence.reading(Contrast(0.02, **sharp, **size)) == "above, by less than the margin"
    assert evidence.reading(Contrast(-0.2, **sharp, **size)) == "below"
    assert evidence.reading(Contrast(0.0, **blunt, **size)) == "undecided"


def test_the_fewest_seeds():
    assert [evidence.fewest(lambda s, n=n: s >= n) for n in (2, 17, 100, 101)] == [2, 17, 100, None]


def test_ranks_in_words():
    ranks = (1, 4, 16)
    assert evidence.between(1, 1, ranks) == "≤ 1" and evidence.between(1, 4, ranks) == "≤ 1 to 4"
    assert evidence.between(4, float("inf"), ranks) == "4 to not reached"
