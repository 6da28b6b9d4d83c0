"""Which code a result rests on, and what a run says when it has changed."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from lrd import ROOT, UserError
from lrd.cell import REGIMES
from lrd.runs import provenance as prov, sources
from lrd.runs.directory import Run, few
from lrd.runs.files import read_json
from lrd.train.loop import train

SHORT = {"steps": 4, "eval_every": 2, "eval_problems": 5, "max_completion_tokens": 12, "logged_completions": 2}


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A copy of the library's sources and the cell's notebook, in the place of the project's."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "lrd", root / "lrd", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "cell.ipynb", root / "notebooks")
    monkeypatch.setattr(sources, "ROOT", root)
    return root


def edit(path: Path) -> None:
    path.write_text(path.read_text() + "\n# changed\n")


def test_what_decides_a_result_counts_and_what_only_shows_it_does_not():
    found = sources.digests("cell", ["process"])
    names = "cell grpo rollouts data/problems models/policy rewards/process sampling/vllm runs/directory runs/files"
    names += " train/loop train/evaluate train/recall train/checkpoint verifier/grader"
    assert {f"lrd/{name}.py" for name in names.split()} < found.keys()
    packages = {f"lrd/{name}/__init__.py" for name in ("rewards", "models", "train", "verifier", "runs", "sampling")}
    assert {"lrd/__init__.py", "notebooks/cell.ipynb"} | packages < found.keys()
    assert all((ROOT / name).is_file() for name in found)
    pages = ("results", "__main__", "train/tracking", "runs/status", "runs/sync", "rewards/distillation")
    assert not {f"lrd/{name}.py" for name in pages} & found.keys()
    assert not [name for name in found if re.match("lrd/(matrix|testbed|analysis|report|checks)/", name)]
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in found.values())
    assert {"lrd/rewards/outcome.py", "lrd/rewards/process.py"} < sources.digests("rewards", REGIMES).keys()


def test_a_start_costs_less_than_20_ms():
    def seconds() -> float:
        start = time.perf_counter()
        sources.digests("cell", ["process"])
        return time.perf_counter() - start

    assert min(seconds() for _ in range(8)) < 0.02


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("lrd/grpo.py", True),
        ("lrd/rewards/own.py", True),
        ("lrd/rewards/helper.py", True),
        ("lrd/other.py", True),
        ("lrd/far.py", True),
        ("lrd/rewards/distillation.py", False),
        ("lrd/report/publish.py", False),
        ("lrd/presets/tiny.toml", False),  # compared as settings
    ],
)
def test_an_own_reward_counts_with_all_that_it_imports(clone, monkeypatch, file, counts):
    monkeypatch.setitem(REGIMES, "own", "lrd.rewards.own")
    (clone / "lrd" / "rewards" / "own.py").write_text(
        "from lrd import UserError, other as o\nfrom .helper import f\n\n\ndef load():\n    import lrd.far\n"
    )
    for name in ("rewards/helper", "other", "far"):
        (clone / "lrd" / f"{name}.py").write_text("x = 1\n")
    before = sources.digests("cell", ["own"])
    edit(clone / file)
    assert sources.changed(before, sources.digests("cell", ["own"])) == ([file] if counts else [])


def test_of_the_notebook_its_code_counts_and_neither_parameters_nor_outputs(clone):
    path = clone / "notebooks" / "cell.ipynb"
    before = sources.digests("cell", ["outcome"])

    def changed(change) -> list[str]:
        notebook = json.loads((ROOT / "notebooks" / "cell.ipynb").read_text())
        change([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])
        path.write_text(json.dumps(notebook))
        return sources.changed(before, sources.digests("cell", ["outcome"]))

    assert changed(lambda cells: cells[0].update(source='regime = "process"')) == []
    assert changed(lambda cells: cells[1].update(outputs=[{"output_type": "stream"}], execution_count=3)) == []
    assert changed(lambda cells: cells[1].update(source="pass")) == ["notebooks/cell.ipynb"]
    path.write_text("{being edit")
    assert sources.changed(before, sources.digests("cell", ["outcome"])) == ["notebooks/cell.ipynb"]


def stop_at_3(run: Run) -> None:
    for metrics in train(run):
        if metrics["step"] == 3:
            break
    run.close()


def test_going_on_with_other_code_is_refused_by_name_unless_it_is_asked_for(make_cell, tmp_path, clone, monkeypatch):
    cell = make_cell(**SHORT)
    diffs = iter(["", "+ changed"])
    real = prov.git
    monkeypatch.setattr(prov, "git", lambda *a, **k: next(diffs) if a[0] == "diff" else real(*a, **k))
    stop_at_3(Run(cell, tmp_path))
    edit(clone / "lrd" / "results.py")
    Run(cell, tmp_path).close()
    for name in ("grpo", "rewards/outcome"):
        edit(clone / "lrd" / f"{name}.py")
    (clone / "lrd" / "runs" / "signals.py").unlink()
    said = r"other code: lrd/grpo\.py, lrd/rewards/outcome\.py, lrd/runs/signals\.py changed since; .* by --other-code"
    before = (tmp_path / "test" / cell.name / "provenance.json").read_bytes()
    for hold in (True, False):  # in the kernel, and by who would start it
        with pytest.raises(UserError, match=said):
            Run(cell, tmp_path, hold=hold).check()
    assert (tmp_path / "test" / cell.name / "provenance.json").read_bytes() == before
    run = Run(cell, tmp_path, other_code=True)
    list(train(run))
    run.finish()
    record = read_json(run.path / "provenance.json")
    first, second = (record["code"][session["code"]] for session in record["sessions"])
    assert [first["diff"], second["diff"]] == ["", "+ changed\n"]
    assert (
        first["files"]["lrd/grpo.py"] != second["files"]["lrd/grpo.py"] and "lrd/runs/signals.py" not in second["files"]
    )
    again = Run(cell, tmp_path)
    assert again.finished and again.changed == []
    edit(clone / "lrd" / "train" / "loop.py")
    day, commit = read_json(run.path / "done.json")["finished"][:10], record["sessions"][-1]["git"]
    said = f"finished already on {day} at {str(commit)[:12]}, nothing was run: {run.path}"
    said += " (lrd/train/loop.py changed since)"
    assert again.finished_already == said.replace("None", "an unknown commit")


def test_a_cell_that_has_no_checkpoint_yet_begins_with_the_new_code(make_cell, tmp_path, clone):
    run = Run(make_cell(**SHORT), tmp_path)
    run.begin(step=None, about={})
    run.close()
    edit(clone / "lrd" / "grpo.py")
    Run(make_cell(**SHORT), tmp_path).close()


def test_a_checkpoint_of_the_library_before_its_packages_is_refused_by_the_names_of_its_files(make_cell, tmp_path):
    """Its modules lay in one folder: to resume it, what moved counts as changed, whatever is in it."""
    cell = make_cell(**SHORT)
    stop_at_3(Run(cell, tmp_path))
    path = tmp_path / "test" / cell.name / "provenance.json"
    record = read_json(path)
    (code,) = record["code"].values()
    code["files"] = {re.sub("(?<=lrd/)(train|runs|models|data)/", "", name): d for name, d in code["files"].items()}
    path.write_text(json.dumps(record))
    said = r"with other code: (lrd/[\w/]+\.py, ){4}lrd/[\w/]+\.py and \d+ more changed since; .* --other-code, or give"
    with pytest.raises(UserError, match=said):
        Run(cell, tmp_path)
    run = Run(cell, tmp_path, other_code=True)
    assert [metrics["step"] for metrics in train(run)] == [3, 4]


def test_a_run_from_before_code_was_recorded_goes_on(make_cell, tmp_path, clone):
    cell = make_cell(**SHORT)
    stop_at_3(Run(cell, tmp_path))
    path = tmp_path / "test" / cell.name / "provenance.json"
    record = read_json(path)
    sessions = [{key: value for key, value in session.items() if key != "code"} for session in record["sessions"]]
    path.write_text(json.dumps({k: v for k, v in record.items() if k != "code"} | {"sessions": sessions}))
    edit(clone / "lrd" / "grpo.py")
    Run(cell, tmp_path).close()


def test_many_files_are_counted():
    assert few(list("abcdefg")) == "a, b, c, d, e and 2 more" and few(["a", "b"]) == "a, b"
