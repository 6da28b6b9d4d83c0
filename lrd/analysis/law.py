"""Where adapters run out: bits learned against parameters, information and the reward. Torch-free.

The unit of every interval is a replicate: a seed and a codebook, which all arms share. Statistics are of means over
replicates, intervals from resampling replicates.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lrd import UserError, results
from lrd.analysis import budget
from lrd.analysis.budget import times
from lrd.analysis.stats import mean_difference
from lrd.cell import codebook_name, grid, read_preset
from lrd.report.text import NBSP, NOTHING, listed
from lrd.results import Results
from lrd.runs import published

DRAWS = 1000
LEAST = 5  # replicates of an interval: of four, the rarest resamples are likelier than its tails, and it covers 87 %
SHARE = 0.9  # of what full fine-tuning learns: where an adapter counts as large enough
SLOPES = np.geomspace(1e-3, 32, 2000)  # bits a parameter that are tried: half a percent apart
RATES = np.geomspace(0.05, 20, 200)  # time constants that are tried, in lengths of the longest run
NOT_RUN = "Not run: no replicate of any reward is finished."
LEARNED = 0.5  # of a codebook: where full fine-tuning learns less, its run was too short to tell what has room


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval, of `n` replicates; NaN bounds where they are too few for one."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return NOTHING
        bounds = f" [{times(self.low)},{NBSP}{times(self.high)}]" if self.low == self.low else ""
        return (times(self.value) + bounds).replace("-", "−")


@dataclass(frozen=True, eq=False)
class Measured:
    """Bits of a reward at its evaluations: R replicates, A arms by size, full fine-tuning last, I codebooks."""

    bits: np.ndarray  # [R, A, I, steps]
    parameters: np.ndarray  # [A]
    information: np.ndarray  # [I], bits
    steps: np.ndarray  # or looks at a key, see `measured`
    arms: list[str]
    regime: str

    @property
    def n(self) -> int:
        """Replicates."""
        return len(self.bits)

    def mean(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Over replicates, each as often as `weights` says: [A, I, steps]."""
        return self.bits.mean(0) if weights is None else np.tensordot(weights / weights.sum(), self.bits, 1)


ABOUT = ["cell", "regime", "adapter", "rank", "step", "replicate", "information", "parameters"]  # of the kept rows


def table(found: Results) -> pd.DataFrame:
    """One row a finished cell and evaluation: bits learned, calibrated and raw, beside what the arm is and was asked.

    Of cells that are not at hand, the rows that were published. Cells that are not evaluated on all of their codebook
    have none. `looks` says how often each key had been asked for by then.
    """
    here, rest = _at_hand(found), kept(found.preset)
    both = [rows for rows in (here, rest[~rest.cell.isin(here.cell)]) if len(rows)]
    frame = pd.concat(both, ignore_index=True) if both else here
    cells = {cell.name: cell for cell in grid(found.preset)}
    asked = frame.step * frame.cell.map({name: cell.prompts_per_step for name, cell in cells.items()})
    return frame.assign(looks=asked / frame.cell.map({name: cell.eval_problems for name, cell in cells.items()}))


def kept(preset: str) -> pd.DataFrame:
    """The rows that `lrd publish` left: a grid of cells is larger than a repository should be."""
    rows = published.rows(preset, ["replicate"])
    return pd.DataFrame(columns=[*ABOUT, "bits", "bits_raw", "pass@1"]) if rows is None else rows


def with_kept(found: Results) -> Results:
    """The same without the gaps that published rows fill: those cells are `published`."""
    cells = found.cells.copy()
    only = set(kept(found.preset).cell) & set(cells.cell[cells.state == "absent"])
    cells.loc[cells.cell.isin(only), "state"] = "published"
    filled = {f"{name}: absent" for name in only}
    return replace(found, cells=cells, problems=[t for t in found.problems if t not in filled])


def _at_hand(found: Results) -> pd.DataFrame:
    cells = {cell.name: cell for cell in grid(found.preset)}
    done = found.finished.set_index("cell")
    names = ["bits", "bits_raw", "correct"]
    evals = found.evals[found.evals.cell.isin(done.index)].reindex(columns=["cell", "step", *names])
    rows = []
    sums = evals.groupby(["cell", "step"], as_index=False)[names].sum()
    for name, step, bits, raw, right in sums.itertuples(index=False):
        cell, book = cells[name], codebook_name(cells[name].eval_data)
        if book is None or book.keys != cell.eval_problems:
            continue
        row = {"cell": name, "regime": cell.regime, "adapter": cell.point["adapter"], "rank": cell.rank, "step": step}
        row |= {"replicate": f"{cell.seed}/{book.seed}", "information": book.keys * book.bits, "bits": bits}
        row |= {"parameters": float(done.trainable_parameters[name]), "bits_raw": raw}
        rows.append(row | {"pass@1": right / book.keys})
    return pd.DataFrame(rows, columns=[*ABOUT, "bits", "bits_raw", "pass@1"])


def measured(frame: pd.DataFrame, regime: str, at: str = "step") -> Measured | None:
    """A regime's rows as an array; replicates that lack a cell or an evaluation are left out. None without a whole one.

    Where a regime has no full fine-tuning, or no adapter, nothing can be compared: None too. `at` names what codebooks
    are set side by side at: `step`, or `looks` where larger ones were trained for longer.
    """
    mine = frame[frame.regime == regime]
    size = mine.groupby("adapter").parameters.max().sort_values()
    full = list(mine.adapter[mine["rank"].isna()].unique())
    arms = [arm for arm in size.index if arm not in full] + full
    if len(full) != 1 or len(arms) < 2:
        return None
    axes = [arms, sorted(mine.information.unique()), sorted(mine[at].unique())]
    wide = mine.pivot_table(index="replicate", columns=["adapter", "information", at], values="bits")
    wide = wide.reindex(columns=pd.MultiIndex.from_product(axes)).dropna()
    if not len(wide):
        return None
    bits = wide.to_numpy().reshape(len(wide), *map(len, axes))
    return Measured(bits, size[arms].to_numpy(float), np.array(axes[1], float), np.array(axes[2], float), arms, regime)


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


def size(bits: np.ndarray, parameters: np.ndarray) -> float:
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


def sizes(m: Measured, mean: np.ndarray, when: np.ndarray | None = None) -> np.ndarray:
    """The size [I] that each codebook asks for, at the last evaluation or at a step each, `when` [I]; NaN for NaN."""
    bits = mean[..., -1] if when is None else _then(m, mean, when)
    return np.array([size(of_book, m.parameters) for of_book in bits.T])


def _then(m: Measured, mean: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Bits [A, I] of each codebook at a step of its own, `when` [I], in straight lines between evaluations."""
    known, books = np.nan_to_num(when), np.arange(len(when))
    before = np.clip(np.searchsorted(m.steps, known, "right") - 1, 0, len(m.steps) - 2)
    part = (when - m.steps[before]) / (m.steps[before + 1] - m.steps[before])
    return mean[:, books, before] * (1 - part) + mean[:, books, before + 1] * part


def growth(m: Measured, mean: np.ndarray) -> float:
    """Slope of log size over log information: 1 if the size is in proportion to what is to be stored, 0 if fixed."""
    return _slope(m, sizes(m, mean))


def growth_at_equal_looks(m: Measured, mean: np.ndarray) -> float:
    """As `growth`, each codebook at a step in proportion to its keys, when each key has been asked for equally often.

    At equally many episodes a larger codebook has been learned for less long, key by key.
    """
    return _slope(m, sizes(m, mean, _equal_looks(m)))


def _equal_looks(m: Measured) -> np.ndarray:
    """Steps [I] by which the keys of each codebook have been asked for equally often."""
    return m.steps[-1] * m.information / m.information.max()


def _slope(m: Measured, found: np.ndarray) -> float:
    if len(m.information) < 2:
        return math.nan
    return float(np.polyfit(np.log(m.information), np.log(found), 1)[0])


def asymptote(steps: np.ndarray, bits: np.ndarray) -> tuple[Any, Any]:
    """a and τ of bits = a (1 − exp(−step/τ)), by least squares: what is learned in the end, and how slowly.

    Of any number of curves, bits [..., steps].
    """
    tau = RATES * steps.max()
    shape = 1 - np.exp(-steps / tau[:, None])
    a = bits @ shape.T / (shape**2).sum(1)  # the best for each τ
    best = ((bits[..., None, :] - a[..., None] * shape) ** 2).sum(-1).argmin(-1)
    return np.take_along_axis(a, best[..., None], -1)[..., 0], tau[best]


def final_capacity(m: Measured, mean: np.ndarray) -> float:
    """As `capacity`, of asymptotes over the run length: without what was only a matter of time.

    An asymptote is no more than there is to know.
    """
    ends, _ = asymptote(m.steps, mean[:-1])
    return bits_a_parameter(np.minimum(ends, m.information), m.parameters[:-1], m.information)


def at_equal_bits(m: Measured, mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """As `sizes`, each codebook at the moment when full fine-tuning has learned `target` [I] bits; NaN before that."""
    curves = np.maximum.accumulate(mean[-1], -1)
    reached = (target > 0) & (target <= curves[:, -1])
    when = [np.interp(bits, curve, m.steps) for bits, curve in zip(target, curves)]
    return sizes(m, mean, np.where(reached, when, math.nan))


@functools.lru_cache(maxsize=32)  # a page says a number in words and shows it in a table
def estimate(m: Measured, statistic: Callable[[Measured, np.ndarray], float], draws: int = DRAWS) -> Estimate:
    """A statistic of the means with its 95 % interval: the bootstrap over replicates, expanded for their small number.

    Of n replicates, a resample varies by (n − 1)/n too little, and a normal quantile stands where Student's should:
    percentiles are taken further out by as much (Hesterberg 2015, §5.3).
    """
    return _bootstrap(lambda weights: statistic(m, m.mean(weights)), m.n, draws)


@functools.lru_cache(maxsize=32)
def compare(a: Measured, b: Measured, draws: int = DRAWS, *, equal_bits: bool = False) -> Estimate:
    """Ratio of the sizes that two rewards ask for at equal information: geometric mean over codebooks.

    At the last evaluation, or with `equal_bits` when full fine-tuning has absorbed as much under one as it ever does
    under the other. Replicates are paired: both must have the same ones, or there is no interval.
    """

    def ratio(weights: np.ndarray | None) -> float:
        means = [(m, m.mean(weights)) for m in (a, b)]
        target = _least([mean for _, mean in means])
        of_a, of_b = (at_equal_bits(*of, target) if equal_bits else sizes(*of) for of in means)
        return float(np.exp(np.mean(np.log(of_a / of_b))))

    if a.n != b.n:
        return Estimate(ratio(None), math.nan, math.nan, min(a.n, b.n))
    return _bootstrap(ratio, a.n, draws)


def _bootstrap(statistic: Callable[[np.ndarray | None], float], n: int, draws: int) -> Estimate:
    """A statistic of how often each of n replicates counts (None: once), with the interval of `estimate`."""
    value = float(statistic(None))
    if n < LEAST:
        return Estimate(value, math.nan, math.nan, n)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    return Estimate(value, *expanded(np.array([statistic(weights) for weights in counts], float), n), n)


def expanded(found: np.ndarray, n: int, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentiles of bootstrap values of n observations; NaN where some could not be had."""
    from scipy.stats import norm, t  # here, so that a cell's own notebook does not need it

    if not np.isfinite(found).all():
        return math.nan, math.nan
    tail = norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + level) / 2, n - 1))
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def arm_rows(m: Measured) -> list[tuple[str, ...]]:
    """Arm, parameters, capacity at the book's 2 bits each; of each codebook the bits learned and their share of it."""
    mean = m.mean()[:, :, -1]
    rows = []
    for arm, size, bits in zip(m.arms, m.parameters, mean):
        shares = [f"{round(b):,} ({round(100 * b / most)} %)" for b, most in zip(bits, m.information)]
        rows.append((arm, f"{size:,.0f}", f"{budget.capacity(size):,.0f}", *shares))
    return rows


def inversions(found: dict[str, Measured | None]) -> str:
    """Adapters that learned less than half of what a smaller one did, in a sentence; empty without any."""
    said = []
    for regime, m in _known(found).items():
        bits = m.mean()[:-1, :, -1]
        for i, information in enumerate(m.information):
            less = [arm for a, arm in enumerate(m.arms[:-1]) if bits[a, i] < bits[: a + 1, i].max() / 2]
            said += [f"{', '.join(less)} ({regime}, {information:,.0f} bits)"] if less else []
    if not said:
        return ""
    return (
        f"Less than half of what a smaller adapter did was learned by {'; '.join(said)}: room does not explain that, "
        f"their learning rates may, and the sizes above rest on them too."
    )


def fallen(found: dict[str, Measured | None]) -> str:
    """Adapters whose bits are shown to lie below those of the next smaller one, a sentence; empty without any.

    By Student's 95 % interval of the difference over replicates, at the last evaluation.
    """
    said = []
    for regime, m in _known(found).items():
        for a, arm in enumerate(m.arms[1:-1], 1):
            more = m.bits[:, a, :, -1] - m.bits[:, a - 1, :, -1]
            gaps = [mean_difference(pd.Series(by_seed)) for by_seed in more.T]
            less = [f"{information:,.0f}" for information, d in zip(m.information, gaps) if d and d.high < 0]
            said += [f"{arm} under {regime} ({listed(less)} bits)"] if less else []
    if not said:
        return ""
    return (
        f"Shown to learn less than the next smaller adapter: {listed(said)}. Room does not explain that, its learning "
        f"rate may."
    )


def replicates(found: dict[str, Measured | None]) -> str:
    """How many each reward has: `4 (supervised), 4 (outcome)`."""
    return ", ".join(f"{m.n if m else 0} ({regime})" for regime, m in found.items())


def students(*presets: str) -> str:
    """From how many trainings of the student the cells of these presets began, as the end of a sentence."""
    began = [results.trained_with(preset).union(_ran_on(preset).get("student", [])) for preset in presets]
    if not all(began):
        return "began from trainings of it of which not all are on record"
    number = len(set().union(*began))
    return "all began from one training of it" if number == 1 else f"began from {number} trainings of it"


def spread(found: dict[str, Measured | None]) -> str:
    """From least to most bits a parameter over rewards, at the last evaluation."""
    slopes = sorted((capacity(m, m.mean()), regime) for regime, m in _known(found).items())
    return " to ".join(f"{times(c)} ({regime})" for c, regime in slopes[:: max(1, len(slopes) - 1)]) or NOTHING


def repeated(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """How far apart the cells are that two tables share, at the last step of both, as the end of a sentence."""
    last = [t[t.step == t.groupby("cell").step.transform("max")] for t in (a, b)]
    both = last[0].merge(last[1], on=["cell", "step"], suffixes=("", "_again"))
    if not len(both):
        return "cannot be told from any cell that both have"
    apart = 100 * ((both.bits_again - both.bits) / both.information).abs()
    ends = f"{apart.mean():.1f} % of a codebook on average, {apart.max():.0f} % at most"
    return f"shows in {len(both)} cells that both have: their ends are {ends} apart"


def versions(*presets: str) -> str:
    """The versions of PyTorch that the presets' published cells ran under."""
    found = sorted({version for preset in presets for version in _ran_on(preset).get("torch", [])})
    return "PyTorch " + (listed(found) if found else NOTHING)


def _ran_on(preset: str) -> dict[str, list[str]]:
    """What the preset's published cells rest on, see `again.environment`."""
    return (published.record(preset) or {}).get("environment", {})


def fit_rows(
    found: dict[str, Measured | None], kinds: Sequence[Callable[[Measured, np.ndarray], float]]
) -> list[tuple[str, ...]]:
    """These statistics of a reward, and the sizes at the last evaluation."""
    rows = []
    for regime, m in found.items():
        if m is None:
            rows.append((regime, *[NOTHING] * (len(kinds) + 1)))
            continue
        read_off = ", ".join(f"{s:,.0f}" for s in sizes(m, m.mean()))
        rows.append((regime, *(str(estimate(m, kind)) for kind in kinds), read_off))
    return rows


def rates(swept: Results) -> pd.DataFrame:
    """Of a sweep, as `law-lr`: share of a codebook learned by the last step, the mean over codebooks and seeds.

    One row a reward and adapter, one column a rate.

    The rule of the preset takes each row's largest, and of equal ones the smaller rate; NaN where a cell is missing.
    """
    frame = table(swept)
    last = frame[frame.step == frame.groupby("cell").step.transform("max")]
    share = swept.cells.cell.map((last.bits / last.information).set_axis(last.cell))
    each = swept.cells.assign(share=share).groupby(["regime", "adapter", "learning_rate"], sort=False).share
    return each.agg(lambda shares: shares.mean(skipna=False)).unstack()


def taken(swept: Results) -> dict[tuple[str, str], float]:
    """(Reward, adapter) → the rate that the rule takes; none where a cell is missing."""
    whole = rates(swept).dropna()
    return {at: whole.columns[shares.argmax()] for at, shares in zip(whole.index, whole.to_numpy(float))}


def rate_rows(swept: Results) -> list[tuple[str, ...]]:
    """Reward and adapter, the share learned at each rate, the rate that is taken and whether it is at an end."""
    found, best = rates(swept), taken(swept)
    ends = (found.columns[0], found.columns[-1])
    return [
        (
            ", ".join(at),
            *(f"{max(100 * s, 0):.0f} %" if s == s else NOTHING for s in shares),
            f"{best[at]:g}{' (at the end)' if best[at] in ends else ''}" if at in best else NOTHING,
        )
        for at, shares in zip(found.index, found.to_numpy(float))
    ]


def rewards(found: Results, at: str = "step") -> dict[str, Measured | None]:
    """Each of the preset's rewards as `measured`."""
    frame = table(found)
    return {regime: measured(frame, regime, at) for regime in found.regimes}


def equal_head(found: dict[str, Measured | None]) -> list[str]:
    """Column names of `equal_rows`: each codebook's information and the bits absorbed at which arms are compared."""
    known = [m for m in found.values() if m is not None]
    if not known:
        return ["reward"]
    return [
        "reward",
        *(
            f"{i:,.0f} bits, at {b:,.0f} absorbed"
            for i, b in zip(known[0].information, _least([m.mean() for m in known]))
        ),
    ]


def equal_rows(found: dict[str, Measured | None]) -> list[tuple[str, ...]]:
    """Of each reward the sizes when full fine-tuning has absorbed as much as under the reward that teaches least."""
    known = [m for m in found.values() if m is not None]
    target = _least([m.mean() for m in known]) if known else np.array([])
    return [
        (m.regime, *(f"{s:,.0f}" if s == s else NOTHING for s in at_equal_bits(m, m.mean(), target))) for m in known
    ]


def _least(means: list[np.ndarray]) -> np.ndarray:
    """Bits [I] that full fine-tuning absorbs by its best evaluation under the reward that teaches it least."""
    return np.min([mean[-1].max(1) for mean in means], axis=0)


def others(presets: tuple[str, ...] = ("tiny", "small")) -> list[tuple[str, ...]]:
    """The studied matrices and the report's on the same axes: bits delivered at most over capacity, from the least."""
    frames = {f"{preset}, finished cells": budget.cells(results.load(preset))[0] for preset in presets}
    rows = []
    for name, frame in (frames | {"the report's, by its configuration": budget.scale()}).items():
        for regime in dict.fromkeys(frame.regime) or ["any"]:
            mine = frame[(frame.regime == regime) & frame.largest_ratio.notna()]
            values = (mine.capacity, mine.largest_ratio)
            ends = [f"{times(v.min())} to {times(v.max())}" if len(v) else NOTHING for v in values]
            rows.append((f"{name}: {regime}", str(len(mine)), *ends))
    return rows


def verdict(found: dict[str, Measured | None]) -> str:
    """What the declared statistics say of sizes, as sentences; an interval that includes no effect is said to."""
    if not (known := _known(found)):
        return NOT_RUN
    grows = (
        f"At equally many episodes the size that matches full fine-tuning {_growing(known, growth)} At equally many "
        f"looks at each key it {_growing(known, growth_at_equal_looks)}"
    )
    return " ".join([grows, *_beside(known, "episodes")])


def expected(preset: str) -> tuple[float, float] | None:
    """Bits a parameter that the preset expects, its `expected = [low, high]`; None without one."""
    if (between := read_preset(preset).get("about", {}).get("expected")) is None:
        return None
    numbers = isinstance(between, list) and all(type(bound) in (int, float) for bound in between)
    if not (numbers and len(between) == 2 and between[0] <= between[1]):
        raise UserError(f"expected of preset {preset!r} is {between!r}; it has to be [low, high], two numbers")
    return float(between[0]), float(between[1])


def verdict_at_looks(found: dict[str, Measured | None]) -> str:
    """As `verdict`, where codebooks are set side by side at equally many looks at a key."""
    if not (known := _known(found)):
        return NOT_RUN
    looks = next(iter(known.values())).steps[-1]
    grows = f"When each key has been asked for {looks:.0f} times, the size that matches full fine-tuning "
    return " ".join([grows + _growing(known, growth), *_beside(known, "looks at a key")])


def beyond_adapters(found: dict[str, Measured | None]) -> str:
    """Of how many rewards' and codebooks' sizes at equal looks no adapter is as large: `5 of 6`."""
    known = _known(found).values()
    beyond = [sizes(m, m.mean(), _equal_looks(m)) > m.parameters[-2] for m in known]
    return f"{sum(b.sum() for b in beyond)} of {sum(len(b) for b in beyond)}"


def tested(found: dict[str, Measured | None]) -> str:
    """Of how many rewards growth is shown, and of which a law of density at equal bits, as a sentence."""
    if not (known := _known(found)):
        return ""
    kinds = (growth, growth_at_equal_looks)
    grows = [sum(estimate(m, slope).low > 0 for m in known.values()) or "none" for slope in kinds]
    more = [
        f"{a} against {b}"
        for a, b in itertools.combinations(known, 2)
        if compare(known[a], known[b], equal_bits=True).low > 1
    ]
    return (
        f"Growth is shown under {grows[0]} of {len(known)} rewards at equally many episodes, and under {grows[1]} at "
        f"equally many looks; that the denser asks for more at equal bits is shown of "
        f"{listed(more) or 'no two rewards'}."
    )


def held(first: dict[str, Measured | None], again: dict[str, Measured | None]) -> str:
    """Whether slopes of a second preset lie within the intervals of the first, and are known better, as a sentence.

    One that lies outside may still be the same: whether the intervals have a value in common is said too.
    """
    known = _known(first)
    slopes = [(r, estimate(known[r], growth), estimate(m, growth)) for r, m in _known(again).items() if r in known]
    both = [(regime, a, b) for regime, a, b in slopes if not math.isnan(a.low + b.low)]
    if not both:
        return ""
    texts = []
    for regime, a, b in both:
        where = "within" if a.low <= b.value <= a.high else "outside"
        width = "narrower" if b.high - b.low < a.high - a.low else "no narrower"
        common = "they overlap" if a.low <= b.high and b.low <= a.high else "they have no value in common"
        texts.append(f"{where} the first run's interval under {regime} (its own is {width}; {common})")
    return f"At equally many episodes the slope lies {listed(texts)}."


def _known(found: dict[str, Measured | None]) -> dict[str, Measured]:
    return {regime: m for regime, m in found.items() if m is not None}


def _beside(known: dict[str, Measured], equal: str) -> list[str]:
    """What is said beside how sizes grow; `equal` names what rewards have had equally much of."""
    said = []
    for regime, m in known.items():
        shares = m.mean()[-1, :, -1] / m.information
        if shares.min() < LEARNED:
            texts = " and ".join(f"{100 * share:.0f} %" for share in shares)
            said.append(
                f"But under {regime} full fine-tuning itself learns no more than {texts} of the codebooks by the last "
                f"step, so that these sizes say more of what is learned soon than of what an adapter can hold."
            )
    if len(known) > 1:
        said.append(_densities(known, equal))
    return [*said, *([poor] if (poor := inversions(known)) else [])]


def _growing(known: dict[str, Measured], statistic: Callable[[Measured, np.ndarray], float]) -> str:
    """`grows with the information: slope 1.5 [0.96, 1.6] under supervised`, for every way in which it goes."""
    ways: dict[str, list[str]] = {}
    for regime, m in known.items():
        g = estimate(m, statistic)
        way = "has no interval yet" if math.isnan(g.low) else "is not shown to grow"
        way = "grows with the information" if g.low > 0 else "shrinks with the information" if g.high < 0 else way
        ways.setdefault(way, []).append(f"slope {g} under {regime}")
    return "; it ".join(f"{way}: {listed(slopes)}" for way, slopes in ways.items()) + "."


def _densities(known: dict[str, Measured], equal: str) -> str:
    """Each reward's size over that of every sparser one, and whether any denser reward is shown to ask for more."""
    texts, unknown = [], []
    for a, b in itertools.combinations(known, 2):
        at_end, at_bits = (compare(known[a], known[b], equal_bits=choice) for choice in (False, True))
        texts.append(f"{a} asks for {at_end} times the size that {b} does ({at_bits})")
        unknown += [f"{a} against {b}"] if math.isnan(at_end.low) else []
    less = _shown(known, equal, lambda ratio: ratio.high < 1)
    return (
        f"At equally many {equal}, and in brackets when both have taught full fine-tuning equally much, "
        f"{listed(texts)}: {denser(known, equal)}{f'; less is asked for under {listed(less)}' if less else ''}."
        + (f" Of {listed(unknown)} too few replicates are the same for an interval." if unknown else "")
    )


def denser(found: dict[str, Measured | None], equal: str = "episodes") -> str:
    """Which denser rewards are shown to ask for a larger adapter than a sparser one, as a clause.

    Rewards are in order, the densest first; `equal` names what they have had equally much of by the last evaluation.
    """
    if len(known := _known(found)) < 2:
        return "no two rewards can be compared"
    more = _shown(known, equal, lambda ratio: ratio.low > 1)
    return f"more is asked for under {listed(more)}" if more else "no denser reward is shown to ask for more"


def _shown(known: dict[str, Measured], equal: str, shows: Callable[[Estimate], bool]) -> list[str]:
    """`distillation than outcome`, of each two rewards whose ratio `shows` it, and when, if not always."""
    said = []
    for a, b in itertools.combinations(known, 2):
        at_end, at_bits = (shows(compare(known[a], known[b], equal_bits=choice)) for choice in (False, True))
        when = "" if at_end and at_bits else f" (at equally many {equal} alone)" if at_end else " (at equal bits alone)"
        said += [f"{a} than {b}{when}"] if at_end or at_bits else []
    return said


def ratio_row(found: dict[str, Measured | None], *, equal_bits: bool = False) -> list[str]:
    """Of each two rewards the size that the denser asks for over that of the sparser, see `compare`."""
    pairs = itertools.combinations(found.values(), 2)
    return [str(compare(a, b, equal_bits=equal_bits)) if a and b else NOTHING for a, b in pairs]


def looks(found: Results) -> float:
    """How often each key has been asked for where codebooks are compared at equally many looks; NaN without cells."""
    return table(found).groupby("information").looks.max().min()


def slope_row(found: dict[str, Measured | None], statistic: Callable[[Measured, np.ndarray], float]) -> list[str]:
    """Of each reward a slope with its interval."""
    return [str(estimate(m, statistic)) if m else NOTHING for m in found.values()]


def stored(found: dict[str, Measured | None], preset: str) -> str:
    """Bits a parameter of supervised adapters, against the range that the preset expects, if any."""
    if (m := found.get("supervised")) is None:
        return ""
    now, end = estimate(m, capacity), estimate(m, final_capacity)
    if (between := expected(preset)) is None:
        reading = ""
    elif math.isnan(end.low):
        reading = ", no interval yet"
    elif end.high < between[0] or end.low > between[1]:
        reading = f", {'fewer' if end.high < between[0] else 'more'} than was expected"
    elif between[0] <= end.low and end.high <= between[1]:
        reading = ", as was expected"
    else:
        reading = ", which neither bears out nor rules out what was expected"
    said = f"A supervised adapter stores {now} bits a parameter at the last evaluation; if its curves went on as "
    said += f"fitted, it would store {end} in the end{reading}."
    # Of slopes that fit equally well the least is taken: none beyond the last that the smallest adapter can tell.
    most = 0.99 * m.information.max() / m.parameters[0]
    if end.value > most or end.high > most:
        said += f" The {'estimate' if end.value > most else 'upper end'} is the most that the fit can tell."
    return said
