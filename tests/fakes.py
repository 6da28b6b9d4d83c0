"""What several tests share: runs written by hand, a notebook that was executed, deposits, the command line."""

import contextlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from lrd import ROOT, results
from lrd.__main__ import main
from lrd.analysis import headline, sweep
from lrd.analysis.codebooks import Measured
from lrd.cell import Cell, grid
from lrd.report import style
from lrd.rewards import Deposits
from lrd.rollouts import Completion
from lrd.runs.sources import CALLED_FROM
from lrd.sampling.torch import TorchSampler

NOTEBOOK: dict[str, Any] = {
    "cells": [
        {
            "cell_type": "markdown",
            "id": "cell-00",
            "metadata": {},
            "source": "# One cell of the matrix\n\nA regime, an arm and a seed.",
        },
        {
            "cell_type": "code",
            "id": "cell-01",
            "metadata": {},
            "execution_count": 1,
            "source": "1 + 1",
            "outputs": [
                {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {"text/plain": "2"}}
            ],
        },
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def write_run(runs: Path, regime: str, rank: int | None, seed: int, correct: dict[int, int], **options) -> Path:
    """A finished run of the tiny preset: how many of its 20 `problems` are right at each evaluated step."""
    return write_cell(runs, Cell.load("tiny", regime=regime, rank=rank, seed=seed), correct, **options)


def write_cell(
    runs: Path,
    cell: Cell,
    correct: dict[int, int],
    *,
    advantage_std: float = 1.0,
    deposits: float = 1.0,
    problems: int = 20,
) -> Path:
    path, rank = runs / cell.preset / cell.name, cell.rank
    path.mkdir(parents=True)
    (path / "lock").touch()
    (path / "config.json").write_text(json.dumps(cell.config))
    (path / "provenance.json").write_text(json.dumps({"run": {"trainable_parameters": 100 * (rank or 1000)}}))
    evals = [
        {"step": step, "problem": f"p{i}", "correct": i < right, "answered": True, "length": 10 + i, "truncated": False}
        for step, right in correct.items()
        for i in range(problems)
    ]
    steps = [
        {
            "step": step,
            "advantage_std": advantage_std * step,
            "step_time": 0.5,
            "reward": 0.1 * step,
            "kl": None,
            "deposits_per_episode": deposits,
            "completions/mean_length": 30.0,
            "completions/clipped_ratio": 0.25,
        }
        for step in range(1, max(correct) + 1)
    ]
    write_lines(path / "evals.jsonl", evals)
    write_lines(path / "metrics.jsonl", steps)
    (path / "cell.ipynb").write_text(json.dumps(NOTEBOOK))
    (path / "done.json").write_text("{}")
    return path


def start_trials(runs: Path, turn: Callable[[int, bool, int], dict[str, Any]] = lambda step, seen, i: {}) -> None:
    """A seed of each trial of `smollm-starts` on 24 seen and 6 unseen templates, 5 problems each.

    Of a seen template one problem is worked out and right before RL and two after it; all else is answered at once and
    wrong. `turn` changes an evaluated problem, by step, whether its template was seen, and its place in the template.
    """
    for cell in grid("smollm-starts", {"seed": [100]}):
        path = write_cell(runs, cell, {0: 0, 100: 0})
        rows = []
        for step, template, i in itertools.product((0, 100), range(30), range(5)):
            seen, right = template < 24, template < 24 and i <= step // 100
            row = dict(
                step=step, problem=f"{'seen' if seen else 'unseen'}-{template}-{5 * template + i}", correct=right
            )
            row |= dict(answered=True, length=40 if right else 12, truncated=False)
            rows.append(row | turn(step, seen, i))
        write_lines(path / "evals.jsonl", rows)


def intervened(**about: tuple[float, float]) -> pd.DataFrame:
    """As `interventions.table`, from what each loses of 0.9 and its peak magnitude: three seeds of two arms.

    A seed loses 0.01 more than the one before, but for none's.
    """
    rows = [
        dict(cell=f"{name}-{arm}-{seed}", intervention=name, gold=name == "outcome", arm=arm, seed=seed,
             rank=1.0 if arm == "r1" else math.nan, parameters=100.0, lost=lost + 0.01 * seed * (name != "none"),
             final=0.9 - lost + 0.1 * (arm == "full"), magnitude=size, length=20.0, blind=0.9)
        for name, (lost, size) in about.items() for arm in ("r1", "full") for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def chained() -> pd.DataFrame:
    """`cap` lessens magnitude alone, `canonical` magnitude and blindness, `outcome` blindness with gold answers."""
    found = intervened(**{"none": (0.8, 5.0), "cap": (0.6, 1.0), "canonical": (0.3, 1.0), "outcome": (0.1, 5.0)})
    shift = {"canonical": 0.45, "outcome": 0.45}  # of blindness, from 0.9
    found["blind"] -= found.intervention.map(shift).fillna(0) + 0.001 * found.seed * found.intervention.isin(shift)
    return found


def swept_rates() -> pd.DataFrame:
    """Curves of `fair-lr`: every arm likes fair's rate best, but one of rank 4 under outcome ties and ends higher.

    Under outcome, one cell of rank 256 is missing.
    """
    usual, rows = sweep.in_use("fair"), []
    for cell in grid("fair-lr"):
        key, rate = (cell.regime, cell.arm), cell.learning_rate
        ends = (0.3, 0.6, 0.6) if rate == usual[key] else (0.3, 0.3, 0.4)
        if key == ("outcome", "r4") and rate == 1e-3:
            ends = (0.3, 0.5, 0.8)
        if key != ("outcome", "r256") or (rate, cell.point["training"]) != (1e-3, "3"):
            about = (cell.name, *key, rate, cell.point["training"], cell.seed)
            rows += [(*about, float(step), value) for step, value in zip((0, 20, 40), ends)]
    return pd.DataFrame(rows, columns=sweep.COLUMNS)


def change_metrics(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Adds to each step's metrics of a run, or puts other values in their place."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    write_lines(path / "metrics.jsonl", [row | change(row) for row in rows])


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def legible(figure) -> None:
    """No text below 8 points on a page that is as wide as the figure, and every axis says what it shows."""
    figure.canvas.draw()
    sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    assert sizes and min(sizes) >= 8
    assert figure.get_size_inches()[0] <= style.WIDTH
    assert figure.axes and any(ax.get_ylabel() for ax in figure.axes) and any(ax.get_xlabel() for ax in figure.axes)
    assert figure.get_suptitle() == ""  # the caption says it


def deposits(rows: list[list[float | None]], dense: bool = False) -> Deposits:
    """None is a token without a deposit."""
    mask = torch.tensor([[x is not None for x in row] for row in rows])
    return Deposits(torch.tensor([[0.0 if x is None else x for x in row] for row in rows]), mask, dense)


def deposited(row_mask: torch.Tensor) -> list[int]:
    """Tokens of one trajectory that have a deposit."""
    return row_mask.nonzero()[:, 0].tolist()


def one_group(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.long)


def half(root):
    """Two seeds of two arms under outcome, one cell elsewhere."""
    for seed in (0, 1):
        write_run(root, "outcome", 1, seed, {0: 5, 10: 15 + seed, 20: 16})
        write_run(root, "outcome", None, seed, {0: 5, 10: 15, 20: 17 + seed})
    write_run(root, "distillation", 4, 2, {0: 5, 10: 8})
    return root


def broken(root):
    """Evaluations that lack, problems that differ, metrics without their columns, completions that are none."""
    half(root)
    (root / "tiny" / "outcome-r1-s0" / "evals.jsonl").write_text("not JSON\n")
    path = root / "tiny" / "outcome-full-s1"
    rows = [json.loads(line) for line in (path / "evals.jsonl").read_text().splitlines()]
    write_lines(path / "evals.jsonl", [row | {"problem": f"other {row['problem']}"} for row in rows])
    write_lines(path / "metrics.jsonl", [{"step": 1}])
    write_lines(path / "completions.jsonl", [{"step": 1}, {"step": 2, "tokens": 3}])
    return root


def one_evaluation(root):
    for regime in ("outcome", "process"):
        for rank in (1, 4, None):
            for seed in (0, 1, 2):
                write_run(root, regime, rank, seed, {0: 0})
    return root


def plant(root, right, preset="fair", ranks=(1, 4, 16, 64, 256, "full"), regime="outcome", problems=20):
    """Cells of one reward, `right(cell)` of 20 problems right, or as many of each 20, at the step of validation."""
    for cell in grid(preset, {"regime": [regime], "rank": list(ranks)}):
        n = right(cell) * problems // 20
        path = write_cell(root, cell, {0: 4 * problems // 20, 10: n, 20: max(n - 1, 0)}, problems=problems)
        rows = [
            {"step": step, "problem": str(i), "correct": i < good, "answered": True, "length": 5, "truncated": False}
            for step, good in ((0, 2), (10, n), (20, max(n - 1, 0)))
            for i in range(problems)
        ]
        (path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return results.load(preset, root)


def outcome(found):
    return next(line for line in headline.lines(found) if line.regime == "outcome")


def collapse(path: Path, at: int = 10) -> None:
    """Rewrites a run's logs: magnitude, length, truncation, missing answers, each `at` steps after the one before."""
    steps = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in steps:
        row["advantage_std"] = 1.0 if row["step"] < at + 5 else 4.0
        row["completions/mean_length"] = 30.0 if row["step"] < 2 * at + 5 else 80.0
        row["completions/clipped_ratio"] = 0.0 if row["step"] < 3 * at + 5 else 0.9
    evals = [json.loads(line) for line in (path / "evals.jsonl").read_text().splitlines()]
    for row in evals:
        row["answered"] = row["step"] < 5 * at
    write_lines(path / "metrics.jsonl", steps)
    write_lines(path / "evals.jsonl", evals)


def matrix(root):
    """Under outcome no arm differs; under process adapters collapse; under distillation rank 1 ends below, 4 above."""
    return _matrix(root, outcome={}, process={1: 2, 4: 5}, distillation={1: 40, 4: 95})


def falling(root):
    """Adapters end the further below full fine-tuning the denser the reward, whatever their rank."""
    return _matrix(root, outcome={}, process={1: 50, 4: 50}, distillation={1: 40, 4: 41})


def _matrix(root, **ends: dict[int, int]):
    """Three seeds of ranks 1, 4 and full; how many of 100 problems are right at the end, 60 unless said otherwise."""
    for density, (regime, by_rank) in enumerate(ends.items()):
        for rank, seed in itertools.product((1, 4, None), range(3)):
            end = by_rank.get(rank, 60) + seed
            correct = {step: 20 + seed if not step else 50 if step < 60 else end for step in range(0, 81, 10)}
            path = write_run(root, regime, rank, seed, correct, problems=100, deposits=10.0**density)
            if end < 10:
                collapse(path)
    return root


def lrd(*args, **env):
    command = [sys.executable, "-m", "lrd", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | env, timeout=240)


def lrd_here(*args, **env) -> subprocess.CompletedProcess[str]:
    """`lrd` in this process, which has loaded torch already; kernels are processes of their own as ever."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for key, value in {CALLED_FROM: os.getcwd(), **env}.items():
            patch.setenv(key, value)
        status = main([*map(str, args)])
    return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())


def call(words, folder: Path, clone: Path = ROOT) -> subprocess.CompletedProcess:
    """`lrd WORDS` as its script does it in a folder, which is not on Python's path."""
    code = "import sys; sys.path.remove(''); from lrd.__main__ import main; sys.exit(main())"
    command, env = [sys.executable, "-c", code, *map(str, words)], os.environ | {"PYTHONPATH": str(clone)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=240)


def cell_of(regime="outcome", rank=1, seed=0, **changes) -> Cell:
    return Cell.load("tiny", regime=regime, rank=rank, seed=seed, **changes)


def write_begun(runs: Path, cell: Cell, step: int, *, evaluated: dict[int, int], ago: float = 0.0, **session) -> Path:
    """A run at `step`, of 20 problems and how many of them right at each evaluation, that began `ago` seconds ago."""
    path = runs / cell.preset / cell.name
    path.mkdir(parents=True)
    (path / "lock").touch()
    (path / "config.json").write_text(json.dumps(cell.config))
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - ago))
    sessions = [{"started": "2020-01-01T00:00:00+00:00", "from_step": 0, "git": None, "host": "earlier"}]
    sessions += [{"started": started, "from_step": 0, "git": None, "host": "here"} | session]
    about = {"git": {"diff": "-{\n+}\n ]" * 2000}, "run": {"models": {}}, "sessions": sessions}
    (path / "provenance.json").write_text(json.dumps(about, indent=1) + "\n")
    with (path / "metrics.jsonl").open("w") as file:
        for n in range(1, step + 1):
            file.write(json.dumps({"step": n, "reward": n / 10, "step_time": 0.5, "filler": "x" * 600}) + "\n")
    with (path / "evals.jsonl").open("w") as file:
        for n, right in evaluated.items():
            rows = [
                {"step": n, "problem": f'"correct": true {i}', "correct": i < right, "length": 9} for i in range(20)
            ]
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


class ScriptedSampler:
    """Gives the scripted completions in turn, over and over; those longer than the cap are cut and say so."""

    def __init__(self, script: list[list[int]]):
        self._script = itertools.cycle(script)

    def sync(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        for _ in weights:
            pass

    def sample(
        self,
        prompts: list[list[int]],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seed: int = 0,
        logps: bool = False,
    ) -> list[Completion]:
        lines = [next(self._script) for _ in prompts]
        return [Completion(ids[:max_tokens], None, len(ids) > max_tokens) for ids in lines]


# --- experiments with codebooks

PARAMETERS = np.array([96.0, 576, 912, 1824, 3648, 7296, 14592, 29184, 57936])
INFORMATION = np.array([256.0, 1024, 4096])
ARMS = [f"a{i}" for i in range(8)] + ["full"]
STEPS = np.array([0.0, 30, 60, 120, 240, 480])


def world(rng, c=0.9, absorbed=1.0, n=6, noise=0.1, tau=1e-6, between=0.05, bent=False) -> Measured:
    """bits = min(c·N, J) with J = absorbed·I, or `bent` J (1 − exp(−c·N/J)), after a time `tau`.

    Of n replicates with noise of their own and each cell's.
    """
    most = absorbed * INFORMATION
    line = c * PARAMETERS[:, None]
    ends = (most * (1 - np.exp(-line / most)) if bent else np.minimum(line, most))[None, ..., None]
    time = 1 - np.exp(-STEPS / tau)
    wobble = np.exp(noise * rng.standard_normal((n, 9, 3, 1)) + between * rng.standard_normal((n, 1, 1, 1)))
    bits = np.minimum(ends * time * wobble, INFORMATION[:, None])
    return Measured(bits, PARAMETERS, INFORMATION, STEPS, ARMS, "supervised")


def quiet(**about) -> Measured:
    return world(np.random.default_rng(0), noise=0.0, between=0.0, **about)


# --- a benchmark whose sums can be made by hand


def bench_row(who: str, regime: str, arm: str, step: float, tokens: int = 1536, **parts) -> dict[str, Any]:
    about = {"who": who, "regime": regime, "arm": arm, "completion_tokens": tokens, "step": step}
    return about | {"parts": parts, "peak_gib": 10 * step, "steps": 3, "mean_length": tokens}


BENCH: dict[str, Any] = {
    "gpu": "Invented <GPU>",
    "date": "2026-01-02",
    "packages": {"torch": "2.13.0", "trl": None},
    "shapes": {"prompts": 4, "samples": 4, "prompt_tokens": 100, "completion_tokens": 1536},
    "ceilings": {"copy_tb_s": 4.3, "bf16_tflop_s": 1790},
    "roofline": {"decode": 1.5, "learner": 0.25, "reference": 0.25},
    "rows": [
        bench_row(
            "ours",
            "outcome",
            "r16",
            6.0,
            rollout=5.0,
            learner=0.5,
            reward=0.0,
            reference=0.25,
            update=0.125,
            sync=0.125,
        ),
        bench_row(
            "ours", "outcome", "full", 7.0, rollout=5.0, learner=0.75, reward=0.0, reference=0.25, update=0.5, sync=0.5
        ),
        bench_row(
            "ours", "outcome", "r1", 5.0, rollout=4.0, learner=0.5, reward=0.0, reference=0.25, update=0.125, sync=0.125
        ),
        bench_row("ours", "outcome", "r16", 2.0, tokens=450, rollout=1.5, learner=0.5),
        bench_row("ours", "process", "r16", 7.5, rollout=5.0, learner=0.5, reward=1.5),
        bench_row("trl", "outcome", "r16", 9.0),
        bench_row("trl", "outcome", "full", 8.4),
    ],
    "cells": [
        {
            "regime": "outcome",
            "arm": "r16",
            "cold_start_seconds": 130.0,
            "warm_start_seconds": 100.0,
            "eval_seconds": 10.0,
        }
    ],
    "tokens": [{"engine": "vllm", "clock": 2.5, "greedy": 2.25, "card": {"products": 1.5, "drawing": 0.25}}],
    "notes": ["what stands between: <b>sampling</b>"],
}


def write_bench(runs: Path, **changes) -> Path:
    (runs / "bench").mkdir(exist_ok=True)
    path = runs / "bench" / f"{len(list((runs / 'bench').iterdir()))}.json"
    path.write_text(json.dumps(BENCH | changes))
    return path


def sampler_of(model, tokenizer) -> TorchSampler:
    sampler = TorchSampler(model, tokenizer)
    sampler.sync(model.named_parameters())
    return sampler


def likes_to_end(model, tokenizer):
    """The end's logit becomes 1.3 times another token's: now and then it wins."""
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head[tokenizer.eos_token_id] = 1.3 * head[tokenizer.convert_tokens_to_ids("=")]
    return model
