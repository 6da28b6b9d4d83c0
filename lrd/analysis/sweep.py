"""A sweep over one field of a cell: the value each row of a table of scores gets, by the rule that its preset states.

The rule: the value of the highest score, the mean over all cells of the row; of equal ones the smaller. A row without
some cell has none yet. `areas` scores an arm by the area under its pass@1 curve. Torch-free.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lrd.cell import grid
from lrd.presets import read_preset
from lrd.results import Results


def scores(cells: pd.DataFrame, axis: str, score: str, rows: Sequence[str]) -> pd.DataFrame:
    """Mean of a score's column over cells: one row each value of `rows`, one column a value of `axis`, rising.

    NaN where a cell has no score: a mean over fewer cells would not be comparable.
    """
    each = cells.groupby([*rows, axis], sort=False)[score]
    return each.agg(lambda values: values.mean(skipna=False)).unstack().sort_index(axis=1).astype(float)


def areas(results: Results, axis: str) -> pd.DataFrame:
    """The scores of `small-lr`: area under the pass@1 curve of finished cells, one row an arm."""
    done = results.cells.cell.isin(results.finished.cell)
    scored = results.cells.assign(area=results.cells.area.where(done))
    return scores(scored, axis, "area", ["arm"]).reindex(results.arms)


def chosen(table: pd.DataFrame) -> dict[Any, float]:
    """Row of a table of scores → its value by the rule; a row with a gap has none."""
    return table.dropna().idxmax(axis=1).to_dict()  # the first of equal ones, and columns rise


def at_end(table: pd.DataFrame, value: float) -> bool:
    """Whether a value is the least or the largest that was tried, so that a better one may lie outside."""
    return value in (table.columns[0], table.columns[-1])


def unlike(results: Results, axis: str) -> dict[str, tuple[float, float]]:
    """Arms whose value in the preset that the sweep is for is not the one that the rule chose: (chosen, the preset's).

    Empty before an arm's cells are all finished.
    """
    usual = {cell.arm: getattr(cell, axis) for cell in grid(read_preset(results.preset)["base"])}
    best = chosen(areas(results, axis))
    return {arm: (value, usual[arm]) for arm, value in best.items() if usual.get(arm) != value}
