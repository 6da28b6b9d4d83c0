"""The setup page's tables, and what was tried."""

import pytest

from lrd.cell import Cell, grid
from lrd.report import setup
from lrd.report.text import NOTHING


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_what_was_tried_has_its_reason(preset):
    for change, scores, reason in setup.tried(preset):
        assert change and reason.endswith(".") and (scores == NOTHING or "." in scores)


def test_settings_that_differ_name_their_cells():
    shown = setup.settings_table(grid("tiny"))
    assert "0.0003 (full fine-tuning)" in shown and "0, 1, 2" in shown


def test_the_card_or_where_it_would_come_from():
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0)
    assert "lrd testbed tiny" in setup.card_table("tiny", None, cell)
    card = {"models": {"student": {"parameters": 1234, "greedy": 0.5}}}
    assert "1,234" in setup.card_table("tiny", card, cell) and "0.500" in setup.card_table("tiny", card, cell)
