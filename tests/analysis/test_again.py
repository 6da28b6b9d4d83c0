"""Runs beside published ones and reruns beside their first: what is the same, what is close, what is not, and why."""

import json
from collections import Counter
from pathlib import Path

import pytest
from fakes import change_metrics, write_cell, write_run

from lrd import UserError, results
from lrd.analysis import again, budget
from lrd.analysis.again import Reading
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


def readings(found: again.Comparison) -> Counter[Reading]:
    return Counter(reading for reading, _ in found.readings.values())


def test_the_same_runs(book, published):
    same = again.Comparison(runs(book / "yours"), published, book / "yours")
    assert readings(same) == {Reading.SAME: 2, Reading.UNFINISHED: 52}
    assert {same.readings[cell][0] for cell in published["cells"]} == {Reading.SAME} and same.differing == {}


@pytest.mark.parametrize(
    ("right", "std", "apart"),
    [(15, 1.04, []), (15, 1.06, ["peak_advantage_std"]), (16, 1.0, ["final", "peak", "area"])],
)
def test_other_numbers(book, published, right, std, apart):
    other = again.Comparison(runs(book / "yours", right, std), published, book / "yours")
    assert other.readings["outcome-r4-s0"] == (Reading.APART if apart else Reading.WITHIN, apart)


def test_what_they_rest_on(book, published):
    versions = again.Comparison(runs(book / "a", 16, torch="2.14.0"), published, book / "a")
    assert versions.differing == {"torch": (["2.13.0"], ["2.14.0"])}
    models = again.Comparison(runs(book / "b", 16, student="s1"), published, book / "b")
    assert models.differing == {"student": (["s0"], ["s1"])}


def test_nothing_published_and_nothing_run(book, published):
    unpublished = again.Comparison(runs(book / "a"), {}, book / "a")
    assert readings(unpublished) == {Reading.UNPUBLISHED: 2, Reading.UNFINISHED: 52}
    unrun = again.Comparison(results.load("tiny", book / "none"), published, book / "none")
    assert set(readings(unrun)) == {Reading.UNFINISHED}
    (book / "a" / "tiny" / "outcome-r1-s0" / "evals.jsonl").unlink()
    broken = again.Comparison(results.load("tiny", book / "a"), published, book / "a")
    assert broken.readings["outcome-r1-s0"][0] is Reading.UNFINISHED


def test_a_rerun(tmp_path):
    first = {"outcome": {0: 5, 10: 15}, "process": {0: 5, 10: 15}, "distillation": {0: 5, 10: 15}}
    second = {"outcome": {0: 5, 10: 15}, "process": {0: 5, 10: 16}}
    for preset, curves in (("small", first), ("small-again", second)):
        for regime, curve in curves.items():
            path = write_cell(tmp_path, Cell.load(preset, regime=regime, rank=16, seed=0), curve)
            if (preset, regime) == ("small-again", "process"):
                change_metrics(path, lambda row: {"reward": row["reward"] + 1e-6 * (row["step"] == 7)})

    def reruns():
        return again.reruns(results.load("small", tmp_path), results.load("small-again", tmp_path))

    same, close, absent = reruns()
    assert (same.finals, same.agree, same.gap, same.reading) == ((0.75, 0.75), 10, 0, Reading.SAME)
    assert (close.finals, close.agree, close.reading) == ((0.75, 0.8), 6, Reading.WITHIN)
    assert close.gap == pytest.approx(0.05)
    assert (absent.states, absent.reading) == (("finished", "absent"), Reading.UNFINISHED)
    write_cell(tmp_path, Cell.load("small-again", regime="distillation", rank=16, seed=0), {0: 5, 10: 12})
    assert reruns()[2].reading is Reading.APART


def test_a_rerun_has_the_settings_of_its_first():
    first = {cell.name: cell.config for cell in grid("small")}
    for cell in grid("small-again"):
        assert cell.config | {"preset": "small"} == first[cell.name]
