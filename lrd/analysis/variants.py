"""A matrix that varies one field alone, between two values: how its cells end, paired by seed.

Presets of that kind state in `[about]` what they ask, what is expected and which statistic decides.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from lrd.analysis import stats
from lrd.cell import grid
from lrd.report.text import NBSP, NOTHING, counted, interval, mean_sd, signed
from lrd.results import Results

MOVED = "weights_moved"


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
        """The finished cells, with the share of weights that had moved by their last step (NaN where not logged)."""
        steps = self.results.of_finished(self.results.steps).reindex(columns=["cell", "step", MOVED])
        last = steps.sort_values("step").groupby("cell")[MOVED].last()
        return self.results.finished.assign(**{MOVED: self.results.finished.cell.map(last).astype(float)})

    @property
    def head(self) -> list[str]:
        """Of `rows`."""
        shown = [f"final pass@1, {value}" for value in self.values] + ["difference"]
        return ["seed", *shown, *([f"weights moved, {value}" for value in self.values] if self._moved else [])]

    def rows(self) -> list[tuple[str, ...]]:
        """One row a seed, then the mean: final pass@1 of both, their difference, and the weights moved where logged."""
        final, moved = self._table("final"), self._table(MOVED)
        gaps = final[self.values[1]] - final[self.values[0]]
        rows = []
        for seed in final.index:
            parts = [*(_number(final.loc[seed, value]) for value in self.values), _signed(gaps[seed])]
            parts += [_share(moved.loc[seed, value]) for value in self.values] if self._moved else []
            rows.append((str(seed), *parts))
        means = [*(mean_sd(final[value]) for value in self.values), _difference(self._paired("final"))]
        means += [_share(moved[value].mean()) for value in self.values] if self._moved else []
        return [*rows, ("mean", *means)]

    def verdict(self) -> str:
        """The stated statistic, as sentences; `not run` where there is no pair of finished cells."""
        first, second = self.values
        d, preset = self._paired("final"), self.results.preset
        if d is None:
            return f"Not run: no seed of preset {preset} has both cells finished."
        text = (
            f"Over {counted(d.n, 'seed')}, final pass@1 with {second} minus that with {first} is {_difference(d)}"
            f"{', an interval that leaves the sign open' if d.includes_zero and d.n > 1 else ''}."
        )
        if m := self._paired(MOVED):
            means = self._table(MOVED).mean()
            text += (
                f" Of the trained weights {_share(means[second])} differ at the last step from where they began with "
                f"{second}, and {_share(means[first])} with {first}: {_points(m)}."
            )
        return text

    @property
    def _moved(self) -> bool:
        return bool(self.cells[MOVED].notna().any())

    def _paired(self, value: str) -> stats.Difference | None:
        cells, (first, second) = self.cells, self.values
        regime = self.results.regimes[0]
        return stats.paired(cells, regime, second, first, value, column=self.axis)

    def _table(self, value: str) -> pd.DataFrame:
        seeds = sorted(self.results.cells.seed.unique())
        table = self.cells.pivot_table(index="seed", columns=self.axis, values=value)
        return table.reindex(index=seeds, columns=self.values)


def _difference(d: stats.Difference | None) -> str:
    return f"{signed(d.mean)}{interval(d)}" if d else NOTHING


def _points(d: stats.Difference) -> str:
    """A difference of shares in percentage points."""
    bounds = f" [{signed(100 * d.low, 1)},{NBSP}{signed(100 * d.high, 1)}]" if d.n > 1 else ""
    return f"{signed(100 * d.mean, 1)}{bounds} percentage points"


def _number(x: float) -> str:
    return f"{x:.3f}" if x == x else NOTHING


def _signed(x: float) -> str:
    return signed(x) if x == x else NOTHING


def _share(x: float) -> str:
    return f"{100 * x:.1f}{NBSP}%" if x == x else NOTHING
