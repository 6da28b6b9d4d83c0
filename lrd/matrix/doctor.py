"""The smoke test of a host: whether what a preset's cells need is here; a finding is ok or says what to do.

Torch is imported only where it is looked at: a broken installation is a finding, too.
"""

import dataclasses
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
from pathlib import Path
from typing import NamedTuple

from lrd import UserError
from lrd.cell import Cell, grid
from lrd.data import hub
from lrd.names import on_hub, runs_root
from lrd.presets import read_preset
from lrd.runs.directory import check_root, describe
from lrd.runs.files import read_jsonl
from lrd.runs.provenance import gpus
from lrd.sources import parts

ROLES = {"student": "student", "teacher": "teacher", "prm": "prm", "train_data": "data set", "eval_data": "data set"}
ROOM = 2.0  # GiB; a cell of a small model leaves some MB, one of a large model its checkpoint
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
    for finding in (gpu(needs["gpus"], preset), disk(runs)):
        yield finding
        missing += [] if finding.ok else [finding.what]
    sources = sorted({(role, part.text) for cell in cells for role in ROLES for part in parts(getattr(cell, role))})
    remote = [(role, part.path) for role, name in sources for part in parts(name) if on_hub(part.path)]
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
    """Whether the installed packages fit together, as `pip check` says."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, encoding="utf-8")
    if done.returncode:
        wrong = "; ".join((done.stdout or done.stderr).splitlines())
        mend = "`make` brings .venv up to date; elsewhere, pip install -c constraints.txt -e ."
        return Finding(False, "versions", f"{wrong}. {mend}")
    return Finding(True, "versions", f"Python {platform.python_version()}; all packages fit together")


def gpu(needed: float, preset: str) -> Finding:
    """Name, memory and driver of each GPU, and whether torch sees as many as a cell takes."""
    try:
        import torch

        seen = torch.cuda.device_count()
    except Exception as error:  # whatever a broken installation or driver raises
        return Finding(False, "gpu", f"torch cannot be used: {describe(error)}. Install it as pytorch.org says")
    names = gpus()
    if names and not seen:
        said = f"torch {torch.__version__} does not see {names[0]}; install a CUDA build that its driver takes"
        return Finding(needed == 0, "gpu", said)
    if seen < needed:
        said = f"{seen} here, and a cell of preset {preset!r} takes {needed:g}; run it on a host that has them"
        return Finding(False, "gpu", said)
    if not seen:
        return Finding(True, "gpu", f"none, and preset {preset!r} needs none")
    return Finding(True, "gpu", f"{'; '.join(names) or f'{seen} here'}; CUDA {torch.version.cuda}")


def disk(runs: str | None) -> Finding:
    """Whether there is room where runs will lie, and they can be written."""
    try:
        check_root(runs)
    except UserError as error:
        return Finding(False, "disk", str(error))
    root = runs_root(runs)
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free / 2**30
    if free < ROOM:
        mend = f"{ROOM:g} GiB is the least: make room, or give another directory with --runs"
        return Finding(False, "disk", f"{free:.1f} GiB free in {root}; {mend}")
    return Finding(True, "disk", f"{free:.1f} GiB free in {root}")


def reach() -> Finding:
    """Whether the Hub answers, within a few seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        said = "HF_HUB_OFFLINE is set, so only what is cached can be had; unset it, or fill the cache"
        return Finding(False, "hub", said)
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=hub.REACH).close()
    except urllib.error.HTTPError:
        pass  # an answer is an answer
    except (OSError, ValueError) as error:
        mend = "mend the network, or fill the cache elsewhere"
        return Finding(False, "hub", f"{constants.ENDPOINT} does not answer ({describe(error)}); {mend}")
    return Finding(True, "hub", f"{constants.ENDPOINT} answers")


def source(role: str, name: str, answers: bool) -> Finding:
    """Whether a model or a data set of the preset is here, or can be fetched from a Hub that answers."""
    from lrd.data import problems

    what, [part] = role.replace("_", " "), parts(name)
    if on_hub(part.path):
        if hub.cached_folder(part.path, ROLES[role]):
            return Finding(True, what, f"{part.path} is cached")
        how = "is fetched when it is first used" if answers else "cannot be fetched: see hub"
        return Finding(answers, what, f"{part.path} is not cached, and {how}")
    try:
        if role == "train_data":
            problems.train_pool(name)
        elif role == "eval_data":
            problems.held_out(name, 1)
        elif not any(Path(hub.location(name, role)).glob("*.safetensors")):
            raise UserError(f"{role} {name!r} has no weights (*.safetensors)")
    except UserError as error:
        return Finding(False, what, str(error))
    return Finding(True, what, f"{part.path} is here")


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
