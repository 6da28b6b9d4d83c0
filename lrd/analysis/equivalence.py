"""Is an arm equivalent to full fine-tuning, which rank does a reward require, and could the runs have shown it?

A difference that cannot be told from zero is not thereby small, and a test is no better than the noise it knows of.
Each arm is compared with full fine-tuning on the same problems and seeds, by `crossed.contrast` of a table of gaps
`[seeds, problems]`, or `[students, seeds, problems]` where there are several trainings of the student: one answer less
the other, in [−1, 1]. A bootstrap over seeds and problems, the usual choice, resamples a handful of seeds and does not
know that these tell little: where seeds matter, its nominal 95 % intervals cover less than 90 % with 3 seeds
(tests/analysis/test_equivalence.py measures both). It is shown beside (`bootstrap`) and never decides.
"""

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from lrd.analysis import fair
from lrd.analysis.crossed import ALPHA, MARGIN, Contrast, comparable, contrast, half_width, mean_squares, variance_parts
from lrd.analysis.fair import FULL, Arm
from lrd.analysis.stats import deposits_at_start
from lrd.results import Results

POWER = 0.8
DRAWS = 4000
MOST_SEEDS = 100
NOT_REACHED = math.inf
"""The required rank where no rank tried is enough."""

Tables = Mapping[str, np.ndarray]  # arm → gaps to full fine-tuning, [students,] seeds, problems


@dataclass(frozen=True)
class Comparisons:
    """Every rank against full fine-tuning under every regime; regime → arm, where there is something to compare."""

    margin: float
    tables: dict[str, dict[str, np.ndarray]]  # gaps at the end, [students,] seeds, problems
    final: dict[str, dict[str, Contrast]]
    area: dict[str, dict[str, Contrast]]  # of the mean over training
    required: dict[str, "Required"]  # by regime
    deposits: dict[str, float]  # an episode, at the first step, by regime
    off_rate: Mapping[Arm, tuple[float, float]] = field(default_factory=dict)  # as `sweep.off_rate`: chosen, in use

    def is_judged(self, regime: str, arm: str) -> bool:
        """Whether the arm and full fine-tuning both trained at the rate that their sweep chose, if there was one."""
        return not {(regime, arm), (regime, FULL)} & self.off_rate.keys()

    def judged(self, by_regime: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Those of regime → arm that may be judged."""
        return {r: {arm: x for arm, x in arms.items() if self.is_judged(r, arm)} for r, arms in by_regime.items()}


def compare(
    results: Results, margin: float = MARGIN, off_rate: Mapping[Arm, tuple[float, float]] = MappingProxyType({})
) -> Comparisons:
    """All that the page on equivalence shows; a regime's required rank only where all of its arms may be judged."""
    tables = gaps(results)
    ranks = {r: required(table, margin) for r, table in tables.items() if r not in {r for r, _ in off_rate}}
    return Comparisons(
        margin,
        tables,
        contrasts(tables),
        contrasts(gaps(results, "area")),
        {regime: r for regime, r in ranks.items() if r},
        deposits_at_start(results),
        off_rate,
    )


def gaps(results: Results, measure: str = "final") -> dict[str, dict[str, np.ndarray]]:
    """Regime → arm → table of gaps `[seeds, problems]` to the last arm, over the seeds and problems that both have.

    `[students, seeds, problems]` where there are several trainings of the student, of arms that lack no cell.
    `measure` is one of `fair.MEASURES`.
    """
    answers, levels = fair.by_cell(results, measure), list(map(len, fair.samples(results).values()))
    there = set(answers.index.droplevel([*fair.samples(results)]))
    *ranks, full = results.arms
    tables: dict[str, dict[str, np.ndarray]] = {regime: {} for regime in results.regimes}
    for regime, arm in itertools.product(results.regimes, ranks):
        if {(regime, arm), (regime, full)} <= there:
            both = (answers.loc[(regime, arm)] - answers.loc[(regime, full)]).dropna(how="all").dropna(axis=1)
            if len(levels) == 1 or len(both) == math.prod(levels):
                shape = (*levels[:-1], len(both) // math.prod(levels[:-1]), both.shape[1])
                tables[regime][arm] = both.to_numpy(float).reshape(shape)
    return tables


def contrasts(tables: Mapping[str, Tables]) -> dict[str, dict[str, Contrast]]:
    """Regime → arm → contrast, where there is one."""
    return {
        regime: {arm: c for arm, table in arms.items() if (c := contrast(table))} for regime, arms in tables.items()
    }


def bootstrap(tables: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means `[tables, draws]` of tables of one shape, each of their axes resampled, crossed.

    The same seeds and problems are drawn for all tables: they share full fine-tuning's runs. Owen (2007) calls it the
    pigeonhole bootstrap. It counts the noise of single answers up to three times, and seeds too little where they are
    few: too wide where seeds hardly matter, too narrow where they do.
    """
    rng = np.random.default_rng(seed)
    stack = np.stack(tables)
    weights = [rng.multinomial(n, [1 / n] * n, draws) / n for n in stack.shape[1:]]
    axes = "wsn"[-len(weights) :]  # students, seeds, problems
    return np.einsum(f"{','.join('b' + axis for axis in axes)},k{axes}->kb", *weights, stack, optimize=True)


def resampled_interval(table: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle of the bootstrap's means of one table."""
    low, high = np.quantile(bootstrap([table])[0], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Design:
    """What a comparison of this many seeds and problems can do, given the variances that were found."""

    seeds: int
    problems: int
    difference: float  # true difference that the 95 % interval tells from zero with the given power
    margin: float  # margin at which the equivalence test passes with the given power where there is no difference


def design(
    tables: Sequence[np.ndarray], seeds: int | None = None, problems: int | None = None, power: float = POWER
) -> Design | None:
    """The power of a design, from the mean variances in tables of gaps, for as many seeds and problems as asked for.

    Of students it has as many as the tables. Means are drawn normal and mean squares as χ², both at their estimated
    size; the rest follows from their quantiles.
    """
    tables = [table for table in tables if comparable(table)]
    if not tables:
        return None
    *students, had_seeds, had_problems = tables[0].shape
    shape = (*students, seeds or had_seeds, problems or had_problems)
    variances = _variances(tables)
    rng, n = np.random.default_rng(0), 20_000
    squares: dict[tuple[int, ...], Any] = {}
    for effect in sorted(variances, key=len):
        within = {other: v for other, v in variances.items() if set(effect) <= set(other)}
        expected = sum(v * math.prod(shape) / _levels(other, shape) for other, v in within.items())
        freedom = math.prod(shape[axis] - 1 for axis in effect)
        drawn = rng.chisquare(freedom, n) / freedom if len(effect) < len(shape) else 1.0  # that of answers is known
        squares[effect] = expected * drawn
    noise = rng.normal(0, math.sqrt(sum(v / _levels(effect, shape) for effect, v in variances.items())), n)
    parts = variance_parts(squares, shape, math.prod(shape))
    return Design(
        shape[-2],
        shape[-1],
        float(np.quantile(half_width(parts, 0.975) - noise, power)),
        float(np.quantile(abs(noise) + half_width(parts, 1 - ALPHA), power)),
    )


def _variances(tables: Sequence[np.ndarray]) -> dict[tuple[int, ...], float]:
    """Effect, by the axes that it is of → its variance, the mean over tables: mean squares less what else they hold."""
    found: dict[tuple[int, ...], list[float]] = {}
    for table in tables:
        squares, shape = mean_squares(table), (*table.shape[:-1], table.shape[-1] + 2)
        for effect in squares:
            over = {other: s for other, s in squares.items() if set(effect) <= set(other)}
            own = sum((-1) ** (len(other) - len(effect)) * s for other, s in over.items())
            found.setdefault(effect, []).append(own * _levels(effect, shape) / math.prod(shape))
    return {effect: max(0.0, float(np.mean(values))) for effect, values in found.items()}


def _levels(effect: Sequence[int], shape: Sequence[int]) -> int:
    """How many levels an effect of these axes has."""
    return math.prod(shape[axis] for axis in effect)


def fewest_seeds(tables: Sequence[np.ndarray], margin: float = MARGIN) -> int | None:
    """The fewest seeds whose design passes the margin, by bisection; None if `MOST_SEEDS` are too few."""

    def enough(seeds: int) -> bool:
        d = design(tables, seeds)
        return d is not None and d.margin <= margin

    if not enough(MOST_SEEDS):
        return None
    return bisect.bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=enough)


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


def required(tables: Tables, margin: float = MARGIN, level: float = 0.95) -> Required | None:
    """From an arm's table of gaps each, `r1`, `r4`, …; None where no rank can be compared."""
    by_rank = {int(arm[1:]): c for arm, table in tables.items() if (c := contrast(table))}
    ranks = sorted(by_rank)
    if not ranks:
        return None
    alpha = (1 - level) / 2
    contrasts = [by_rank[rank] for rank in ranks]
    resampled = None
    stack = [tables[f"r{rank}"] for rank in ranks]
    if len({table.shape for table in stack}) == 1:
        drawn = _smallest(ranks, bootstrap(stack) >= -margin)
        low_draw, high_draw = np.quantile(drawn, [alpha, 1 - alpha], method="inverted_cdf")
        resampled = (float(low_draw), float(high_draw))
    return Required(
        estimate=float(_smallest(ranks, [c.mean >= -margin for c in contrasts])),
        shown=float(_smallest(ranks, [c.suffices(margin) for c in contrasts])),
        low=next((rank for rank in ranks if not by_rank[rank].falls_short(margin, alpha)), NOT_REACHED),
        high=float(_smallest(ranks, [c.suffices(margin, alpha) for c in contrasts])),
        resampled=resampled,
        ranks=tuple(ranks),
    )


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


def slope(tables: Mapping[str, Tables], deposits: Mapping[str, float], margin: float = MARGIN) -> Slope | None:
    """The law's prediction as a number; None unless two regimes of different density have a required rank to compare.

    The regimes' intervals are taken at 1 − 0.05 / regimes each (Bonferroni), so that all hold together at 95 %.
    """
    names = [name for name in tables if tables[name] and deposits.get(name, 0) > 0]
    ranks = {name: r for name in names if (r := required(tables[name], margin, 1 - 0.05 / len(names)))}
    x = np.log10([deposits[name] for name in ranks]) if ranks else np.zeros(0)
    if len(ranks) < 2 or np.ptp(x) < 1e-9:
        return None
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # the slope is linear in what is regressed
    with np.errstate(invalid="ignore"):
        middle, low, high = (
            np.log2([getattr(r, name) for r in ranks.values()]) for name in ("estimate", "low", "high")
        )
        estimate = float(weights @ middle) if np.isfinite(middle).all() else math.nan
        ends = [_slope_end(weights, low, high), -_slope_end(-weights, low, high)]
    return Slope(estimate, ends[0], ends[1], len(ranks), all(r.estimate == r.ranks[0] for r in ranks.values()))


def _smallest(ranks: Sequence[int], passes: Sequence[bool] | np.ndarray) -> np.ndarray:
    """The smallest rank that passes together with all larger ones, in each column of `passes` `[ranks, ...]`."""
    good = np.logical_and.accumulate(np.asarray(passes)[::-1])[::-1]
    return np.where(good.any(0), np.array(ranks, float)[good.argmax(0)], NOT_REACHED)


def _slope_end(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The least of weights @ y over y within [low, high]; −∞ where a bound that it needs is open."""
    parts = np.where(weights > 0, weights * low, np.where(weights < 0, weights * high, 0.0))
    if (np.isinf(low) & (weights > 0)).any():
        return -math.inf if (np.isinf(high) & (weights < 0)).any() else math.inf
    return float(parts.sum())
