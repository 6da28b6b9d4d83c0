"""The words of the start page: what its experiment found, true whatever was measured."""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import itertools

from lrd.analysis.budget import outcome_budget
from lrd.analysis.stats import below_base, paired
from lrd.report.budget import consequence
from lrd.report.text import NOTHING, arm_name, counted, interval, listed, mean_sd, signed
from lrd.results import Results


def glued(results: Results) -> dict[str, str]:
    """What the start page's sentences say, keyed by the names that they are glued under; true whatever was measured."""
    cells, lowest = results.finished, results.arms[0]
    budget = outcome_budget(results)
    return {
        "preset": results.preset,
        "finished": str(len(cells)),
        "cells": str(len(results.cells)),
        "seeds": counted(results.cells.seed.nunique(), "seed"),
        "lowest": arm_name(lowest),
        "problems": str(results.evals.problem.nunique()) if len(results.evals) else "the",
        "base": mean_sd(cells.base.drop_duplicates()),
        "verdict": verdict(results),
        "exceptions": exceptions(results),
        "density": density(results),
        "stability": stability(results),
        "magnitude": magnitude(results),
        "ruins": ruins(results),
        "peaks": peaks(results),
        "among": among(results),
        "reach": reach(results),
        "parameters": f"{budget.parameters:,.0f}" if budget.parameters > 0 else "an unknown number of",
        "capacity": f"{budget.capacity:,.0f}" if budget.parameters > 0 else "an unknown number of",
        "episodes": f"{budget.episodes:,}",
        "consequence": consequence(budget),
    }


def answers(results: Results) -> list[tuple[str, ...]]:
    """One row a regime: deposits an episode, the lowest rank, full fine-tuning, and their paired difference."""
    cells, lowest, full = results.finished, results.arms[0], results.arms[-1]
    steps, rows = results.of_finished(results.steps), []
    steps = steps[steps.step == steps.step.min()]  # density before training changes how completions look
    for regime in results.regimes:
        mine, d = cells[cells.regime == regime], paired(cells, regime, lowest, full)
        counts = steps[steps.regime == regime].reindex(columns=["deposits_per_episode"])["deposits_per_episode"]
        density = float(counts.mean())
        rows.append(
            (
                regime,
                f"{density:.1f}" if density >= 0 else NOTHING,
                *(mean_sd(mine[mine.arm == arm].final) for arm in (lowest, full)),
                f"{signed(d.mean)}{interval(d)}" if d else NOTHING,
            )
        )
    return rows


def verdict(results: Results) -> str:
    """The lowest rank against full fine-tuning at the end, regime by regime, as a clause. It never says `equal`."""
    arms, groups = results.arms, {}
    lowest, full = arm_name(arms[0]), arm_name(arms[-1])
    for regime in results.regimes:
        d = paired(results.finished, regime, arms[0], arms[-1])
        if d is None or d.n < 2:
            kind = f"{lowest} and {full} have too few finished seeds in common for a comparison"
        elif d.includes_zero:
            kind = f"the difference between {lowest} and {full} cannot be told from zero"
        else:
            kind = f"{lowest} ends {'above' if d.mean > 0 else 'below'} {full}"
        groups.setdefault(kind, []).append(regime)
    return "; ".join(f"under {listed(regimes)}, {kind}" for kind, regimes in groups.items())


def exceptions(results: Results) -> str:
    """The ranks whose end can be told from full fine-tuning's, as a sentence; the intervals are one at a time."""
    *ranks, full = results.arms
    groups: dict[str, list[str]] = {}
    for regime in results.regimes:
        for arm in ranks:
            d = paired(results.finished, regime, arm, full)
            if d and not d.includes_zero:
                groups.setdefault(f"{'above' if d.mean > 0 else 'below'} it under {regime}", []).append(arm_name(arm))
    if not groups:
        return f"No rank's interval against {arm_name(full)} excludes zero."
    texts = [f"{listed(names)} {'ends' if len(names) == 1 else 'end'} {where}" for where, names in groups.items()]
    return f"Of all ranks, those whose interval against {arm_name(full)} excludes zero: {'; '.join(texts)}."


def density(results: Results) -> str:
    """How the lowest rank's difference from full fine-tuning goes from sparse rewards to dense ones, as a clause."""
    arms = results.arms
    gaps = {regime: paired(results.finished, regime, arms[0], arms[-1]) for regime in results.regimes}
    means = {regime: d.mean for regime, d in gaps.items() if d}
    if len(means) < 2:
        return "of that nothing can be said before two regimes have finished cells"
    values = list(means.values())
    falls = all(a > b for a, b in itertools.pairwise(values))
    listing = ", ".join(f"{signed(mean)} ({regime})" for regime, mean in means.items())
    if all(d.includes_zero for d in gaps.values() if d):  # an order of such means would say more than was measured
        return f"no regime's difference can be told from zero, so that their order shows no trend: {listing}"
    return f"the difference {'falls' if falls else 'does not fall'} steadily from one regime to the next: {listing}"


def stability(results: Results) -> str:
    """How many cells of each regime end below where they started, as a list."""
    counts = below_base(results)
    return ", ".join(f"{low} of {n} ({regime})" for regime, (low, n) in counts.items()) or NOTHING


def magnitude(results: Results) -> str:
    """The largest advantage std that a cell reaches, averaged by regime, largest first, as a list."""
    by_regime = {regime: results.finished[results.finished.regime == regime] for regime in results.regimes}
    peaks = {regime: mine.peak_advantage_std.dropna() for regime, mine in by_regime.items()}
    found = sorted((r for r in peaks if len(peaks[r])), key=lambda r: -peaks[r].mean())
    return ", ".join(f"{mean_sd(peaks[regime], 2)} ({regime})" for regime in found) or NOTHING


def ruins(results: Results) -> str:
    """A warning, as a sentence, where ends are compared after a collapse: most cells of a regime end below the base."""
    counts = below_base(results)
    fallen = [regime for regime, (low, n) in counts.items() if 2 * low > n]
    if not counts:
        return "No cell has finished."
    if not fallen:
        return "In no regime do most cells end below the base."
    return (
        f"Under {listed(fallen)} most cells end below the base, so that a difference at the end compares what a "
        f"collapse has left."
    )


def peaks(results: Results) -> str:
    """The lowest rank's difference from full fine-tuning at the peaks of the same cells, as a list over regimes."""
    found = {r: paired(results.finished, r, results.arms[0], results.arms[-1], "peak") for r in results.regimes}
    return listed([f"{signed(d.mean)}{interval(d)} ({regime})" for regime, d in found.items() if d]) or NOTHING


def among(results: Results) -> str:
    """The lowest rank against the highest, which differ in rank alone, as sentences; empty below two ranks.

    Where every rank ends below full fine-tuning, by more than the lowest can possibly end below the highest, it says
    that rank does not account for the gap.
    """
    *ranks, full = results.arms
    if len(ranks) < 2:
        return ""
    texts, apart = [], []
    for regime in results.regimes:
        if (d := paired(results.finished, regime, ranks[0], ranks[-1])) is None:
            continue
        texts.append(f"{signed(d.mean)}{interval(d)} ({regime})")
        gaps = [paired(results.finished, regime, arm, full) for arm in ranks]
        if all(gap and d.low > gap.high for gap in gaps) and max(gap.high for gap in gaps if gap) < 0:
            apart.append(regime)
    said = f"Among the adapters {arm_name(ranks[0])} minus {arm_name(ranks[-1])} is {listed(texts) or NOTHING}."
    if apart:
        said += (
            f" Under {listed(apart)} every rank ends below {arm_name(full)}, and by more than the interval from lowest "
            f"to highest leaves room for: rank does not account for that gap."
        )
    return said


def reach(results: Results) -> str:
    """The differences that the intervals around zero do not rule out, as a phrase."""
    arms, ends = results.arms, []
    for regime in results.regimes:
        d = paired(results.finished, regime, arms[0], arms[-1])
        if d and d.n > 1 and d.includes_zero:
            ends.append((max(abs(d.low), abs(d.high)), regime))
    if not ends:
        return "no interval that includes zero was measured"
    return "those measured here still allow a difference of " + listed([f"{far:.3f} ({r})" for far, r in ends])
