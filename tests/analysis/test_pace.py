"""Paces by hand: what has collapsed by when, and the sentences that say so."""

import matplotlib.pyplot as plt
import pytest
from fakes import legible, write_cell

from lrd import results
from lrd.analysis import pace
from lrd.cell import grid
from lrd.report import figures

SOON, LATE = 80, 240
HOLDS = {0: 8, 40: 18, 80: 18, 120: 17, 240: 16}  # of 20 problems
EARLY = {0: 8, 40: 18, 80: 2, 120: 1, 240: 0}
LATER = {0: 8, 40: 12, 80: 18, 120: 18, 160: 3, 240: 2}
PLAN = {
    "rank-16": [EARLY] * 3,
    "rank-16-third": [EARLY, LATER, LATER],
    "rank-16-tenth": [LATER] * 3,
    "full-third": [HOLDS, HOLDS, LATER],
    "full-tenth": [HOLDS] * 3,
}


@pytest.fixture
def found(tmp_path):
    for cell in grid("pace"):
        if cell.point["pace"] in PLAN:
            write_cell(tmp_path, cell, PLAN[cell.point["pace"]][cell.seed])
    return pace.with_rates(results.load("pace", tmp_path))


def test_what_has_collapsed_by_when(found):
    counted = {p.name: (p.learning_rate, p.cells, p.soon, p.late, p.onsets) for p in pace.paces(found, SOON)}
    assert counted == {
        "rank-16": (1e-3, 3, 3, 3, [80, 80, 80]),
        "rank-16-third": (3e-4, 3, 1, 3, [80, 160, 160]),
        "rank-16-tenth": (1e-4, 3, 0, 3, [160, 160, 160]),
        "full-third": (1e-4, 3, 0, 1, [160]),
        "full-tenth": (3e-5, 3, 0, 0, []),
    }
    rows = {row[0]: row[1:] for row in pace.rows(pace.paces(found, SOON))}
    plain = {name: [text.replace("\N{NO-BREAK SPACE}", " ") for text in row] for name, row in rows.items()}
    assert plain["rank-16"][1:4] == ["0.90 ± 0.00", "0.10 ± 0.00", "0.00 ± 0.00"]
    assert len(pace.head(SOON, LATE)) == 1 + len(rows["rank-16"])
    assert plain["full-tenth"][-3:] == ["0 of 3", "0 of 3", "none"] and plain["full-third"][-1] == "160"


def test_what_is_said(found):
    assert pace.verdict(pace.paces(found, SOON), SOON, LATE) == (
        "By step 80 every cell of rank-16 has collapsed. By step 80 some cells of rank-16-third have, and all have by "
        "step 240. Of rank-16-tenth none has by then, and all have by step 240. Of full-third none has by then, and "
        "some have by step 240. Of full-tenth none has by step 240."
    )
    assert pace.verdict([], SOON, LATE) == "Not run: no cell is finished."


def test_the_figure_has_a_line_a_rate(found):
    figure = figures.sweep(found, "learning_rate", {"r16": 1e-3}, "learning rate")
    legible(figure)
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    drawn = {name: [line for line in ax.lines if len(line.get_xdata())] for name, ax in panels.items()}
    assert {name: len(lines) for name, lines in drawn.items()} == {"rank 16": 1 + 3, "FullFT": 1 + 2}
    base, *rates = drawn["rank 16"]
    assert list(base.get_ydata()) == pytest.approx([rates[0].get_ydata()[0]] * 2)
    assert [line.get_linewidth() > 2 for line in rates] == [False, False, True]  # 1e-4, 3e-4, 1e-3
    plt.close(figure)


def test_the_usual_rate_is_that_of_the_preset_below(tmp_path):
    for name, full in (("pace", 3e-4), ("pace-small", 3e-5)):
        usual = pace.usual(results.load(name, tmp_path))
        assert (usual["full"], usual["r16"]) == (full, 1e-3)
