"""What `lrd bench` measured on a GPU (`runs/bench/*.json`), and what the whole matrix costs by it. Torch-free."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lrd.cell import grid
from lrd.results import root

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


def matrix_hours(bench: Bench, preset: str) -> pd.DataFrame:
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


def token_parts(bench: Bench) -> pd.DataFrame:
    """Milliseconds of a token of all rows, one row an engine: on the clock, greedily, kernels by kind, with none."""
    kinds = list(dict.fromkeys(kind for each in bench.tokens for kind in sorted(each["card"])))
    rows = []
    for each in bench.tokens:
        card = {kind: each["card"].get(kind, 0.0) for kind in kinds}
        clock = {"engine": each["engine"], "on the clock": each["clock"], "greedily": each["greedy"]}
        rows.append(clock | card | {"no kernel": max(0.0, each["clock"] - sum(card.values()))})
    return pd.DataFrame(rows)


def decode_times(bench: Bench) -> tuple[float, float]:
    """Milliseconds of a token under outcome and rank 16, and what its bytes alone would take; NaN if not measured."""
    rows = at_full_length(bench).query("regime == 'outcome' and arm == 'r16'")
    if not bench.roofline or not len(rows):
        return math.nan, math.nan
    seconds = bench.parts.loc[rows.index[0], "rollout"], bench.roofline["decode"]
    spent, least = (1000 * each / bench.shapes["completion_tokens"] for each in seconds)
    return spent, least


def start_seconds(bench: Bench, which: str) -> float:
    """From a process's start to the end of the first step, `cold` or `warm`: the mean of cells; NaN without one."""
    key = f"{which}_start_seconds"
    seconds = [cell[key] for cell in bench.cells if key in cell]
    return statistics.mean(seconds) if seconds else math.nan


def beside(bench: Bench, who: str) -> pd.DataFrame:
    """Regimes and arms that another contender was measured in too: `step` of ours, `theirs`, and `ratio` of the two."""
    both = at_full_length(bench).merge(at_full_length(bench, who), on=["regime", "arm"], suffixes=("", "_theirs"))
    both = both.rename(columns={"step_theirs": "theirs"})[["regime", "arm", "step", "theirs"]]
    return both.assign(ratio=both.theirs / both.step)
