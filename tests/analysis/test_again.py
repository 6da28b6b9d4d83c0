"""Runs beside published ones and reruns beside their first: what is the same, what is close, what is not, and why."""

import json
from pathlib import Path

import pytest
from fakes import write_cell, write_run

from lrd import UserError, results
from lrd.analysis import again, budget
from lrd.cell import Cell, grid
from lrd.report import publish
from lrd.runs import published as records

MODELS = {"student": "s0", "teacher": "t0", "prm": "p0"}


def about(path: Path, torch: str = "2.13.0", **models: str) -> None:
    record = {"packages": {"torch": torch}, "hardware": {"cpu": "A"}, "run": {"models": MODELS | models}}
    (path / "provenance.json").write_text(json.dumps(record))


def runs(root: Path, right: int = 15, std: float = 1.0, **rest: str) -> results.Results:
    for rank in (1, 4):
        about(write_run(root, "outcome", rank, 0, {0: 5, 10: 15 if rank == 1 else right}, advantage_std=std), **rest)
    return results.load("tiny", root)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A clone with a book folder and the models that the runs above began from."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "models.toml").write_text("")
    for module in (publish, results, budget):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(records, "FOLDER", tmp_path / "runs" / "published")
    monkeypatch.setattr(publish, "fingerprint", lambda name: MODELS[name.rsplit("/", 1)[1]])
    folder = tmp_path / "models" / "tiny" / "student"
    folder.mkdir(parents=True)
    shape = dict.fromkeys(budget.Shape.__dataclass_fields__, 8) | {"vocab_size": 33, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(shape))
    (folder.parent / "card.json").write_text('{"recipe_hash": "here"}')
    return tmp_path


@pytest.fixture
def published(book):
    runs(book / "published")
    publish.write("tiny", book / "published")
    return records.record("tiny")


def test_what_is_published(published):
    assert list(published["cells"]) == ["outcome-r1-s0", "outcome-r4-s0"]
    assert published["cells"]["outcome-r4-s0"] == {
        "base": 0.25,
        "final": 0.75,
        "peak": 0.75,
        "area": 0.5,
        "peak_advantage_std": 10.0,
    }
    assert published["environment"]["student"] == ["s0"] and published["environment"]["torch"] == ["2.13.0"]
    assert published["card"] == {"recipe_hash": "here"}


def test_what_cannot_be_published(book, monkeypatch):
    with pytest.raises(UserError, match="no finished cell"):
        publish.write("tiny", book / "none")
    runs(book / "runs")
    monkeypatch.setattr(publish, "fingerprint", lambda name: None)
    with pytest.raises(UserError, match="began from student s0, and ./models/tiny/student is not there"):
        publish.write("tiny", book / "runs")


def test_the_card_is_that_of_the_models_that_the_runs_began_from(book, published):
    (book / "models" / "tiny" / "card.json").write_text('{"recipe_hash": "other"}')
    runs(book / "same")
    runs(book / "others", student="s1")
    assert results.card("tiny", book / "same") == {"recipe_hash": "here"}
    assert results.card("tiny", book / "others") == results.card("tiny", book / "none") == {"recipe_hash": "other"}
    (book / "models" / "tiny" / "card.json").unlink()
    assert results.card("tiny", book / "others") is None


def test_a_shape_is_known_where_the_models_are_not(book, published):
    (book / "models" / "tiny" / "student" / "config.json").unlink()
    shape = budget.shape_of("./models/tiny/student")
    assert shape is not None and shape.vocab_size == 33
    assert budget.shape_of("./models/small/student") is None


def test_the_same_runs(book, published):
    yours = again.Yours(runs(book / "yours"), published, book / "yours")
    assert {c: r for c, r in yours.readings.items() if r != "absent"} == dict.fromkeys(published["cells"], "the same")
    assert yours.facts()["verdict"] == (
        "Of 2 cells that can be compared, 2 are the same to the last digit, 0 within tolerance and 0 apart; 52 cannot "
        "be compared."
    )
    assert yours.differing == [] and "why" in yours.facts()
    assert yours.regimes()[0][1:] == ("0.750 ± 0.000".replace(" ", "\xa0"),) * 2


@pytest.mark.parametrize(
    ("right", "std", "reading"),
    [
        (15, 1.04, "within tolerance"),
        (15, 1.06, "apart: peak advantage std"),
        (16, 1.0, "apart: final, peak, area"),
    ],
)
def test_other_numbers(book, published, right, std, reading):
    yours = again.Yours(runs(book / "yours", right, std), published, book / "yours")
    assert yours.readings["outcome-r4-s0"] == reading
    assert yours.facts()["why"].startswith("Nothing that is recorded differs")
    row = next(row for row in yours.rows() if "outcome-r4-s0" in row[0])
    assert row[2] == f"{right / 20:.3f} (0.750)" and row[-1] == reading


def test_why_they_differ(book, published):
    versions = again.Yours(runs(book / "a", 16, torch="2.14.0"), published, book / "a")
    assert versions.differing == [("torch", "2.13.0", "2.14.0")]
    assert "The models are the published ones; what differs is: torch." in versions.facts()["why"]
    models = again.Yours(runs(book / "b", 16, student="s1"), published, book / "b")
    assert models.facts()["why"].startswith("The models are not the published ones (student).")


def test_nothing_published_and_nothing_run(book, published):
    assert "No runs of tiny are published" in again.Yours(runs(book / "a"), {}, book / "a").facts()["verdict"]
    none = again.Yours(results.load("tiny", book / "none"), published, book / "none")
    assert none.facts()["verdict"].startswith("No cell of tiny has finished here")
    assert {row[-1] for row in none.rows()} == {"absent"}


def test_a_rerun(tmp_path):
    first = {"outcome": {0: 5, 10: 15}, "process": {0: 5, 10: 15}, "distillation": {0: 5, 10: 15}}
    second = {"outcome": {0: 5, 10: 15}, "process": {0: 5, 10: 16}}
    for preset, curves in (("small", first), ("small-again", second)):
        for regime, curve in curves.items():
            path = write_cell(tmp_path, Cell.load(preset, regime=regime, rank=16, seed=0), curve)
            if (preset, regime) == ("small-again", "process"):
                rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
                rows[6]["reward"] += 1e-6
                (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = again.rerun(results.load("small", tmp_path), results.load("small-again", tmp_path))
    assert [row[1:] for row in rows] == [
        ("0.750", "0.750", "step 10", "0.000", "the same"),
        ("0.750", "0.800", "step 6", "0.050", "within tolerance"),
        (*["not measured"] * 4, "first: finished, again: absent"),
    ]
    write_cell(tmp_path, Cell.load("small-again", regime="distillation", rank=16, seed=0), {0: 5, 10: 12})
    assert again.rerun(results.load("small", tmp_path), results.load("small-again", tmp_path))[2][-1] == "apart"


def test_a_rerun_has_the_settings_of_its_first():
    first = {cell.name: cell.config for cell in grid("small")}
    for cell in grid("small-again"):
        assert cell.config | {"preset": "small"} == first[cell.name]
