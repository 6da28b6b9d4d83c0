"""The words and tables of notebooks/budget.ipynb. Torch-free."""

from typing import Any

import pandas as pd

from lrd.analysis import budget
from lrd.analysis.budget import Budget, Room
from lrd.report import display
from lrd.report.text import NOTHING, arm_name, counted, listed, times
from lrd.results import Results

FAR = 0.1  # delivered over capacity: below this the page says `far below`


def verdict(frame: pd.DataFrame, regime: str) -> str:
    """What a flat rank curve of this regime can mean, as a sentence; true whatever was measured."""
    filling = budget.filling(frame, regime)
    top, ratio = filling.at_most, filling.measured
    lead = (
        f"Under {regime} a run delivers at most {times(top)} times what its arm holds (the smallest: "
        f"{filling.smallest:,.0f} bits)"
    )
    nothing = "a flat curve decides nothing"
    match filling.room:
        case Room.NOT_MEASURED:
            return f"Under {regime} nothing has been measured."
        case Room.BY_BOUND:
            return f"{lead}{_far(top)}: every arm has room for all of it, and {nothing}."
        case Room.UNDECIDED:
            return f"{lead}; what was delivered is not measured, and so {nothing} yet."
        case Room.BY_MEASURE:
            return f"{lead}, but {times(ratio)} times at most was measured{_far(ratio)}: going by that, {nothing}."
    n, all_of_them = filling.overfilled, filling.overfilled == filling.cells
    return (
        f"{lead}, and up to {times(ratio)} times was measured: {n} of {filling.cells} cells were sent more than they "
        f"hold, {'no arm has room for it' if all_of_them else 'the others have room for all that was measured'}. "
        f"Whether that was anything to be stored, entropy alone does not tell."
    )


def _far(ratio: float) -> str:
    return ", far below 1" if ratio < FAR else ""


def glued(ours: pd.DataFrame, theirs: pd.DataFrame, results: Results) -> dict[str, str]:
    """What the page's sentences say, keyed by the names that they are glued under; true whatever was measured."""
    known = [r for r in results.regimes if ours[ours.regime == r].largest_ratio.notna().any()]
    undecided = [r for r in known if not (ours[ours.regime == r].largest_ratio >= 1).any()]
    oversized = budget.oversized(ours)
    large = [arm_name(arm) for arm in results.arms if arm in oversized]
    apart, silent = budget.measures_apart(ours), budget.silent_share(results)
    one = theirs[theirs["rank"] == 1]
    one = one.assign(fill=one.capacity / one.episodes)
    paper = {"rank_one": "parameters", "capacity": "capacity", "episodes": "episodes", "fill": "fill"}
    return {
        "undecided": f"A flat rank curve decides nothing under {listed(undecided)}: no arm there can be overfilled."
        if undecided
        else "No finished regime is ruled out by its bound alone.",
        "cells": counted(len(ours), "finished cell"),
        "levels": str(budget.LEVELS),
        "bits": str(budget.BITS_A_PARAMETER),
        "oversize": listed(large) or "no arm",
        "rank_at_most": _ranks(ours, results.regimes, "at_most"),
        "rank_measured": _ranks(ours, results.regimes, "measured"),
        "two_measures": times(apart) if apart == apart else NOTHING,
        "silent": f"{100 * silent:.0f} %" if silent >= 0 else NOTHING,
    } | {f"paper_{name}": f"{one[key].iloc[0]:,.0f}" if len(one) else NOTHING for name, key in paper.items()}


def _ranks(frame: pd.DataFrame, regimes: list[str], value: str) -> str:
    """The rank that just holds each regime's mean bits, as a list."""
    bits = {regime: float(frame[frame.regime == regime][value].mean()) for regime in regimes}
    needed = {regime: budget.required_rank(frame, mean) for regime, mean in bits.items()}
    return ", ".join(f"{times(rank)} ({regime})" for regime, rank in needed.items() if rank >= 0) or NOTHING


def consequence(budget: Budget) -> str:
    """What follows for a flat curve under outcome rewards, as a sentence."""
    if not budget.parameters > 0:
        return "Its size is on record once a cell has run."
    if budget.delivered > budget.capacity:
        return "That may be more than the adapter holds, so that this regime can speak against such a law."
    return "That is less than the adapter holds: under outcome, both such a law and its absence predict a flat curve."


def table(frame: pd.DataFrame) -> display.Html:
    """Bits delivered beside bits held: means over seeds, one row a regime and arm."""
    rows, known = [], bool(frame.measured.notna().any())
    regimes, pairs = list(frame.regime), dict.fromkeys(zip(frame.regime, frame.arm))
    for regime, arm in sorted(pairs, key=lambda pair: regimes.index(pair[0])):
        cells = frame[(frame.regime == regime) & (frame.arm == arm)]
        rows.append((f"{regime}, {arm_name(arm)}", *_bits(cells.mean(numeric_only=True))[: 6 if known else 4]))
    head = ["", "parameters", "capacity", "at most", "of capacity", "measured", "of capacity"]
    return display.table(head if known else head[:5], rows)


def _bits(row: Any) -> list[str]:
    whole = {name: display.number_or_dash(row[name], 0) for name in ("parameters", "capacity", "at_most", "measured")}
    share = {name: times(row[name]) if row[name] >= 0 else "–" for name in ("largest_ratio", "ratio")}
    return [*list(whole.values())[:3], share["largest_ratio"], whole["measured"], share["ratio"]]


def cell_table(results: Results, frame: pd.DataFrame) -> display.Html:
    """The same for every cell, with what its bits are made of; folded, and each row leads to its cell."""
    rows = []
    for row in frame.itertuples():
        numbers = [row.parameters, row.episodes, row.deposits, row.at_most, row.entropy, row.kl]
        shown = [display.number_or_dash(value, digits) for value, digits in zip(numbers, (0, 0, 1, 0, 0, 0))]
        ratios = [times(value) if value >= 0 else "–" for value in (row.largest_ratio, row.ratio)]
        rows.append((display.link(results, row.cell), *shown, *ratios))
    head = "parameters,episodes,deposits an episode,at most,entropy,reverse KL,at most / capacity,measured / capacity"
    return display.folded(f"Every finished cell ({len(rows)})", display.table(["cell", *head.split(",")], rows))
