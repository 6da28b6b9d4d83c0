"""Runs as frames: the numbers by hand, and every fault named instead of raised. The run directories are made here."""

import itertools
import json

import pandas as pd
import pytest
from fakes import write_cell, write_run

from lrd import UserError, results
from lrd.cell import Cell, grid
from lrd.report import answer, display
from lrd.runs.files import parsed_lines, read_jsonl


def row_of(found: results.Results, cell: str):
    return found.cells.set_index("cell").loc[cell]


def problems_of(found: results.Results, cell: str) -> list[str]:
    return [text.removeprefix(f"{cell}: ") for text in found.problems if text.startswith(f"{cell}: ")]


def test_a_cell_in_numbers(tmp_path):
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 20, 20: 10}, advantage_std=0.25)
    found = results.load("tiny", tmp_path)
    row = row_of(found, "outcome-r1-s0")
    assert (row.base, row.final, row.peak) == (0.25, 0.5, 1.0)
    assert row.area == pytest.approx((0.625 * 10 + 0.75 * 10) / 20)
    assert (row.peak_advantage_std, row.last_step, row.train_seconds) == (5.0, 20, 10.0)
    assert (row.state, row.page, row.trainable_parameters) == ("finished", True, 100)
    assert len(found.steps) == 20 and len(found.evals) == 60 and len(found.finished) == 1
    assert found.curves["pass@1"].tolist() == [0.25, 1.0, 0.5]
    assert problems_of(found, "outcome-r1-s0") == []


def test_the_same_files_are_read_once_and_changed_ones_again(tmp_path):
    path = write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 20})
    first = results.load("tiny", tmp_path)
    first.evals["correct"] = False  # of this caller alone
    first.cells.loc[:, "final"] = 0.0
    first.problems.clear()
    results._load.cache_clear()
    write_run(tmp_path, "outcome", 4, 0, {0: 5, 10: 6})
    second, third = results.load("tiny", tmp_path), results.load("tiny", tmp_path)
    assert results._load.cache_info().hits == 1 and results._load.cache_info().misses == 1
    third.evals["correct"], third.cells["final"] = False, 0.0
    for found in (second, results.load("tiny", tmp_path)):
        assert row_of(found, "outcome-r1-s0").final == 1.0 and found.evals.correct.any() and len(found.problems) == 52
    with (path / "evals.jsonl").open("a") as log:
        log.write((path / "evals.jsonl").read_text().splitlines()[0].replace('"step": 0', '"step": 20') + "\n")
    assert row_of(results.load("tiny", tmp_path), "outcome-r1-s0").final == 1.0
    assert len(results.load("tiny", tmp_path).evals) == len(second.evals) + 1
    (path / "done.json").unlink()
    assert row_of(results.load("tiny", tmp_path), "outcome-r1-s0").state == "interrupted"


def test_a_file_that_vanishes_while_its_run_is_read_stops_nothing(tmp_path, monkeypatch):
    """As the temporary file of an atomic write does, under the eyes of a reader."""
    path, scan = write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 20}), results.os.scandir

    def listed(where):
        (path / ".metrics.part").touch()
        found = list(scan(where))
        (path / ".metrics.part").unlink()
        return found

    monkeypatch.setattr(results.os, "scandir", listed)
    assert row_of(results.load("tiny", tmp_path), "outcome-r1-s0").final == 1.0


def test_every_cell_that_is_not_there_is_named(tmp_path):
    found = results.load("tiny", tmp_path)
    assert len(found.cells) == 54 and set(found.cells.state) == {"absent"} and not found.cells.page.any()
    assert len(found.problems) == 54 and problems_of(found, "process-full-s2") == ["absent"]
    assert not len(found.finished) and not len(found.steps) and not len(found.evals) and not len(found.curves)
    assert found.arms == ["r1", "r4", "r16", "r64", "r256", "full"]
    assert found.regimes == ["outcome", "process", "distillation"]


def test_a_failed_and_an_interrupted_cell(tmp_path):
    failed, broken_off = (write_run(tmp_path, "process", rank, 0, {0: 5, 10: 20}) for rank in (1, 4))
    (failed / "done.json").unlink()
    (failed / "failed.json").write_text(json.dumps({"step": 4, "error": "Diverged: no finite loss"}))
    (broken_off / "done.json").unlink()
    found = results.load("tiny", tmp_path)
    assert problems_of(found, "process-r1-s0") == ["failed: Diverged: no finite loss"]
    assert problems_of(found, "process-r4-s0") == ["interrupted"]
    assert not len(found.finished)  # what they left is shown, and counts for nothing
    assert row_of(found, "process-r1-s0").final == 1.0


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("metrics.jsonl", lambda text: text.replace("\n", "\n{broken\n", 1), "metrics.jsonl: line 2 cannot be read"),
        ("metrics.jsonl", lambda text: text[:-20], "metrics.jsonl: line 10 cannot be read"),
        ("evals.jsonl", lambda text: "[]\nnull\n" + text, "evals.jsonl: lines 1, 2 (2 in all) cannot be read"),
        ("evals.jsonl", lambda text: "", "evals.jsonl is missing or empty"),
        ("evals.jsonl", lambda text: text.replace('"correct"', '"right"'), "evals.jsonl has no correct"),
        ("metrics.jsonl", lambda text: text.replace("step_time", "time"), "metrics.jsonl has no step_time"),
        ("cell.ipynb", lambda text: text[:100], "cell.ipynb is unreadable, so it has no page"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, name, change, said):
    path = write_run(tmp_path, "outcome", 4, 1, {0: 5, 10: 20}) / name
    path.write_text(change(path.read_text()))
    found = results.load("tiny", tmp_path)
    assert problems_of(found, "outcome-r4-s1") == [said]
    answer.glued(found)


def test_a_notebook_that_lies_elsewhere_is_no_fault(tmp_path):
    """As of a cell that was trained by plain papermill into a file of its own."""
    (write_run(tmp_path, "outcome", 4, 1, {0: 5, 10: 20}) / "cell.ipynb").unlink()
    found = results.load("tiny", tmp_path)
    assert problems_of(found, "outcome-r4-s1") == [] and not row_of(found, "outcome-r4-s1").page
    said = display.missing(found)
    assert "Executed elsewhere, and so without a page here: outcome-r4-s1." in said
    assert "outcome-r4-s1" not in said.partition("missing or unreadable")[2]


def test_a_value_that_is_no_number_is_left_out_and_named(tmp_path):
    path = write_run(tmp_path, "outcome", 4, 1, {0: 10}) / "evals.jsonl"
    path.write_text(path.read_text().replace("true", '"yes"', 1))
    found = results.load("tiny", tmp_path)
    assert problems_of(found, "outcome-r4-s1")[-1].startswith("evals.jsonl: 1 rows have no number in ")
    assert row_of(found, "outcome-r4-s1").final == pytest.approx(9 / 19)


@pytest.mark.parametrize("name", ["config.json", "provenance.json"])
@pytest.mark.parametrize("content", ["{broken", "[1]", "null"])
def test_records_that_are_no_object_raise_nothing(tmp_path, name, content):
    path = write_run(tmp_path, "outcome", 4, 1, {0: 5, 10: 15})
    (path / name).write_text(content)
    found = results.load("tiny", tmp_path)
    assert row_of(found, "outcome-r4-s1").final == 0.75
    assert [name in text for text in problems_of(found, "outcome-r4-s1")] == [True]


def test_a_cell_of_other_settings_is_named(tmp_path):
    path = write_run(tmp_path, "outcome", 4, 1, {0: 5, 10: 15}) / "config.json"
    path.write_text(path.read_text().replace('"steps": 80', '"steps": 20'))
    (said,) = problems_of(results.load("tiny", tmp_path), "outcome-r4-s1")
    assert said == "ran with other settings than the preset's: steps = 20 (preset: 80)"


def test_cells_off_the_grid_are_kept_apart(tmp_path):
    write_run(tmp_path, "outcome", 1, 0, {0: 5})
    assert results.load("tiny", tmp_path).off_grid is None
    write_run(tmp_path, "outcome", 3, 7, {0: 5, 10: 15})
    write_cell(tmp_path, Cell.load("tiny", regime="process", rank="full", seed=9, steps=20), {0: 9, 10: 10})
    copied = write_run(tmp_path, "outcome", 1, 8, {0: 5})
    copied.rename(copied.with_name("outcome-r1-s8-old"))
    (tmp_path / "tiny" / "garbage").mkdir()
    (tmp_path / "tiny" / "garbage" / "config.json").write_text('{"regime": 3}')
    found = results.load("tiny", tmp_path)
    assert len(found.cells) == 54 and found.finished.cell.tolist() == ["outcome-r1-s0"]
    other = found.off_grid
    assert other.finished[["cell", "rank", "seed", "final"]].fillna(0).to_numpy().tolist() == [
        ["outcome-r3-s7", 3, 7, 0.75],
        ["process-full-s9", 0, 9, 0.5],
    ]
    assert other.steps.cell.value_counts().to_dict() == {"outcome-r3-s7": 10, "process-full-s9": 10}
    assert len(other.evals) == 80 and other.problems == []
    for name, student in (("outcome-r1-s0", "x"), ("outcome-r3-s7", "y")):
        (tmp_path / "tiny" / name / "provenance.json").write_text(json.dumps({"run": {"models": {"student": student}}}))
    assert results.trained_with("tiny", tmp_path) == {"x"}


def test_a_cell_off_the_grid_of_a_labelled_axis(tmp_path):
    write_cell(tmp_path, Cell.load("repair", rank=1, seed=77, repair="cap"), {0: 5})
    assert results.load("repair", tmp_path).off_grid.cells[["repair", "seed"]].to_numpy().tolist() == [["cap", 77]]


def test_the_preset_of_the_book(tmp_path, monkeypatch):
    monkeypatch.delenv("LRD_PRESET", raising=False)
    assert results.studied(tmp_path) == "tiny"
    cell = tmp_path / "paper" / "outcome-r1-s0"
    cell.mkdir(parents=True)
    (cell / "done.json").write_text("{}")
    assert results.studied(tmp_path) == "paper"
    write_run(tmp_path, "outcome", 1, 0, {0: 5})
    assert results.studied(tmp_path) == "tiny"
    write_cell(
        tmp_path, Cell.load("fair-lr", regime="outcome", rank=16, seed=100, learning_rate=1e-3, training="1"), {0: 5}
    )
    assert results.studied(tmp_path) == "tiny"  # an experiment on a preset is not that preset
    write_cell(tmp_path, Cell.load("small", regime="outcome", rank=1, seed=0), {0: 5})
    assert results.studied(tmp_path) == "tiny"  # what anyone can run comes before what is neither begun nor published
    write_cell(tmp_path, grid("fair")[0], {0: 5})
    assert results.studied(tmp_path) == "fair" and results.with_runs(tmp_path)[0] == "fair"
    for name, reported in (("tiny", "tiny"), ("fair", "fair")):  # what is whole comes before what has begun
        for cell in grid(name):
            (tmp_path / name / cell.name).mkdir(exist_ok=True)
            (tmp_path / name / cell.name / "done.json").write_text("{}")
        assert results.studied(tmp_path) == reported
    monkeypatch.setenv("LRD_PRESET", "tiny")
    assert results.studied(tmp_path) == "tiny"
    with pytest.raises(UserError, match="unknown preset"):
        results.load("tniy", tmp_path)


def test_a_line_separator_within_a_record_ends_no_line(tmp_path):
    path = tmp_path / "evals.jsonl"
    path.write_text('{"step": 0, "problem": "a\u2028b"}\n{"step": 0}\n{"ste', encoding="utf-8")
    assert [row is None for row in parsed_lines(path)] == [False, False, True] and len(read_jsonl(path)) == 2


def test_published_numbers_cover_the_matrix():
    published = results.published()["pass_at_1"]
    arms = {"r1", "r4", "r16", "r64", "r256", "full"}
    assert {regime: set(values) - {"statistic"} for regime, values in published.items()} == dict.fromkeys(
        ("outcome", "process", "distillation"), arms
    )


@pytest.mark.parametrize(("n", "correct"), [(4, 0), (4, 1), (5, 2), (6, 6)])
def test_pass_at_k_is_the_mean_over_all_ways_to_draw_k_samples(n, correct):
    samples = [True] * correct + [False] * (n - correct)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(samples, k))
        assert results.unbiased(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(ValueError, match="needs k of n"):
        results.unbiased(n, correct, n + 1)


def test_a_further_axis_is_a_column(tmp_path):
    for rate, right in ((3.16e-4, 8), (1e-3, 4)):
        place = {"regime": "outcome", "rank": 16, "seed": 100, "training": "1"}
        write_cell(tmp_path, Cell.load("fair-lr", learning_rate=rate, **place), {0: 4, 1: right})
    found = results.load("fair-lr", tmp_path)
    assert found.axes == ["learning_rate", "training"]
    assert dict(found.finished.set_index("learning_rate").final) == {3.16e-4: 0.4, 1e-3: 0.2}
    for frame in (found.steps, found.evals, found.curves):
        assert set(frame.learning_rate) == {3.16e-4, 1e-3}
    assert len(found.curves) == 4 and len(found.cells) == len(grid("fair-lr"))


def test_what_one_process_has_read_another_takes_until_a_file_changes(tmp_path, monkeypatch):
    path = write_run(tmp_path / "runs", "outcome", 1, 0, {0: 5, 10: 15})
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("LRD_CACHE", str(tmp_path / "cache"))
    first = results.load("tiny", tmp_path / "runs")
    results._load.cache_clear()  # as in another process
    with monkeypatch.context() as patch:
        patch.setattr(results, "_read_all", None)
        again = results.load("tiny", tmp_path / "runs")
    pd.testing.assert_frame_equal(first.evals, again.evals)
    lines = (path / "evals.jsonl").read_text().splitlines(keepends=True)
    (path / "evals.jsonl").write_text("".join(lines[:-20]))
    assert len(results.load("tiny", tmp_path / "runs").evals) == len(first.evals) - 20


@pytest.mark.parametrize(
    ("lines", "whole"),
    [
        (['{"step": 1, "a": 0.5, "b": true, "c": "x"}', '{"step": 2, "a": 1, "b": false, "c": "2026-01-02"}'], True),
        (['{"step": 1, "a": 0.5}', '{"step": 2, "a": null}'], True),
        (['{"step": 1}', '{"step": 2}', '{"step": 3'], False),
        (['{"step": 1}', "", '{"step": 3}'], False),
        (['{"step": 1}', '{"a": 3}'], False),
        (['{"step": 1.5}'], False),
        (['{"step": 1, "a": [1]}'], False),
        (['{"step": 1, "a": "2026-01-02T00:00:00"}'], False),
        (['{"step": 1, "a": 1}', '{"step": 2, "a": "x"}'], False),
    ],
)
def test_a_log_is_the_same_frame_whichever_reads_it(tmp_path, lines, whole):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert (results._by_arrow(path) is not None) == whole
    frame, broken = results.frame_of(path)
    rows = [*parsed_lines(path)]
    pd.testing.assert_frame_equal(frame, pd.DataFrame([row for row in rows if row is not None]))
    assert broken == [i for i, row in enumerate(rows, 1) if row is None]
