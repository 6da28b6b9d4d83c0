"""How close an arm comes to full fine-tuning: paired intervals, equivalence tests, the required rank and its slope.

Two arms are compared on the same held-out problems and the same seeds, so a comparison rests on a table of gaps, one
row a seed and one column a problem. Both rows and columns are samples: other seeds would have trained otherwise, other
problems would have been solved otherwise, and an interval has to speak of both.

The interval is Student's where it must be. With S seeds the part of the variance that seeds cause is known with S − 1
degrees of freedom; the part that problems cause with one less than there are problems. Their half-widths are taken each
with its own quantile and added in squares (`Contrast.half`), as in Zou and Donner's MOVER (2008) and Graybill and
Wang's modified large-sample intervals (1980). A bootstrap over seeds and problems, the usual choice, resamples a
handful of seeds and does not know that these tell little: where seeds matter, its nominal 95 % intervals cover less
than 90 % with 3 seeds (tests/analysis/test_equivalence.py measures both). It is shown beside (`bootstrap`) and never
decides.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import t

from lrd.results import Results

MARGIN = 0.05  # of pass@1: a difference that small is called no difference that matters
ALPHA = 0.05  # of each one-sided test, as TOST has it
POWER = 0.8
DRAWS = 4000
NOT_REACHED = math.inf
"""The required rank where no rank tried is enough."""


@dataclass(frozen=True)
class Contrast:
    """An arm minus full fine-tuning: the mean gap and the mean squares of the table that it rests on.

    `by_seed`, `by_problem` and `rest` are the mean squares of a two-way layout without replication. All gaps lie in
    [−1, 1]; the mean squares hold two imagined problems, one that only this arm solves and one that only the other
    does, so that a table without a single gap does not pass for certainty (Bonett and Price 2012).
    """

    mean: float
    by_seed: float
    by_problem: float
    rest: float
    seeds: int
    problems: int

    def half(self, level: float = 0.95) -> float:
        """Half the width of the two-sided interval at that level."""
        return float(self._halves((1 + level) / 2))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval over seeds and problems."""
        half = self.half(level)
        return self.mean - half, self.mean + half

    def least_margin(self, alpha: float = ALPHA) -> float:
        """The smallest margin at which the equivalence test passes at level `alpha`."""
        return abs(self.mean) + self.half(1 - 2 * alpha)

    def tost(self, margin: float = MARGIN) -> float:
        """p of two one-sided tests of |difference| ≥ `margin` (Schuirmann 1987): small means close, not equal."""
        slack = margin - abs(self.mean)
        inside = _tail(lambda q: self._halves(q) - abs(slack))
        return inside if slack > 0 else 1 - inside

    def equivalent(self, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
        """Whether the test passes: the 1 − 2·alpha interval lies within ± `margin`."""
        return self.least_margin(alpha) < margin

    def suffices(self, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
        """Whether the arm is shown to end less than `margin` below: non-inferiority, one-sided."""
        return self.mean - self.half(1 - 2 * alpha) > -margin

    def falls_short(self, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
        """Whether the arm is shown to end more than `margin` below."""
        return self.mean + self.half(1 - 2 * alpha) < -margin

    @property
    def differs(self) -> bool:
        """Whether the 95 % interval leaves zero out."""
        return abs(self.mean) > self.half()

    def _halves(self, q: float) -> float:
        size = self.seeds * (self.problems + 2)
        return _half(self.by_seed, self.by_problem - self.rest, q, self.seeds - 1, self.problems - 1, size)


def contrast(gaps: np.ndarray) -> Contrast | None:
    """From a table of gaps `[seeds, problems]`; None below two seeds or two problems, where nothing is known."""
    gaps = np.asarray(gaps, float)
    if gaps.ndim != 2 or min(gaps.shape) < 2:
        return None
    seeds, problems = gaps.shape
    padded = np.concatenate([gaps, np.ones((seeds, 1)), -np.ones((seeds, 1))], axis=1)
    rows, columns, mean = padded.mean(1), padded.mean(0), padded.mean()
    rest = padded - rows[:, None] - columns + mean
    return Contrast(
        float(gaps.mean()),
        float((problems + 2) * rows.var(ddof=1)),
        float(seeds * columns.var(ddof=1)),
        float((rest**2).sum() / ((seeds - 1) * (problems + 1))),
        seeds,
        problems,
    )


def gaps(results: Results, measure: str = "final") -> dict[str, dict[str, np.ndarray]]:
    """Regime → arm → table of gaps `[seeds, problems]` to the last arm, over the seeds and problems that both have.

    `final`: correctness (0 or 1) at the last evaluation. `area`: its mean over the steps, by trapezoids, in [0, 1].
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    *ranks, full = results.arms
    evals = results.of_finished(results.evals)
    for regime in results.regimes:
        cells = {}
        for (arm, seed), mine in evals[evals.regime == regime].groupby(["arm", "seed"]):
            cells[arm, seed] = _by_problem(mine, measure)
        found[regime] = {}
        for arm in ranks:
            both = [cells[arm, s] - cells[full, s] for a, s in cells if a == arm and (full, s) in cells]
            if both:
                found[regime][arm] = pd.concat(both, axis=1).dropna().to_numpy(float).T
    return found


def contrasts(tables: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Contrast]]:
    """Regime → arm → contrast, where there is one."""
    return {
        regime: {arm: c for arm, table in arms.items() if (c := contrast(table))} for regime, arms in tables.items()
    }


def bootstrap(tables: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means `[tables, draws]` of tables `[seeds, problems]` of one shape, seeds and problems resampled, crossed.

    The same seeds and problems are drawn for all tables: they share full fine-tuning's runs. Owen (2007) calls it the
    pigeonhole bootstrap. It counts the noise of single answers up to three times, and seeds too little where they are
    few: too wide where seeds hardly matter, too narrow where they do.
    """
    rng = np.random.default_rng(seed)
    stack = np.stack(tables)
    _, seeds, problems = stack.shape
    row_weights = rng.multinomial(seeds, [1 / seeds] * seeds, draws) / seeds
    column_weights = rng.multinomial(problems, [1 / problems] * problems, draws) / problems
    return np.einsum("bs,ksn,bn->kb", row_weights, stack, column_weights, optimize=True)


@dataclass(frozen=True)
class Design:
    """What a comparison of this many seeds and problems can do, given the variances that were found."""

    seeds: int
    problems: int
    difference: float  # true difference that the 95 % interval tells from zero with the given power
    margin: float  # margin at which the equivalence test passes with the given power where there is no difference


def design(
    found: Sequence[Contrast], seeds: int | None = None, problems: int | None = None, power: float = POWER
) -> Design | None:
    """The power of a design, from the mean variances of the contrasts, for as many seeds and problems as asked for.

    Means are drawn normal and mean squares as χ², both at their estimated size; the rest follows from their quantiles.
    """
    if not found:
        return None
    first = found[0]
    seeds, problems = seeds or first.seeds, problems or first.problems
    rest = float(np.mean([c.rest for c in found]))
    of_seed = max(0.0, float(np.mean([(c.by_seed - c.rest) / (c.problems + 2) for c in found])))
    of_problem = max(0.0, float(np.mean([(c.by_problem - c.rest) / c.seeds for c in found])))
    rng, n = np.random.default_rng(0), 20_000
    by_seed = (problems * of_seed + rest) * rng.chisquare(seeds - 1, n) / (seeds - 1)
    by_problem = (seeds * of_problem + rest) * rng.chisquare(problems - 1, n) / (problems - 1)
    noise = rng.normal(0, math.sqrt(of_seed / seeds + of_problem / problems + rest / (seeds * problems)), n)
    size, freedom = seeds * problems, (seeds - 1, problems - 1)
    two_sided = _half(by_seed, by_problem - rest, 0.975, *freedom, size)
    one_sided = _half(by_seed, by_problem - rest, 1 - ALPHA, *freedom, size)
    return Design(
        seeds,
        problems,
        float(np.quantile(two_sided - noise, power)),
        float(np.quantile(abs(noise) + one_sided, power)),
    )


@dataclass(frozen=True)
class Required:
    """The smallest rank of a regime from which on no rank ends more than a margin below full fine-tuning.

    `estimate`: by the mean differences alone. `shown`: by tests, from the largest rank downwards until one fails, so
    that the chance of a false pass stays at the level of one test (a fixed sequence; Maurer, Hothorn and Lehmacher
    1995). `low` and `high`: the ranks that tests at 2.5 % on either side leave possible. `resampled`: the middle 95 %
    of the estimate under the bootstrap, or None. Any may be `NOT_REACHED`; only ranks that were run can be named.
    """

    estimate: float
    shown: float
    low: float
    high: float
    resampled: tuple[float, float] | None
    ranks: tuple[int, ...]


def required(tables: Mapping[str, np.ndarray], margin: float = MARGIN, level: float = 0.95) -> Required | None:
    """From an arm's table of gaps each, `r1`, `r4`, …; None where no rank can be compared."""
    found = {int(arm[1:]): c for arm, table in tables.items() if (c := contrast(table))}
    ranks = sorted(found)
    if not ranks:
        return None
    alpha = (1 - level) / 2
    means = np.array([[found[rank].mean] for rank in ranks])
    high = _smallest(ranks, [found[rank].suffices(margin, alpha) for rank in ranks])
    low = next((rank for rank in ranks if not found[rank].falls_short(margin, alpha)), NOT_REACHED)
    resampled = None
    stack = [tables[f"r{rank}"] for rank in ranks]
    if len({table.shape for table in stack}) == 1:
        drawn = _estimates(ranks, bootstrap(stack), margin)
        low_draw, high_draw = np.quantile(drawn, [alpha, 1 - alpha], method="inverted_cdf")
        resampled = (float(low_draw), float(high_draw))
    shown = _smallest(ranks, [found[rank].suffices(margin) for rank in ranks])
    return Required(float(_estimates(ranks, means, margin)[0]), shown, low, high, resampled, tuple(ranks))


@dataclass(frozen=True)
class Slope:
    """log2(required rank) against log10(deposits an episode), by least squares over regimes.

    `estimate` is NaN where a required rank is not reached. The bounds are the least and the largest slope that the
    regimes' intervals of the required rank allow, infinite where one of them is open. `floor`: every estimate is the
    smallest rank that was run, so that the slope could not have been anything but zero.
    """

    estimate: float
    low: float
    high: float
    regimes: int
    floor: bool


def slope(
    tables: Mapping[str, Mapping[str, np.ndarray]], deposits: Mapping[str, float], margin: float = MARGIN
) -> Slope | None:
    """The law's prediction as a number; None unless two regimes of different density have a required rank to compare.

    The regimes' intervals are taken at 1 − 0.05 / regimes each (Bonferroni), so that all hold together at 95 %.
    """
    names = [name for name in tables if tables[name] and deposits.get(name, 0) > 0]
    found = {name: r for name in names if (r := required(tables[name], margin, 1 - 0.05 / len(names)))}
    x = np.log10([deposits[name] for name in found]) if found else np.zeros(0)
    if len(found) < 2 or np.ptp(x) < 1e-9:
        return None
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # the slope is linear in what is regressed
    with np.errstate(invalid="ignore"):
        middle, low, high = (
            np.log2([getattr(r, name) for r in found.values()]) for name in ("estimate", "low", "high")
        )
        estimate = float(weights @ middle) if np.isfinite(middle).all() else math.nan
        ends = [_slope_end(weights, low, high), -_slope_end(-weights, low, high)]
    return Slope(estimate, ends[0], ends[1], len(found), all(r.estimate == r.ranks[0] for r in found.values()))


def deposits_at_start(results: Results) -> dict[str, float]:
    """Regime → mean deposits an episode at the first step, before training changes how completions look."""
    steps = results.of_finished(results.steps)
    if "deposits_per_episode" not in steps or not len(steps):
        return {}
    return steps[steps.step == steps.step.min()].groupby("regime").deposits_per_episode.mean().dropna().to_dict()


def _by_problem(evals: pd.DataFrame, measure: str) -> pd.Series:
    table = evals.astype({"correct": float}).pivot_table(index="step", columns="problem", values="correct")
    if measure == "final" or len(table) == 1:
        return table.iloc[-1]
    table = table.dropna(axis=1)  # a problem that an evaluation lacks has no mean over steps
    x = table.index.to_numpy(float)
    return pd.Series(np.trapezoid(table.to_numpy(), x, axis=0) / (x[-1] - x[0]), table.columns)


def _half(by_seed, extra, q: float, seed_freedom: int, problem_freedom: int, size: int):
    """Half-width at quantile `q`: seeds with their t; what problems add to the noise of single answers, with theirs."""
    squares = t.ppf(q, seed_freedom) ** 2 * by_seed + t.ppf(q, problem_freedom) ** 2 * np.maximum(extra, 0)
    return np.sqrt(squares / size)


def _tail(excess) -> float:
    """The upper tail 1 − q at which `excess(q)`, rising from below zero at q = 1/2, is zero."""
    highest = 1 - 1e-9
    if excess(highest) < 0:
        return 1 - highest
    if excess(0.5) >= 0:
        return 0.5
    crossing: Any = brentq(excess, 0.5, highest)
    return float(1 - crossing)


def _smallest(ranks: Sequence[int], passes: Sequence[bool]) -> float:
    """The smallest rank that passes together with all larger ones."""
    smallest = NOT_REACHED
    for rank, good in zip(reversed(ranks), reversed(passes)):
        if not good:
            break
        smallest = rank
    return smallest


def _estimates(ranks: Sequence[int], means: np.ndarray, margin: float) -> np.ndarray:
    """`_smallest` of each column of mean differences `[ranks, draws]`."""
    good = np.logical_and.accumulate(means[::-1] >= -margin)[::-1]
    return np.where(good.any(0), np.array(ranks, float)[good.argmax(0)], NOT_REACHED)


def _slope_end(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The least of weights @ y over y within [low, high]; −∞ where a bound that it needs is open."""
    parts = np.where(weights > 0, weights * low, np.where(weights < 0, weights * high, 0.0))
    if (np.isinf(low) & (weights > 0)).any():
        return -math.inf if (np.isinf(high) & (weights < 0)).any() else math.inf
    return float(parts.sum())
