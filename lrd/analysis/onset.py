"""When a run goes wrong, and what went first: onsets by one stated rule, their order, and lead–lag correlations.

The suspected chain of a collapse is magnitude → length → truncation → no answer → collapse. The first three are logged
at every step, the last two are known only where the model was evaluated; an onset is therefore an interval of steps,
and one precedes another only if the intervals do not overlap. What overlaps is counted as undecided, never shared out.
The page on stability states the rule. With a fraction of 0 the onset is the first step from which the smallest rise
that counts is kept: the departure from the base instead of the bulk of the change.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from lrd.analysis.fair import WORLD
from lrd.analysis.stats import Difference, mean_difference
from lrd.results import Results, root
from lrd.runs.files import read_jsonl

SMOOTH, HOLD, HOLD_EVALS = 5, 5, 2
FRACTION, NOISE = 0.5, 4.0
LEAST_GAIN = 0.05  # of pass@1: what gained less has nothing to lose


@dataclass(frozen=True)
class Signal:
    """One link of the chain: where it is logged, and the smallest rise that counts.

    `relative`: `least` is a share of the base. `column` of `steps`, or of the evaluations' means for `evaluated`.
    """

    name: str
    column: str
    least: float
    relative: bool = False
    evaluated: bool = False


CHAIN = (
    Signal("magnitude", "advantage_std", 0.25, relative=True),
    Signal("length", "completions/mean_length", 0.1, relative=True),
    Signal("truncation", "completions/clipped_ratio", 0.1),
    Signal("no answer", "unanswered", 0.1, evaluated=True),
    Signal("collapse", "lost", 0.5, evaluated=True),
)
LINKS = tuple((first.name, second.name) for first, second in itertools.pairwise(CHAIN))
NO_ROWS = pd.DataFrame({"step": []})
UNKNOWN = Difference(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Onset:
    """The onset lies after step `after` and not later than step `by`, both as exact as the signal's own resolution."""

    after: float
    by: float

    def precedes(self, other: "Onset") -> bool:
        """Whether it is surely the earlier one."""
        return self.by <= other.after

    @property
    def middle(self) -> float:
        """For drawing only."""
        return (self.after + self.by) / 2


def logged_onset(
    steps: np.ndarray, values: np.ndarray, least: float, relative: bool = False, fraction: float = FRACTION
) -> Onset | None:
    """The onset of a rise in a signal logged at every step; None where there is none.

    Two steps of such a signal are told apart from three steps on: smoothing blurs either by one.
    """
    steps, values = _known(steps, values)
    if len(values) < SMOOTH + HOLD:
        return None
    smooth = pd.Series(values).rolling(SMOOTH, center=True, min_periods=1).median().to_numpy()
    base = float(np.median(values[:SMOOTH]))
    jumps = np.abs(np.diff(values))
    noise = 1.4826 * float(np.median(jumps)) / math.sqrt(2)  # robust: a jump at the onset is no noise
    at = _rise(smooth, base, max(least * abs(base) if relative else least, NOISE * noise), HOLD, fraction)
    return None if at is None else Onset(float(steps[at]) - 2, float(steps[at]) + 1)


def evaluated_onset(steps: np.ndarray, values: np.ndarray, least: float, fraction: float = FRACTION) -> Onset | None:
    """The onset of a rise in an evaluated share: between the evaluation before it and the one that shows it."""
    steps, values = _known(steps, values)
    if len(values) < 2:
        return None
    at = _rise(values, float(values[0]), least, HOLD_EVALS, fraction)
    return None if at is None else Onset(float(steps[at - 1]), float(steps[at]))


def _known(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    good = np.isfinite(values)
    return steps[good], values[good]


def _rise(values: np.ndarray, base: float, least: float, hold: int, fraction: float) -> int | None:
    """Index of the first value from which `fraction` of the largest rise is kept for `hold` values or to the end."""
    kept = np.array([values[i : i + hold].min() for i in range(1, len(values))])  # the lowest of the next few
    top = kept.max() - base
    if not top >= least > 0:
        return None
    return int(np.argmax(kept >= base + (fraction * top or least))) + 1


def onsets(results: Results, fraction: float = FRACTION) -> pd.DataFrame:
    """One row a finished cell, one column a signal of the chain: its `Onset` or None."""
    rows = []
    for cell, *frames in _by_cell(results):
        by_signal = [_onset(signal, frames[signal.evaluated], fraction) for signal in CHAIN]
        rows.append((cell.cell, cell.regime, cell.arm, getattr(cell, WORLD, None), cell.seed, *by_signal))
    columns = ["cell", "regime", "arm", WORLD, "seed", *(signal.name for signal in CHAIN)]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _onset(signal: Signal, rows: pd.DataFrame, fraction: float) -> Onset | None:
    if signal.column not in rows:
        return None
    steps, values = (rows[name].to_numpy(float) for name in ("step", signal.column))
    if signal.evaluated:
        return evaluated_onset(steps, values, signal.least, fraction)
    return logged_onset(steps, values, signal.least, signal.relative, fraction)


def peaks_and_losses(results: Results) -> pd.DataFrame:
    """One row a finished cell that loses half of what it gained: when, and when its advantage std was largest.

    `loss` ends at the first evaluation from which half of the gain over the base, of the highest pass@1 so far, is
    gone for `HOLD_EVALS` evaluations or to the end; a gain below `LEAST_GAIN` is none. `peak` is exact to a step, and
    None where the advantage std never rises by as much as counts for an onset.
    """
    rows = [
        (cell.cell, cell.regime, cell.arm, cell.seed, _peak(steps), loss)
        for cell, steps, curve in _by_cell(results)
        if len(curve) and (loss := _loss(curve))
    ]
    return pd.DataFrame(rows, columns=["cell", "regime", "arm", "seed", "peak", "loss"], dtype=object)


def _loss(curve: pd.DataFrame) -> Onset | None:
    value = curve["pass@1"].to_numpy(float)
    best = np.maximum.accumulate(value)
    gain = best - value[0]
    gone = np.divide(best - value, gain, out=np.zeros_like(gain), where=gain >= LEAST_GAIN)
    return evaluated_onset(curve.step.to_numpy(float), gone, 0.5, fraction=0.0)


def _peak(steps: pd.DataFrame) -> Onset | None:
    magnitude = CHAIN[0]
    known = steps.reindex(columns=["step", magnitude.column]).dropna()
    if not len(known):
        return None
    values = known[magnitude.column].to_numpy(float)
    at = int(values.argmax())
    if values[at] < (1 + magnitude.least) * np.median(values[:SMOOTH]):
        return None
    return Onset(float(known.step.iloc[at]) - 1, float(known.step.iloc[at]))


def collapsed(onsets: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Regime → how many of its finished cells collapse, and how many there are."""
    by_regime = onsets.groupby("regime", sort=False).collapse
    return {str(regime): (int(cells.notna().sum()), len(cells)) for regime, cells in by_regime}


def _by_cell(results: Results) -> Iterator[tuple[Any, pd.DataFrame, pd.DataFrame]]:
    """Each finished cell, its steps and its evaluations, those with `unanswered` and `lost`.

    `lost` is the share of the best pass@1 so far that is gone.
    """
    curves = results.of_finished(results.curves).sort_values(["cell", "step"])
    curves = curves.astype({"pass@1": float, "answered": float})
    best = curves.groupby("cell")["pass@1"].cummax()
    lost = (1 - curves["pass@1"] / best.where(best > 0)).fillna(0.0)  # what never solved anything has nothing to lose
    curves = curves.assign(unanswered=1 - curves.answered, lost=lost)
    by_cell = [dict(list(frame.groupby("cell"))) for frame in (results.of_finished(results.steps), curves)]
    for cell in results.finished.itertuples():
        steps, curve = (frames.get(cell.cell, NO_ROWS) for frames in by_cell)
        yield cell, steps, curve


class Support(Enum):
    """What the cells say of an order."""

    SHOWN = "shown"
    CONTRADICTED = "contradicted"
    OPEN = "open"


@dataclass(frozen=True)
class Order:
    """In how many cells one onset precedes another: counts, and Wilson's interval of the share among the decided.

    `students`: the same counts, before and after, of each training of the student, where there are several.
    """

    before: int
    after: int
    undecided: int
    students: tuple[tuple[int, int], ...] = ()

    @property
    def decided(self) -> int:
        """Cells in which both are found and their intervals do not overlap."""
        return self.before + self.after

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's; all of [0, 1] where nothing is decided. It takes cells for independent draws.

        Where there are several students it takes a student's cells for such draws, and speaks of other students: with
        Student's quantile, and with as many cells as would tell as much if students did not matter (as in Korn and
        Graubard 1998, with Wilson's interval). All of [0, 1] where only one student decides.
        """
        if not self.decided:
            return 0.0, 1.0
        n, quantile = float(self.decided), norm.ppf((1 + level) / 2)
        if self.students:
            deciding = [(before, before + after) for before, after in self.students if before + after]
            if len(deciding) < 2:
                return 0.0, 1.0
            n, quantile = n / _design_effect(deciding), t.ppf((1 + level) / 2, len(deciding) - 1)
        share, reach = self.before / self.decided, float(quantile) ** 2 / n
        half = math.sqrt(reach * share * (1 - share) + reach**2 / 4)
        return max(0.0, (share + reach / 2 - half) / (1 + reach)), min(1.0, (share + reach / 2 + half) / (1 + reach))

    @property
    def support(self) -> Support:
        """On which side of one half the interval lies."""
        low, high = self.interval()
        return Support.SHOWN if low > 0.5 else Support.CONTRADICTED if high < 0.5 else Support.OPEN


def _design_effect(counts: Sequence[tuple[int, int]]) -> float:
    """Variance of a share of clusters' (hits, trials), linearized, over that of independent trials; at least 1."""
    n, k = sum(trials for _, trials in counts), len(counts)
    share = sum(hits for hits, _ in counts) / n
    between = sum((hits - share * trials) ** 2 for hits, trials in counts) * k / (k - 1) / n**2
    return max(1.0, between * n / (share * (1 - share))) if 0 < share < 1 else 1.0


def order(onsets: pd.DataFrame, first: str, second: str) -> Order:
    """Counted over the cells in which both signals have an onset."""
    whole = _counted(onsets, first, second)
    if WORLD not in onsets or not onsets[WORLD].notna().to_numpy().any():
        return Order(*whole)
    parts = [_counted(cells, first, second) for _, cells in onsets.groupby(WORLD)]
    return Order(*whole, tuple((before, after) for before, after, _ in parts))


def _counted(onsets: pd.DataFrame, first: str, second: str) -> tuple[int, int, int]:
    """Cells in which the first is before the second, after it, and undecided."""
    pairs = [(a, b) for a, b in zip(onsets[first], onsets[second]) if a is not None and b is not None]
    before = sum(a.precedes(b) for a, b in pairs)
    after = sum(b.precedes(a) for a, b in pairs)
    return before, after, len(pairs) - before - after


def correlation(x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """Correlation of the steps of `x` with those of `y` `lag` places later, lags −most … most; NaN where undefined.

    Both are differenced first, so that two signals that merely both grow do not correlate at every lag.
    """
    dx, dy = np.diff(np.asarray(x, float)), np.diff(np.asarray(y, float))
    rows = []
    for lag in range(-most, most + 1):
        n = max(0, len(dx) - abs(lag))
        a, b = dx[max(0, -lag) :][:n], dy[max(0, lag) :][:n]
        good = np.isfinite(a) & np.isfinite(b)
        a, b = a[good], b[good]
        known = len(a) > 3 and a.std() > 1e-12 and b.std() > 1e-12
        rows.append(float(np.corrcoef(a, b)[0, 1]) if known else np.nan)
    return np.array(rows)


@dataclass(frozen=True)
class LeadLag:
    """Mean over cells of their lead–lag correlations with Student's 95 % interval at each lag.

    The interval is over cells, or over students and seeds where there are several trainings of the student.

    `lags` are in steps, spaced as the coarser of the two signals is known. A positive lag with a positive correlation
    says that the first signal's moves come before the second's. `cells` have a correlation at some lag; where a signal
    never moves there is none.
    """

    lags: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cells: int

    @property
    def best(self) -> int | None:
        """Index of the largest mean correlation; None where nothing is defined."""
        return int(np.nanargmax(self.mean)) if np.isfinite(self.mean).any() else None


def lead_lag(results: Results, regime: str, first: Signal, second: Signal) -> LeadLag:
    """Over the finished cells of a regime. A pair with an evaluated signal is compared from evaluation to evaluation.

    A signal of steps is then averaged over the steps since the evaluation before.
    """
    coarse = first.evaluated or second.evaluated
    most, rows, spacing = (3 if coarse else 10), [], 1.0
    for cell, steps, curve in _by_cell(results):
        if cell.regime != regime:
            continue
        if coarse and len(curve) > 1:
            spacing = float(np.median(np.diff(curve.step.to_numpy(float))))
        pair = [_on_grid(steps, curve, signal, coarse) for signal in (first, second)]
        if all(len(values) for values in pair):
            rows.append((getattr(cell, WORLD, None), cell.seed, *correlation(*pair, most)))
    lags = range(-most, most + 1)
    cells = pd.DataFrame(rows, columns=[WORLD, "seed", *lags])
    at_lag = [_mean(cells.rename(columns={lag: "value"})) or UNKNOWN for lag in lags]
    mean, low, high = np.array([(d.mean, d.low, d.high) for d in at_lag]).T
    return LeadLag(spacing * np.array(lags), mean, low, high, max(d.n for d in at_lag))


def _on_grid(steps: pd.DataFrame, curve: pd.DataFrame, signal: Signal, coarse: bool) -> np.ndarray:
    frame = curve if signal.evaluated else steps
    if signal.column not in frame:
        return np.zeros(0)
    values = frame[signal.column].to_numpy(float)
    if signal.evaluated or not coarse:
        return values[1:] if signal.evaluated else values  # step 0 is evaluated before anything is logged
    windows = pd.cut(frame.step, curve.step)
    return frame[signal.column].groupby(windows, observed=False).mean().to_numpy(float)


def _mean(cells: pd.DataFrame) -> Difference | None:
    """Mean of a `value` a cell, as `mean_difference`, or with an interval over students and seeds, where those differ.

    What students and what seeds spread a mean is added in squares, each with its own quantile, and nothing taken off
    for the noise in both: rather too wide than too narrow.
    """
    if not cells[WORLD].notna().to_numpy().any():
        return mean_difference(cells.value)
    cells = cells.dropna(subset="value")
    if not len(cells):
        return None
    sides = [mean_difference(cells.groupby(axis).value.mean()) for axis in (WORLD, "seed")]
    half = math.hypot(*(side.high - side.mean for side in sides if side))
    mean = float(cells.value.mean())
    return Difference(mean, mean - half, mean + half, len(cells))


def lead_lags(results: Results) -> dict[str, dict[tuple[str, str], LeadLag]]:
    """Regime → link of the chain → lead–lag curve."""
    signals = list(itertools.pairwise(CHAIN))
    return {r: {(a.name, b.name): lead_lag(results, r, a, b) for a, b in signals} for r in results.regimes}


def example(onsets: pd.DataFrame) -> str | None:
    """The cell whose completions are shown: the first whose chain is most complete; None where no cell has finished."""
    if not len(onsets):
        return None
    lengths = onsets[[signal.name for signal in CHAIN]].notna().sum(axis=1)
    return str(onsets.cell[(lengths + len(CHAIN) * onsets.collapse.notna()).astype(int).idxmax()])


def example_completions(results: Results, onsets: pd.DataFrame) -> list[dict]:
    """Three completions of the example, from the cell's `completions.jsonl`; none where no cell has finished."""
    if (name := example(onsets)) is None:
        return []
    collapse = onsets[onsets.cell == name].iloc[0].collapse
    return moments(read_jsonl(root() / results.preset / name / "completions.jsonl"), collapse)


def moments(rows: Sequence[dict], onset: Onset | None) -> list[dict]:
    """The first completion logged, the first at or after the onset (or else half-way), the first of the last step."""
    first = {row["step"]: row for row in reversed(rows)}
    if not first:
        return []
    steps = sorted(first)
    middle = next((s for s in steps if onset is not None and s >= onset.by), steps[len(steps) // 2])
    return [first[step] for step in sorted({steps[0], middle, steps[-1]})]
