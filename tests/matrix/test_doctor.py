"""The smoke test of a host: each finding where the host is sound, and where it is not what to do."""

import functools
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from lrd import ROOT, UserError, presets
from lrd.__main__ import main
from lrd.cell import Cell
from lrd.data import hub
from lrd.matrix import doctor, execute
from lrd.matrix.doctor import Finding
from lrd.matrix.execute import Outcome


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """`preset(gpus, **cell)`: the name of a preset of a few settings, beside those there are."""

    def make(gpus: int = 0, **cell: str) -> str:
        folder = tmp_path / "presets"
        shutil.copytree(ROOT / "lrd" / "presets", folder)
        text = (folder / "tiny.toml").read_text().replace("gpus = 0", f"gpus = {gpus}")
        for key, value in cell.items():
            line = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
            text = text.replace(line, f'{key} = "{value}"')
        (folder / "mine.toml").write_text(text)
        monkeypatch.setattr(presets, "FOLDER", folder)
        return "mine"

    return make


def test_packages_that_do_not_fit_together_are_named(tmp_path, monkeypatch):
    assert doctor.versions().ok
    about = tmp_path / "mine-1.0.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\nRequires-Dist: peft>=99\nRequires-Dist: no-such")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = doctor.versions()
    assert not found.ok and "mine 1.0 has requirement peft>=99, but you have peft" in found.said
    assert "mine 1.0 requires no-such, which is not installed." in found.said


def test_a_host_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "gpus", lambda: [])
    assert doctor.gpu(0, "tiny") == Finding(True, "gpu", "none, and preset 'tiny' needs none")
    assert doctor.gpu(1, "paper") == Finding(
        False, "gpu", "0 here, and a cell of preset 'paper' takes 1; run it on a host that has them"
    )
    monkeypatch.setattr(doctor, "gpus", lambda: ["NVIDIA H200, 143771 MiB, 570.86"])
    found = doctor.gpu(1, "paper")
    assert not found.ok and "does not see NVIDIA H200" in found.said and "install a CUDA build" in found.said


def test_a_host_with_a_gpu_names_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor, "gpus", lambda: ["NVIDIA H200, 143771 MiB, 570.86"])
    found = doctor.gpu(1, "paper")
    assert found.ok and found.said.startswith("NVIDIA H200, 143771 MiB, 570.86; CUDA ")
    assert not doctor.gpu(2, "paper").ok


def test_a_torch_that_cannot_be_used_is_a_finding(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: (_ for _ in ()).throw(RuntimeError("no kernel image")))
    assert not doctor.gpu(0, "tiny").ok and "no kernel image" in doctor.gpu(0, "tiny").said
    monkeypatch.setitem(sys.modules, "torch", None)
    found = doctor.gpu(0, "tiny")
    assert not found.ok and found.said.startswith("torch cannot be used: ")


def test_disks_that_will_do_and_others(tmp_path, monkeypatch):
    new = tmp_path / "new" / "runs"
    monkeypatch.setattr(doctor, "ROOM", 0.0)
    assert doctor.disk(str(new)).ok and not new.exists()
    monkeypatch.setattr(doctor, "ROOM", 1e9)
    assert "make room, or give another directory with --runs" in doctor.disk(str(tmp_path)).said
    (tmp_path / "file").write_text("")
    found = doctor.disk(str(tmp_path / "file" / "runs"))
    assert not found.ok and "file is no directory" in found.said


PROBE = "from lrd.matrix import doctor; print(*doctor.reach()[::2], sep='|')"


def test_the_hub_answers_or_does_not_or_is_not_asked(tmp_path):
    def said(**environment) -> tuple[bool, str]:
        code = [sys.executable, "-c", PROBE]
        done = subprocess.run(code, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        ok, text = done.stdout.strip().split("|")
        return ok == "True", text

    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ok, text = said(HF_ENDPOINT=endpoint)
        server.shutdown()
        assert ok and text == f"{endpoint} answers"
    ok, text = said(HF_ENDPOINT=endpoint)  # gone now
    assert not ok and "does not answer (URLError" in text and "mend the network" in text
    ok, text = said(HF_HUB_OFFLINE="1")
    assert not ok and "HF_HUB_OFFLINE is set" in text


def test_what_lies_here_and_what_does_not(checkpoint, tmp_path):
    assert doctor.source("train_data", "chain", False) == Finding(True, "train data", "chain is here")
    assert doctor.source("student", checkpoint("qwen3"), False).ok
    found = doctor.source("prm", "./models/tiny/nothing", False)
    assert not found.ok and "`lrd testbed tiny` makes the models" in found.said
    assert "there is no file" in doctor.source("eval_data", "none.jsonl", False).said
    (tmp_path / "config.json").write_text("{}")
    assert "has no weights (*.safetensors)" in doctor.source("teacher", str(tmp_path), False).said


def test_what_the_cache_holds(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    monkeypatch.setattr(hub, "cached_folder", lambda name, role: tmp_path if name == "a/model" else None)
    assert doctor.source("student", "a/model", False) == Finding(True, "student", "a/model is cached")
    assert doctor.source("prm", "b/model", True) == Finding(
        True, "prm", "b/model is not cached, and is fetched when it is first used"
    )
    assert doctor.source("eval_data", "c/d", False) == Finding(
        False, "eval data", "c/d is not cached, and cannot be fetched: see hub"
    )


def test_nothing_is_tried_for_want_of_what_it_takes(preset, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "gpus", lambda: [])
    monkeypatch.setattr(doctor, "versions", lambda: Finding(True, "versions", "as pinned"))
    monkeypatch.setattr(doctor, "disk", lambda runs: Finding(True, "disk", "room"))
    monkeypatch.setattr(doctor, "reach", lambda: Finding(False, "hub", "silent"))
    name = preset(gpus=1, student="some/model", teacher="./models/nowhere/teacher")
    assert main(["doctor", name]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["DO", "ok", "DO"]
    assert any(line.startswith("DO  student     some/model is not cached, and cannot be fetched") for line in lines)
    assert any("not tried for want of gpu, " in line for line in lines)
    assert lines[-1].endswith("to do before preset 'mine' can run here")


def test_all_is_well_if_all_that_is_of_the_hub_is_cached(preset, checkpoint, monkeypatch):
    monkeypatch.setattr(hub, "cached_folder", lambda name, role: Path(checkpoint("qwen3")))
    monkeypatch.setattr(doctor, "reach", lambda: Finding(False, "hub", "HF_HUB_OFFLINE is set"))
    monkeypatch.setattr(doctor, "versions", lambda: Finding(True, "versions", "as pinned"))
    monkeypatch.setattr(doctor, "disk", lambda runs: Finding(True, "disk", "room"))
    monkeypatch.setattr(doctor, "trial", lambda cell: Finding(True, "cell", cell.name))
    models = {role: f"some/{role}" for role in ("student", "teacher", "prm")}
    found = list(doctor.examine(preset(**models)))
    assert all(finding.ok for finding in found), found
    assert Finding(True, "hub", "not needed, all is cached; HF_HUB_OFFLINE is set") in found
    assert found[-1] == Finding(True, "cell", "outcome-r1-s0")


def test_an_unknown_preset_is_one_sentence(capsys):
    assert main(["doctor", "tini"]) == 2
    assert "did you mean tiny" in capsys.readouterr().err


def test_a_cell_that_fails_or_is_refused_is_a_finding(monkeypatch):
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0)
    monkeypatch.setattr(execute, "run_cell", lambda *a: Outcome("failed", "OutOfMemoryError: of all things"))
    assert doctor.trial(cell) == Finding(False, "cell", "outcome-r1-s0 failed: OutOfMemoryError: of all things")

    def refuses(*args):
        raise UserError("cannot be")

    monkeypatch.setattr(execute, "run_cell", refuses)
    assert doctor.trial(cell) == Finding(False, "cell", "cannot be")


@pytest.mark.slow
def test_a_sound_host_without_a_gpu_is_all_ok(preset, checkpoint, monkeypatch, capsys, tmp_path):
    """The whole command, with a real cell through its notebook."""
    models = {"student": checkpoint("qwen3"), "teacher": checkpoint("qwen3", 1), "prm": checkpoint("qwen3", 2)}
    real = execute.run_cell
    # The kernel has presets of its own: it is told the models of this one.
    monkeypatch.setattr(
        execute,
        "run_cell",
        lambda cell, short, runs: real(Cell.load("tiny", **_at(cell), **short | models), short | models, runs),
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "gpus", lambda: [])
    monkeypatch.setattr(doctor, "disk", lambda runs: Finding(True, "disk", "room"))
    name = preset(**models)
    monkeypatch.setattr(doctor, "read_jsonl", lambda path: [{"step_time": 0.5}] * 3)
    assert main(["doctor", name, "--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-2].startswith("ok  cell        3 steps of outcome-r1-s0: 0.50 s a step")
    assert lines[-1] == "preset 'mine' can run here"


def _at(cell: Cell) -> dict:
    return {"regime": cell.regime, "rank": cell.rank, "seed": cell.seed}
