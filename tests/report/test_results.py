"""The results page: a link a cell, verdicts that turn with the runs, and something for what was not run."""

import numpy as np
import pytest
from fakes import half, legible

from lrd import results
from lrd.analysis import fair, onset
from lrd.analysis.fair import Compared
from lrd.report import figures, results as report


def test_the_table_leads_to_every_cell_that_has_a_page(tmp_path):
    found = results.load("tiny", half(tmp_path))
    shown = report.outcome_table(found)
    for cell, has_page in zip(found.cells.cell, found.cells.page):
        assert (f"href='../runs/tiny/{cell}/cell.html'" in shown) == has_page
    assert "0.800" in shown and "0.875" in shown and "1 absent" in shown


@pytest.mark.parametrize("preset", ["tiny", "fair"])
def test_tables_of_nothing(tmp_path, preset):
    empty = results.load(preset, tmp_path)
    compared, events = fair.compared(empty, {}), onset.peaks_and_losses(empty)
    tables = [report.outcome_table(empty), report.base_table(empty), report.published_table(empty, {})]
    rows = report.comparison_rows(empty, compared) + report.slope_rows(empty, compared)
    assert not any("nan" in str(shown) for shown in [*tables, *rows, report.glued(empty, compared, events)])
    assert all("yet" in text for text in report.findings(empty, compared))


@pytest.mark.parametrize(
    ("higher", "off", "said"),
    [
        (0.3, {}, "all 2 ranks are ahead of full fine-tuning"),
        (-0.3, {}, "all 2 ranks are behind full fine-tuning"),
        (0.0, {}, "all 2 ranks are equivalent to full fine-tuning"),
        (None, {}, "all 2 ranks are undecided"),
        (0.3, {("outcome", "full"): (1e-5, 3e-5)}, "not judged. Full fine-tuning trained at a learning rate of 3e-05"),
        (0.3, {("outcome", "r4"): (1e-5, 3e-5)}, "1 of 2 ranks is not judged (4)"),
    ],
)
def test_each_verdict_has_its_sentence(tmp_path, higher, off, said):
    rng = np.random.default_rng(0)
    full = np.broadcast_to(0.5 + 0.1 * rng.random(2000), (3, 3, 2000))
    gap = rng.normal(0, 0.1, (3, 3, 1)) if higher is None else higher
    made = {"outcome": {"r1": full + gap, "r4": full + gap, "full": full}}
    compared = Compared({"final": fair.comparisons(made, off)}, {"final": fair.slopes(made)}, off)
    text = report.findings(results.load("tiny", half(tmp_path)), compared)[0]
    assert said in text


@pytest.mark.parametrize("make", [half, lambda root: root])
def test_the_figures_draw_whatever_was_run(tmp_path, make):
    found = results.load("tiny", make(tmp_path))
    compared = fair.compared(found, {})
    legible(figures.forest(found, compared.tables, fair.gains(found), 0.05))
    legible(figures.difference_curves(found, fair.curve(found), 0.05))
