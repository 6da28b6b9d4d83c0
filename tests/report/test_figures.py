"""Figures draw whatever there is, in one style; what a notebook shows as HTML is escaped."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest
from fakes import broken, half as half_matrix, legible, one_evaluation, write_run
from matplotlib.text import Text

from lrd import ROOT, results
from lrd.analysis import onset
from lrd.analysis.equivalence import compare
from lrd.report import display, figures

DRAWN = [figures.rank_curves, figures.learning_curves]


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> results.Results:
    """Two regimes, three arms, up to two seeds."""
    runs = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        write_run(runs, "outcome", 1, seed, {0: 5, 10: 15 + seed})
        write_run(runs, "outcome", None, seed, {0: 5, 10: 18 - seed})
    write_run(runs, "process", 16, 0, {0: 5, 10: 20, 20: 1}, advantage_std=4.0)
    return results.load("tiny", runs)


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> results.Results:
    return results.load("tiny", tmp_path_factory.mktemp("none"))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("draw", DRAWN)
def test_figures_of_half_a_matrix(half, draw):
    legible(draw(half))


@pytest.mark.parametrize("draw", DRAWN)
def test_figures_of_nothing_say_so(empty, draw):
    figure = draw(empty)
    legible(figure)
    assert all("no finished cell" in [t.get_text() for t in ax.texts] for ax in figure.axes)


def test_rank_curves_draw_means_bands_and_seeds(half):
    figure = figures.rank_curves(half)
    ax = figure.axes[0]
    means = [line for line in ax.lines if len(line.get_xdata()) == 5][-1].get_ydata()
    assert means[0] == pytest.approx(0.775) and all(m != m for m in means[1:])
    (band,) = ax.patches
    assert band.get_y() + band.get_height() / 2 == pytest.approx(0.875)  # full fine-tuning's mean, 18 and 17 of 20


def test_one_cell_with_and_without_data(half, empty):
    mine = [frame[frame.cell == "process-r16-s0"] for frame in (half.steps, half.evals)]
    legible(figures.cell_curves(*mine))
    legible(figures.cell_curves(empty.steps, empty.evals))


def test_a_colour_a_regime_and_a_marker_an_arm(half):
    assert len({figures.colour_of(regime, half) for regime in half.regimes}) == 3
    assert len(set(figures.markers_of(half.arms).values())) == len(half.arms)


def test_the_data_flow_fills_the_tokens_that_rewards_deposit_on(half):
    figure = figures.data_flow(half)
    figure.canvas.draw()
    squares = [p for p in figure.axes[0].patches if isinstance(p, matplotlib.patches.Rectangle)]
    filled = [matplotlib.colors.to_hex(p.get_facecolor()).upper() for p in squares]
    counts = [filled.count(figures.colour_of(regime, half)) for regime in half.regimes]
    assert len(squares) == 3 * 17 and counts == [2, 4, 17]  # outcome, process, distillation over two completions
    sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()]
    assert min(sizes) >= 8


def test_every_metric_with_a_label_is_explained():
    explained = (ROOT / "book" / "metrics.md").read_text()
    assert [name for name in figures.METRICS if name.removeprefix("completions/") not in explained] == []


def test_model_output_is_escaped():
    row = {
        "step": 1,
        "problem": "<script>alert(1)</script>",
        "answer": "<b>7</b>",
        "correct": False,
        "truncated": True,
        "tokens": ["<img src=x onerror=alert(1)>", "&", "\n", "'\""],
        "token_rewards": [0.5, -1.0, None, 0.0],
        "deposit_mask": [True, True, True, False],
        "advantages": [1.0, None, 0.0, 0.0],
    }
    shown = display.completions([row])
    assert "<script" not in shown and "<img" not in shown and "<b>" not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown and "&amp;" in shown and "not a number" in shown


def test_what_is_missing_of_nothing(empty):
    assert "54 absent" in display.missing(empty)


def test_reasons_of_failures_are_escaped(half):
    found = results.Results(half.preset, half.steps, half.evals, half.cells, ["outcome-r1-s0: failed: <i>x</i>"])
    assert "failed: &lt;i&gt;x&lt;/i&gt;" in display.missing(found)
    assert "outcome-r1-s0/cell.html" in display.missing(found)


@pytest.mark.parametrize("make", [half_matrix, broken, one_evaluation, lambda root: root])
def test_figures_of_comparisons_and_onsets_draw_whatever_was_run(make, tmp_path):
    found = results.load("tiny", make(tmp_path))
    compared, onsets = compare(found), onset.onsets(found)
    for figure in (
        figures.differences(found, compared.final, compared.margin),
        figures.onset_order(found, onsets, [signal.name for signal in onset.CHAIN]),
        figures.lead_lag(found, onset.lead_lags(found)),
    ):
        figure.canvas.draw()
        plt.close(figure)
