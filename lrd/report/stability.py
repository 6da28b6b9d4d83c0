"""The words of the page on stability, and the rows of its tables; true whatever was measured."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lrd.analysis import onset
from lrd.analysis.onset import CHAIN, FRACTION, LINKS, LeadLag, Order, Support
from lrd.report.answer import magnitude
from lrd.report.text import NBSP, NOTHING, bracketed, counted, percent, signed, unbroken
from lrd.results import Results

FRACTIONS = {"departure": 0.0, **{percent(share): share for share in (0.25, FRACTION, 0.75)}}  # of the rise
ENDS = (CHAIN[0].name, CHAIN[-1].name)
Leads = Mapping[str, Mapping[tuple[str, str], LeadLag]]


def glued(results: Results, onsets: pd.DataFrame, leads: Leads) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    collapsed = onset.collapsed(onsets)
    return {
        "collapsed": ", ".join(f"{k} of {n} ({name})" for name, (k, n) in collapsed.items()) or NOTHING,
        "magnitude": magnitude(results),
        "chain": chain(onsets),
        "lead": lead(onsets, leads),
        "example": example(onsets),
        "smooth": str(onset.SMOOTH),
        "hold": str(onset.HOLD),
        "hold_evals": str(onset.HOLD_EVALS),
        "fraction": percent(FRACTION),
        "noise": f"{onset.NOISE:g}",
        "spacing": spacing(results),
    }


def onset_rows(results: Results, onsets: pd.DataFrame) -> list[tuple[str, ...]]:
    """One row a signal: what is logged, the smallest rise, and by regime how many cells have it and when."""
    rows = []
    for signal in CHAIN:
        logged = "each evaluation" if signal.evaluated else "each step"
        least = f"{percent(signal.least)} of the base" if signal.relative else f"{signal.least:g}"
        by_regime = [list(onsets[onsets.regime == regime][signal.name]) for regime in results.regimes]
        rows.append((signal.name, logged, least, *(when(cells, signal.evaluated) for cells in by_regime)))
    return rows


def order_rows(results: Results, onsets: pd.DataFrame) -> list[tuple[str, ...]]:
    """One row a pair, one column a regime: before / after / undecided, and Wilson's interval."""
    by_regime = [onsets[onsets.regime == regime] for regime in results.regimes]
    return _order_rows(by_regime)


def sensitivity_rows(results: Results) -> list[tuple[str, ...]]:
    """One row a pair, one column a fraction of the rise, over all cells: does the order hang on the rule?"""
    return _order_rows([onset.onsets(results, fraction) for fraction in FRACTIONS.values()])


def _order_rows(columns: list[pd.DataFrame]) -> list[tuple[str, ...]]:
    return [
        (f"{first} before {second}", *(ordered(onset.order(cells, first, second)) for cells in columns))
        for first, second in (*LINKS, ENDS)
    ]


def when(onsets: list[onset.Onset | None], evaluated: bool) -> str:
    """In how many of these cells there is an onset, and at which step: median, least and largest."""
    steps = [o.by if evaluated else o.by - 1 for o in onsets if o is not None]  # by − 1 is the step itself
    if not steps:
        return unbroken(f"none of {len(onsets)}") if onsets else NOTHING
    shown = unbroken(f"{len(steps)} of {len(onsets)}; step")
    return f"{shown}{NBSP}{np.median(steps):g} ({min(steps):g} to {max(steps):g})"


def chain(onsets: pd.DataFrame) -> str:
    """The links whose order is shown, contradicted or left open, for the regimes that collapse, as sentences."""
    collapsed = onset.collapsed(onsets)
    fallen = [regime for regime, (k, _) in collapsed.items() if k]
    if not collapsed:
        return "No cell has finished, so that there is nothing to order."
    if not fallen:
        return "No finished cell collapses, so that there is no chain to order."
    texts = []
    for regime in fallen:
        cells = onsets[onsets.regime == regime]
        links = {f"{first} → {second}": onset.order(cells, first, second).support for first, second in LINKS}
        by_support = {support: [name for name in links if links[name] is support] for support in Support}
        parts = [f"{support.value}: {', '.join(names) or 'none'}" for support, names in by_support.items()]
        texts.append(f"Under {regime}, links of the chain {'; '.join(parts)}.")
    return " ".join(texts)


def lead(onsets: pd.DataFrame, leads: Leads) -> str:
    """At which lag the changes of neighbouring signals correlate most, for the regimes that collapse, as sentences."""
    texts = []
    for regime in (name for name, (k, _) in onset.collapsed(onsets).items() if k):
        parts = []
        for (first, second), curve in leads[regime].items():
            if (at := curve.best) is None:
                parts.append(f"{first} and {second} do not both move")
                continue
            low, high = curve.low[at], curve.high[at]
            bounds = f" {bracketed(low, high, 2)}" if np.isfinite(low) else ""
            most = f"{signed(curve.mean[at], 2)}{bounds}"
            parts.append(f"{first} and {second} correlate most, at {most}, {_lag(curve.lags[at])}")
        texts.append(f"Under {regime}, {'; '.join(parts)}.")
    return " ".join(texts) or "No finished cell collapses, so that no regime is described here in words."


def example(onsets: pd.DataFrame) -> str:
    """Which cell's completions are shown, as a sentence."""
    name = onset.example(onsets)
    return f"The cell is {name}." if name else "No cell has finished, so that there is none to show."


def spacing(results: Results) -> str:
    """How many steps lie between two evaluations."""
    curves = results.of_finished(results.curves)
    gaps = curves.sort_values("step").groupby("cell").step.diff().dropna()
    return counted(int(gaps.median()), "step") if len(gaps) else "some steps"


def ordered(order: Order) -> str:
    """`4 / 1 / 6, 80 % [38, 96]`: before, after, undecided, and the share among the decided."""
    counts = f"{order.before} / {order.after} / {order.undecided}"
    if not order.decided:
        return counts
    low, high = order.interval()
    return f"{counts}; {percent(order.before / order.decided)} [{100 * low:.0f},{NBSP}{100 * high:.0f}]"


def _lag(lag: float) -> str:
    if lag == 0:
        return "without a lag"
    return f"the second {counted(int(abs(lag)), 'step')} {'after' if lag > 0 else 'before'} the first"
