"""Trials of several supervised starts: what RL moved of pass@1, form or content, and which start met the preset's rule.

Torch-free. A completion has the *form* that grading asks for if it ends before the cap and boxes an answer.
"""

from enum import Enum

import numpy as np
import pandas as pd

from lrd.analysis.bootstrap import Estimate, bootstrap
from lrd.results import Results

GAIN, LEAST_BASE, MOST_BASE = 0.12, 0.15, 0.45  # of pass@1, from the preset's statistic
AT_ONCE = 20  # tokens: `The answer is \boxed{…}.` has no more, and whoever works the problem out takes more
DRAWS = 1000
KEYS = ["cell", "start", "arm", "learning_rate", "seed"]
PARTS: dict[str, tuple[str, str | None]] = {  # name → the mean of which column, among the rows where which one is true
    "pass@1": ("correct", None),
    "form": ("formed", None),
    "content": ("correct", "formed"),
    "length": ("length", None),
    "worked": ("worked", None),
    "content if worked": ("correct", "worked"),
}


class Serves(Enum):
    """What the rule says of a start."""

    YES = "meets the rule"
    NO = "does not meet the rule"
    OPEN = "undecided"  # the cells that have run do not decide


def described(evals: pd.DataFrame) -> pd.DataFrame:
    """Evaluated problems with their template, whether training saw it, and what their completion is like."""
    names = evals.problem.str.rsplit("-", n=1)
    return evals.assign(
        template=names.str[0],
        seen=evals.problem.str.startswith("seen-"),
        formed=evals.answered.astype(bool) & ~evals.truncated.astype(bool),
        worked=evals.length > AT_ONCE,
    )


def table(results: Results) -> pd.DataFrame:
    """One row a finished cell, group of problems and part of `PARTS`: its value before and after, and the change.

    `change` is an `Estimate` with an interval over problems, those of a template drawn together.
    """
    evals = described(results.of_finished(results.evals))
    rows = []
    for _, its in evals.groupby("cell", sort=False):
        groups = {"all": its, "seen": its[its.seen], "unseen": its[~its.seen]}
        for group, problems in groups.items():
            before, after = (problems[problems.step == step] for step in ends(its))
            for part in PARTS if group == "all" else ("pass@1", "worked"):
                rows.append(
                    (*its[KEYS].iloc[0], group, part, value(before, part), value(after, part), change(problems, part))
                )
    return pd.DataFrame(rows, columns=[*KEYS, "problems", "part", "before", "after", "change"])


def at_smaller_rate(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells at their arm's smallest learning rate."""
    return frame[frame.learning_rate == frame.groupby("arm").learning_rate.transform("min")]


def ends(evals: pd.DataFrame) -> tuple[int, int]:
    """The first evaluated step and the last."""
    return int(evals.step.min()), int(evals.step.max())


def value(evals: pd.DataFrame, part: str) -> float:
    """A part over these rows; NaN where there is none that it is a share of."""
    column, among = PARTS[part]
    return float((evals if among is None else evals[evals[among]])[column].mean())


def change(evals: pd.DataFrame, part: str) -> Estimate:
    """A part at one cell's last step minus that at its first, paired by problem, with its interval over templates.

    A template's problems stand or fall together: drawn one by one they would pass for more evidence than they are.
    """
    column, among = PARTS[part]
    counted = np.ones(len(evals), bool) if among is None else evals[among].to_numpy(bool)
    sums = evals[["template", "step"]].assign(n=counted, sum=np.where(counted, evals[column].astype(float), 0.0))
    by_template = sums.groupby(["template", "step"])[["sum", "n"]].sum().unstack("step", fill_value=0)
    columns = [(of, step) for step in ends(evals) for of in ("sum", "n")]
    counts = by_template[columns].to_numpy(float)  # [templates, 4]

    def statistic(weights: np.ndarray | None) -> float:
        before, of_before, after, of_after = counts.sum(0) if weights is None else weights @ counts
        return after / of_after - before / of_before

    with np.errstate(invalid="ignore"):  # a resample without a problem that the part is a share of
        return bootstrap(statistic, len(counts), DRAWS)


def judged(cells: pd.DataFrame) -> dict[str, Serves]:
    """Start → what the rule says of it, from the cells of the grid: `base` and `final` are NaN where they have not run.

    Each arm has to gain `GAIN` in every seed of the grid, at one of its learning rates, and from a base in range.
    """
    return {start: _judged(its) for start, its in cells.groupby("start")}


def _judged(cells: pd.DataFrame) -> Serves:
    gains = (cells.final - cells.base).round(9)  # 0.19875 − 0.07875 is a little less or more than 0.12
    fails, runs = gains < GAIN, gains.notna()
    rates = [cells.arm, cells.learning_rate]
    failed = fails.groupby(rates).any().groupby("arm").all()  # at every rate, in some seed
    gained = (runs & ~fails).groupby(rates).all().groupby("arm").any()
    if failed.any() or not cells.base.dropna().between(LEAST_BASE, MOST_BASE).all():
        return Serves.NO
    return Serves.YES if gained.all() else Serves.OPEN
