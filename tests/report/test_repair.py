"""The page on the collapse under intervention: its tables and its figure; sentences.txt has its words."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from fakes import intervened, legible

from lrd.analysis import interventions
from lrd.report import figures, repair, style
from lrd.report.text import NOTHING

FOUND = intervened(none=(0.8, 5.0), tame=(0.8, 1.0), good=(0.2, 5.0), both=(0.1, 1.0))


@pytest.mark.parametrize("table", [repair.values, repair.effects, repair.shares, repair.arms])
def test_a_table_has_a_name_for_each_column(table):
    head, rows = table(FOUND)
    assert {len(row) for row in rows} == {len(head)} and NOTHING not in rows[0]
    assert table(FOUND[:0])[1] == []


def test_a_share_without_an_interval():
    assert repair.percentage(None) == NOTHING
    one = interventions.share(FOUND[FOUND.seed == 1], "good")
    assert repair.percentage(one) == "+74\N{NO-BREAK SPACE}%"


def test_the_figure_of_interventions_and_of_none():
    for found in (FOUND, FOUND[:0]):
        figure = figures.repairs(found)
        legible(figure)
        said = [text.get_text() for text in figure.legends[0].get_texts()]
        assert said == (["rank 1", "FullFT"] if len(found) else [])
        plt.close(figure)
    full = [line for line in figures.repairs(FOUND).axes[1].lines if line.get_marker() == style.FULL_MARKER]
    assert [list(line.get_ydata()) for line in full] == [[i] for i in range(4) for _ in range(3)]
    bars = [line.get_xdata() for line in figures.repairs(FOUND).axes[1].lines if len(line.get_xdata()) == 2]
    adapters = np.array([[0.1] * 2, [0.1] * 2, [0.7] * 2, [0.8] * 2])  # without the 0.1 that FullFT has more
    assert np.array(bars) == pytest.approx(adapters)
    assert [t.get_text() for t in figures.repairs(FOUND).axes[0].get_yticklabels()] == ["none", "tame", "good", "both"]
