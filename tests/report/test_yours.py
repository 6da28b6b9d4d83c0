"""The page of reruns: the sentences and tables made of comparisons."""

import json

import pytest
from fakes import write_cell, write_run

from lrd import results
from lrd.analysis import again
from lrd.analysis.again import Reading, Rerun
from lrd.cell import Cell
from lrd.report import yours

NUMBERS = {"base": 0.25, "final": 0.75, "peak": 0.75, "area": 0.5, "peak_advantage_std": 10.0}
PUBLISHED = {"cells": {"outcome-r1-s0": NUMBERS, "outcome-r4-s0": NUMBERS}, "environment": {"torch": ["2.13.0"]}}


@pytest.fixture
def compared(tmp_path):
    def compare(right=15, torch="2.13.0", published=PUBLISHED, **models):
        for rank in (1, 4):
            path = write_run(tmp_path, "outcome", rank, 0, {0: 5, 10: 15 if rank == 1 else right})
            record = {"packages": {"torch": torch}, "run": {"models": models}}
            (path / "provenance.json").write_text(json.dumps(record))
        return again.Comparison(results.load("tiny", tmp_path), published, tmp_path)

    return compare


def reading(found):
    return next(row[-1] for row in yours.rows(found) if "outcome-r4-s0" in row[0])


def test_the_same_runs(compared):
    found = compared()
    assert yours.glued(found)["verdict"] == (
        "Of 2 cells that can be compared, 2 are the same to the last digit, 0 within tolerance and 0 apart; 52 cannot "
        "be compared."
    )
    assert yours.why(found) == "" and yours.differing(found)[0][0] == "nothing that is recorded"
    assert yours.regimes(found)[0][1:] == ("0.750 ± 0.000".replace(" ", "\xa0"),) * 2
    assert reading(found) == "the same" and {row[-1] for row in yours.rows(found)} == {"the same", "absent"}


def test_other_numbers(compared):
    found = compared(16)
    assert reading(found) == "apart: final, peak, area"
    assert yours.why(found).startswith("Nothing that is recorded differs")
    assert next(row for row in yours.rows(found) if "outcome-r4-s0" in row[0])[2] == "0.800 (0.750)"


def test_another_version(compared):
    found = compared(16, torch="2.14.0")
    assert yours.differing(found) == [("torch", "2.13.0", "2.14.0")]
    assert "The models are the published ones; what differs is: torch." in yours.why(found)


def test_other_models(compared):
    found = compared(16, student="s1")
    assert yours.why(found).startswith("The models are not the published ones (student).")
    assert yours.differing(found) == [("student", "none", "s1")]


def test_nothing_published_and_nothing_run(compared, tmp_path):
    found = compared(published={})
    assert (
        yours.verdict(found) == "No runs of tiny are published to compare with." and reading(found) == "not published"
    )
    none = again.Comparison(results.load("tiny", tmp_path / "none"), PUBLISHED, tmp_path / "none")
    assert yours.verdict(none).startswith("No cell of tiny has finished here")


def test_reruns(tmp_path):
    write_cell(tmp_path, Cell.load("small-again", regime="outcome", rank=16, seed=0), {0: 5, 10: 15})
    twice = results.load("small-again", tmp_path)
    states = ("finished", "finished")
    found = [
        Rerun(twice.cells.cell[0], states, (0.75, 0.8), 6, 0.05, Reading.WITHIN),
        Rerun(twice.cells.cell[1], states, (0.75, 0.5), 0, 0.25, Reading.APART),
        Rerun(twice.cells.cell[2], ("finished", "absent")),
    ]
    assert [row[1:] for row in yours.rerun_rows(twice, found)] == [
        ("0.750", "0.800", "step 6", "0.050", "within tolerance"),
        ("0.750", "0.500", "none", "0.250", "apart"),
        (*["not measured"] * 4, "first: finished, again: absent"),
    ]
