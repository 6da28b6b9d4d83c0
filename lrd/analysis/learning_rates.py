"""Is an arm that has not collapsed only slow? The process reward at smaller learning rates and for longer. Torch-free.

A preset with an axis `pace` trains arms of the preset that it extends at several learning rates, for more steps.
"""

import math
from dataclasses import replace
from enum import Enum

import pandas as pd

from lrd.analysis import onset
from lrd.cell import grid
from lrd.presets import read_preset
from lrd.results import Results


class Extent(Enum):
    """How many cells of some."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


def with_rates(results: Results) -> Results:
    """The same with the learning rate for an axis of its own."""
    rate = {cell.name: cell.learning_rate for cell in grid(results.preset)}
    frames = {name: getattr(results, name) for name in ("steps", "evals", "cells")}
    added = {name: frame.assign(learning_rate=frame.cell.map(rate)) for name, frame in frames.items()}
    return replace(results, **added, axes=[*results.axes, "learning_rate"])


def usual(results: Results) -> dict[str, float]:
    """Arm → its learning rate in the preset that is extended."""
    cells = grid(read_preset(results.preset)["base"])
    return {cell.arm: cell.learning_rate for cell in cells if cell.regime in results.regimes}


def last_steps(preset: str) -> tuple[int, int]:
    """The last step of the preset that this one extends, `soon`, and its own, `late`."""
    soon, late = (max(cell.steps for cell in grid(name)) for name in (read_preset(preset)["base"], preset))
    return soon, late


def collapses(results: Results, soon: int) -> pd.DataFrame:
    """The finished cells of `with_rates` with the step of their collapse, and pass@1 `at_soon`, an evaluated step.

    `collapse` is the evaluation that shows it by the stability page's rule, NaN where it never comes.
    """
    onsets = onset.onsets(results).set_index("cell").collapse
    at_soon = results.curves[results.curves.step == soon].set_index("cell")["pass@1"]
    cells = results.finished
    steps = [math.nan if o is None else o.by for o in onsets.reindex(cells.cell)]
    return cells.assign(collapse=steps, at_soon=at_soon.reindex(cells.cell).to_numpy())


def extents(cells: pd.DataFrame, *steps: int) -> dict[str, tuple[Extent, ...]]:
    """Arm at a rate → how many of its `collapses` have come by each of these steps."""
    return {
        name: tuple(_extent((its.collapse <= step).mean()) for step in steps)
        for name, its in cells.groupby("pace", sort=False)
    }


def _extent(share: float) -> Extent:
    return Extent.ALL if share == 1 else Extent.SOME if share else Extent.NONE
