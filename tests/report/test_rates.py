"""The page on learning rates: the rule's choices in tables and sentences."""

import json

import pytest
from fakes import small_sweep, write_cell

from lrd import results
from lrd.cell import grid
from lrd.report import rates
from lrd.report.text import NOTHING

AXIS = "learning_rate"


@pytest.fixture
def swept(tmp_path):
    return results.load("small-lr", small_sweep(tmp_path))


def test_choices(swept):
    rows = {row[0]: row[1:] for row in rates.rows(swept, AXIS)}
    assert rows["rank 16"] == ("0.500", "0.500", "0.150", "0.0003 (at the end)")
    assert rows["rank 64"][-1] == "0.003 (at the end)" and rows["rank 4"][-1] == "0.001"
    assert rows["rank 1"][-2:] == (NOTHING, "not finished")
    assert rows["rank 256"] == (NOTHING,) * 3 + ("not finished",)
    assert rates.verdict(swept, AXIS) == "Rank 4 gets 0.001; rank 16 gets 0.0003; rank 64 gets 0.003."
    ours = {cell.arm: f"{cell.learning_rate:g}" for cell in grid("small")}
    assert rates.in_use(swept, AXIS) == (
        f"Preset small has others: {ours['r16']} in place of 0.0003 for rank 16; {ours['r64']} in place of 0.003 for "
        "rank 64."
    )


def test_rates_that_the_rule_chose(tmp_path):
    ours = {cell.arm: cell.learning_rate for cell in grid("small")}
    for cell in grid("small-lr"):
        write_cell(tmp_path, cell, {0: 4, 10: 16 if cell.learning_rate == ours[cell.arm] else 8})
    assert rates.in_use(results.load("small-lr", tmp_path), AXIS) == "Preset small has these values."


def test_a_sweep_that_was_not_run(tmp_path):
    empty = results.load("small-lr", tmp_path)
    assert rates.verdict(empty, AXIS) == "No arm's cells are all finished, so that none has been chosen."
    assert {row[-1] for row in rates.rows(empty, AXIS)} == {"not finished"}
    assert rates.in_use(empty, AXIS) == "What preset small has is a guess until then."


def test_whether_a_sweep_has_the_student_of_its_preset(tmp_path):
    assert rates.student("small-lr", tmp_path) == ""
    for preset, print_of in (("small-lr", "a"), ("small", "b")):
        path = write_cell(tmp_path, grid(preset)[0], {0: 4, 10: 8})
        (path / "provenance.json").write_text(json.dumps({"run": {"models": {"student": print_of}}}))
    said = rates.student("small-lr", tmp_path)
    assert said == "The cells of small-lr began from another training of the student than those of small."
    (path / "provenance.json").write_text(json.dumps({"run": {"models": {"student": "a"}}}))
    said = rates.student("small-lr", tmp_path)
    assert said == "The cells of small-lr began from the student of small."
    assert rates.student("small", tmp_path, base="small-lr").endswith("the student of small-lr.")


def test_what_arms_lose_after_their_best(tmp_path):
    for cell in grid("tiny", {"regime": ["outcome"], "seed": [0], "rank": [1, 16, "full"]}):
        write_cell(tmp_path, cell, {0: 4, 10: 16, 20: 14 if cell.rank else 16})
    said = rates.past_best(results.load("tiny", tmp_path), "outcome").replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "of tiny an adapter's cell loses 0.100 ± 0.000 of pass@1 under outcome, one of full fine-tuning 0.000" in said
    )
