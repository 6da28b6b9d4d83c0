"""Numbers of what is done otherwise than in the original: a third forward pass, peaks beside ends, bars of ± sd."""

from collections import Counter

from lrd.analysis.equivalence import contrasts, gaps
from lrd.analysis.stats import Verdict
from lrd.results import Results

PASSES = 3  # what an update times: the reference's forward pass, and a backward pass of about two


def third_pass(results: Results) -> dict[str, float]:
    """Regime → by which share a third forward pass would lengthen a step, reckoned from the time of updates."""
    steps = results.of_finished(results.steps).reindex(columns=["regime", "time/update", "step_time"]).dropna()
    total = steps.groupby("regime")[["time/update", "step_time"]].sum()
    shares = {regime: update / PASSES / step for regime, update, step in total.itertuples()}
    return {regime: shares[regime] for regime in results.regimes if regime in shares}


def above_base(results: Results) -> dict[str, tuple[float, float]]:
    """Regime → mean distance from the base at its cells' peaks, and at their ends."""
    known = results.finished[results.finished.base.notna()]
    by_regime = {regime: known[known.regime == regime] for regime in results.regimes}
    return {
        regime: ((cells.peak - cells.base).mean(), (cells.final - cells.base).mean())
        for regime, cells in by_regime.items()
        if len(cells)
    }


def bars(results: Results) -> dict[bool, Counter[Verdict]]:
    """Verdicts of paired comparisons with full fine-tuning, for those whose bars of ± sd overlap and for the others."""
    cells, full = results.finished, results.arms[-1]
    verdicts: dict[bool, Counter[Verdict]] = {True: Counter(), False: Counter()}
    for regime, by_arm in contrasts(gaps(results)).items():
        for arm, contrast in by_arm.items():
            one, other = (cells[(cells.regime == regime) & (cells.arm == a)].final for a in (arm, full))
            overlap = bool(abs(one.mean() - other.mean()) <= one.std() + other.std())
            verdicts[overlap][contrast.verdict()] += 1
    return verdicts
