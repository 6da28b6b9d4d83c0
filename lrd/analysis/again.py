"""The same cells run again: someone's runs beside the published ones, and a cell beside its rerun. Torch-free.

Nothing is called the same that is not the same to the last digit; what lies within a tolerance is told from what does
not.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrd.results import Results, read_provenance, root

NUMBERS = ["base", "final", "peak", "area", "peak_advantage_std"]  # of a cell, as `results.summary` has them
ROLES = ["student", "teacher", "prm"]
PACKAGES = ["torch", "transformers", "tokenizers", "peft", "numpy"]  # those whose arithmetic or tokens may differ
ACCURACY = 0.02  # of pass@1 and its mean over steps: 3 of 150 problems
MAGNITUDE = 0.05  # of the published peak advantage std
RERUN = 0.05  # of pass@1 at any evaluation of a rerun: 25 of 500 problems
ROUNDING = 1e-9


class Reading(Enum):
    """How a cell compares with the same cell of other runs."""

    SAME = "the same"
    WITHIN = "within tolerance"
    APART = "apart"
    UNFINISHED = "not finished"  # or not evaluated
    UNPUBLISHED = "not published"
    UNKNOWN = "not measured"


COMPARED = (Reading.SAME, Reading.WITHIN, Reading.APART)


def environment(records: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """What a set of runs rests on, from their provenances: name → its distinct values, in the order of the runs."""
    distinct: dict[str, dict[str, None]] = {}
    for record in records:
        run, hardware, packages, git = (
            part if isinstance(part := record.get(name), dict) else {}
            for name in ("run", "hardware", "packages", "git")
        )
        models = run.get("models")
        values = {role: models.get(role) for role in ROLES} if isinstance(models, dict) else {}
        values |= {"python": record.get("python")} | {name: packages.get(name) for name in PACKAGES}
        values |= {"commit": git.get("sha"), "processor": hardware.get("cpu"), "device": run.get("device")}
        values |= {"GPUs": ", ".join(map(str, hardware.get("gpus") or [])), "threads": run.get("threads")}
        for name, value in values.items():
            if value not in (None, ""):
                distinct.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in distinct.items()}


@dataclass(frozen=True)
class Comparison:
    """Someone's runs of a preset beside what `lrd publish` kept of the published ones, where it kept anything."""

    results: Results
    published: dict[str, Any]
    runs: str | Path | None = None

    @cached_property
    def numbers(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`NUMBERS` here and published, one row a cell of the matrix; NaN where there is none."""
        ours = self.results.cells.set_index("cell")[NUMBERS].astype(float)
        theirs = pd.DataFrame.from_dict(self.published.get("cells", {}), orient="index", columns=NUMBERS)
        return ours, theirs.reindex(ours.index).astype(float)

    @cached_property
    def readings(self) -> dict[str, tuple[Reading, list[str]]]:
        """Cell → how it compares with the published one, and which of `NUMBERS` are beyond tolerance."""
        ours, theirs = self.numbers
        same = np.isclose(ours, theirs, rtol=1e-9, atol=1e-12, equal_nan=True)  # but for the order of a sum
        magnitudes = [name == "peak_advantage_std" for name in NUMBERS]
        tolerance = np.where(magnitudes, MAGNITUDE * theirs.abs(), ACCURACY) + ROUNDING
        close = same | ((ours - theirs).abs() <= tolerance).to_numpy()
        cells, published = self.results.cells, theirs.notna().any(axis=1).to_numpy()
        readings = np.select(
            [~cells.cell.isin(self.results.finished.cell), ~published, same.all(1), close.all(1)],
            [Reading.UNFINISHED, Reading.UNPUBLISHED, Reading.SAME, Reading.WITHIN],
            Reading.APART,
        )
        apart = ([name for name, near in zip(NUMBERS, row) if not near] for row in close)
        return dict(zip(cells.cell, zip(readings, apart)))

    @cached_property
    def differing(self) -> dict[str, tuple[list[str], list[str]]]:
        """What the runs rest on and do not share: name → the published values and yours."""
        folder = root(self.runs) / self.results.preset
        ours = environment(read_provenance(folder / cell) for cell in self.results.finished.cell)
        theirs = self.published.get("environment", {})
        pairs = {name: (theirs.get(name, []), ours.get(name, [])) for name in [*theirs, *ours]}
        return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


@dataclass(frozen=True)
class Rerun:
    """A cell beside its rerun: the states of both, and where both are finished what they have in common."""

    cell: str
    states: tuple[str, str]
    finals: tuple[float, float] = (math.nan, math.nan)  # pass@1
    agree: int = 0  # the last step up to which all steps agree in every digit; 0 for none
    gap: float = math.nan  # the largest difference of pass@1 at an evaluation of both
    reading: Reading = Reading.UNFINISHED  # by `RERUN`


def reruns(original: Results, again: Results) -> list[Rerun]:
    """Every cell of `again` beside the same cell of `original`."""
    return [_rerun(row.cell, row.last_step, original, again) for row in again.cells.itertuples()]


def _rerun(cell: str, last_step: float, *both: Results) -> Rerun:
    rows = [each.cells[each.cells.cell == cell] for each in both]
    first, second = (str(row.state.iloc[0]) if len(row) else "absent" for row in rows)
    if (first, second) != ("finished", "finished"):
        return Rerun(cell, (first, second))
    one, other = (each.curves[each.curves.cell == cell].set_index("step")["pass@1"] for each in both)
    gap = max((one - other).abs().dropna().tolist(), default=math.nan)
    agree = _agree(*(each.steps[each.steps.cell == cell] for each in both))
    if gap == 0 and agree == last_step:
        reading = Reading.SAME
    elif math.isnan(gap):
        reading = Reading.UNKNOWN
    else:
        reading = Reading.WITHIN if gap <= RERUN + ROUNDING else Reading.APART
    return Rerun(cell, (first, second), tuple(float(row.final.iloc[0]) for row in rows), agree, gap, reading)


def _agree(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """The last step up to which what was sampled and learned is the same to the last digit; times do not count."""
    names = [name for name in ("reward", "loss", "grad_norm", "advantage_std") if name in one and name in other]
    first, second = (frame.set_index("step")[names].astype(float).sort_index() for frame in (one, other))
    steps = first.index.intersection(second.index)
    equal = [np.array_equal(first.loc[step], second.loc[step], equal_nan=True) for step in steps]
    agreed = steps[np.cumprod(equal).astype(bool)] if names else steps[:0]
    return int(agreed.max()) if len(agreed) else 0
