"""The words of the start page: what its experiment found, true whatever was measured."""

from lrd.analysis.budget import outcome_budget
from lrd.analysis.stats import (
    Trend,
    Verdict,
    below_base,
    beyond_rank,
    deposits_at_start,
    lowest_against_full,
    paired,
    trend,
)
from lrd.report.budget import consequence
from lrd.report.text import NOTHING, arm_name, counted, difference, listed, mean_sd, signed
from lrd.results import Results


def glued(results: Results) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    budget = outcome_budget(results)
    return {
        "preset": results.preset,
        "finished": str(len(results.finished)),
        "cells": str(len(results.cells)),
        "seeds": counted(results.cells.seed.nunique(), "seed"),
        "lowest": arm_name(results.arms[0]),
        "problems": problems(results),
        "base": mean_sd(results.finished.base.drop_duplicates()),
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
    deposits, differences = deposits_at_start(results), lowest_against_full(results)
    return [
        (
            regime,
            f"{deposits[regime]:.1f}" if regime in deposits else NOTHING,
            *(mean_sd(cells[(cells.regime == regime) & (cells.arm == arm)].final) for arm in (lowest, full)),
            difference(differences.get(regime)),
        )
        for regime in results.regimes
    ]


def problems(results: Results) -> str:
    """How many held-out problems there are."""
    return str(results.evals.problem.nunique()) if len(results.evals) else "the"


def verdict(results: Results) -> str:
    """The lowest rank against full fine-tuning at the end, regime by regime, as a clause. It never says `equal`."""
    lowest, full = arm_name(results.arms[0]), arm_name(results.arms[-1])
    clauses = {
        Verdict.AHEAD: f"{lowest} ends above {full}",
        Verdict.BEHIND: f"{lowest} ends below {full}",
        Verdict.UNDECIDED: f"the difference between {lowest} and {full} cannot be told from zero",
    }
    differences, regimes = lowest_against_full(results), {}
    for regime in results.regimes:
        clause = f"{lowest} and {full} have too few finished seeds in common for a comparison"
        if (d := differences.get(regime)) and d.n > 1:
            clause = clauses[d.verdict]
        regimes.setdefault(clause, []).append(regime)
    return "; ".join(f"under {listed(names)}, {clause}" for clause, names in regimes.items())


def exceptions(results: Results) -> str:
    """The ranks whose end can be told from full fine-tuning's, as a sentence; the intervals are one at a time."""
    *ranks, full = results.arms
    sides = {Verdict.AHEAD: "above", Verdict.BEHIND: "below"}
    arms: dict[str, list[str]] = {}
    for regime in results.regimes:
        for arm in ranks:
            d = paired(results.finished, regime, arm, full)
            if d and d.verdict in sides:
                arms.setdefault(f"{sides[d.verdict]} it under {regime}", []).append(arm_name(arm))
    if not arms:
        return f"No rank's interval against {arm_name(full)} excludes zero."
    texts = [f"{listed(names)} {'ends' if len(names) == 1 else 'end'} {where}" for where, names in arms.items()]
    return f"Of all ranks, those whose interval against {arm_name(full)} excludes zero: {'; '.join(texts)}."


def density(results: Results) -> str:
    """How the lowest rank's difference from full fine-tuning goes from sparse rewards to dense ones, as a clause."""
    differences = lowest_against_full(results)
    listing = ", ".join(f"{signed(d.mean)} ({regime})" for regime, d in differences.items())
    return {
        Trend.UNKNOWN: "of that nothing can be said before two regimes have finished cells",
        Trend.NONE: f"no regime's difference can be told from zero, so that their order shows no trend: {listing}",
        Trend.FALLS: f"the difference falls steadily from one regime to the next: {listing}",
        Trend.OTHER: f"the difference does not fall steadily from one regime to the next: {listing}",
    }[trend(differences)]


def stability(results: Results) -> str:
    """How many cells of each regime end below where they started, as a list."""
    return ", ".join(f"{low} of {n} ({regime})" for regime, (low, n) in below_base(results).items()) or NOTHING


def magnitude(results: Results) -> str:
    """The largest advantage std that a cell reaches, averaged by regime, largest first, as a list."""
    stds = {r: cells.dropna() for r, cells in results.finished.groupby("regime", sort=False).peak_advantage_std}
    known = sorted((r for r in stds if len(stds[r])), key=lambda r: -stds[r].mean())
    return ", ".join(f"{mean_sd(stds[regime], 2)} ({regime})" for regime in known) or NOTHING


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
    differences = lowest_against_full(results, "peak")
    return listed([f"{difference(d)} ({regime})" for regime, d in differences.items()]) or NOTHING


def among(results: Results) -> str:
    """The lowest rank against the highest, which differ in rank alone, as sentences; empty below two ranks."""
    *ranks, full = results.arms
    if len(ranks) < 2:
        return ""
    differences = {regime: paired(results.finished, regime, ranks[0], ranks[-1]) for regime in results.regimes}
    texts = [f"{difference(d)} ({regime})" for regime, d in differences.items() if d]
    sentence = f"Among the adapters {arm_name(ranks[0])} minus {arm_name(ranks[-1])} is {listed(texts) or NOTHING}."
    if regimes := beyond_rank(results):
        sentence += (
            f" Under {listed(regimes)} every rank ends below {arm_name(full)}, and by more than the interval from "
            f"lowest to highest leaves room for: rank does not account for that gap."
        )
    return sentence


def reach(results: Results) -> str:
    """The differences that the intervals around zero do not rule out, as a phrase."""
    open_ = {r: d for r, d in lowest_against_full(results).items() if d.n > 1 and d.includes_zero}
    if not open_:
        return "no interval that includes zero was measured"
    ends = [f"{max(abs(d.low), abs(d.high)):.3f} ({regime})" for regime, d in open_.items()]
    return f"those measured here still allow a difference of {listed(ends)}"
