"""The run directory: states, ownership, atomic writes, refusals."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import numpy
import pytest
import torch

from lrd import ROOT, UserError
from lrd.__main__ import _parser, _settings
from lrd.cell import Cell
from lrd.runs.directory import Held, Run, describe, state
from lrd.runs.files import read_json, read_jsonl, write_json
from lrd.runs.provenance import _packages, provenance


def test_a_cell_is_absent_then_running_then_interrupted_then_finished(make_cell, tmp_path):
    cell = make_cell(steps=1)
    path = tmp_path / "test" / cell.name
    assert state(path) == "absent"
    run = Run(cell, tmp_path)
    run.begin(step=None, about={})
    assert state(path) == "running"
    run.close()
    assert state(path) == "interrupted"
    run = Run(cell, tmp_path)
    run.begin(step=None, about={})
    with pytest.raises(RuntimeError, match="at step 0 of 1"):
        run.finish()
    run.record("metrics", [{"step": 1, "step_time": 0.5}])
    run.finish()
    assert state(path) == "finished"
    assert read_json(path / "done.json")["steps"] == 1


def test_a_failure_is_kept_with_its_reason_and_forgotten_when_the_cell_runs_again(make_cell, tmp_path):
    run = Run(make_cell(), tmp_path)
    run.begin(step=None, about={})
    run.fail(ZeroDivisionError("of all things"), step=3)
    run.close()
    assert state(run.path) == "failed"
    assert read_json(run.path / "failed.json") | {"traceback": ""} == {
        "step": 3,
        "error": "ZeroDivisionError: of all things",
        "traceback": "",
    }
    again = Run(make_cell(), tmp_path)
    again.begin(step=None, about={})
    again.close()
    assert state(run.path) == "interrupted"


def test_two_processes_cannot_hold_one_cell(make_cell, tmp_path):
    with pytest.raises(UserError, match="is running in another process or is open in this one"):
        held = Run(make_cell(), tmp_path)
        Run(make_cell(), tmp_path)
    held.close()
    Run(make_cell(), tmp_path).close()


def test_a_launcher_keeps_others_out_before_its_kernel_is_up_and_leaves_nothing_behind(make_cell, tmp_path):
    run = Run(make_cell(), tmp_path, hold=False)
    assert state(run.path) == "absent" and not run.path.exists()
    with run.launching():
        assert state(run.path) == "running"
        with (
            pytest.raises(Held, match="is running in another process"),
            Run(make_cell(), tmp_path, hold=False).launching(),
        ):
            pass
        Run(make_cell(), tmp_path).close()  # its own kernel
    assert state(run.path) == "absent"
    with Run(make_cell(), tmp_path, hold=False).launching():
        pass


def test_a_held_cell_can_be_checked(make_cell, tmp_path):
    held = Run(make_cell(), tmp_path)
    held.begin(step=None, about={})
    Run(make_cell(), tmp_path, hold=False).check()
    with pytest.raises(UserError, match="another configuration"):
        Run(make_cell(steps=7), tmp_path, hold=False).check()
    held.close()


@pytest.mark.parametrize(
    "fault",
    [
        lambda: torch.empty(1 << 50),
        lambda: bytearray(1 << 60),
        lambda: numpy.empty(1 << 50),
        lambda: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")),
        lambda: (_ for _ in ()).throw(OSError(12, "Cannot allocate memory")),
    ],
)
def test_out_of_memory_is_recognized(fault):
    with pytest.raises(Exception) as caught:
        fault()
    assert describe(caught.value).startswith("out of memory: take a host with more")
    assert "\n" not in describe(caught.value)


def test_other_errors_are_what_they_are():
    assert describe(RuntimeError("no room\nat all")) == "RuntimeError: no room"


def test_who_asks_for_the_state_of_a_cell_is_not_taken_for_its_owner(make_cell, tmp_path):
    path = Run(make_cell(), tmp_path).path  # let go of at once, with its `Run`
    (path / "config.json").write_text("{}")
    with (path / "lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert state(path) == "interrupted"
        owner = Run(make_cell(), tmp_path / "other")
        assert state(owner.path) == "running"
        owner.close()
    assert state(owner.path) == "absent"


def test_a_disk_that_can_only_be_read_tells_its_states(make_cell, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a disk of its own can be mounted by root only")
    try:
        run = Run(make_cell(), disk)
        run.begin(step=None, about={})
        run.close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert state(run.path) == "interrupted"
        with pytest.raises(UserError, match="cannot write to .*Read-only file system; give a directory"):
            Run(make_cell(), disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_asking_for_the_state_of_a_cell_does_not_keep_it_from_starting(make_cell, tmp_path):
    path = tmp_path / "test" / make_cell().name
    path.mkdir(parents=True)
    asking = filelock.FileLock(path / "lock", thread_local=False)
    asking.acquire()
    threading.Timer(0.2, asking.release).start()
    Run(make_cell(), tmp_path).close()


def test_a_killed_owner_holds_nothing(make_cell, tmp_path):
    path = tmp_path / "test" / make_cell().name
    path.mkdir(parents=True)
    code = f"import filelock, time; lock = filelock.FileLock({str(path / 'lock')!r}); lock.acquire(); print(flush=True)"
    code += "; time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    owner.stdout.readline()
    assert state(path) == "running"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    Run(make_cell(), tmp_path).close()


def test_a_finished_cell_of_another_configuration_is_refused_and_left_alone(make_cell, tmp_path):
    run = Run(make_cell(steps=0), tmp_path)
    run.begin(step=None, about={})
    run.finish()
    before = {p.name: p.read_bytes() for p in run.path.iterdir() if p.name != "lock"}
    with pytest.raises(UserError, match=r"finished cell of another configuration: steps = 0 \(asked for: 7\)"):
        Run(make_cell(steps=7), tmp_path)
    assert before == {p.name: p.read_bytes() for p in run.path.iterdir() if p.name != "lock"}
    assert Run(make_cell(steps=0), tmp_path).finished


def test_a_cell_of_other_weights_under_the_same_name_is_refused(make_cell, checkpoint, tmp_path):
    student = tmp_path / "student"
    shutil.copytree(checkpoint("qwen3"), student)
    run = Run(make_cell(student=str(student)), tmp_path)
    run.begin(step=None, about={})
    run.close()
    Run(make_cell(student=str(student)), tmp_path).close()
    shutil.copy(Path(checkpoint("qwen3", 1)) / "model.safetensors", student)
    with pytest.raises(UserError, match="was trained with another student than lies in"):
        Run(make_cell(student=str(student)), tmp_path)
    shutil.rmtree(student)  # a machine that only reads runs has no models to compare
    Run(make_cell(student=str(student)), tmp_path).close()


def test_a_directory_that_cannot_be_made_is_one_sentence(make_cell, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*--runs"):
        Run(make_cell(), tmp_path / "file")


def test_beginning_at_a_step_cuts_what_lies_beyond_it(make_cell, tmp_path):
    run = Run(make_cell(eval_every=5, eval_problems=2), tmp_path)
    run.begin(step=None, about={})
    run.record("metrics", [{"step": i} for i in range(1, 8)])
    run.record("evals", [{"step": i} for i in (0, 0, 5, 5, 10)])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "rew')  # killed in mid-write
    run.begin(step=5, about={})
    assert [row["step"] for row in read_jsonl(run.path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in read_jsonl(run.path / "evals.jsonl")] == [0, 0, 5, 5]
    assert (run.path / "metrics.jsonl").read_text().count("\n") == 5
    assert [s["from_step"] for s in read_json(run.path / "provenance.json")["sessions"]] == [0, 5]


def test_an_evaluation_that_a_kill_cut_in_two_is_made_again_as_a_whole(make_cell, tmp_path):
    run = Run(make_cell(eval_every=5, eval_problems=2, validation_problems=3), tmp_path)
    run.begin(step=None, about={})
    run.record("validation", [{"step": i} for i in (0, 0, 0, 5, 5, 5)])
    run.record("evals", [{"step": i} for i in (0, 0, 5)])
    run.record("metrics", [{"step": i} for i in range(1, 6)])
    run.record("completions", [])
    run.begin(step=5, about={})
    assert not run.evaluated(5)
    assert [row["step"] for row in read_jsonl(run.path / "validation.jsonl")] == [0, 0, 0]
    assert [row["step"] for row in read_jsonl(run.path / "evals.jsonl")] == [0, 0]
    (run.path / "validation.jsonl").write_text("")
    with pytest.raises(UserError, match=r"validation.jsonl is not whole at step 0"):
        run.begin(step=5, about={})


def test_json_files_are_valid_json_whatever_the_numbers(tmp_path, make_cell):
    run = Run(make_cell(), tmp_path)
    run.record("metrics", [{"step": 1, "loss": float("nan"), "deep": [float("inf"), {"x": -float("inf")}]}])
    strict = json.loads((run.path / "metrics.jsonl").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert strict == {"step": 1, "loss": None, "deep": [None, {"x": None}]}


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"old": 1})
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {"new": 2})
    assert read_json(tmp_path / "a.json") == {"old": 1}


def test_garbage_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{nonsense")
    with pytest.raises(UserError, match=r"config\.json is not readable JSON"):
        read_json(tmp_path / "config.json")


def test_the_command_of_a_cell_gives_back_the_cell():
    changes = {"steps": 7, "learning_rate": 1e-05, "lora_targets": ["q_proj"], "prompt_template": "Ü {problem}\n'\"$"}
    cell = Cell.load("tiny", regime="process", rank="full", seed=2, **changes)
    words = shlex.split(provenance(cell)["command"])
    args = _parser().parse_args(words[1:])
    again = Cell.load(args.preset, regime=args.regime, rank=args.rank, seed=args.seed, **_settings(args.set))
    assert words[0] == "lrd" and again == cell
    assert "--set" not in provenance(Cell.load("tiny", regime="process", rank=4, seed=2))["command"]
    cell = Cell.load("small-bf16", seed=0, master_dtype="float32")
    assert shlex.split(provenance(cell)["command"])[-2:] == ["--set", 'master_dtype="float32"']  # of an axis, always


def test_the_command_of_a_cell_says_where_it_lies(make_cell, tmp_path):
    def command(runs) -> str:
        return provenance(make_cell(), runs)["command"]

    assert command(tmp_path).endswith(f"--seed 0 --runs {tmp_path}")
    assert command("else where").endswith("--seed 0 --runs 'else where'")
    assert command(ROOT / "elsewhere").endswith("--seed 0 --runs elsewhere")
    assert (
        command(None) == command("runs") == command(ROOT / "runs") == "lrd cell test --regime outcome --rank 4 --seed 0"
    )
    run = Run(make_cell(), tmp_path)
    run.begin(step=None, about={})
    run.close()
    assert read_json(run.path / "provenance.json")["command"] == command(tmp_path)


def test_provenance_says_how_to_rerun_and_keeps_no_secret(make_cell, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret")
    monkeypatch.setattr(sys, "argv", ["lrd", "--password=planted_too"])
    about = provenance(make_cell(rank=None))
    assert about["command"] == "lrd cell test --regime outcome --rank full --seed 0"
    assert about["packages"]["torch"].startswith("2.")
    assert "planted" not in json.dumps(about | {"git": None})  # the diff of a tree that changes this very test


def test_of_a_package_that_is_there_twice_the_first_on_the_path_counts(tmp_path, monkeypatch):
    for name, version in (("first", "2.0"), ("second", "1.0")):
        (folder := tmp_path / name / f"twice-{version}.dist-info").mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twice\nVersion: {version}\n")
    monkeypatch.setattr("sys.path", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert _packages() == {"twice": "2.0"}
