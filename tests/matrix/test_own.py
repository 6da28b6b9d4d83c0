"""A preset of one's own, from a directory outside the package: `lrd matrix ./mine.toml`, and its name afterwards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import write_cell

from lrd import ROOT, UserError, presets, results
from lrd.__main__ import main
from lrd.cell import Cell, grid
from lrd.names import located
from lrd.presets import preset_names, read_preset
from lrd.runs import own

MINE = """
base = "tiny"

[axes]
regime = ["outcome"]
rank = [1]
seed = [0]

[axes.cap]
low = { advantage_cap = 1.0 }
none = {}
"""


def lrd(folder, *args):
    command = [sys.executable, "-m", "lrd", *map(str, args)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=240)


def write(folder, text=MINE, name="mine.toml"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_preset_by_its_file_runs_and_is_known_by_its_name_afterwards(tmp_path, settings, monkeypatch):
    cell = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    write(tmp_path, f"{MINE}\n[cell]\n{cell}")
    done = lrd(tmp_path, "matrix", "./mine.toml", "--runs", tmp_path / "runs", "--jobs", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    status = lrd(tmp_path, "status", "mine", "--runs", tmp_path / "runs", "--json")
    states = {row["cell"]: row["state"] for row in json.loads(status.stdout)["cells"]}
    assert states == {"outcome-r1-cap=low-s0": "finished", "outcome-r1-cap=none-s0": "finished"}, status.stdout
    again = lrd(tmp_path, "cell", "mine.toml", "--set", "cap=low", "--runs", tmp_path / "runs")
    assert "outcome-r1-cap=low-s0: " in again.stdout and again.returncode == 0, again.stdout + again.stderr
    monkeypatch.setenv("LRD_RUNS", str(tmp_path / "runs"))
    found = results.load("mine")
    assert len(found.finished) == 2 and found.axes[-1] == "cap" and "mine" in results.with_runs()


def test_its_name_is_known_for_as_long_as_the_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LRD_RUNS", "before")
    assert main(["status", str(write(tmp_path)), "--runs", str(tmp_path / "runs")]) == 0
    assert "2 absent" in capsys.readouterr().out and os.environ["LRD_RUNS"] == "before"
    assert "mine" not in preset_names()
    assert main(["status", "mine"]) == 2  # the clone's own runs have none of that name
    assert "unknown preset 'mine'" in capsys.readouterr().err


def test_a_changed_file_takes_the_place_of_the_one_kept(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    monkeypatch.setenv("LRD_RUNS", str(runs))
    assert own.adopt(str(write(tmp_path)), str(runs)) == "mine"
    assert [cell.point["cap"] for cell in grid("mine")] == ["low", "none"]
    write_cell(runs, Cell.load("mine", cap="low"), {0: 5, 10: 8})
    own.adopt(str(write(tmp_path, MINE.replace("rank = [1]", "rank = [4]"))), str(runs))
    assert [cell.rank for cell in grid("mine")] == [4, 4]
    left = results.load("mine").off_grid
    assert left is not None and left.cells.cell.tolist() == ["outcome-r1-cap=low-s0"]  # nothing is lost


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tiny.toml", MINE, "has the name of a preset of the library"),
        ("mine.toml", "base = ", "is not valid TOML"),
        ("mine.toml", "bases = 'tiny'", r"unknown key 'bases' in preset 'mine' \(did you mean base"),
        ("-mine.toml", MINE, "is no name"),
        ("mine.toml", None, "cannot read the preset .*mine.toml: .*No such file"),
    ],
)
def test_what_is_refused(tmp_path, name, text, said):
    path = tmp_path / name if text is None else write(tmp_path, text, name)
    with pytest.raises(UserError, match=said):
        own.adopt(str(path), str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


STUDY = """
base = "tiny"

[axes]
regime = ["my_rewards:short"]
rank = [1]
seed = [0, 1]

[cell]
train_data = "./problems.jsonl"
eval_data = { path = "held-out.jsonl" }
"""


@pytest.fixture
def study(tmp_path, settings, checkpoint):
    """A preset with files of its own, its student too, and another directory that commands are called from."""
    folder = tmp_path / "study"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name, problems in ("problems", ["1a+2b+3", "4a-5b*2", "3a+3b-1", "2a*2b+9"]), ("held-out", ["7a+1b-2"] * 4):
        rows = [{"problem": text, "answer": "6"} for text in problems]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "my_rewards.py").write_text(
        "def short(completions, **columns):\n    return [-len(c) for c in completions]\n"
    )
    shutil.copytree(checkpoint("qwen3"), folder / "my-student")
    cell = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (settings | {"student": "./my-student"}).items())
    write(folder, f"{STUDY}{cell}", "study.toml")
    return folder


@pytest.mark.slow
def test_files_of_a_preset_lie_beside_it_whatever_the_working_directory(study, tmp_path):
    elsewhere, runs = tmp_path / "elsewhere", tmp_path / "runs"
    first = lrd(elsewhere, "cell", "../study/study.toml", "--seed", 0, "--runs", runs)
    assert first.returncode == 0, first.stdout + first.stderr
    doctor = lrd(elsewhere, "doctor", "study", "--runs", runs)
    assert "DO" not in doctor.stdout, doctor.stdout
    rest = lrd(elsewhere, "matrix", "study", "--runs", runs, "--jobs", 1)  # by its name, through Ray
    assert rest.returncode == 0, rest.stdout + rest.stderr
    for seed in (0, 1):
        path = runs / "study" / f"my_rewards.short-r1-s{seed}"
        config, record = (json.loads((path / f"{name}.json").read_text()) for name in ("config", "provenance"))
        assert config["train_data"] == "./problems.jsonl" and config["student"] == "./my-student"  # of no machine
        assert record["run"]["train_problems"] == 4 and all(
            record["run"]["models"][role] for role in ("student", "train_data", "eval_data")
        )
        assert "my_rewards.py" in next(iter(record["code"].values()))["own"]
    study.rename(tmp_path / "moved")
    again = lrd(elsewhere, "cell", "../moved/study.toml", "--seed", 0, "--runs", runs)
    assert again.returncode == 0 and "nothing was run" in again.stdout, again.stderr
    assert "changed since" not in again.stdout


def test_a_file_that_is_not_beside_it_may_be_the_clones(tmp_path, monkeypatch):
    (tmp_path / "README.md").touch()
    monkeypatch.setenv("LRD_BESIDE", f"{tmp_path}\n/nowhere")
    assert located("./README.md") == tmp_path / "README.md"
    assert located("./lrd/names.py") == ROOT / "lrd" / "names.py" and located("/etc") == Path("/etc")
    assert located("x" * 5000) == ROOT / ("x" * 5000)
    monkeypatch.delenv("LRD_BESIDE")
    assert located("./README.md") == ROOT / "README.md"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            "problems.jsonl",
            "there is no file './problems.jsonl' (tried {study}/problems.jsonl and {clone}/problems.jsonl",
        ),
        (
            "held-out.jsonl",
            "there is no file 'held-out.jsonl' (tried {study}/held-out.jsonl and {clone}/held-out.jsonl",
        ),
        ("my_rewards.py", "there is no module 'my_rewards' in {study} or {here}, nor is one installed"),
        (
            "my-student",
            "student './my-student' is not a directory with a Hugging Face checkpoint (tried {study}/my-student",
        ),
    ],
)
def test_a_file_that_a_preset_lacks_is_one_sentence_before_training(
    study, tmp_path, capsys, monkeypatch, missing, said
):
    (study / missing).rename(tmp_path / "away")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_rewards", None)
    assert main(["matrix", "../study/study.toml", "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert said.format(study=study, clone=ROOT, here=tmp_path / "elsewhere") in error and error.count("\n") == 1
    assert [path.name for path in (tmp_path / "runs" / "study").iterdir() if path.is_dir()] == []
    assert "LRD_BESIDE" not in os.environ


def test_no_name_of_a_preset_leaves_the_runs(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "preset.toml").write_text(MINE)
    monkeypatch.setenv("LRD_RUNS", str(tmp_path / "runs"))
    for name in ("..", "../x", "x" * 200):
        assert presets.file_of(name) is None
        with pytest.raises(UserError, match="unknown preset"):
            read_preset(name)
