"""A matrix that varies one field alone, between two values: how its cells end, paired by seed. Torch-free."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from lrd.analysis import stats
from lrd.cell import grid
from lrd.results import Results

MOVED = "weights_moved"  # share of trained weights that differ, at the last step, from where they began


@dataclass(frozen=True)
class Pair:
    """The cells of such a matrix, its axis and the axis' two values, in the preset's order."""

    results: Results

    @property
    def axis(self) -> str:
        """The field that varies."""
        return self.results.axes[0]

    @property
    def values(self) -> list[Any]:
        """Its two values; the second is compared with the first."""
        return list(dict.fromkeys(getattr(cell, self.axis) for cell in grid(self.results.preset)))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The finished cells, with `MOVED` (NaN where it was not logged)."""
        steps = self.results.of_finished(self.results.steps).reindex(columns=["cell", "step", MOVED])
        last = steps.sort_values("step").groupby("cell")[MOVED].last()
        return self.results.finished.assign(**{MOVED: self.results.finished.cell.map(last).astype(float)})

    def by_seed(self, column: str) -> pd.DataFrame:
        """A column of `cells`: one row a seed of the matrix, one column each of the two values, NaN for no cell."""
        table = self.cells.pivot_table(index="seed", columns=self.axis, values=column)
        return table.reindex(index=sorted(self.results.cells.seed.unique()), columns=self.values)

    def difference(self, column: str) -> stats.Difference | None:
        """The second value's minus the first's, paired by seed, with Student's interval; None without a pair."""
        first, second = self.values
        return stats.paired(self.cells, self.results.regimes[0], second, first, column, column=self.axis)
