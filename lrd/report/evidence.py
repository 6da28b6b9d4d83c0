"""What the pages on equivalence and stability say: rows of their tables and the words that they glue.

Every sentence is true whatever was measured, and none says `equal`: the strongest is `within the margin`.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from lrd.analysis import equivalence, onset
from lrd.analysis.equivalence import ALPHA, MARGIN, NOT_REACHED, POWER, Contrast, Required
from lrd.report import answer
from lrd.report.text import NBSP, NOTHING, arm_name, counted, listed, percent, signed, unbroken
from lrd.results import Results, root
from lrd.runs import files as run

MOST_SEEDS = 100
FRACTIONS = (0.0, 0.25, onset.FRACTION, 0.75)  # 0 is the departure from the base


@dataclass(frozen=True)
class Equivalence:
    """The comparisons of every rank with full fine-tuning, computed once for all that a page says of them."""

    results: Results
    margin: float = MARGIN

    @cached_property
    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """Tables of gaps at the end."""
        return equivalence.gaps(self.results)

    @cached_property
    def final(self) -> dict[str, dict[str, Contrast]]:
        """Contrasts at the end."""
        return equivalence.contrasts(self.tables)

    @cached_property
    def area(self) -> dict[str, dict[str, Contrast]]:
        """Contrasts of the mean over training."""
        return equivalence.contrasts(equivalence.gaps(self.results, "area"))

    @cached_property
    def required(self) -> dict[str, Required]:
        """Regime → required rank, where ranks can be compared."""
        found = {name: equivalence.required(tables, self.margin) for name, tables in self.tables.items()}
        return {name: r for name, r in found.items() if r}

    def facts(self) -> dict[str, str]:
        """Keyed by the names that they are glued under."""
        return {
            "margin": f"{self.margin:.2f}",
            "alpha": percent(ALPHA),
            "interval": percent(1 - 2 * ALPHA),
            "power": percent(POWER),
            "full": arm_name(self.results.arms[-1]),
            "size": self._size(),
            "verdict": self._verdict(),
            "least": self._least(),
            "needed": self._needed(),
            "ruins": answer.ruins(self.results),
            "slope": self._slope(),
        }

    def comparisons(self, regime: str) -> list[tuple[str, ...]]:
        """One row a rank: difference, bootstrap, p, least margin, the mean over training, and how to read it."""
        rows = []
        for arm in self.results.arms[:-1]:
            c, over = self.final[regime].get(arm), self.area[regime].get(arm)
            if c is None:
                rows.append((unbroken(arm_name(arm)), *[NOTHING] * 6))
                continue
            low, high = np.quantile(equivalence.bootstrap([self.tables[regime][arm]])[0], [0.025, 0.975])
            rows.append(
                (
                    unbroken(arm_name(arm)),
                    with_interval(c),
                    f"[{signed(low)},{NBSP}{signed(high)}]",
                    f"{p:.3f}" if (p := c.tost(self.margin)) >= 0.001 else "< 0.001",
                    f"{c.least_margin():.3f}",
                    with_interval(over) if over else NOTHING,
                    reading(c, self.margin),
                )
            )
        return rows

    def designs(self) -> list[tuple[str, ...]]:
        """One row a regime and size of design: what it could have found, given the variances that were found."""
        rows = []
        for regime, found in self.final.items():
            contrasts = list(found.values())
            if not contrasts:
                rows.append((regime, *[NOTHING] * 4))
                continue
            seeds, problems = contrasts[0].seeds, contrasts[0].problems
            for s, n in ((seeds, problems), (seeds, 4 * problems), (10, problems), (10, 4 * problems)):
                if d := equivalence.design(contrasts, s, n):
                    name = regime if (s, n) == (seeds, problems) else ""
                    rows.append((name, str(s), str(n), f"{d.difference:.3f}", f"{d.margin:.3f}"))
        return rows

    def ranks(self) -> list[tuple[str, ...]]:
        """One row a regime: deposits, required rank as estimated, as shown, its interval and the bootstrap's."""
        deposits, rows = equivalence.deposits_at_start(self.results), []
        for regime in self.results.regimes:
            r, d = self.required.get(regime), deposits.get(regime)
            density = f"{d:.1f}" if d is not None else NOTHING
            if r is None:
                rows.append((regime, density, *[NOTHING] * 4))
                continue
            resampled = between(*r.resampled, r.ranks) if r.resampled else NOTHING
            rows.append((regime, density, rank(r.estimate), rank(r.shown), between(r.low, r.high, r.ranks), resampled))
        return rows

    def _contrasts(self) -> list[Contrast]:
        return [c for found in self.final.values() for c in found.values()]

    def _size(self) -> str:
        sizes = sorted({(c.seeds, c.problems) for c in self._contrasts()})
        return listed([f"{counted(s, 'seed')} on {counted(n, 'problem')}" for s, n in sizes]) or "too few seeds"

    def _verdict(self) -> str:
        texts = []
        for regime, found in self.final.items():
            if not found:
                texts.append(f"under {regime} no rank has two finished seeds in common with full fine-tuning")
                continue
            n, contrasts = len(found), found.values()
            inside = sum(c.equivalent(self.margin) for c in contrasts)
            above = sum(c.differs and c.mean > 0 for c in contrasts)
            below = sum(c.differs and c.mean < 0 for c in contrasts)
            undecided = sum(not c.differs and not c.equivalent(self.margin) for c in contrasts)
            texts.append(
                f"under {regime}, of {counted(n, 'rank')} {inside} within the margin, {above} above full fine-tuning, "
                f"{below} below, {undecided} undecided"
            )
        return "; ".join(texts)

    def _least(self) -> str:
        texts = []
        for regime, found in self.final.items():
            if found:
                margins = [c.least_margin() for c in found.values()]
                texts.append(f"{min(margins):.3f} to {max(margins):.3f} ({regime})")
        return listed(texts) or NOTHING

    def _needed(self) -> str:
        """The fewest seeds with which the margin would be passed, by regime."""
        texts = []
        for regime, found in self.final.items():
            if found:
                n = fewest(lambda seeds, found=found: self._enough(list(found.values()), seeds))
                texts.append(f"{n if n else f'more than {MOST_SEEDS}'} ({regime})")
        return listed(texts) or NOTHING

    def _enough(self, found: list[Contrast], seeds: int) -> bool:
        d = equivalence.design(found, seeds)
        return d is not None and d.margin <= self.margin

    def _slope(self) -> str:
        s = equivalence.slope(self.tables, equivalence.deposits_at_start(self.results), self.margin)
        if s is None:
            return (
                "The slope cannot be estimated: it takes two regimes of different density with ranks that can be "
                "compared with full fine-tuning."
            )
        bounds = f"[{unbounded(s.low)},{NBSP}{unbounded(s.high)}]"
        if math.isnan(s.estimate):
            return (
                "The slope cannot be estimated: in some regime no rank tried is enough by its mean difference. The "
                f"regimes' intervals leave open {bounds} doublings of rank for ten times the deposits."
            )
        text = (
            f"Over {s.regimes} regimes the slope is {signed(s.estimate, 2)} {bounds} doublings of rank for ten times "
            "the deposits."
        )
        if s.floor:
            text += (
                " Every estimate is the smallest rank that was run: such a slope says that no reward is estimated to "
                "need more, and nothing of what less would do."
            )
        if not (math.isfinite(s.low) and math.isfinite(s.high)):
            text += " An open end means that some regime's required rank is not shown to be reached."
        return text


@dataclass(frozen=True)
class Stability:
    """Onsets, their order and the example, computed once for all that a page says of them."""

    results: Results

    @cached_property
    def onsets(self) -> pd.DataFrame:
        """One row a finished cell."""
        return onset.found(self.results)

    @cached_property
    def leads(self) -> dict[str, dict[tuple[str, str], onset.LeadLag]]:
        """Regime → link of the chain → lead–lag curve."""
        return {
            regime: {(a.name, b.name): onset.lead_lag(self.results, regime, a, b) for a, b in onset.links()}
            for regime in self.results.regimes
        }

    @cached_property
    def collapsed(self) -> dict[str, tuple[int, int]]:
        """Regime → how many of its finished cells collapse, and how many there are."""
        mine = {regime: self.onsets[self.onsets.regime == regime] for regime in self.results.regimes}
        return {regime: (int(rows.collapse.notna().sum()), len(rows)) for regime, rows in mine.items() if len(rows)}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The chain's links, and its two ends."""
        ends = (onset.CHAIN[0].name, onset.CHAIN[-1].name)
        return [*((a.name, b.name) for a, b in onset.links()), ends]

    def facts(self) -> dict[str, str]:
        """Keyed by the names that they are glued under."""
        return {
            "collapsed": ", ".join(f"{k} of {n} ({name})" for name, (k, n) in self.collapsed.items()) or NOTHING,
            "magnitude": answer.magnitude(self.results),
            "chain": self._chain(),
            "lead": self._lead(),
            "example": self._example(),
            "smooth": str(onset.SMOOTH),
            "hold": str(onset.HOLD),
            "hold_evals": str(onset.HOLD_EVALS),
            "fraction": percent(onset.FRACTION),
            "noise": f"{onset.NOISE:g}",
            "spacing": self._spacing(),
        }

    def onset_rows(self) -> list[tuple[str, ...]]:
        """One row a signal: what is logged, the smallest rise, and by regime how many cells have it and when."""
        rows = []
        for signal in onset.CHAIN:
            least = f"{percent(signal.least)} of the base" if signal.relative else f"{signal.least:g}"
            rows.append(
                (
                    signal.name,
                    "each evaluation" if signal.evaluated else "each step",
                    least,
                    *(self._when(regime, signal.name) for regime in self.results.regimes),
                )
            )
        return rows

    def order_rows(self, fraction: float = onset.FRACTION) -> list[tuple[str, ...]]:
        """One row a pair, one column a regime: before / after / undecided, and Wilson's interval."""
        onsets = self.onsets if fraction == onset.FRACTION else onset.found(self.results, fraction)
        rows = []
        for first, second in self.pairs:
            found = [onset.order(onsets[onsets.regime == r], first, second) for r in self.results.regimes]
            rows.append((f"{first} before {second}", *map(ordered, found)))
        return rows

    @property
    def fractions(self) -> list[str]:
        """What the columns of `sensitivity_rows` are."""
        return ["departure", *map(percent, FRACTIONS[1:])]

    def sensitivity_rows(self) -> list[tuple[str, ...]]:
        """One row a pair, one column a fraction of the rise, over all cells: does the order hang on the rule?"""
        by_fraction = [onset.found(self.results, fraction) for fraction in FRACTIONS]
        return [
            (f"{first} before {second}", *(ordered(onset.order(rows, first, second)) for rows in by_fraction))
            for first, second in self.pairs
        ]

    def completions(self) -> list[dict]:
        """The example's three completions."""
        name = onset.example(self.onsets)
        if name is None:
            return []
        row = self.onsets[self.onsets.cell == name].iloc[0]
        rows = run.read_jsonl(root() / self.results.preset / name / "completions.jsonl")
        return onset.three(rows, row.collapse)

    def _when(self, regime: str, name: str) -> str:
        mine = self.onsets[self.onsets.regime == regime]
        found = [o for o in mine[name] if o is not None]
        if not found:
            return unbroken(f"none of {len(mine)}") if len(mine) else NOTHING
        evaluated = next(signal.evaluated for signal in onset.CHAIN if signal.name == name)
        steps = [o.by if evaluated else o.by - 1 for o in found]  # by − 1 is the step itself
        return (
            unbroken(f"{len(found)} of {len(mine)}; step")
            + f"{NBSP}{np.median(steps):g} ({min(steps):g} to {max(steps):g})"
        )

    def _chain(self) -> str:
        """Of which links the order is shown, contradicted or left open, for the regimes that collapse, as sentences."""
        fallen = [regime for regime, (k, _) in self.collapsed.items() if k]
        if not self.collapsed:
            return "No cell has finished, so that there is nothing to order."
        if not fallen:
            return "No finished cell collapses, so that there is no chain to order."
        texts = []
        for regime in fallen:
            mine = self.onsets[self.onsets.regime == regime]
            kinds: dict[str, list[str]] = {"shown": [], "contradicted": [], "open": []}
            for first, second in self.pairs[:-1]:
                low, high = onset.order(mine, first, second).interval()
                kinds["shown" if low > 0.5 else "contradicted" if high < 0.5 else "open"].append(f"{first} → {second}")
            parts = [f"{kind}: {', '.join(names) if names else 'none'}" for kind, names in kinds.items()]
            texts.append(f"Under {regime}, links of the chain {'; '.join(parts)}.")
        return " ".join(texts)

    def _lead(self) -> str:
        texts = []
        for regime in (name for name, (k, _) in self.collapsed.items() if k):
            parts = []
            for (first, second), curve in self.leads[regime].items():
                if (at := curve.best) is None:
                    parts.append(f"{first} and {second} do not both move")
                    continue
                low, high = curve.low[at], curve.high[at]
                bounds = f" [{signed(low, 2)},{NBSP}{signed(high, 2)}]" if np.isfinite(low) else ""
                most = f"{signed(curve.mean[at], 2)}{bounds}"
                parts.append(f"{first} and {second} correlate most, at {most}, {_lag(curve.lags[at])}")
            texts.append(f"Under {regime}, {'; '.join(parts)}.")
        return " ".join(texts) or "No finished cell collapses, so that no regime is described here in words."

    def _example(self) -> str:
        name = onset.example(self.onsets)
        return f"The cell is {name}." if name else "No cell has finished, so that there is none to show."

    def _spacing(self) -> str:
        curves = self.results.of_finished(self.results.curves)
        gaps = curves.sort_values("step").groupby("cell").step.diff().dropna()
        return counted(int(gaps.median()), "step") if len(gaps) else "some steps"


def reading(c: Contrast, margin: float = MARGIN) -> str:
    """A contrast in words; `undecided` where it is neither shown to be small nor shown to be there."""
    side = "above" if c.mean > 0 else "below"
    if c.equivalent(margin):
        return f"{side}, by less than the margin" if c.differs else "within the margin"
    return side if c.differs else "undecided"


def with_interval(c: Contrast) -> str:
    """`−0.022 [−0.062, +0.018]`: the difference and its 95 % interval."""
    low, high = c.interval()
    return f"{signed(c.mean)} [{signed(low)},{NBSP}{signed(high)}]"


def ordered(found: onset.Order) -> str:
    """`4 / 1 / 6, 80 % [38, 96]`: before, after, undecided, and the share among the decided."""
    counts = f"{found.before} / {found.after} / {found.undecided}"
    if not found.decided:
        return counts
    low, high = found.interval()
    return f"{counts}; {percent(found.before / found.decided)} [{100 * low:.0f},{NBSP}{100 * high:.0f}]"


def rank(value: float) -> str:
    """`rank 16`, or `not reached`."""
    return "not reached" if value == NOT_REACHED else f"rank {value:.0f}"


def between(low: float, high: float, ranks: tuple[int, ...]) -> str:
    """Two ranks; the smallest that was run stands for itself and all smaller ones."""
    first = f"≤ {low:.0f}" if low == ranks[0] else rank(low).removeprefix("rank ")
    last = rank(high).removeprefix("rank ")
    return first if low == high else f"{first} to {last}"


def fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of seeds that is enough, by bisection; None if `MOST_SEEDS` are not."""
    low, high = 2, MOST_SEEDS
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def unbounded(x: float) -> str:
    """Two decimals with a sign, or ±∞."""
    return signed(x, 2) if math.isfinite(x) else ("∞" if x > 0 else "−∞")


def _lag(lag: float) -> str:
    if lag == 0:
        return "without a lag"
    return f"the second {counted(int(abs(lag)), 'step')} {'after' if lag > 0 else 'before'} the first"
