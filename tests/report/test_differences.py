"""What differs from the original: phrases by hand, and something true whatever was run."""

import json

import pytest
from fakes import broken, half, one_evaluation, write_run

from lrd import results
from lrd.analysis import verification
from lrd.report import differences


@pytest.fixture(scope="module")
def record():
    return verification.recorded()


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("make", [half, broken, one_evaluation, lambda root: root])
def test_something_true_whatever_was_run(make, tmp_path, record):
    for text in differences.facts(record, results.load("tiny", make(tmp_path)), "paper").values():
        assert text and "nan" not in text and "equal" not in text, text


def test_peaks_and_ends_by_hand(tmp_path):
    write_run(tmp_path, "process", 1, 0, {0: 10, 10: 20, 20: 2})  # of 20: base 0.5, peak 1.0, final 0.1
    write_run(tmp_path, "process", 4, 0, {0: 10, 10: 16, 20: 4})  # peak 0.8, final 0.2
    assert differences.peaks(results.load("tiny", tmp_path)) == "+0.400 and −0.350 (process)"


def test_bars_that_overlap_and_bars_that_stand_apart(tmp_path):
    for seed, (one, four, full) in enumerate([(10, 20, 10), (12, 20, 11), (14, 20, 12)]):
        for rank, right in ((1, one), (4, four), (None, full)):
            write_run(tmp_path, "outcome", rank, seed, {0: 5, 10: right})
    # r1: 0.60 ± 0.10 against 0.55 ± 0.05; r4: 1.00 ± 0.00, and 8 to 10 problems more in each seed
    text = differences.bars(results.load("tiny", tmp_path))
    assert text.startswith("of 2 comparisons the bars overlap in 1 (within the margin: 0, different: 0, undecided: 1)")
    assert text.endswith("and stand apart in 1 (within the margin: 0, different: 1, undecided: 0)")


def test_the_time_of_a_third_pass(tmp_path):
    path = write_run(tmp_path, "outcome", 1, 0, {0: 5, 2: 10}) / "metrics.jsonl"
    rows = [json.loads(line) | {"step_time": 2.0, "time/update": 1.5} for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert plain(differences.third(results.load("tiny", tmp_path))) == "25 % (outcome)"


def test_precision_in_words(record):
    runs = [
        {"master_dtype": dtype, "updates": updates, "moved": moved, "distance": distance}
        for dtype, updates, moved, distance in (
            ("bfloat16", 1, 0.2, 0.5), ("bfloat16", 50, 0.25, 10.0), ("float32", 1, 1.0, 1.0), ("float32", 50, 1.0, 40)
        )
    ]  # fmt: skip
    texts = differences.precision({"learning_rate": 1e-5, "std": 0.02, "runs": runs})
    assert {name: plain(text) for name, text in texts.items()} == {
        "learning_rate": "1.0 × 10⁻⁵", "std": "0.02", "barrier": "1/256", "updates": "50 updates",
        "moved_first": "20 %", "moved": "25 %", "moved_fp32": "100 %", "distance": "25 %",
    }  # fmt: skip


def test_a_third_pass_that_differs_is_said_to(record):
    assert "to the last bit" in differences.forward(record["forward"])
    arms = [{"logps": 0.0, "gradients": 2.5e-7}, {"logps": 1e-8, "gradients": 0.0}]
    assert plain(differences.forward({"arms": arms})).endswith("differ by at most 2.5 × 10⁻⁷")
