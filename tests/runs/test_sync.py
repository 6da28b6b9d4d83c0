"""Gathering runs, with real rsync: what is copied, skipped and refused; half a copy never looks like a cell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from lrd import ROOT, UserError
from lrd.__main__ import main
from lrd.runs import sync as sync_module
from lrd.runs.directory import state
from lrd.runs.sync import sync

pytestmark = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")

CELL = "tiny/outcome-r1-s0"


def write_run(runs: Path, cell: str = CELL, *, began: str = "a", finished: bool = True, **config) -> Path:
    """A run of a few files; `began` tells it from other runs of the same cell."""
    path = runs / cell
    (path / "adapter").mkdir(parents=True)
    (path / "lock").touch()
    (path / "launch.lock").touch()
    (path / "config.json").write_text(json.dumps({"steps": 3} | config))
    sessions = [{"started": word, "host": "h"} for word in began]
    (path / "provenance.json").write_text(json.dumps({"sessions": sessions}))
    (path / "metrics.jsonl").write_text("".join(f'{{"step": {n}, "run": "{began}"}}\n' for n in range(1, 4)))
    (path / "adapter" / "adapter_model.safetensors").write_text(began * 1000)
    if finished:
        (path / "done.json").write_text(json.dumps({"finished": began}))
    return path


def contents(path: Path) -> dict[str, bytes]:
    files = (p for p in path.rglob("*") if p.is_file() and p.name != "lock" and p.suffix != ".lock")
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def said(source, runs, **options) -> list[tuple[str, str]]:
    return [(verdict.what, verdict.why) for verdict in sync(str(source), str(runs), **options)]


def test_finished_cells_come_whole_and_a_second_time_nothing_does(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    write_run(there)
    write_run(there, "tiny/process-full-s2", finished=False)
    (there / "tiny" / "baseline").mkdir()
    (there / "tiny" / "baseline" / "done.json").write_text("{}")
    (there / "tiny" / "empty").mkdir()
    assert [(v.what, v.cell) for v in sync(str(there), str(here))] == [
        ("copied", "tiny/baseline"),
        ("copied", CELL),
        ("skipped", "tiny/process-full-s2"),
    ]
    assert contents(here / CELL) == contents(there / CELL) and state(here / CELL) == "finished"
    assert sorted(p.name for p in here.iterdir()) == ["tiny"]
    before = {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}
    assert said(there, here) == [("skipped", "it is here")] * 2 + [
        ("skipped", "it is not finished; --all takes it along")
    ]
    assert before == {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}


def test_a_finished_cell_is_never_overwritten_by_another(tmp_path):
    mine = write_run(tmp_path / "here", began="a")
    write_run(tmp_path / "there", began="b")
    before = contents(mine)
    assert said(tmp_path / "there", tmp_path / "here") == [("refused", "another run of it is finished here")]
    (tmp_path / "there" / CELL / "done.json").unlink()
    assert said(tmp_path / "there", tmp_path / "here", unfinished=True) == [
        ("refused", "another run of it is finished here")
    ]
    assert contents(mine) == before
    # An earlier state of the very run that is finished here is nothing to complain of.
    shutil.rmtree(tmp_path / "there")
    write_run(tmp_path / "there", began="a", finished=False)
    assert said(tmp_path / "there", tmp_path / "here", unfinished=True) == [("skipped", "it is here")]
    assert contents(mine) == before


@pytest.mark.parametrize(
    ("mine", "theirs", "what", "why"),
    [
        ({"began": "b", "finished": False}, {}, "copied", "finished"),
        ({"finished": False, "steps": 9}, {}, "refused", "one of another configuration is here"),
        ({"finished": False}, {"finished": False}, "copied", "not finished"),
        ({"finished": False}, {"finished": False, "began": "ab"}, "copied", "not finished"),
        ({"finished": False, "began": "ab"}, {"finished": False}, "refused", "another run of it, or one that went on"),
        ({"finished": False, "began": "b"}, {"finished": False}, "refused", "another run of it, or one that went on"),
    ],
)
def test_what_becomes_of_a_cell_that_is_not_finished_here(tmp_path, mine, theirs, what, why):
    path = write_run(tmp_path / "here", **mine)
    (path / "failed.json").write_text("{}")
    write_run(tmp_path / "there", **theirs)
    before = contents(path)
    ((is_what, is_why),) = said(tmp_path / "there", tmp_path / "here", unfinished=True)
    assert is_what == what and is_why.startswith(why)
    assert contents(path) == (before if what == "refused" else contents(tmp_path / "there" / CELL))
    assert (path / "lock").is_file()


@pytest.mark.parametrize("name", ["lock", "launch.lock"])
def test_a_cell_that_runs_here_is_left_alone(tmp_path, name):
    path = write_run(tmp_path / "here", finished=False)
    write_run(tmp_path / "there")
    before = contents(path)
    with filelock.FileLock(path / name):
        assert said(tmp_path / "there", tmp_path / "here") == [("refused", "it runs here")]
        assert contents(path) == before


@pytest.mark.parametrize("name", ["done.json", "config.json", "provenance.json"])
def test_what_cannot_be_read_is_refused_with_the_file_named(tmp_path, name):
    path = write_run(tmp_path / "there")
    (path / name).write_text("{cut o")
    ((what, why),) = said(tmp_path / "there", tmp_path / "here")
    assert what == "refused" and f"{name} is not readable JSON" in why
    assert not (tmp_path / "here" / CELL).exists()


def test_a_copy_that_broke_off_never_looks_finished_and_goes_on(tmp_path, monkeypatch):
    write_run(tmp_path / "there")
    real, moved = os.replace, []

    def dies_at(count):
        def replace(source, target):
            if len(moved) == count:
                raise KeyboardInterrupt
            moved.append(Path(source).name)
            real(source, target)

        return replace

    for count in range(5):  # killed before each of the files is put in its place
        moved.clear()
        monkeypatch.setattr(sync_module.os, "replace", dies_at(count))
        with pytest.raises(KeyboardInterrupt):
            sync(str(tmp_path / "there"), str(tmp_path / "here"))
        assert state(tmp_path / "here" / CELL) != "finished" and "done.json" not in moved
    monkeypatch.undo()
    assert said(tmp_path / "there", tmp_path / "here") == [("copied", "finished")]
    assert contents(tmp_path / "here" / CELL) == contents(tmp_path / "there" / CELL)


def test_a_notebook_that_is_still_being_written_is_waited_for(tmp_path):
    path = write_run(tmp_path / "there")
    notebook = path / "cell.ipynb"
    notebook.write_text(json.dumps({"metadata": {"papermill": {"end_time": None}}}))
    assert said(tmp_path / "there", tmp_path / "here") == [
        ("skipped", "its notebook has not ended; --all takes it along")
    ]
    assert not (tmp_path / "here" / CELL).exists()
    assert said(tmp_path / "there", tmp_path / "all", unfinished=True) == [("copied", "finished")]
    notebook.write_text(json.dumps({"metadata": {"papermill": {"end_time": "2030-01-01"}}}))
    assert said(tmp_path / "there", tmp_path / "here") == [("copied", "finished")]
    assert contents(tmp_path / "here" / CELL) == contents(path)


def test_a_cell_that_ends_while_it_is_copied_is_not_taken_for_whole(tmp_path, monkeypatch):
    path, here = write_run(tmp_path / "there", finished=False), tmp_path / "here"
    real = sync_module._rsync

    def rsync(*args):
        if any(arg.startswith("--files-from") for arg in args):
            (path / "done.json").write_text("{}")  # after this source was looked at
        real(*args)

    monkeypatch.setattr(sync_module, "_rsync", rsync)
    assert said(tmp_path / "there", here, unfinished=True) == [("copied", "not finished")]
    assert state(here / CELL) == "interrupted"
    assert said(tmp_path / "there", here) == [("copied", "finished")]
    assert contents(here / CELL) == contents(path) and sorted(p.name for p in here.iterdir()) == ["tiny"]


def test_a_transfer_that_breaks_off_leaves_nothing_in_place(tmp_path, monkeypatch):
    write_run(tmp_path / "there")
    shim = tmp_path / "bin" / "rsync"
    shim.parent.mkdir()
    # The second call, which copies, is cut after the first files.
    shim.write_text(
        f"#!/bin/sh\n"
        f'case "$*" in *--files-from*) {shutil.which("rsync")} --exclude=metrics.jsonl "$@"; exit 12;; esac\n'
        f'exec {shutil.which("rsync")} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=os.pathsep)
    with pytest.raises(UserError, match="rsync cannot read"):
        sync(str(tmp_path / "there"), str(tmp_path / "here"))
    assert state(tmp_path / "here" / CELL) == "absent" and not (tmp_path / "here" / "tiny").exists()
    monkeypatch.undo()
    assert said(tmp_path / "there", tmp_path / "here") == [("copied", "finished")]
    assert contents(tmp_path / "here" / CELL) == contents(tmp_path / "there" / CELL)


def test_another_host_is_read_over_a_remote_shell(tmp_path, monkeypatch, capsys):
    """The remote shell is one that stays here: rsync's own protocol, without a network."""
    write_run(tmp_path / "there")
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\n[ "$1" = somehost ] || exit 255\nshift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    monkeypatch.setenv("RSYNC_RSH", str(shell))
    assert main(["sync", f"somehost:{tmp_path}/there", "--runs", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"copied   {CELL}: finished",
        f"somehost:{tmp_path}/there: 1 copied, 0 skipped, 0 refused",
    ]
    assert contents(tmp_path / "here" / CELL) == contents(tmp_path / "there" / CELL)
    assert main(["sync", f"elsewhere:{tmp_path}/there", "--runs", str(tmp_path / "here")]) == 2


def test_refusals_are_one_sentence_each_and_make_the_status_1(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "here")
    write_run(tmp_path / "there", began="b")
    words = ["--runs", str(tmp_path / "here")]
    assert main(["sync", str(tmp_path / "there"), *words]) == 1
    assert main(["sync", str(tmp_path / "nowhere"), *words]) == 2
    assert main(["sync", str(tmp_path / "here"), *words]) == 2
    assert main(["sync", *words, "--", "-rf"]) == 2
    monkeypatch.setenv("PATH", "")
    assert main(["sync", str(tmp_path / "there"), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and "No such file" in lines[0] and "is the directory to gather in" in lines[1]
    assert "rsync, which is not installed" in lines[3]


def test_names_and_links_of_a_source_lead_nowhere_else(tmp_path):
    write_run(tmp_path / "there")
    write_run(tmp_path / "there", "tiny/.hidden")
    write_run(tmp_path / "there", "tiny/a b")
    further = "tiny/outcome-full-learning_rate=1e-05-lora_targets=q_proj+v_proj-s0"
    write_run(tmp_path / "there", further)
    write_run(tmp_path / "outside", "tiny/x")
    (tmp_path / "there" / "tiny" / "link").symlink_to(tmp_path / "outside" / "tiny" / "x")
    (tmp_path / "there" / CELL / "secret").symlink_to("/etc/hostname")
    assert [v.cell for v in sync(str(tmp_path / "there"), str(tmp_path / "here"))] == [further, CELL]
    assert not (tmp_path / "here" / CELL / "secret").exists()


def test_a_matrix_of_two_halves_is_whole_afterwards(tmp_path):
    names = [f"tiny/outcome-r{rank}-s{seed}" for rank in (1, 4) for seed in (0, 1)]
    for number, name in enumerate(names):
        write_run(tmp_path / f"host{number % 2}", name)
    sources = [str(tmp_path / "host0"), str(tmp_path / "host1")]
    command = [sys.executable, "-m", "lrd", "sync", *sources, "--runs", str(tmp_path / "here")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    assert all(state(tmp_path / "here" / name) == "finished" for name in names)
