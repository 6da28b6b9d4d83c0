"""What is said of the models: from cards and configurations, for each kind of preset."""

import pytest

from lrd import results
from lrd.cell import grid
from lrd.report import about

CARD = {"seconds": 355.4, "models": {r: {"parameters": n} for r, n in (("student", 23655680), ("teacher", 31522304))}}
CARD["models"]["prm"] = {"parameters": 206688}


def test_a_testbed_with_its_card():
    cell = grid("small")[0]
    assert about.models("small", cell, CARD) == (
        "The student has 23.7 million parameters, the teacher 31.5 million and the process reward model 206,688. All "
        "three are trained from scratch, in 6 minutes, on problems that a program writes: arithmetic told as short "
        "stories, of five levels of difficulty."
    )
    assert about.scale("small", cell, CARD).endswith("the original's student has about 73 times as many parameters.")


def test_without_a_card_and_the_original(monkeypatch):
    monkeypatch.setattr(results, "card", lambda preset: None)
    assert about.models("tiny", grid("tiny")[0]).endswith("their card is not at hand.")
    assert "times as many" not in about.scale("tiny", grid("tiny")[0])
    assert "Qwen/Qwen3-8B" in about.models("paper", grid("paper")[0]) and about.scale("paper", grid("paper")[0]) == ""


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_what_was_tried_has_its_reason(preset):
    for change, scores, reason in about.tried(preset):
        assert change and reason.endswith(".") and (scores == "not measured" or "." in scores)
    n = len(about.tried(preset))
    assert (f"{n} recipe" if n else "no rejected recipe") in about.tried_of(preset)
