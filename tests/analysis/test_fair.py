"""The fair comparison: what is read at which step, and that its verdicts turn with the runs."""

import json

import numpy as np
import pytest
from fakes import write_cell, write_run

from lrd import results
from lrd.analysis import fair
from lrd.analysis.stats import Verdict
from lrd.cell import grid

STEPS = (0, 10, 20)


def plant(root, right, validation=(2, 6, 4), regimes=("outcome",), ranks=(1, 16, "full")):
    """Cells of preset `fair`, `right(cell)` giving the right answers of 20 at each of `STEPS`."""
    for cell in grid("fair", {"regime": list(regimes), "rank": list(ranks)}):
        path = write_cell(root, cell, dict(zip(STEPS, right(cell))))
        rows = [
            {"step": step, "problem": str(i), "correct": i < n, "answered": True, "length": 5, "truncated": False}
            for step, n in zip(STEPS, validation)
            for i in range(10)
        ]
        (path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return results.load("fair", root)


def test_a_cell_is_read_at_the_step_that_its_validation_chose_at_the_last_and_by_area(tmp_path):
    found = plant(tmp_path, lambda cell: (4, 16 if cell.rank else 12, 8))
    assert set(found.finished.chosen_step) == {10}
    assert found.finished.validation_area.tolist() == pytest.approx([(1 + 6 + 2) / 20] * 27)
    means = {measure: fair.answers(found, measure)["outcome"]["r1"].mean() for measure in fair.MEASURES}
    assert means == pytest.approx({"chosen": 16 / 20, "final": 8 / 20, "area": (2 + 16 + 4) / 2 / 20})
    assert fair.answers(found, "10")["outcome"]["full"].mean() == pytest.approx(12 / 20)
    assert fair.answers(found, "area")["outcome"]["r1"].shape == (3, 3, 20)
    curve = fair.curve(found).set_index(["step", "arm"]).difference
    assert curve[10, "r1"] == pytest.approx(4 / 20) and curve[20, "r16"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("rank_1", "verdict"), [((4, 20, 18), Verdict.AHEAD), ((4, 5, 5), Verdict.BEHIND), ((4, 11, 11), Verdict.UNDECIDED)]
)
def test_a_verdict_turns_with_the_runs(tmp_path, rank_1, verdict):
    found = plant(tmp_path, lambda cell: rank_1 if cell.rank == 1 else (4, 12, 12))
    table = fair.comparisons(fair.answers(found, "final")).set_index("arm")
    assert table.loc["r1", "verdict"] is verdict
    assert table.loc["r1", "difference"] == pytest.approx((rank_1[2] - 12) / 20)
    assert (table.p <= 1).all() and table.low.le(table.difference).all()


def test_slopes_follow_the_ranks(tmp_path):
    found = plant(tmp_path, lambda cell: (4, 8, {None: 12}.get(cell.rank, 8 + (cell.rank or 0).bit_length())))
    slope = fair.slopes(fair.answers(found, "final"))["outcome"]
    assert slope.mean == pytest.approx((13 - 9) / 20 / np.log2(16))


def test_an_arm_with_a_cell_missing_is_not_compared(tmp_path):
    plant(tmp_path, lambda cell: (4, 8, 8))
    cell = next(cell for cell in grid("fair") if cell.rank == 16 and cell.regime == "outcome")
    (tmp_path / "fair" / cell.name / "done.json").unlink()
    found = fair.answers(results.load("fair", tmp_path), "final")
    assert found == {"outcome": found["outcome"], "process": {}, "distillation": {}}
    assert set(found["outcome"]) == {"r1", "full"} and fair.slopes(found) == {}
    assert fair.comparisons(fair.answers(results.load("fair", tmp_path / "nothing"), "final")).empty


def test_an_arm_is_equivalent_where_many_problems_say_so():
    rng = np.random.default_rng(0)
    right = np.broadcast_to(rng.random(2000) < 0.5, (3, 3, 2000)).astype(float)
    table = fair.comparisons({"outcome": {"r1": right, "full": right}})
    assert table.verdict.tolist() == [Verdict.EQUIVALENT] and table.least_margin[0] < 0.05 and table.half[0] > 0


@pytest.mark.parametrize(
    ("off", "unjudged"),
    [({}, []), ({("outcome", "r16"): (1e-3, 1e-4)}, ["r16"]), ({("outcome", "full"): (1e-5, 3e-5)}, ["r1", "r16"])],
)
def test_an_arm_off_its_rate_is_not_judged_and_full_fine_tuning_takes_all_with_it(tmp_path, off, unjudged):
    found = fair.answers(plant(tmp_path, lambda cell: (4, 20, 18) if cell.rank else (4, 12, 12)), "final")
    table = fair.comparisons(found, off).set_index("arm")
    assert [arm for arm in table.index if table.verdict[arm] is Verdict.UNJUDGED] == unjudged
    assert table.p.isna().sum() == len(unjudged) and table.difference.notna().all()


def test_what_is_not_judged_counts_among_the_comparisons(tmp_path):
    found = fair.answers(
        plant(tmp_path, lambda cell: (4, 20, 18 - (cell.rank == 16)) if cell.rank else (4, 9, 9)), "final"
    )
    each = {arm: c.p for (_, arm), c in fair.contrasts(found).items()}
    table = fair.comparisons(found, {("outcome", "r16")}).set_index("arm")
    assert table.p["r1"] == pytest.approx(min(1, 2 * each["r1"]))


def test_one_student_and_no_validation_split(tmp_path):
    for seed in range(3):
        for rank, right in ((1, 14), (4, 12), (None, 10)):
            write_run(tmp_path, "outcome", rank, seed, {0: 5, 10: right})
    found = results.load("tiny", tmp_path)
    assert fair.measures(found) == ("final", "area")
    final = fair.answers(found, "final")
    assert final["outcome"]["r1"].shape == (3, 20) and list(final["outcome"]) == ["r1", "r4", "full"]
    assert fair.answers(found, "chosen") == {"outcome": {}, "process": {}, "distillation": {}}
    assert fair.comparisons(final).difference.tolist() == pytest.approx([4 / 20, 2 / 20])
    assert fair.contrasts(fair.pooled(final))["outcome", fair.ADAPTERS].mean == pytest.approx(3 / 20)
    assert fair.gains(found) == pytest.approx({"outcome": 5 / 20})
    assert set(fair.curve(found).arm) == {"r1", "r4", fair.ADAPTERS}
    assert fair.comparisons(fair.answers(results.load("tiny", tmp_path / "nothing"), "area")).empty
