"""Real notebooks through papermill, one by one and as a matrix, and the command line's refusals."""

import ast
import contextlib
import dataclasses
import errno
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from fakes import lrd, lrd_here
from jupyter_client.utils import run_sync
from nbclient import NotebookClient

from lrd import ROOT, UserError, matrix, results
from lrd.__main__ import COORDINATES, main
from lrd.cell import Cell, grid
from lrd.matrix import cluster, execute, launch, notebook, parameters
from lrd.names import runs_root
from lrd.runs import status
from lrd.runs.directory import Run, notebook_ended, state
from lrd.runs.files import read_json, write_json
from lrd.runs.kernel import Kernel, sockets
from lrd.train.loop import train


def outputs(path):
    notebook = nbformat.read(path, as_version=4)
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_a_cell_through_the_command_line_leaves_its_executed_notebook(as_options, tmp_path):
    asked = ("cell", "tiny", "--regime", "process", "--rank", 4, "--seed", 0, *as_options, "--runs", tmp_path)
    done = lrd(*asked, LRD_TRACKER="tensorboard")
    assert done.returncode == 0, done.stderr
    assert "process-r4-s0: finished" in done.stdout
    path = tmp_path / "tiny" / "process-r4-s0"
    assert state(path) == "finished"
    shown = outputs(path / "cell.ipynb")
    assert not [o for o in shown if o.output_type == "error"]
    html = "".join(o.data.get("text/html", "") for o in shown if "data" in o)
    assert "max_completion_tokens" in html and "deposit" in html and "background:rgba" in html
    assert any("image/svg+xml" in o.data for o in shown if "data" in o)
    assert not any("image/png" in o.data for o in shown if "data" in o)  # which git could not compress
    assert "trained to step 2" in "".join(o.text for o in shown if o.output_type == "stream")
    assert not [o for o in shown if "widget" in json.dumps(o)]
    assert list((path / "tensorboard").glob("events.out.*"))
    provenance = read_json(path / "provenance.json")
    assert provenance["run"]["engine"] == "torch" and provenance["sessions"][0]["tracker"] == "tensorboard"

    before = (path / "cell.ipynb").read_bytes()
    again = lrd(*asked)
    assert again.returncode == 0 and (path / "cell.ipynb").read_bytes() == before
    day, commit = (read_json(path / "done.json")["finished"][:10], provenance["sessions"][0]["git"])
    said = (
        f"process-r4-s0: finished already on {day} at {(commit or 'an unknown commit')[:12]}, nothing was run: {path}"
    )
    assert again.stdout == said + "\n"
    other = lrd(*asked, "--set", "steps=3")
    assert other.returncode == 2
    assert "finished cell of another configuration: steps = 2 (asked for: 3)" in other.stderr
    assert (path / "cell.ipynb").read_bytes() == before


def papermill(name, out, *words):
    command = [sys.executable, "-m", "papermill", "-k", "python3", f"notebooks/{name}.ipynb", *map(str, [out, *words])]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def test_plain_papermill_does_the_same(settings, tmp_path):
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(json.dumps({"overrides": settings, "runs": str(tmp_path)}))
    out, path = tmp_path / "out.ipynb", tmp_path / "tiny" / "distillation-full-s0"
    done = papermill("cell", out, "-p", "regime", "distillation", "-p", "rank", "full", "-f", overrides)
    assert done.returncode == 0, done.stderr
    assert state(path) == "finished"
    assert not [o for o in outputs(out) if o.output_type == "error"]
    said = "".join(o.text for o in outputs(out) if o.output_type == "stream")
    assert f"this notebook lies elsewhere; the book shows it once it is saved as {path}/cell.ipynb" in said
    assert "evaluated 0 of 4" in said and "\x1b" not in said  # progress of the evaluation at step 0, in plain text


@pytest.mark.parametrize("name", ["cell", "baseline", "rewards"])
def test_what_makes_runs_needs_no_package_of_the_book(name):
    """A GPU host has what a plain install brings: here every import fails that extra `book` alone makes possible."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code" and cell.source[0] != "%"]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    absent = "altair", "vl_convert", "statsmodels", "itables", "jupyter_book", "jupyterlab", "typst"
    block = ["import sys", *(f"sys.modules[{package!r}] = None" for package in absent)]
    code = "\n".join([*block, *map(ast.unparse, imports)])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_a_parameter_that_a_notebook_does_not_have_is_refused(tmp_path):
    done = papermill("cell", tmp_path / "out.ipynb", "-p", "regim", "1", "-p", "runs", tmp_path)
    said = "has no parameter 'regim' (did you mean regime?); it takes preset, regime, rank, seed, overrides, runs"
    assert done.returncode == 1 and f"UserError: the notebook {said}" in done.stderr
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(("name", "given", "meant"), [("baseline", "sample", "samples"), ("rewards", "steps", "step")])
def test_studies_refuse_a_parameter_that_they_do_not_have(monkeypatch, name, given, meant):
    """As in the cell's notebook, the cell after papermill's own asks."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    first, second = [cell.source for cell in cells if cell.cell_type == "code"][:2]
    assert "parameters.check()" in second
    names = {"In": ["", first, f"{given} = 1", second]}
    monkeypatch.setattr(parameters, "get_ipython", lambda: SimpleNamespace(user_ns=names))
    with pytest.raises(UserError, match=rf"has no parameter '{given}' \(did you mean {meant}\?\)"):
        parameters.check()


def test_what_papermill_gives_is_compared_with_the_parameters(monkeypatch):
    """In a shell of our own; by hand there is nothing to compare."""
    parameters.check()
    names = {"In": ["", "preset, steps = 'tiny', 3", "steps = 4", "parameters.check()"]}
    monkeypatch.setattr(parameters, "get_ipython", lambda: SimpleNamespace(user_ns=names))
    parameters.check()
    names["In"][2] = "temperature = 1"
    with pytest.raises(UserError, match="has no parameter 'temperature'; it takes preset, steps"):
        parameters.check()
    names["overrides"] = "steps=3"
    with pytest.raises(UserError, match="overrides is 'steps=3'; it takes settings by name"):
        parameters.check()


def test_a_matrix_runs_what_is_not_finished_lists_what_failed_and_exits_with_1(settings, as_options, tmp_path):
    asked = ["matrix", "tiny", "--regimes", "outcome", "distillation", "--ranks", 1, "--seeds", 0]
    asked += [*as_options, "--runs", tmp_path]
    # A cell that raises in the middle of training: its metrics file is a directory.
    broken = tmp_path / "tiny" / "distillation-r1-s0"
    (broken / "completions.jsonl" / "x").mkdir(parents=True)
    done = lrd(*asked)
    assert done.returncode == 1, done.stderr
    assert "distillation-r1-s0: failed: IsADirectoryError" in done.stderr
    assert state(broken) == "failed"
    # Its traceback stands in the log, in the status, and in the notebook.
    assert done.stderr.count("Traceback (most recent call last)") == 1
    table = lrd("status", "tiny", "--runs", tmp_path)
    assert "distillation-r1-s0:\nTraceback (most recent call last)" in table.stdout
    assert [o.ename for o in outputs(broken / "cell.ipynb") if o.output_type == "error"] == ["IsADirectoryError"]
    other = tmp_path / "tiny" / "outcome-r1-s0"
    assert state(other) == "finished"
    (broken / "completions.jsonl" / "x").rmdir()
    (broken / "completions.jsonl").rmdir()
    stamp = (other / "metrics.jsonl").stat().st_mtime_ns
    done = lrd(*asked)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 cells finished" in done.stdout
    assert stamp == (other / "metrics.jsonl").stat().st_mtime_ns
    assert read_json(other / "provenance.json")["run"]["threads"] == 1

    table = lrd("status", "tiny", "--runs", tmp_path)
    assert table.returncode == 0
    assert "52 absent · 2 finished" in table.stdout
    assert len(table.stdout.splitlines()) == 1 + 54 + 1


def test_a_cell_is_not_gone_on_with_by_other_code_unless_it_is_asked_for(settings, as_options, tmp_path):
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0, **settings | {"eval_every": 1})
    for _ in train(run := Run(cell, tmp_path)):
        break
    run.close()
    record = read_json(run.path / "provenance.json")
    for code in record["code"].values():
        code["files"]["lrd/grpo.py"] = "0" * 12
    write_json(run.path / "provenance.json", record)
    asked = ["--set", "eval_every=1", "--runs", tmp_path]
    one, many = (["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0], ["matrix", "tiny"])
    for words in (one, many):
        done = lrd_here(*words, *as_options, *asked)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "was trained to its checkpoint with other code: lrd/grpo.py changed since" in done.stderr
    done = lrd_here(*one, *as_options, *asked, "--other-code")
    assert done.returncode == 0, done.stderr
    assert [session["from_step"] for session in Run(cell, tmp_path, hold=False).sessions] == [0, 1]
    with_now = Run(cell, tmp_path, hold=False)
    assert with_now.changed == []


@pytest.mark.parametrize(
    ("setting", "tracker", "sentence"),
    [
        ('engine="vllm"', "", "engine 'vllm' needs vLLM, which is not installed"),
        ("seed_=0", "", "unknown setting"),
        ("temperature=0.7", "comet", "LRD_TRACKER is 'comet'; it takes one of tensorboard, wandb, trackio"),
    ],
)
def test_what_would_be_replaced_in_silence_is_refused(
    as_options, tmp_path, setting, tracker, sentence, monkeypatch, capsys
):
    monkeypatch.setenv("LRD_TRACKER", tracker)
    for words in (["cell", "tiny", "--regime", "outcome", "--rank", "1", "--seed", "0"], ["matrix", "tiny"]):
        assert main([*words, *as_options, "--set", setting, "--runs", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*/*/config.json"))


def test_what_a_kernel_warns_of_reaches_the_terminal_and_the_status(as_options, tmp_path):
    """A tracker that gives up: its package is there, and its files cannot be written."""
    path = tmp_path / "tiny" / "outcome-r1-s0"
    path.mkdir(parents=True)
    (path / "tensorboard").write_text("")
    asked = ["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0, *as_options, "--runs", tmp_path]
    done = lrd_here(*asked, LRD_TRACKER="tensorboard")
    assert done.returncode == 0, done.stderr
    assert "UserWarning: tracker 'tensorboard' is given up" in done.stderr
    (row,) = [row for row in status.read_all("tiny", tmp_path)[0] if row.cell == path.name]
    assert [w for w in row.warnings if w.startswith("UserWarning: tracker 'tensorboard' is given up")]
    assert read_json(path / "provenance.json")["sessions"][0]["tracker"].startswith("tensorboard, given up: ")
    table = lrd("status", "tiny", "--runs", tmp_path).stdout
    (line,) = [line for line in table.splitlines() if line.startswith(path.name)]
    assert re.search(rf" {len(row.warnings)}  off the grid: .*; UserWarning: tracker .tensorboard.", line)


@pytest.mark.slow
def test_broken_records_fail_their_own_cells_and_stop_no_other(as_options, tmp_path):
    names = [f"outcome-{arm}-s0" for arm in ("r1", "r4", "r16", "full")]
    asked = ["--regimes", "outcome", "--ranks", 1, 4, 16, "full", "--seeds", 0, *as_options, "--runs", tmp_path]
    broken = dict(zip(names, ("done.json", "config.json", "provenance.json")))
    for name, file in broken.items():
        (tmp_path / "tiny" / name).mkdir(parents=True)
        (tmp_path / "tiny" / name / file).write_text("{cut o")
    done = lrd("matrix", "tiny", *asked)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [state(tmp_path / "tiny" / name) for name in names] == ["failed"] * 3 + ["finished"]
    shown = {line.split()[0]: line for line in lrd("status", "tiny", "--runs", tmp_path).stdout.splitlines()}
    for name, file in broken.items():
        assert f"{name}: failed: {name}/{file} is not readable JSON" in done.stderr
        assert f"{name}/{file} is not readable JSON" in shown[name]
        assert (tmp_path / "tiny" / name / file).read_text() == "{cut o"
        (tmp_path / "tiny" / name / file).unlink()  # as it says
    done = lrd("matrix", "tiny", *asked)
    assert done.returncode == 0 and "1 of 4 cells finished" in done.stdout, done.stderr


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"metadata": 3}', b'{"metadata": {"papermill": 3}}', b"\xff"])
def test_a_notebook_that_is_no_notebook_is_no_page_of_a_finished_cell(tmp_path, content):
    assert notebook_ended(tmp_path)  # none: trained elsewhere
    (tmp_path / "cell.ipynb").write_bytes(content)
    assert not notebook_ended(tmp_path)


def test_a_kernel_that_is_killed_leaves_no_whole_notebook(settings, tmp_path):
    """A finished cell's notebook is executed once more where it is not whole, and papermill writes an end."""
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0, **settings)
    assert execute.run_cell(cell, settings, str(tmp_path)).state == "finished"
    path = tmp_path / "tiny" / cell.name
    assert notebook_ended(path)
    executed = nbformat.read(path / "cell.ipynb", as_version=4)
    codes = [cell for cell in executed.cells if cell.cell_type == "code"]
    codes[-1].update(execution_count=None, outputs=[])  # as papermill saves it when the kernel dies before it
    nbformat.write(executed, path / "cell.ipynb")
    assert state(path) == "finished" and not notebook_ended(path)
    assert execute.run_cell(cell, settings, str(tmp_path)).state == "finished"
    assert notebook_ended(path)
    shown = nbformat.read(path / "cell.ipynb", as_version=4).cells[-1]
    assert shown.outputs and shown.execution_count


@pytest.mark.parametrize(("asked", "gpus"), [(None, 1), (0.5, 0.5), (0, 0), (2, 2)])
def test_ray_is_asked_for_what_the_preset_says_or_the_command_line(tmp_path, monkeypatch, asked, gpus):
    import ray

    seen: dict = {}
    preset = {"resources": {"cpus": 4, "gpus": 1}}
    monkeypatch.setattr(launch, "read_preset", lambda name: preset)
    monkeypatch.setattr(launch, "check", lambda cells, *_: [])
    monkeypatch.setattr(cluster, "_join", lambda address: seen.update(address=address))
    monkeypatch.setattr(cluster, "_start_here", lambda cpus: seen.update(all=cpus))
    monkeypatch.setattr(cluster, "_check_room", lambda name, needs, address: seen.update(needs))
    monkeypatch.setattr(ray, "remote", lambda **options: seen.update(options) or (lambda task: task))
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the first one makes remote functions of Ray's own
    monkeypatch.setattr(launch, "_drive", lambda start, *args: start and ({}, False))
    assert launch.run("tiny", jobs=2, gpus_per_cell=asked, runs=str(tmp_path)) == 0
    assert (seen["num_cpus"], seen["num_gpus"], seen["all"], seen.get("address")) == (4, gpus, 8, None)
    assert seen["gpus"] == gpus and seen["max_retries"] == 0  # the driver retries, once it knows what became of a cell
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    launch.run("tiny", runs=str(tmp_path))
    assert seen["address"] == "head:6379"
    launch.run("tiny", address="other:6379", runs=str(tmp_path))
    assert seen["address"] == "other:6379"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cell", "tini", "--regime", "outcome", "--rank", 1, "--seed", 0], "did you mean tiny"),
        (["cell", "tiny", "--regime", "outcom", "--rank", 1, "--seed", 0], "did you mean outcome"),
        (["cell", "tiny", "--regime", "outcome", "--rank", 0, "--seed", 0], "rank is 0"),
        (["cell", "tiny", "--regime", "outcome", "--rank", -4, "--seed", 0], "rank is -4"),
        (["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0, "--set", "step=3"], "did you mean steps"),
        (["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0, "--set", "steps"], "KEY=VALUE"),
        (["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0, "--set", "regime=process"], "give --regime"),
        (["matrix", "tiny", "--set", "preset=small"], "--set cannot change 'preset'"),
        (["matrix", "tiny", "--jobs", 0], "--jobs is 0"),
        (["matrix", "tiny", "--jobs", -1], "--jobs is -1"),
        (["matrix", "tiny", "--set", "samples_per_prompt=1"], "samples_per_prompt is 1; it has to be at least 2"),
        (["matrix", "tiny", "--ranks", 1, 1], "two cells share a name"),
        (["matrix", "tiny", "--set", "student='./models/tiny/nothing'"], "`lrd testbed tiny` makes the models"),
        (["status", "huge"], "unknown preset 'huge'"),
        (["testbed", "paper"], "no testbed recipe 'paper'"),
    ],
)
def test_input_that_cannot_work_is_one_sentence_and_status_2(words, sentence, tmp_path, capsys):
    runs = [] if words[0] in ("status", "testbed") else ["--runs", tmp_path]
    assert main([str(word) for word in [*words, *runs]]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "prm='./models/tiny/nothing'"], "PRM './models/tiny/nothing' is not a directory"),
        (["--set", "teacher='./models/tiny/nothing'"], "teacher './models/tiny/nothing' is not a directory"),
        (["--set", "eval_problems=5000"], "'chain' has 1024 held-out problems; eval_problems asks for 5000"),
        (["--set", "prompts_per_step=5000"], "'chain' has 4096 problems; a step takes 5000 prompts"),
        (["--set", "train_data='none.jsonl'"], "there is no file 'none.jsonl'"),
        (["--gpus-per-cell", -1], "--gpus-per-cell is -1"),
        (["--gpus-per-cell", 1.5], "--gpus-per-cell is 1.5; it has to be a fraction of one GPU, or whole ones"),
    ],
)
def test_a_matrix_refuses_what_any_of_its_cells_would_before_the_first_starts(
    as_options, words, sentence, tmp_path, capsys
):
    assert main(["matrix", "tiny", *as_options, *map(str, words), "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_does_not_answer_is_one_sentence(as_options, tmp_path):
    done = lrd_here("matrix", "tiny", *as_options, "--runs", tmp_path, RAY_ADDRESS="127.0.0.1:9")
    assert done.returncode == 2
    assert "no Ray cluster answers at '127.0.0.1:9' (ConnectionRefusedError" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_only_the_notebook_refuses_is_left_as_the_reason_for_status(settings, tmp_path, monkeypatch):
    def refuses(*args):
        raise UserError("outgrown")

    monkeypatch.setattr(notebook, "execute", refuses)
    cell = Cell.load("tiny", regime="distillation", rank=1, seed=0, **settings)
    with pytest.raises(UserError, match="outgrown"):
        execute.run_cell(cell, settings, str(tmp_path))
    assert state(tmp_path / "tiny" / cell.name) == "failed"
    row = next(r for r in status.table("tiny", str(tmp_path)).splitlines() if r.startswith("distillation-r1-s0"))
    assert "failed" in row and "outgrown" in row


@pytest.mark.parametrize(
    ("regime", "words", "sentence"),
    [
        ("distillation", ["teacher='./models/tiny/nothing'"], "teacher './models/tiny/nothing' is not a directory"),
        ("process", ["prm='../nothing'"], f"(tried {ROOT.parent}/nothing; paths count from {ROOT})"),
        ("outcome", ["train_data='none.jsonl'"], f"there is no file 'none.jsonl' (tried {ROOT}/none.jsonl; paths"),
        ("outcome", ["eval_data='./none'"], f"'./none': there is no such directory (tried {ROOT}/none; paths"),
        ("outcome", ["eval_problems=5000"], "'chain' has 1024 held-out problems"),
        ("outcome", ["lora_targets=['q']"], "lora_targets names q, which student"),
        ("outcome", ["lora_layers=[7]"], "lora_layers names 7, which student"),
        ("outcome", ["steps=" + "1" * 5000], "steps is '111"),
        ("outcome", ["steps=1\nseed=4"], "it has to be a whole number"),
        ("outcome", ["engine=[" + "[" * 5000], "unknown engine '[[["),
    ],
)
def test_a_cell_is_refused_before_a_kernel_starts(as_options, regime, words, sentence, tmp_path, monkeypatch, capsys):
    def starts(*args, **kwargs):
        raise AssertionError("a kernel")

    monkeypatch.setattr(notebook, "execute", starts)
    options = [word for each in words for word in ("--set", each)]
    asked = ["cell", "tiny", "--regime", regime, "--rank", "1", "--seed", "0", *as_options, *options]
    assert main([*asked, "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.startswith("lrd: ") and said.err.count("\n") == 1 and said.out == ""
    assert not (tmp_path / "runs").exists()


ONE = ["cell", "tiny", "--regime", "outcome", "--rank", "1", "--seed", "0"]
ALL = [[name, "tiny"] for name in ("matrix", "baseline", "rewards")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give a command: testbed, cell, matrix, status"),
        (["cel", "tiny"], "invalid choice: 'cel' (choose from"),
        (["cell"], "required: preset; `lrd cell --help`"),
        (["cell", "tiny", "--seed", "1.5"], "--seed: invalid int value: '1.5'"),
        (["cell", "tiny", "--sede", "1"], "unrecognized arguments: --sede"),
        (["matrix", "tiny", "--gpus-per-cell", "half"], "--gpus-per-cell: invalid float value: 'half'"),
        (["status", "tiny", "--runs", "no-such-runs"], f"(tried {ROOT}/no-such-runs; paths count from {ROOT})"),
        (["sync", "./no-such-runs"], "/no-such-runs, counted from here)"),
        (["status", "tiny", "--runs", ""], "--runs: it is empty"),
        ([*ONE, "--set", "temperature=-.5e1"], "temperature is -5.0; it has to be positive"),  # no TOML
        *(([*words, "--runs", __file__], f"{__file__} is no directory; give a") for words in (ONE, *ALL)),
    ],
)
def test_the_command_line_refuses_in_one_sentence(words, sentence, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("lrd: ") and said.count("\n") == 1


@pytest.mark.parametrize(("name", "role"), [("baseline", "teacher"), ("rewards", "prm")])
def test_a_study_refuses_a_model_that_is_not_there(name, role, tmp_path, capsys):
    """In a directory of its own: the clone may hold the same study already, of other settings."""
    assert main([name, "tiny", "--set", f"{role}='./none'", "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "is not a directory with a Hugging Face checkpoint" in said
    assert said.startswith("lrd: ") and said.count("\n") == 1


def test_a_refusal_that_needs_no_torch_does_not_wait_for_it():
    """Nor does the matrix's for Ray: what only starts cells is loaded where they start."""
    asked = [[*ONE, "--runs", __file__], [*ALL[0], "--runs", __file__], [*ONE, "--set", "train_data=none.jsonl"]]
    code = f"import sys; from lrd.__main__ import main; print([main(words) for words in {asked}], *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("[2, 2, 2] ") and not {"torch", "transformers", "ray"} & set(done.stdout.split())


def test_who_reads_what_a_kernel_says_may_leave(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with contextlib.suppress(BrokenPipeError), open(write, "w", buffering=1, encoding="utf-8") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        for _ in range(3):
            notebook._Stdout().write("step\n")
            notebook._Stdout().flush()
        monkeypatch.undo()


def test_a_disk_that_fails_is_one_sentence(monkeypatch, capsys):
    def fails(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/published/tiny.json")

    monkeypatch.setattr("lrd.report.publish.write", fails)
    assert main(["publish", "tiny"]) == 1
    assert capsys.readouterr().err == "lrd: [Errno 28] No space left on device: 'runs/published/tiny.json'\n"


def test_version_and_help(capsys):
    for words, texts in ((["--version"], ["lrd 0."]), (["cell", "--help"], ["whole number; default 100", "--seed"])):
        with pytest.raises(SystemExit) as left:
            main(words)
        said = capsys.readouterr().out
        assert left.value.code == 0 and all(text in said for text in texts)
    assert all(f"\n  {field.name} " in said for field in dataclasses.fields(Cell) if field.name not in COORDINATES)


OWN = """
def load(cell, tokenizer, device):
    return lambda batch, logps: {}[len(batch.texts)]
"""


def test_a_reward_of_ones_own_that_raises_shows_where(as_options, tmp_path):
    """In a clone of its own, since a reward is a file of the library."""
    shutil.copytree(ROOT / "lrd", tmp_path / "lrd", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("notebooks", "book"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "lrd" / "rewards" / "outcome.py").write_text(OWN)

    def run(command, *words):
        full = [sys.executable, "-m", "lrd", command, "tiny", *words, *as_options]
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(full, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=240)

    done = run("cell", "--regime", "outcome", "--rank", "1", "--seed", "0")
    assert done.returncode == 1 and "outcome-r1-s0: runs/tiny/outcome-r1-s0" in done.stdout
    assert done.stdout.endswith("outcome-r1-s0: failed (KeyError: 16); see runs/tiny/outcome-r1-s0/cell.ipynb\n")
    assert f'{tmp_path}/lrd/rewards/outcome.py", line 3' in done.stderr
    done = run("rewards")
    assert done.returncode == 1 and "outcome.py:3, in load" in done.stderr and "\x1b" not in done.stderr
    assert done.stderr.splitlines()[-1] == "lrd: rewards failed: KeyError: 16; see runs/tiny/rewards/rewards.ipynb"
    (tmp_path / "lrd" / "rewards" / "outcome.py").write_text("import nothing_of_that_name")
    done = run("cell", "--regime", "outcome", "--rank", "1", "--seed", "0", "--runs", "other")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "other").exists()
    assert "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_that_name', at line 1" in done.stderr


def test_a_missing_model_stops_the_cell_before_training(tmp_path):
    words = ["cell", "tiny", "--regime", "outcome", "--rank", 1, "--seed", 0, "--runs", tmp_path]
    done = lrd_here(*words, "--set", 'student="./models/nowhere/student"')
    assert done.returncode == 2
    assert "student './models/nowhere/student' is not a directory with a Hugging Face checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_matrix_that_no_machine_here_can_run_says_so(as_options, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = lrd("matrix", "tiny", *as_options, "--gpus-per-cell", 0.5, "--runs", tmp_path)
    assert done.returncode == 2
    assert "a cell of preset 'tiny' takes 0.5 GPU and 1 CPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_kernel_is_an_outcome(settings, tmp_path, monkeypatch):
    import papermill
    from nbclient.exceptions import DeadKernelError

    def dies(*args, **kwargs):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", dies)
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0, **settings)
    assert execute.run_cell(cell, settings, str(tmp_path))[:2] == ("absent", "its kernel died")


def test_a_notebook_gets_its_place_on_every_axis(tmp_path, monkeypatch):
    import papermill

    seen = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda *args, **kwargs: seen.append(args))
    monkeypatch.setattr(execute.hub, "fetch_inputs", lambda cell: None)  # its models are made on a GPU
    place = {"regime": "outcome", "rank": "full", "seed": 100, "learning_rate": 1e-5, "training": "2"}
    cell = Cell.load("fair-lr", steps=7, **place)
    execute.run_cell(cell, {"steps": 7}, str(tmp_path))
    [(_, output, parameters)] = seen
    name = "outcome-full-learning_rate=1e-05-training=2-s100"
    assert Path(output) == tmp_path / "fair-lr" / name / "cell.ipynb"
    given = {key: parameters[key] for key in ("regime", "rank", "seed")} | parameters["overrides"]
    assert Cell.load(parameters["preset"], **given) == cell
    shown = status.table("fair-lr", str(tmp_path)).splitlines()
    assert shown[0] == "question: Which learning rate does each arm get under each reward?"
    assert [line.split()[:2] for line in shown if line.startswith(cell.name)] == [[cell.name, "absent"]]


def test_the_matrix_is_the_grid_of_its_preset():
    assert matrix.cells("tiny") == grid("tiny")
    assert len(matrix.cells("tiny")) == 54
    assert not hasattr(launch, "ray") and not hasattr(cluster, "ray")  # the seam: Ray is loaded only where cells run


def test_a_kernels_sockets_fit_however_long_the_path_for_temporary_files_is(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))  # as TMPDIR on some clusters
    with sockets() as ip, socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{ip}-1")
    assert not Path(ip).parent.exists()
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/..")
    with sockets() as ip:
        assert ip.startswith("/tmp/../lrd-")


def test_relative_runs_count_from_the_clone():
    assert runs_root("elsewhere") == ROOT / "elsewhere"
    assert runs_root() == ROOT / "runs"


@pytest.mark.parametrize(("temporary", "folder"), [("/tmp/" + "x" * 55, "/tmp/ray"), ("/tmp", None)])
def test_rays_sockets_fit_however_long_the_path_for_temporary_files_is(temporary, folder, monkeypatch):
    import ray

    seen: dict = {}
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(ray, "init", lambda *args, **options: seen.update(options))
    cluster._start_here(1)
    assert seen.get("_temp_dir") == folder


def test_an_address_where_something_else_listens_is_refused_at_once(monkeypatch, capfd):
    import ray

    def noisy(*args, **options):
        os.write(2, b"gcs_client.cc:210: seven raw lines\n")
        raise ConnectionError("no token")

    monkeypatch.setattr(ray, "init", noisy)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(UserError, match="no Ray cluster answers at .*what listens there is not Ray"):
            cluster._join(f"127.0.0.1:{server.server_port}")
    with pytest.raises(UserError, match="no Ray cluster answers at 'auto' .*no token"):
        cluster._join("auto")
    assert "raw lines" not in capfd.readouterr().err
    monkeypatch.setattr(ray, "init", lambda *args, **options: os.write(2, b"a warning\n"))
    cluster._join("auto")
    assert "a warning" in capfd.readouterr().err  # where all goes well nothing is held back


def test_a_kernel_is_not_interrupted_when_it_is_shut_down(monkeypatch):
    """It may be at the end of its last request, and would report the SIGINT as a Ctrl-C."""
    sent = []

    async def signal_kernel(self, number):
        sent.append(number)
        await real(self, number)

    real = Kernel._async_signal_kernel
    monkeypatch.setattr(Kernel, "_async_signal_kernel", signal_kernel)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    with sockets() as ip:
        kernel = Kernel(transport="ipc", ip=ip)
        NotebookClient(notebook, km=kernel).execute(cleanup_kc=True)
        assert not kernel.has_kernel or run_sync(kernel.shutdown_kernel)() is None
    assert notebook.cells[0].execution_count == 1 and sent == []


def test_a_preset_is_studied_once_and_leaves_its_notebook(as_options, tmp_path):
    for name in ("baseline", "rewards"):
        done = lrd_here(name, "tiny", *as_options, "--runs", tmp_path)
        assert done.returncode == 0, done.stderr
        path = tmp_path / "tiny" / name / f"{name}.ipynb"
        assert not [o for o in outputs(path) if o.output_type == "error"]
        stamp, record = path.stat().st_mtime_ns, path.with_name("done.json")
        again = lrd_here(name, "tiny", *as_options, "--runs", tmp_path)
        assert again.returncode == 0 and again.stdout == f"{path}\n"
        about = read_json(record)
        said = f"{name}: finished already on {about['finished'][:10]} at {str(about['git'])[:12]}, nothing was run: "
        assert again.stderr == f"{said}{path.parent}\n".replace("None", "an unknown commit")
        other = lrd_here(name, "tiny", *as_options, "--set", "temperature=1.0", "--runs", tmp_path)
        assert other.returncode == 2 and "was made with the settings" in other.stderr
        record.write_text(json.dumps(about | {"code": about["code"] | {"lrd/grpo.py": "0" * 12}}))
        again = lrd_here(name, "tiny", *as_options, "--runs", tmp_path)
        assert "(lrd/grpo.py changed since); move it away to run it again" in again.stderr
        record.write_text(json.dumps({"notebook": f"notebooks/{name}.ipynb"}))  # from before code was recorded
        again = lrd_here(name, "tiny", *as_options, "--runs", tmp_path)
        assert "on an unknown day at an unknown commit, nothing was run" in again.stderr
        assert path.stat().st_mtime_ns == stamp
    frame = results.baseline("tiny", tmp_path)
    assert frame.groupby(["model", "sample"]).size().unique().tolist() == [4]
    assert set(frame["sample"]) == {"greedy", *map(str, range(8))}
    html = "".join(o.data.get("text/html", "") for o in outputs(path) if "data" in o)
    assert "deposits_per_episode" in html and "background:rgba" in html
    refused = lrd_here("rewards", "tiny", "--set", 'student="./models/tiny/nothing"', "--runs", tmp_path / "other")
    assert refused.returncode == 2 and "lrd testbed tiny" in refused.stderr
