"""The start page's sentences turn with the runs: made-up cells of the fair comparison and of its sweep."""

import numpy as np
import pytest
from fakes import change_metrics, outcome, plant, world, write_cell

from lrd import results
from lrd.analysis import headline, objections as numbers
from lrd.cell import grid
from lrd.report import answer, objections

USED = {"lora": 3.16e-4, "full": 3.16e-5}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(tmp_path))


CASES = {
    "ahead": (
        lambda cell: 16 if cell.rank else 8,
        "all 5 ranks are ahead",
        "No, not in this study: rank 1, the smallest",
    ),
    "behind": (
        lambda cell: 6 if cell.rank else 15,
        "all 5 ranks are behind",
        "Undecided: rank 1 is shown to be enough",
    ),
    "rising": (lambda cell: (cell.rank or 512).bit_length() * 2, "behind", "Undecided: rank 1 is shown to be enough"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_turns_with_the_runs(tmp_path, case):
    right, counts, said = CASES[case]
    found = plant(tmp_path, right)
    lines = headline.lines(found)
    assert counts in answer.verdict(lines) and answer.outright(found, [outcome(found)]).startswith(said)
    assert answer.outright(found, lines) == "Too few cells are finished for an answer."  # of the other two rewards
    assert (answer.near(lines) == "") == (case != "ahead")
    assert answer.unjudged(lines) == ""


def test_the_answer_is_yes_where_only_denser_rewards_need_more(tmp_path):
    plant(tmp_path, lambda cell: 16 if cell.rank else 8)
    found = plant(tmp_path, lambda cell: (cell.rank or 512).bit_length() * 2, regime="process")
    sparse, dense, _ = headline.lines(found)
    assert answer.outright(found, [sparse, dense]) == (
        "Yes: rank 1 is enough under outcome and ends more than 0.05 of pass@1 below full fine-tuning under process."
    )
    assert answer.outright(found, [dense, sparse]).startswith("Undecided: rank 1 is shown to be enough under outcome,")


def test_ranks_that_fall_and_ranks_that_do_not_move(tmp_path):
    found = plant(tmp_path, lambda cell: 20 - 2 * (cell.rank or 1).bit_length())
    assert "falls under outcome" in answer.rise(headline.lines(found))
    assert answer.rise([]) == "No two ranks can be compared yet."


def test_an_arm_off_its_rate_has_no_verdict(tmp_path):
    found = plant(tmp_path, lambda cell: 16 if cell.rank else 8)
    plant(tmp_path, lambda cell: 12 if cell.learning_rate == 1e-4 else 8, "fair-lr", ["full"])
    lines = headline.lines(found)
    assert "full fine-tuning trained at the learning rate 3.16e-05, and the sweep chose 0.0001" in answer.unjudged(
        lines
    )
    assert answer.verdict(lines) == "No rank can be judged against full fine-tuning yet."
    assert answer.near(lines) == "" and answer.together(lines).endswith("is not measured.")
    assert answer.tally(outcome(found)) == "5 not judged"
    assert objections.signs(found)[0] == objections.students(found)[0] == "not measured"


def test_a_rank_with_a_cell_missing_is_left_out(tmp_path):
    found = plant(tmp_path, lambda cell: 16 if cell.rank else 8, ranks=(1, 4, 16, "full"))
    assert "all 3 ranks are ahead" in answer.verdict(headline.lines(found)) and answer.near(headline.lines(found)) == ""
    assert outcome(found).doublings == 4


def test_an_earlier_comparison_is_said_to_stand_or_to_turn(tmp_path):
    found = plant(tmp_path, lambda cell: 16 if cell.rank else 8)
    for seed in range(2):
        for cell in grid("small", {"regime": ["outcome"], "seed": [seed]}):
            write_cell(tmp_path, cell, {0: 4, 10: 6 if cell.rank else 12})
    assert answer.earlier(found, results.load("small", tmp_path)) == "Its runs are not at hand."  # of five seeds
    for cell in grid("small", {"regime": ["outcome"], "seed": [2, 3, 4]}):
        write_cell(tmp_path, cell, {0: 4, 10: 6 if cell.rank else 12})
    before = results.load("small", tmp_path)
    assert "turned under outcome" in answer.earlier(found, before)
    assert "the same under outcome" in answer.earlier(before, before)


def test_objections_turn_with_the_runs(tmp_path):
    flat = plant(tmp_path / "flat", lambda cell: 16 if cell.rank else 8)
    rising = plant(tmp_path / "rising", lambda cell: (cell.rank or 512).bit_length() * 2)
    assert [objections.gradient(found)[0] for found in (flat, rising)] == ["not confirmed", "confirmed"]
    assert objections.signs(flat)[0] == "met" and "up to step" not in objections.signs(flat)[1]
    assert "5 have an interval without zero, 5 after Holm's" in objections.corrections(flat, [])[1]
    assert objections.students(flat)[0] == "met" and "3 trainings" in objections.students(flat)[1]
    assert objections.reversal(flat, flat)[0] == objections.symptom(flat, flat)[0] == "not measured"
    plant(tmp_path, lambda cell: 12 if cell.learning_rate in (3.16e-4, 3.16e-5) else 8, "fair-lr")
    assert objections.windows("fair")[1].endswith("adapters over that of full fine-tuning: 10 (outcome).")
    assert "for 6 of 6 whose sweep is finished, of 18" in objections.windows("fair")[1]


@pytest.mark.parametrize(("now", "said"), [(16, "confirmed"), (8, "not confirmed")])
def test_a_reversal_is_shown_where_adapters_were_behind_and_are_ahead(tmp_path, now, said):
    found = plant(tmp_path, lambda cell: now if cell.rank else 8, regime="process")
    before = plant(tmp_path, lambda cell: 6 if cell.rank else 12, "small", regime="process")
    answer_, text = objections.reversal(found, before)
    assert answer_ == said and "−0.300" in text and f"{(now - 8) / 20:+.3f}" in text
    plant(tmp_path, lambda cell: 12 if cell.learning_rate == 3.16e-5 else 8, "fair-lr", ["full"], "process")
    answer_, text = objections.reversal(found, before)
    assert answer_ == "not judged" and text.endswith("trained at 1e-05, and the sweep chose 3.16e-05.")


@pytest.mark.parametrize(("peak", "late", "said"), [(28, 9, "confirmed"), (5, 0, "not confirmed")])
def test_advantages_that_peak_after_the_loss_are_a_symptom(tmp_path, peak, late, said):
    for cell in grid("fair", {"regime": ["process"], "rank": [1]}):
        path = write_cell(tmp_path, cell, {0: 4, 10: 16, 20: 2, 30: 1})
        change_metrics(path, lambda row: {"advantage_std": 9.0 if row["step"] == peak else 1.0})
    found, nothing = results.load("fair", tmp_path), results.load("small", tmp_path)
    answer_, text = objections.symptom(found, nothing)
    assert answer_ == said
    assert text.startswith(f"In the fair comparison 9 of 9 cells collapse. Together that is {late} of 9, a share of [")
    _, text = objections.symptom(nothing, found)
    assert f"Of 9 cells that collapsed before, {late} had their largest advantages after" in text and "9.0" in text


def test_growth_is_counted_at_equal_episodes_and_at_equal_exposures(monkeypatch):
    """Two rewards of four experiments; one of them is read by exposures only."""
    growing = {regime: world(np.random.default_rng(0)) for regime in ("supervised", "outcome")}
    monkeypatch.setattr(numbers.codebooks, "rewards", lambda *_: growing)
    assert objections.speed(numbers.experiments()) == (
        "not confirmed",
        "At equally many episodes 6 of 6 slopes of size over information lie above zero; at equal exposures per key "
        "8 of 8 do, and 0 below it.",
    )
    monkeypatch.setattr(numbers.codebooks, "rewards", lambda *_: {})
    assert objections.speed(numbers.experiments())[0] == "not measured"
