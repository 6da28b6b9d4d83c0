"""Is an arm that has not collapsed only slow? The process reward at smaller rates and for longer. Torch-free."""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from lrd.analysis import onset
from lrd.cell import grid, read_preset
from lrd.report.text import NBSP, listed, mean_sd
from lrd.results import Results, load


class Pace(NamedTuple):
    """An arm at a learning rate: its cells, and in how many of them pass@1 had collapsed by two steps."""

    name: str
    learning_rate: float
    cells: int
    soon: int
    late: int
    onsets: list[float]  # steps, of the evaluation that shows it
    at_soon: pd.Series  # pass@1
    peak: pd.Series
    final: pd.Series


def with_rates(results: Results) -> Results:
    """The same with the learning rate, which a pace is made of, for an axis of its own."""
    rate = {cell.name: cell.learning_rate for cell in grid(results.preset)}
    frames = {name: getattr(results, name) for name in ("steps", "evals", "cells")}
    added = {name: frame.assign(learning_rate=frame.cell.map(rate)) for name, frame in frames.items()}
    return replace(results, **added, axes=[*results.axes, "learning_rate"])


def paces(results: Results, soon: int) -> list[Pace]:
    """Of each pace that has a finished cell, from `with_rates`; `soon` is a step that is evaluated.

    Onsets by the stability page's rule.
    """
    onsets = onset.onsets(results).set_index("cell").collapse
    at_soon = results.curves[results.curves.step == soon].set_index("cell")["pass@1"]
    found = []
    for name, mine in results.finished.groupby("pace", sort=False):
        steps = [o.by for o in onsets[mine.cell] if o is not None]
        by_soon = sum(step <= soon for step in steps)
        about = (len(mine), by_soon, len(steps), steps, at_soon.reindex(mine.cell), mine.peak, mine.final)
        found.append(Pace(str(name), mine.learning_rate.iloc[0], *about))
    return found


def head(soon: int, late: int) -> list[str]:
    """Column names of `rows`."""
    return ["pace", "rate", "best", f"step {soon}", f"step {late}", f"collapsed by {soon}", f"by {late}", "at steps"]


def rows(found: list[Pace]) -> list[tuple[str, ...]]:
    """A pace's rate, pass@1 at its best, at the earlier step and at the last, and how many cells collapse by either."""
    return [
        (
            p.name,
            f"{p.learning_rate:g}",
            *(mean_sd(values, 2) for values in (p.peak, p.at_soon, p.final)),
            *(f"{n}{NBSP}of{NBSP}{p.cells}" for n in (p.soon, p.late)),
            ", ".join(f"{step:.0f}" for step in sorted(p.onsets)) or "none",
        )
        for p in found
    ]


def steps_of(results: Results) -> tuple[int, int]:
    """The last step of the preset that paces are taken from, and their own."""
    return tuple(
        max(cell.steps for cell in grid(name)) for name in (read_preset(results.preset)["base"], results.preset)
    )


def usual(results: Results) -> dict[str, float]:
    """Arm → its rate in the preset that paces are taken from."""
    cells = grid(read_preset(results.preset)["base"])
    return {cell.arm: cell.learning_rate for cell in cells if cell.regime in results.regimes}


def said(preset: str) -> str:
    """The verdict on a preset's runs."""
    found = with_rates(load(preset))
    soon, late = steps_of(found)
    return verdict(paces(found, soon), soon, late)


def verdict(found: list[Pace], soon: int, late: int) -> str:
    """Which paces collapse by the earlier step, which only by the later one, and which never, as sentences."""
    if not found:
        return "Not run: no cell is finished."
    groups = {
        f"By step {soon} every cell of {{}} has collapsed.": [p.name for p in found if p.soon == p.cells],
        f"By step {soon} some cells of {{}} have, and all have by step {late}.": [
            p.name for p in found if 0 < p.soon < p.late == p.cells
        ],
        f"By step {soon} some cells of {{}} have, and not all have by step {late}.": [
            p.name for p in found if 0 < p.soon < p.cells and p.late < p.cells
        ],
        f"Of {{}} none has by then, and all have by step {late}.": [
            p.name for p in found if not p.soon and p.late == p.cells
        ],
        f"Of {{}} none has by then, and some have by step {late}.": [
            p.name for p in found if not p.soon and 0 < p.late < p.cells
        ],
        f"Of {{}} none has by step {late}.": [p.name for p in found if not p.late],
    }
    return " ".join(text.format(listed(names)) for text, names in groups.items() if names)
