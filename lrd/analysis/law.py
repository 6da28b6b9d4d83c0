"""When adapter capacity becomes the bottleneck: bits learned against parameters, information and the reward.

The unit of every interval is a replicate: a seed and a codebook, which all arms share. Statistics are of means over
replicates, intervals from resampling replicates. The words for these numbers stand in `lrd.report.law`. Torch-free.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrd.analysis import codebooks, sweep
from lrd.analysis.bootstrap import Estimate, bootstrap
from lrd.analysis.codebooks import Measured, Rewards
from lrd.analysis.stats import mean_difference
from lrd.presets import read_preset
from lrd.results import Results, trained_with
from lrd.runs import published

DRAWS = 1000
SHARE = 0.9  # of what full fine-tuning learns: where an adapter counts as large enough
SLOPES = np.geomspace(1e-3, 32, 2000)  # bits a parameter that are tried: half a percent apart
RATES = np.geomspace(0.05, 20, 200)  # time constants that are tried, in lengths of the longest run


Statistic = Callable[[Measured, np.ndarray], float]  # of the mean over replicates, or over a resample of them


def bits_a_parameter(bits: np.ndarray, parameters: np.ndarray, ceiling: np.ndarray) -> float:
    """c of bits = min(c·N, ceiling): bits [A, I] of adapters with N parameters [A] and a ceiling [I], by least squares.

    Of shares of the ceiling, so that a large codebook counts no more than a small one. NaN where a ceiling is 0.
    """
    if not (ceiling > 0).all():
        return math.nan
    line = SLOPES[:, None, None] * (parameters[:, None] / ceiling)
    return float(SLOPES[((bits / ceiling - np.minimum(line, 1)) ** 2).sum((1, 2)).argmin()])


def capacity(m: Measured, mean: np.ndarray) -> float:
    """Bits a parameter at the last evaluation, with all that there is to know for the ceiling."""
    return bits_a_parameter(mean[:-1, :, -1], m.parameters[:-1], m.information)


def final_capacity(m: Measured, mean: np.ndarray) -> float:
    """As `capacity`, of asymptotes over the run length: without what was only a matter of time.

    An asymptote is no more than there is to know.
    """
    ends, _ = asymptote(m.steps, mean[:-1])
    return bits_a_parameter(np.minimum(ends, m.information), m.parameters[:-1], m.information)


def largest_capacity(m: Measured) -> float:
    """Bits a parameter from which on a fit cannot tell more: the smallest adapter would hold the largest codebook.

    Of slopes that fit equally well the least is taken, hence a little less.
    """
    return 0.99 * m.information.max() / m.parameters[0]


def asymptote(steps: np.ndarray, bits: np.ndarray) -> tuple[Any, Any]:
    """a and τ of bits = a (1 − exp(−step/τ)), by least squares: what is learned in the end, and how slowly.

    Of any number of curves, bits [..., steps].
    """
    tau = RATES * steps.max()
    shape = 1 - np.exp(-steps / tau[:, None])
    a = bits @ shape.T / (shape**2).sum(1)  # the best for each τ
    best = ((bits[..., None, :] - a[..., None] * shape) ** 2).sum(-1).argmin(-1)
    return np.take_along_axis(a, best[..., None], -1)[..., 0], tau[best]


def matching_size(bits: np.ndarray, parameters: np.ndarray) -> float:
    """Parameters at which an adapter learns `SHARE` of what full fine-tuning, the last arm, has learned: bits [A].

    Read off between arms, in a straight line over log N; a larger arm that learned less counts for as much. What the
    reward teaches nobody is not held against an adapter. The smallest arm's own where that one suffices; NaN where full
    fine-tuning has learned nothing.
    """
    if not bits[-1] > 0:
        return math.nan
    reached = np.maximum.accumulate(bits / bits[-1])
    first = int((reached >= SHARE).argmax())
    between = slice(max(first - 1, 0), first + 1)
    return float(np.exp(np.interp(SHARE, reached[between], np.log(parameters[between]))))


def matching_sizes(m: Measured, mean: np.ndarray, when: np.ndarray | None = None) -> np.ndarray:
    """The matching size [I] of each codebook, at the last evaluation or at a step each, `when` [I]; NaN for NaN."""
    bits = mean[..., -1] if when is None else _bits_at(m, mean, when)
    return np.array([matching_size(column, m.parameters) for column in bits.T])


def _bits_at(m: Measured, mean: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Bits [A, I] of each codebook at a step of its own, `when` [I], in straight lines between evaluations."""
    reached, books = np.nan_to_num(when), np.arange(len(when))
    before = np.clip(np.searchsorted(m.steps, reached, "right") - 1, 0, len(m.steps) - 2)
    part = (when - m.steps[before]) / (m.steps[before + 1] - m.steps[before])
    return mean[:, books, before] * (1 - part) + mean[:, books, before + 1] * part


def sizes_at_equal_exposures(m: Measured, mean: np.ndarray) -> np.ndarray:
    """As `matching_sizes` [I], each codebook at the step in proportion to its keys: all keys as often asked for."""
    return matching_sizes(m, mean, m.steps[-1] * m.information / m.information.max())


def sizes_at_equal_bits(m: Measured, mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """As `matching_sizes` [I], each codebook when full fine-tuning has learned `target` [I] bits; NaN before that."""
    curves = np.maximum.accumulate(mean[-1], -1)
    reached = (target > 0) & (target <= curves[:, -1])
    when = [np.interp(bits, curve, m.steps) for bits, curve in zip(target, curves)]
    return matching_sizes(m, mean, np.where(reached, when, math.nan))


def least_absorbed(means: list[np.ndarray]) -> np.ndarray:
    """Bits [I] that full fine-tuning absorbs by its best evaluation under the reward that teaches it least."""
    return np.min([mean[-1].max(1) for mean in means], axis=0)


def growth(m: Measured, mean: np.ndarray) -> float:
    """Slope of log size over log information: 1 if the size is in proportion to what is to be stored, 0 if fixed."""
    return _slope(m.information, matching_sizes(m, mean))


def growth_at_equal_exposures(m: Measured, mean: np.ndarray) -> float:
    """Like `growth`, but each codebook is read at the step where every key has been seen equally often.

    At equally many episodes a larger codebook has been learned for less long, key by key.
    """
    return _slope(m.information, sizes_at_equal_exposures(m, mean))


def _slope(information: np.ndarray, sizes: np.ndarray) -> float:
    if len(information) < 2:
        return math.nan
    return float(np.polyfit(np.log(information), np.log(sizes), 1)[0])


@functools.lru_cache(maxsize=32)  # a page says a number in words and shows it in a table
def estimate(m: Measured, statistic: Statistic, draws: int = DRAWS) -> Estimate:
    """A statistic of the means over replicates, with its interval."""
    return bootstrap(lambda weights: statistic(m, m.mean(weights)), m.n, draws)


@functools.lru_cache(maxsize=32)
def compare(a: Measured, b: Measured, draws: int = DRAWS, *, equal_bits: bool = False) -> Estimate:
    """Ratio of the matching sizes of two rewards at equal information: geometric mean over codebooks.

    At the last evaluation, or with `equal_bits` when full fine-tuning has absorbed as much under one as it ever does
    under the other. Replicates are paired.
    """

    def ratio(weights: np.ndarray | None) -> float:
        means = [m.mean(weights) for m in (a, b)]
        target = least_absorbed(means)
        of_a, of_b = (
            sizes_at_equal_bits(m, mean, target) if equal_bits else matching_sizes(m, mean)
            for m, mean in zip((a, b), means)
        )
        return float(np.exp(np.mean(np.log(of_a / of_b))))

    return bootstrap(ratio, a.n, draws)


@dataclass(frozen=True)
class Pair:
    """Two rewards, and the matching size under the denser over that under the sparser; see `compare`."""

    denser: str
    sparser: str
    at_end: Estimate
    at_bits: Estimate


def pairs(rewards: Rewards) -> list[Pair]:
    """Every two rewards that were measured, the denser of a pair first."""
    return [
        Pair(a, b, *(compare(m, n, equal_bits=choice) for choice in (False, True)))
        for (a, m), (b, n) in itertools.combinations(rewards.items(), 2)
    ]


def fallen(m: Measured) -> dict[str, list[float]]:
    """Adapter → codebooks, by information, of which it is shown to learn less than the next smaller one; only those.

    By Student's 95 % interval of the difference over replicates, at the last evaluation.
    """
    less: dict[str, list[float]] = {}
    for a, i in np.ndindex(len(m.arms) - 2, len(m.information)):
        gap = mean_difference(pd.Series(m.bits[:, a + 1, i, -1] - m.bits[:, a, i, -1]))
        if gap and gap.high < 0:
            less.setdefault(m.arms[a + 1], []).append(m.information[i])
    return less


def beyond_adapters(rewards: Rewards) -> tuple[int, int]:
    """How many rewards' and codebooks' matching sizes at equal exposures no adapter is as large as, and of how many."""
    beyond = [sizes_at_equal_exposures(m, m.mean()) > m.parameters[-2] for m in rewards.values()]
    return int(sum(b.sum() for b in beyond)), sum(len(b) for b in beyond)


def rate_shares(swept: Results) -> pd.DataFrame:
    """The scores of a sweep like `law-lr`: share of a codebook learned by the last step, a row a reward and adapter."""
    frame = codebooks.learned(swept)
    last = frame[frame.step == frame.groupby("cell").step.transform("max")]
    share = swept.cells.cell.map((last.bits / last.information).set_axis(last.cell))
    return sweep.scores(swept.cells.assign(share=share), "learning_rate", "share", ["regime", "adapter"])


def trainings(*presets: str) -> int:
    """How many trainings of the student the cells of these presets began from."""
    return len(set().union(*(trained_with(preset).union(ran_on(preset).get("student", [])) for preset in presets)))


def ran_on(preset: str) -> dict[str, list[str]]:
    """What the preset's published cells rest on, see `again.environment`."""
    return (published.record(preset) or {}).get("environment", {})


def expected(preset: str) -> tuple[float, float] | None:
    """Bits a parameter that the preset expects, its `expected = [low, high]`; None without one."""
    between = read_preset(preset)["about"].get("expected")
    return between and tuple(between)
