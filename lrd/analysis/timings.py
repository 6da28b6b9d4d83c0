"""What `lrd bench` measured on a GPU (`runs/bench/*.json`), and what the whole matrix costs by it. Torch-free."""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lrd.cell import grid
from lrd.report.text import NOTHING
from lrd.results import published, root

OURS = "ours"  # who the rows of our own step are by


@dataclass(frozen=True)
class Bench:
    """One file: a GPU on a day. `rows` has one row a contender, regime, arm and length; seconds and GiB."""

    gpu: str
    date: str
    shapes: dict[str, int]
    packages: dict[str, str]
    roofline: dict[str, float]  # seconds that bytes and products take at the card's own rates
    ceilings: dict[str, float]
    rows: pd.DataFrame  # who, regime, arm, completion_tokens, step, peak_gib, steps
    parts: pd.DataFrame  # seconds of each part of a step, one row a row of `rows`; NaN where it was not told apart
    cells: list[dict[str, Any]]  # what a cell takes beside its steps
    notes: list[str]
    tokens: list[dict[str, Any]]  # ms of a token of all rows in an engine: on the clock, greedily, of kernels by kind


def load(runs: str | Path | None = None) -> tuple[list[Bench], list[str]]:
    """Every measurement, the latest last, and what is wrong with files that are not one."""
    found, problems = [], []
    for path in sorted((root(runs) / "bench").glob("*.json")):
        try:
            found.append(_read(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{path.name} is no measurement of lrd bench ({type(error).__name__}: {error})")
    return sorted(found, key=lambda bench: bench.date), problems


def _read(raw: dict[str, Any]) -> Bench:
    rows = pd.DataFrame([{k: v for k, v in row.items() if k != "parts"} for row in raw["rows"]])
    names = ["who", "regime", "arm", "completion_tokens", "step", "peak_gib", "steps"]
    rows = rows.reindex(columns=names)[names]
    numbers = ["completion_tokens", "step", "peak_gib", "steps"]
    rows[numbers] = rows[numbers].astype(float)
    return Bench(
        gpu=raw["gpu"],
        date=raw["date"],
        shapes=raw["shapes"],
        packages=raw.get("packages", {}),
        roofline=raw.get("roofline", {}),
        ceilings=raw.get("ceilings", {}),
        rows=rows,
        parts=pd.DataFrame([row.get("parts", {}) for row in raw["rows"]], dtype=float),
        cells=raw.get("cells", []),
        notes=raw.get("notes", []),
        tokens=raw.get("tokens", []),
    )


def at_full_length(bench: Bench, who: str = OURS) -> pd.DataFrame:
    """A contender's rows of the longest completions, those that every other row is compared with."""
    rows = bench.rows
    return rows[(rows.who == who) & (rows.completion_tokens == bench.shapes["completion_tokens"])]


def step_seconds(bench: Bench, regime: str, arm: str) -> float:
    """Seconds of our step of full length: as measured, or put together from what was; NaN where that cannot be done.

    What was not measured under a regime: the step of the nearest arm (of ranks, by their ratio) under the regime that
    was measured in the most arms, and what the reward adds to it in the arms that both have.
    """
    steps = at_full_length(bench).set_index(["regime", "arm"]).step
    if (regime, arm) in steps.index:
        return float(steps[regime, arm])
    arms = {name: set(steps[name].index) for name in dict.fromkeys(steps.index.get_level_values(0))}
    if regime not in arms:
        return math.nan
    base = max(arms, key=lambda name: len(arms[name]))
    both = sorted(arms[regime] & arms[base])
    near = nearest(arm, sorted(arms[base]))
    if not both or near is None:
        return math.nan
    added = sum(steps[regime, name] - steps[base, name] for name in both) / len(both)
    return float(steps[base, near] + added)


def nearest(arm: str, arms: Sequence[str]) -> str | None:
    """The arm itself, or of ranks the one fewest times larger or smaller, of two the larger; None without one."""
    if arm in arms:
        return arm
    ranks = [name for name in arms if name != "full"]
    if arm == "full" or not ranks:
        return None
    wanted = int(arm[1:])
    return max(ranks, key=lambda name: (min(int(name[1:]) / wanted, wanted / int(name[1:])), int(name[1:])))


def matrix_hours(bench: Bench, preset: str = "paper") -> pd.DataFrame:
    """GPU-hours of a preset's cells, one row a regime and arm: start, steps and evaluations, over its seeds.

    `measured` says whether that very step was. Evaluations and starts are those of the same regime and arm, or the
    mean of what there is.
    """
    exact = set(zip(at_full_length(bench).regime, at_full_length(bench).arm))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in grid(preset):
        beside = [c for c in bench.cells if (c["regime"], c["arm"]) == (cell.regime, cell.arm)] or bench.cells
        start, evaluation = (
            sum(c.get(k, math.nan) for c in beside) / len(beside) if beside else math.nan
            for k in ("warm_start_seconds", "eval_seconds")
        )
        evaluations = 1 + math.ceil(cell.steps / cell.eval_every)
        step = step_seconds(bench, cell.regime, cell.arm)
        row = rows.setdefault(
            (cell.regime, cell.arm),
            {"step": step, "cells": 0, "hours": 0.0, "measured": (cell.regime, cell.arm) in exact},
        )
        row["cells"] += 1
        row["hours"] += (start + cell.steps * step + evaluations * evaluation) / 3600
    return pd.DataFrame([{"regime": regime, "arm": arm} | row for (regime, arm), row in rows.items()])


def token_rows(bench: Bench) -> tuple[list[str], list[tuple[str | float, ...]]]:
    """Column names and one row an engine: ms a token on the clock and greedily, of kernels by kind, and with none."""
    kinds = list(dict.fromkeys(kind for each in bench.tokens for kind in sorted(each["card"])))
    rows = []
    for each in bench.tokens:
        card = [each["card"].get(kind, 0.0) for kind in kinds]
        rows.append((each["engine"], each["clock"], each["greedy"], *card, max(0.0, each["clock"] - sum(card))))
    return ["engine", "on the clock", "greedily", *kinds, "no kernel"], rows


def facts(found: list[Bench], preset: str = "paper") -> dict[str, str]:
    """What the page's sentences say, keyed by the names that they are glued under; true whatever was measured."""
    theirs = published()["cost"]
    about = {"their_step": f"{theirs['step_seconds']:.1f}", "their_hours": f"{theirs['gpu_hours']:.0f}"}
    names = ("gpu", "date", "prompts", "samples", "prompt_tokens", "completion_tokens", "least", "hours", "packages")
    about |= dict.fromkeys((*names, "copy", "rate", "headline", "cold", "warm", "token", "token_least"), NOTHING)
    if not found:
        return about | {"headline": "Nothing has been measured yet: `lrd bench paper` does, on a GPU host."}
    bench = found[-1]
    about |= {"gpu": bench.gpu, "date": bench.date} | {k: f"{v:,}" for k, v in bench.shapes.items()}
    about["packages"] = ", ".join(f"{name} {version}" for name, version in bench.packages.items() if version) or NOTHING
    if bench.roofline:
        about["least"] = f"{sum(bench.roofline.values()):.1f}"
    if bench.ceilings:
        about["copy"], about["rate"] = f"{bench.ceilings['copy_tb_s']:.1f}", f"{bench.ceilings['bf16_tflop_s']:,.0f}"
    for name in ("cold", "warm"):
        if seconds := [cell[key] for cell in bench.cells if (key := f"{name}_start_seconds") in cell]:
            about[name] = f"{statistics.mean(seconds):.0f}"
    sixteen = at_full_length(bench).query("regime == 'outcome' and arm == 'r16'")
    if bench.roofline and len(sixteen):
        tokens = bench.shapes["completion_tokens"]
        about["token"] = f"{1000 * bench.parts.loc[sixteen.index[0], 'rollout'] / tokens:.1f}"
        about["token_least"] = f"{1000 * bench.roofline['decode'] / tokens:.1f}"
    hours = matrix_hours(bench, preset).hours.sum(skipna=False)
    if hours > 0:
        about["hours"] = f"{hours:.0f}"
    return about | {"headline": _headline(bench)}


def _headline(bench: Bench) -> str:
    mine, theirs = at_full_length(bench), at_full_length(bench, "trl")
    both = mine.merge(theirs, on=["regime", "arm"], suffixes=("", "_trl"))
    if not len(both):
        return "TRL's trainer was not measured beside ours."
    each = [
        f"{'full fine-tuning' if row.arm == 'full' else f'rank {row.arm[1:]}'} {row.step:.1f} s against "
        f"{row.step_trl:.1f} s ({row.step_trl / row.step:.1f} times as fast)"
        for row in both.itertuples()
    ]
    return f"A step of ours against one of TRL's trainer: {', '.join(each)}."
