"""The verification page's record, made anew and compared."""

import math

import pytest

from lrd import UserError
from lrd.analysis.verification import bf16_barrier, grading_pairs, recorded
from lrd.cell import Cell
from lrd.checks import verification
from lrd.runs import published


@pytest.fixture(scope="module")
def models():
    with verification.random_models() as paths:
        yield paths


@pytest.fixture(scope="module")
def record():
    return recorded()


def test_the_verifiers_record(record, math500):
    assert verification.check_verifier(math500) == record["verifier"]
    assert (len(record["verifier"]["bare_lost"]), len(record["verifier"]["bare_unparsed"])) == (108, 51)


def test_the_verifiers_record_holds_ids_only(record):
    ids = [*record["verifier"]["bare_lost"], *record["verifier"]["bare_unparsed"], *record["verifier"]["boxed_lost"]]
    ids += [i for pair in record["verifier"]["next_paid"] for i in pair]
    assert ids and all(i.removeprefix("math500/").isdigit() for i in ids)


def test_the_gradings_record(record):
    """Recorded anew; and of its counts the last two are never above the first, how many pairs there are."""
    assert verification.check_grading() == record["grading"]
    counts = [row for kind in record["grading"]["kinds"].values() for row in kind.values()]
    assert all(0 <= count <= row[0] for row in counts for count in row)
    pairs = grading_pairs()
    assert sum(row[0] for row in counts) == len(pairs)
    assert sum(row[0] - row[1] for row in counts) == sum(bool(pair.limit) for pair in pairs)


def test_without_math500_it_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="--math500"):
        verification.check_verifier(tmp_path / "math500.jsonl")


def test_the_losss_record(record, models):
    """The differences have to be the recorded ones; how often clipping acts may hang on the machine's rounding."""
    found = verification.check_loss(models[0])
    assert found["aggregations"].keys() == record["loss"]["aggregations"].keys()
    for name, row in found["aggregations"].items():
        kept = record["loss"]["aggregations"][name]
        assert (row["loss_type"], row["loss"], row["gradient"]) == (kept["loss_type"], kept["loss"], kept["gradient"])
        assert row["clipped"] == pytest.approx(kept["clipped"], abs=0.02) and row["clipped"] > 0.05
    assert (
        found["other_estimator"] == pytest.approx(record["loss"]["other_estimator"], abs=2e-4)
        and found["other_estimator"] > 1e-3
    )
    assert (found["trl"], found["batches"]) == (record["loss"]["trl"], record["loss"]["batches"])


def test_the_record_of_a_cell_run_twice(record, models):
    assert verification.check_twice(*models) == record["twice"]
    assert len(record["twice"]["cells"]) == 6 and all(cell["records"] == 4 for cell in record["twice"]["cells"])


def test_the_record_of_the_third_forward_pass(record, models):
    """Zero differences as recorded; how far an update moves the log-probabilities may hang on the machine."""
    found = verification.check_forward(*models)["arms"]
    kept = record["forward"]["arms"]
    assert [arm["arm"] for arm in found] == [arm["arm"] for arm in kept] == ["r4", "full"]
    for arm, its in zip(found, kept):
        assert (arm["logps"], arm["gradients"]) == (its["logps"], its["gradients"]) == (0.0, 0.0)
        assert arm["moved"] == pytest.approx(its["moved"], rel=0.05) and arm["moved"] > 0.1


@pytest.mark.slow
def test_the_record_of_bf16_weights(record):
    """Run for real with the shares that rounding leaves to be expected of normal weights."""
    kept = record["precision"]
    with verification.random_models(verification.WEIGHT_STD) as (student, teacher, _):
        found = verification.check_precision(student, teacher, kept["learning_rate"])
    assert found["learning_rate"] == Cell.load("paper", regime="outcome", rank="full", seed=0).learning_rate
    assert found["std"] == kept["std"] == 0.02
    for row, its in zip(found["runs"], kept["runs"]):
        assert (row["master_dtype"], row["updates"]) == (its["master_dtype"], its["updates"])
        assert row["moved"] == pytest.approx(its["moved"], abs=0.01)
        assert row["distance"] == pytest.approx(its["distance"], rel=0.05)
    small = math.erf(bf16_barrier(kept["learning_rate"]) / kept["std"] / math.sqrt(2))
    assert found["runs"][0]["moved"] == pytest.approx(small, abs=0.01)  # those below the barrier, and no other


def test_a_differing_run_is_noticed(models, monkeypatch):
    runs = iter([{"metrics.jsonl": [1], "weights": "a"}, {"metrics.jsonl": [2], "weights": "a"}] * 6)
    monkeypatch.setattr(verification, "_finish", lambda cell, path: next(runs))
    assert all(cell["differing"] == ["metrics.jsonl"] for cell in verification.check_twice(*models)["cells"])


def test_recording_without_math500_keeps_the_verifiers_part(tmp_path, monkeypatch, record, capsys):
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    published.write("verification", {"verifier": record["verifier"]})
    monkeypatch.setattr(verification, "check_grading", lambda: {"kinds": {}})
    monkeypatch.setattr(verification, "ROOT", tmp_path)
    monkeypatch.setattr(verification, "check_loss", lambda student: {"batches": 0})
    monkeypatch.setattr(verification, "check_twice", lambda *models: {"steps": 0})
    monkeypatch.setattr(verification, "check_forward", lambda *models: {"arms": []})
    monkeypatch.setattr(verification, "check_precision", lambda student, teacher, rate: {"learning_rate": rate})
    assert verification.main(["--math500", str(tmp_path / "absent.jsonl")]) == 0
    assert recorded() == {
        "verifier": record["verifier"],
        "grading": {"kinds": {}},
        "loss": {"batches": 0},
        "twice": {"steps": 0},
        "forward": {"arms": []},
        "precision": {"learning_rate": 1e-5},
    }
    assert "stays as it is" in capsys.readouterr().err
