"""A preset of one's own, from a directory outside the package: `lrd matrix ./mine.toml`, and its name afterwards."""

import json
import os
import subprocess
import sys

import pytest
from fakes import write_cell

from lrd import ROOT, UserError, presets, results
from lrd.__main__ import main
from lrd.cell import Cell, grid
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


def test_no_name_of_a_preset_leaves_the_runs(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "preset.toml").write_text(MINE)
    monkeypatch.setenv("LRD_RUNS", str(tmp_path / "runs"))
    for name in ("..", "../x", "x" * 200):
        assert presets.file_of(name) is None
        with pytest.raises(UserError, match="unknown preset"):
            read_preset(name)
