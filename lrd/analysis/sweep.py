"""Sweeps over the learning rate: the rate that each arm gets, by the rule that its preset states. Torch-free.

Two rules. A sweep of codebooks has one window for all arms: `chosen`. A sweep like `fair-lr` gives each reward and arm
a window of its own and scores cells on the validation split: `rates`. In both, an arm without some cell has no rate
yet. Of the second kind most cells are published as a table, which stands in for those that are not at hand.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lrd.cell import Cell, grid
from lrd.presets import axes_of, preset_names, read_preset
from lrd.results import Results, area, frame_of, root, stamps, trained_with
from lrd.runs import published
from lrd.runs.directory import state

Arm = tuple[str, str]  # regime and arm
AXIS = "learning_rate"
WORLD = "training"  # the axis whose values are the trainings of the student
COLUMNS = ["cell", "regime", "arm", AXIS, WORLD, "seed", "step", "pass@1"]  # of the rows that are published


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
    about = read_preset(name) if name in preset_names() else {}
    return name if about.get("base") == preset and "windows" in about else None


def curves(preset: str, runs: str | Path | None = None) -> pd.DataFrame:
    """One row a finished cell and evaluation: pass@1 on the validation split; published rows where no cell is."""
    below = root(runs) / preset
    finished = [cell for cell in grid(preset) if state(below / cell.name) == "finished"]
    here = [_curve(cell, below / cell.name, stamps(below / cell.name)) for cell in finished]
    frames = [frame for frame in here if len(frame)]
    if (rest := kept(preset, runs)) is not None:
        frames.append(rest[~rest.cell.isin([name for frame in frames for name in frame.cell.unique()])])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


@functools.cache  # many pages ask which rates were chosen
def _curve(cell: Cell, path: Path, seen: frozenset) -> pd.DataFrame:
    rows = frame_of(path / "validation.jsonl")[0].reindex(columns=["step", "correct"])
    curve = rows.astype(float).groupby("step").correct.mean()
    about = {"cell": cell.name, "regime": cell.regime, "arm": cell.arm, "seed": cell.seed} | cell.point
    return curve.rename("pass@1").reset_index().assign(**about)[COLUMNS]


def kept(preset: str, runs: str | Path | None = None) -> pd.DataFrame | None:
    """The rows that `lrd publish` left, if some cell at hand began from a student of theirs; None without them."""
    rows = published.rows(preset, [WORLD])
    return rows if rows is not None and trained_with(preset, runs) & _students_of_record(preset) else None


def students(preset: str, runs: str | Path | None = None) -> set[str]:
    """Fingerprints of the students that the cells of `curves` began from."""
    return trained_with(preset, runs) | (_students_of_record(preset) if kept(preset, runs) is not None else set())


def _students_of_record(preset: str) -> set[str]:
    return set((published.record(preset) or {}).get("environment", {}).get("student", []))


def with_kept(swept: Results, rows: pd.DataFrame) -> Results:
    """The same without the gaps that rows of `curves` fill: those cells are `published`."""
    only = set(rows.cell) & set(swept.cells.cell[swept.cells.state == "absent"])
    cells = swept.cells.assign(state=swept.cells.state.mask(swept.cells.cell.isin(only), "published"))
    filled = {f"{name}: absent" for name in only}
    return replace(swept, cells=cells, problems=[text for text in swept.problems if text not in filled])


def cells_of(preset: str, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a cell of the sweep, from its `curves`: `area` and `last` of its curve, NaN where it is not finished.

    By regime and arm, in the order of the axes.
    """
    by_cell = {name: its.set_index("step")["pass@1"] for name, its in rows.groupby("cell")}
    ends = {name: (area(curve), curve.iloc[-1]) for name, curve in by_cell.items()}
    nothing, axes = (float("nan"),) * 2, axes_of(preset)
    cells = sorted(grid(preset), key=lambda c: (axes["regime"].index(c.regime), axes["rank"].index(c.rank or "full")))
    return pd.DataFrame(
        [(c.name, c.regime, c.arm, c.learning_rate, c.point[WORLD], *ends.get(c.name, nothing)) for c in cells],
        columns=["cell", "regime", "arm", AXIS, WORLD, "area", "last"],
    )


def areas(cells: pd.DataFrame) -> pd.DataFrame:
    """Area under the validation curve, mean over students: a row a (regime, arm), a column a rate.

    NaN where a rate was not tried or a cell of it is not finished.
    """
    return scores(cells, AXIS, "area", ["regime", "arm"]).reindex([*windows(cells)])


def windows(cells: pd.DataFrame) -> dict[Arm, list[float]]:
    """(regime, arm) → the rates that it tries, rising."""
    by_arm = cells.groupby(["regime", "arm"], sort=False)[AXIS]
    return {key: sorted(map(float, values.unique())) for key, values in by_arm}


def rates(cells: pd.DataFrame) -> dict[Arm, float]:
    """(regime, arm) → the rate of the highest area; of equal ones that of the higher pass@1 at the last step.

    Only of arms whose cells are all finished.
    """
    by_area, by_last = areas(cells).round(9), scores(cells, AXIS, "last", ["regime", "arm"])
    return {
        key: max(window, key=lambda rate: (by_area.at[key, rate], by_last.at[key, rate]))
        for key, window in windows(cells).items()
        if by_area.loc[[key], window].notna().all(axis=None)
    }


def by_student(cells: pd.DataFrame) -> dict[str, dict[Arm, float]]:
    """Training of the student → the `rates` that its cells alone would choose."""
    return {world: rates(its) for world, its in cells.groupby(WORLD)}


def ratios(best: dict[Arm, float]) -> dict[str, tuple[float, float]]:
    """Regime → the least and the largest ratio of an adapter's `rates` to full fine-tuning's."""
    found = {}
    for regime, full in ((regime, rate) for (regime, arm), rate in best.items() if arm == "full"):
        if adapters := [rate for (its, arm), rate in best.items() if its == regime and arm != "full"]:
            found[regime] = min(adapters) / full, max(adapters) / full
    return found


def spacing(cells: pd.DataFrame) -> float:
    """The largest factor between two neighbours of a window."""
    return max(b / a for window in windows(cells).values() for a, b in itertools.pairwise(window))


def in_use(preset: str) -> dict[Arm, float]:
    """(regime, arm) → the rate that a matrix trains at."""
    return {(cell.regime, cell.arm): cell.learning_rate for cell in grid(preset)}


def unlike(preset: str, best: dict[Arm, float]) -> dict[Arm, tuple[float, float]]:
    """Arms of a matrix that do not train at these `rates`: (chosen, in use)."""
    usual = in_use(preset)
    return {key: (rate, usual[key]) for key, rate in best.items() if usual.get(key, rate) != rate}


def off_rate(preset: str, runs: str | Path | None = None) -> dict[Arm, tuple[float, float]]:
    """Arms of a preset that do not train at the rate that its sweep chose: (chosen, in use). Empty without a sweep."""
    name = of(preset)
    return unlike(preset, rates(cells_of(name, curves(name, runs)))) if name else {}
