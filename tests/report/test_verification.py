"""Words of the verification page: they follow the record and the runs."""

import json

import pandas as pd
import pytest
from fakes import write_run

from lrd import results
from lrd.analysis import verification
from lrd.report.verification import glued


@pytest.fixture(scope="module")
def record():
    return verification.recorded()


def test_the_gradings_counts(record, tmp_path):
    kinds = {"a": {"right": [5, 4, 2], "wrong": [3, 3, 1]}, "b": {"right": [10, 10, 7], "wrong": [2, 1, 0]}}
    words = glued(record | {"grading": {"kinds": kinds}}, results.load("tiny", tmp_path))
    counts = [words[f"graded_{name}"] for name in ("pairs", "ours", "theirs", "wrong")]
    assert counts == ["20", "18", "10", "5"] and (words["paid_ours"], words["paid_theirs"]) == ("1", "4")


def test_the_gap_is_glued_with_its_steps(tmp_path, record, monkeypatch):
    gaps = pd.DataFrame({"steps": [4, 4], "mean": [2e-6, 2e-6], "max": [3e-5, 2e-5]}, index=["outcome", "process"])
    monkeypatch.setattr(verification, "sampler_gap", lambda found: gaps)
    words = glued(record, results.load("tiny", tmp_path))
    assert (words["gap_steps"], words["gap"].replace("\N{NO-BREAK SPACE}", " ")) == ("8", "3.0 × 10⁻⁵ nats")


def test_without_runs_and_without_measurements(tmp_path, record):
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 2: 10})  # a sampler that tells no log-probabilities
    for runs in (tmp_path, tmp_path / "none"):
        words = glued(record, results.load("tiny", runs))
        assert words["gap"] == "not measured" and words["gap_steps"] == "0"
        assert not any("nan" in text for text in words.values())


def test_sentences_follow_the_record(record, tmp_path):
    other = json.loads(json.dumps(record))
    other["loss"]["aggregations"]["token"]["gradient"] = 2.5e-7
    other["twice"]["cells"][0]["differing"] = ["evals.jsonl"]
    found = results.load("tiny", tmp_path)
    words = glued(other, found)
    assert words["loss"].replace("\N{NO-BREAK SPACE}", " ") == "2.5 × 10⁻⁷" and words["twice"] == "5 of 6 pairs"
    assert glued(record, found)["loss"] == "zero, to the last bit"
