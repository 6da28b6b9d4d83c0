"""Trackers: what a real one holds afterwards, that a missing one is refused and a broken one costs a warning."""

import math
import sys
import threading
import time
import types
import warnings

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrd import UserError
from lrd.runs.directory import Run, state
from lrd.runs.files import read_json, read_jsonl
from lrd.train import tracking
from lrd.train.loop import train
from lrd.train.tracking import tracked

SHORT = {"steps": 4, "eval_every": 2, "eval_problems": 5, "max_completion_tokens": 12, "logged_completions": 2}


def steps_of(*numbers):
    return [{"step": n, "reward": n / 2, "kl": math.nan, "pass@1": 0.25, "note": "x"} for n in numbers]


@pytest.fixture
def run(make_cell, tmp_path):
    run = Run(make_cell(**SHORT), tmp_path)
    run.begin(step=None, about={})
    yield run
    run.close()


def events(run):
    held = EventAccumulator(str(run.path / "tensorboard"))
    held.Reload()
    return {tag: [(e.step, e.value) for e in held.Scalars(tag)] for tag in held.Tags()["scalars"]}


def test_without_a_tracker_nothing_is_added(run, monkeypatch):
    monkeypatch.delenv("LRD_TRACKER", raising=False)
    before = threading.active_count()
    assert [threading.active_count() for _ in tracked(run, steps_of(1, 2))] == [before] * 2


def test_tensorboard_holds_what_was_recorded_and_a_resumed_run_no_step_twice(run, monkeypatch):
    monkeypatch.setenv("LRD_TRACKER", "tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [m["step"] for m in tracked(run, steps_of(1, 2, 3))] == [1, 2, 3]
        list(tracked(run, steps_of(3, 4)))  # from the checkpoint at step 2
    assert run.sessions[-1]["tracker"] == "tensorboard"
    assert events(run) == {
        "reward": [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)],
        "pass@1": [(n, 0.25) for n in (1, 2, 3, 4)],
    }


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_hosted_tracker_gets_its_run_its_metrics_and_its_end(run, monkeypatch, name):
    calls = []
    module = types.ModuleType(name)
    for function in ("init", "log", "finish"):
        setattr(module, function, lambda *args, function=function, **kwargs: calls.append((function, args, kwargs)))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("LRD_TRACKER", name)
    for numbers in ((1, 2), (3,)):
        list(tracked(run, steps_of(*numbers)))
    assert [call[0] for call in calls] == ["init", "log", "log", "finish", "init", "log", "finish"]
    began = read_json(run.path / "provenance.json")["sessions"][0]["started"]
    about = calls[0][2]
    assert about["name"] == f"test-{run.cell.name}-{began}" and about["config"] == run.cell.config
    assert calls[4] == calls[0] and about["resume"] == "allow"  # a resumed cell goes on in its own record
    assert calls[1] == ("log", ({"reward": 0.5, "pass@1": 0.25},), {"step": 1})


class Broken:
    """Fails at one place, by raising or by never coming back."""

    def __init__(self, where, how):
        self.where, self.how = where, how
        self.at("init")

    def at(self, place):
        if place == self.where:
            if self.how == "hangs":
                time.sleep(3600)
            raise {"raises": ConnectionError("503 from the tracker"), "exits": SystemExit("no key")}[self.how]

    def log(self, metrics, step):
        self.at("log")

    def finish(self):
        self.at("finish")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
@pytest.mark.parametrize("how", ["raises", "exits", "hangs"])
def test_a_broken_tracker_costs_one_warning_and_no_step(run, monkeypatch, where, how):
    monkeypatch.setitem(tracking.TRACKERS, "broken", lambda run, first: Broken(where, how))
    monkeypatch.setattr(tracking, "PATIENCE", 0.3)
    monkeypatch.setenv("LRD_TRACKER", "broken")
    start = time.monotonic()
    with pytest.warns(UserWarning, match="tracker 'broken' is given up") as warned:
        assert [m["step"] for m in tracked(run, steps_of(1, 2, 3))] == [1, 2, 3]
    assert len(warned) == 1 and time.monotonic() - start < 3
    why = {"raises": "503 from", "exits": "no key", "hangs": "not finished within"}[how]
    assert why in str(warned[0].message)
    recorded = run.sessions[-1]["tracker"]
    assert recorded.startswith("broken, given up: ") and why in recorded


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("comet", "LRD_TRACKER is 'comet'; it takes one of tensorboard, wandb, trackio, or nothing"),
        ("wandb", "LRD_TRACKER=wandb needs the package wandb, which is not installed"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_the_first_step(make_cell, tmp_path, monkeypatch, name, said):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    monkeypatch.setenv("LRD_TRACKER", name)
    run = Run(make_cell(**SHORT), tmp_path)
    with pytest.raises(UserError, match=said):
        next(tracked(run, train(run)))
    assert state(run.path) == "absent" and [path.name for path in run.path.iterdir()] == ["lock"]


def test_a_cell_whose_tracker_hangs_finishes_as_one_without(make_cell, tmp_path, monkeypatch):
    def finished(runs):
        run = Run(make_cell(**SHORT), runs)
        list(tracked(run, train(run)))
        run.finish()
        assert state(run.path) == "finished" and len(read_jsonl(run.path / "metrics.jsonl")) == 4
        return (run.path / "evals.jsonl").read_bytes(), read_json(run.path / "config.json")

    monkeypatch.delenv("LRD_TRACKER", raising=False)
    plain = finished(tmp_path / "plain")
    monkeypatch.setitem(tracking.TRACKERS, "broken", lambda run, first: Broken("log", "hangs"))
    monkeypatch.setattr(tracking, "PATIENCE", 0.3)
    monkeypatch.setenv("LRD_TRACKER", "broken")
    with pytest.warns(UserWarning, match="is given up"):
        assert finished(tmp_path / "tracked") == plain


def test_an_interruption_passes_through_and_gives_the_run_up(make_cell, tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_TRACKER", "tensorboard")
    run = Run(make_cell(**SHORT), tmp_path)
    steps = tracked(run, train(run))
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert state(run.path) == "interrupted" and [step for step, _ in events(run)["reward"]] == [1]
