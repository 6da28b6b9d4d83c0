"""The smoke test of a host: what a preset's cells need, and whether it is here; each finding is ok or says what to do.

Torch is imported only where it is looked at: a broken installation is a finding, too.
"""

import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from lrd import ROOT, UserError
from lrd.cell import Cell, grid
from lrd.data import hub
from lrd.data.hub import location
from lrd.names import on_hub
from lrd.presets import read_preset
from lrd.runs.directory import describe
from lrd.runs.files import read_jsonl, runs_root
from lrd.runs.provenance import gpus

ROLES = {"student": "student", "teacher": "teacher", "prm": "prm", "train_data": "data set", "eval_data": "data set"}
ROOM = 2.0  # GiB; a cell of a small model leaves some MB, one of a large model its checkpoint
SLOW = 20.0  # MB/s; a checkpoint is written every few steps
WRITTEN = 64  # MiB that the speed is measured with
SIDE = 8192  # of the square matrices that the rate is measured with
STEPS = 3


class Finding(NamedTuple):
    """One line of the report."""

    ok: bool
    what: str
    said: str  # what was found, or what to do


def examine(preset: str, runs: str | None = None) -> Iterator[Finding]:
    """The findings, one after the other as they are made. Raises `UserError` for an unknown preset only."""
    cells, needs = grid(preset), {"gpus": 0} | read_preset(preset).get("resources", {})
    missing = []
    yield versions()
    for finding in (gpu(needs["gpus"], preset), disk(runs_root(runs))):
        yield finding
        missing += [] if finding.ok else [finding.what]
    sources = sorted({(role, getattr(cell, role)) for cell in cells for role in ROLES})
    remote = [(role, name) for role, name in sources if on_hub(name)]
    answers = True
    if remote:
        online = reach()
        answers, cached = online.ok, all(hub.cached_folder(name, ROLES[role]) for role, name in remote)
        yield Finding(True, "hub", f"not needed, all is cached; {online.said}") if cached else online
    for finding in (source(role, name, answers) for role, name in sources):
        yield finding
        missing += [] if finding.ok else [finding.what]
    yield Finding(False, "cell", f"not tried for want of {', '.join(missing)}") if missing else trial(cells[0])


def versions() -> Finding:
    """Whether the installed packages fit together (`pip check`), and are those pinned in constraints.txt."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, encoding="utf-8")
    wrong = (done.stdout or done.stderr).splitlines() if done.returncode else []
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    here = {name: version for name in pins if (version := _version(name))}
    off = [f"{name} is {version} (pinned: {pins[name]})" for name, version in here.items() if version != pins[name]]
    python, vllm = platform.python_version(), _version("vllm")
    if vllm and off and not wrong:
        return Finding(True, "versions", f"Python {python}; vLLM {vllm} brings its own: {'; '.join(off)}")
    if wrong or off:
        mend = "`make` brings .venv up to date; elsewhere, pip install -c constraints.txt -e ."
        return Finding(False, "versions", f"{'; '.join(wrong + off)}. {mend}")
    return Finding(True, "versions", f"Python {python}; {len(here)} packages, all as pinned in constraints.txt")


def _version(package: str) -> str:
    """The installed version less a build's label, such as `+cpu`; empty where there is none."""
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def gpu(needed: float, preset: str) -> Finding:
    """Name, memory, driver and measured bf16 rate of each GPU, and whether there are as many as a cell takes."""
    try:
        import torch

        here = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        rates = [f"{bf16_rate(device):.0f} Tflop/s in bf16" for device in here]
    except Exception as error:  # whatever a broken installation or driver raises
        return Finding(False, "gpu", f"torch cannot be used: {describe(error)}. Install it as pytorch.org says")
    names = gpus()
    if not here and names:
        said = f"torch {torch.__version__} does not see {names[0]}; install a CUDA build that its driver takes"
        return Finding(needed == 0, "gpu", said)
    if len(here) < needed:
        said = f"{len(here)} here, and a cell of preset {preset!r} takes {needed:g}; run it on a host that has them"
        return Finding(False, "gpu", said)
    if not here:
        return Finding(True, "gpu", f"none, and preset {preset!r} needs none")
    names = names if len(names) == len(here) else [torch.cuda.get_device_name(device) for device in here]
    shown = "; ".join(f"{name}, {rate}" for name, rate in zip(names, rates))
    return Finding(True, "gpu", f"{shown}; CUDA {torch.version.cuda}")


def bf16_rate(device) -> float:
    """Tflop/s of large bf16 products, the fastest of a few."""
    import torch

    a = torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(8):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        torch.mm(a, a)
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(seconds) / 1e12


def disk(root: Path) -> Finding:
    """Room and write speed where runs will lie."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free / 2**30
        with tempfile.TemporaryFile(dir=root) as file:
            block, start = os.urandom(2**20), time.perf_counter()
            for _ in range(WRITTEN):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = WRITTEN * 2**20 / 1e6 / (time.perf_counter() - start)
    except OSError as error:
        said = f"{root} cannot be written ({describe(error)}); make room, or give another directory with --runs"
        return Finding(False, "disk", said)
    said = f"{free:.1f} GiB free, {speed:.0f} MB/s in {root}"
    if free < ROOM or speed < SLOW:
        least = f"{ROOM:g} GiB and {SLOW:g} MB/s are the least"
        return Finding(False, "disk", f"{said}; {least}: make room, or give another directory with --runs")
    return Finding(True, "disk", said)


def reach() -> Finding:
    """Whether the Hub answers, within a few seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding(
            False, "hub", "HF_HUB_OFFLINE is set, so only what is cached can be had; unset it, or fill the cache"
        )
    start = time.perf_counter()
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=hub.REACH).close()
    except urllib.error.HTTPError:
        pass  # an answer is an answer
    except (OSError, ValueError) as error:
        said = (
            f"{constants.ENDPOINT} does not answer ({describe(error)}); mend the network, or fill the cache elsewhere"
        )
        return Finding(False, "hub", said)
    return Finding(True, "hub", f"{constants.ENDPOINT} answers in {time.perf_counter() - start:.1f} s")


def source(role: str, name: str, answers: bool) -> Finding:
    """Whether a model or a data set of the preset is here, or can be fetched from a Hub that answers."""
    from lrd.data import problems

    what = role.replace("_", " ")
    if on_hub(name):
        if there := hub.cached_folder(name, ROLES[role]):
            size = sum(path.stat().st_size for path in there.rglob("*") if path.is_file()) / 2**30
            return Finding(True, what, f"{name} is cached ({size:.2f} GiB)")
        how = "is fetched when it is first used" if answers else "cannot be fetched: see hub"
        return Finding(answers, what, f"{name} is not cached, and {how}")
    try:
        if role == "train_data":
            problems.train_pool(name)
        elif role == "eval_data":
            problems.held_out(name, 1)
        elif not any(Path(location(name, role)).glob("*.safetensors")):
            raise UserError(f"{role} {name!r} has no weights (*.safetensors)")
    except UserError as error:
        return Finding(False, what, str(error))
    return Finding(True, what, f"{name} is here")


def trial(cell: Cell) -> Finding:
    """A few steps of a cell, through its notebook, in a directory that goes afterwards."""
    from lrd.matrix import execute

    short = {"steps": STEPS, "eval_every": STEPS, "eval_problems": min(4, cell.eval_problems)}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as runs:
        try:
            outcome = execute.run_cell(dataclasses.replace(cell, **short), short, runs)
        except UserError as error:
            return Finding(False, "cell", str(error))
        metrics = read_jsonl(Path(runs) / cell.preset / cell.name / "metrics.jsonl")
    if outcome.state != "finished":
        return Finding(False, "cell", f"{cell.name} {outcome.state}: {outcome.reason}")
    pace, took = statistics.median(row["step_time"] for row in metrics), time.perf_counter() - start
    return Finding(True, "cell", f"{STEPS} steps of {cell.name}: {pace:.2f} s a step, {took:.0f} s in all")
