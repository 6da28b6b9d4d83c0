"""Figures draw whatever there is, in one style; what a notebook shows as HTML is escaped."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest
import vl_convert
from fakes import broken, half as half_matrix, legible, one_evaluation, write_run
from matplotlib.text import Text

from lrd import ROOT, results
from lrd.analysis import onset
from lrd.analysis.equivalence import compare
from lrd.report import display, figures, style
from lrd.report.run_figures import cell_curves

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


def rows_of(figure):
    """What a live figure draws from."""
    return figure.spec["data"]["values"]


def keys_of(spec, key):
    """Every value under a key, however deep."""
    if isinstance(spec, list):
        return [found for each in spec for found in keys_of(each, key)]
    below = [found for each in spec.values() for found in keys_of(each, key)] if isinstance(spec, dict) else []
    return ([spec[key]] if isinstance(spec, dict) and key in spec else []) + below


@pytest.mark.parametrize("draw", DRAWN)
def test_a_live_figure_shows_numbers_leads_to_notebooks_and_filters(half, draw):
    figure = draw(half)
    assert {row["href"] for row in rows_of(figure) if row["cell"] == "process-r16-s0"} == {
        "../runs/tiny/process-r16-s0/cell.html"
    }
    tips = [tip for tips in keys_of(figure.spec, "tooltip") if isinstance(tips, list) for tip in tips]
    assert {tip["field"] for tip in tips} >= {"cell", "value", "final", "peak"}
    assert {"field": "href", "type": "nominal"} in keys_of(figure.spec, "href")
    vega = vl_convert.vegalite_to_vega(figure.spec, vl_version=figures.live.VEGALITE)
    assert [legend["encode"]["symbols"]["interactive"] for legend in vega["legends"]] == [True]
    assert all(scale == {"zero": False} for scale in keys_of(keys_of(figure.spec, "y"), "scale"))


@pytest.mark.parametrize("draw", DRAWN)
def test_the_same_figure_stands_as_svg(half, draw):
    figure = draw(half)
    bundle = figure._repr_mimebundle_()
    assert bundle["image/svg+xml"] == figure.svg and all(f">{name}</text>" in figure.svg for name in half.regimes[:2])
    assert "<div class='lrd-live'><img src='data:image/svg+xml;base64," in bundle["text/html"]
    assert "<script type='application/json'>{" in bundle["text/html"]


def test_what_only_a_pointer_finds_is_not_in_the_svg(half):
    figure = figures.learning_curves(half)
    names = [name for name in keys_of(figure.spec, "name") if str(name).startswith("touch")]
    assert len(names) >= 2 and "outcome-r1-s1" not in figure.svg  # no mark says of which cell it is


@pytest.mark.parametrize("draw", DRAWN)
def test_live_figures_of_nothing_say_so(empty, draw):
    assert "no finished cell" in draw(empty).svg


def test_rank_curves_take_each_cell_with_its_statistic(half):
    rows = {row["cell"]: row for row in rows_of(figures.rank_curves(half))}
    assert len(rows) == 5 and rows["outcome-r1-s1"]["value"] == 0.8 and rows["outcome-full-s1"]["rank"] == "FullFT"
    assert rows["process-r16-s0"]["base"] == 0.25 and rows["process-r16-s0"]["peak"] == 1.0
    assert {row["value"] for row in rows_of(figures.rank_curves(half, "peak"))} == {0.75, 0.8, 0.9, 0.85, 1.0}


def test_learning_curves_take_every_evaluation(half):
    rows = [row for row in rows_of(figures.learning_curves(half)) if row["cell"] == "process-r16-s0"]
    assert [(row["step"], row["value"]) for row in rows] == [(0, 0.25), (10, 1.0), (20, 0.05)]


def test_a_live_figure_keeps_its_text_within_its_script():
    figure = figures.live.nothing("</script><b>")
    assert "</script><b>" not in figure._repr_mimebundle_()["text/html"]


def test_one_cell_with_and_without_data(half, empty):
    mine = [frame[frame.cell == "process-r16-s0"] for frame in (half.steps, half.evals)]
    legible(cell_curves(*mine))
    legible(cell_curves(empty.steps, empty.evals))


def test_a_colour_a_regime_and_a_marker_an_arm(half):
    assert len({style.colour_of(regime, half) for regime in half.regimes}) == 3
    assert len(set(style.markers_of(half.arms).values())) == len(half.arms)


def test_the_data_flow_fills_the_tokens_that_rewards_deposit_on(half):
    figure = figures.data_flow(half)
    figure.canvas.draw()
    squares = [p for p in figure.axes[0].patches if isinstance(p, matplotlib.patches.Rectangle)]
    filled = [matplotlib.colors.to_hex(p.get_facecolor()).upper() for p in squares]
    counts = [filled.count(style.colour_of(regime, half)) for regime in half.regimes]
    assert len(squares) == 3 * 17 and counts == [2, 4, 17]  # outcome, process, distillation over two completions
    sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()]
    assert min(sizes) >= 8


def test_every_metric_with_a_label_is_explained():
    explained = (ROOT / "book" / "metrics.md").read_text()
    assert [name for name in style.METRICS if name.removeprefix("completions/") not in explained] == []


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
        figures.lead_lag(found, onset.lead_lags(found)),
    ):
        figure.canvas.draw()
        plt.close(figure)
    assert figures.onset_order(found, onsets, [signal.name for signal in onset.CHAIN]).svg.startswith("<svg")
