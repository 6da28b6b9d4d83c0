"""Sweeps over the learning rate: the rate each row of a table of scores gets, by the rule that its preset states.

Two rules. A sweep of codebooks has one window for all arms: `chosen`. A sweep like `fair-lr` gives each reward and arm
a window of its own and scores cells on the validation split: `rates`. In both, an arm without some cell has no rate
yet. What `lrd publish` left stands in for cells that are not at hand. Torch-free.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lrd import results
from lrd.cell import grid
from lrd.presets import preset_names, read_preset
from lrd.results import Results

Arm = tuple[str, str]  # regime and arm
AXIS = "learning_rate"


def scores(cells: pd.DataFrame, axis: str, score: str, rows: Sequence[str]) -> pd.DataFrame:
    """Mean of a score's column over cells: one row each value of `rows`, one column a value of `axis`, rising.

    NaN where a cell has no score: a mean over fewer cells would not be comparable.
    """
    each = cells.groupby([*rows, axis], sort=False)[score]
    return each.agg(lambda values: values.mean(skipna=False)).unstack().sort_index(axis=1).astype(float)


def chosen(table: pd.DataFrame) -> dict[Any, float]:
    """Row of a table of scores → the value of the highest, of equal ones the smaller; a row with a gap has none."""
    return table.dropna().idxmax(axis=1).to_dict()  # the first of equal ones, and columns rise


def at_end(values: Iterable[float], value: float) -> bool:
    """Whether a value is the least or the largest that was tried, so that a better one may lie outside."""
    tried = [*values]
    return value in (min(tried), max(tried))


def of(preset: str) -> str | None:
    """The sweep that chooses a preset's rates: `<preset>-lr`, where there is one that extends it and has windows."""
    name = f"{preset}-lr"
    found = read_preset(name) if name in preset_names() else {}
    return name if found.get("base") == preset and "windows" in found else None


def areas(swept: Results, column: str = "validation_area") -> pd.DataFrame:
    """Area under the validation split's pass@1 curve, mean over students: a row a (regime, arm), a column a rate.

    NaN where a rate was not tried or a cell of it is not finished. `column` may be `validation_final`: the last step.
    """
    return scores(swept.cells, AXIS, column, ["regime", "arm"])


def tried(swept: Results) -> dict[Arm, list[float]]:
    """(regime, arm) → the rates of its window, rising."""
    by_arm = swept.cells.groupby(["regime", "arm"])[AXIS]
    windows = {key: sorted(map(float, values.unique())) for key, values in by_arm}
    order = ((regime, arm) for regime in swept.regimes for arm in swept.arms)
    return {key: windows[key] for key in order if key in windows}


def rates(swept: Results) -> dict[Arm, float]:
    """(regime, arm) → the rate of the highest area; of equal ones that of the higher pass@1 at the last step.

    Only of arms whose cells are all finished.
    """
    tables = areas(swept), areas(swept, "validation_final")
    found = {}
    for key, window in tried(swept).items():
        if tables[0].loc[key, window].notna().all():
            found[key] = max(window, key=lambda rate: tuple(round(float(t.at[key, rate]), 9) for t in tables))
    return found


def unlike(swept: Results) -> dict[Arm, tuple[float, float]]:
    """Arms that do not train at their `rates` in the preset that the sweep is for: (chosen, in use)."""
    usual = {(cell.regime, cell.arm): cell.learning_rate for cell in grid(read_preset(swept.preset)["base"])}
    return {key: (rate, usual[key]) for key, rate in rates(swept).items() if usual.get(key, rate) != rate}


def off_rate(preset: str, runs: str | Path | None = None) -> dict[Arm, tuple[float, float]]:
    """Arms of a preset that do not train at the rate that its sweep chose: (chosen, in use). Empty without a sweep."""
    name = of(preset)
    return unlike(load(name, runs)) if name else {}


def load(preset: str, runs: str | Path | None = None) -> Results:
    """The sweep's results."""
    return results.load(preset, runs)
