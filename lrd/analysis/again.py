"""The same cells run again: a reader's runs beside the published ones, and a cell beside its rerun on the same GPU.

Nothing is called the same that is not the same to the last digit; what lies within a tolerance is said to, and what
does not is named, with what is known to differ between the two.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrd import results
from lrd.report.display import link, number_or_dash
from lrd.report.publish import NUMBERS, ROLES, ran_on
from lrd.report.text import NBSP, NOTHING, counted, listed, mean_sd
from lrd.results import Results

ACCURACY = 0.02  # of pass@1 and its mean over steps: 3 of 150 problems
MAGNITUDE = 0.05  # of the published peak advantage std
RERUN = 0.05  # of pass@1 at any evaluation of a rerun: 25 of 500 problems
SAME, WITHIN, APART = "the same", "within tolerance", "apart"


@dataclass(frozen=True)
class Yours:
    """A reader's runs of a preset beside what `lrd publish` kept of the published ones, where it kept anything."""

    found: Results
    published: dict[str, Any]
    runs: str | Path | None = None

    @cached_property
    def readings(self) -> dict[str, str]:
        """Cell → `the same`, `within tolerance`, which numbers are apart, or why it cannot be compared."""
        apart = {cell: ", ".join(names) for cell, (_, names) in self._compared.items()}
        return {cell: f"{kind}: {apart[cell]}" if apart[cell] else kind for cell, (kind, _) in self._compared.items()}

    @cached_property
    def _compared(self) -> dict[str, tuple[str, list[str]]]:
        """Cell → `SAME`, `WITHIN`, `APART` or why it cannot be compared, and the numbers that are apart."""
        return {row.cell: self._compare(row) for row in self.found.cells.itertuples()}

    @cached_property
    def differing(self) -> list[tuple[str, str, str]]:
        """What the runs rest on and do not share: its name, the published value and yours."""
        theirs = self.published.get("environment", {})
        ours = ran_on(
            results.read_provenance(results.root(self.runs) / self.found.preset / cell)
            for cell in self.found.finished.cell
        )
        names = dict.fromkeys([*theirs, *ours])
        pairs = [(name, ", ".join(theirs.get(name, [])), ", ".join(ours.get(name, []))) for name in names]
        return [(name, a or "none", b or "none") for name, a, b in pairs if a != b]

    def facts(self) -> dict[str, str]:
        """Keyed by the names that they are glued under."""
        return {
            "preset": self.found.preset,
            "accuracy": f"{ACCURACY:g}",
            "magnitude": f"{100 * MAGNITUDE:.0f}{NBSP}%",
            "verdict": self._verdict(),
            "why": self._why(),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """One row a cell, in the matrix's order: yours, the published in brackets, and how to read it."""
        rows = []
        for row in self.found.cells.itertuples():
            theirs = self._of(row.cell)
            both = [[number_or_dash(x, 3) for x in (getattr(row, name), theirs.get(name))] for name in NUMBERS]
            pairs = [f"{mine} ({published})" for mine, published in both]
            rows.append((link(self.found, row.cell), *pairs, self.readings[row.cell]))
        return rows

    def regimes(self) -> list[tuple[str, ...]]:
        """One row a regime: final pass@1 of all of its cells, mean ± sd, published and yours."""
        rows = []
        for regime in self.found.regimes:
            names = self.found.cells.cell[self.found.cells.regime == regime]
            theirs = pd.Series([self._of(name).get("final", math.nan) for name in names], dtype=float)
            mine = self.found.finished[self.found.finished.regime == regime].final
            rows.append((regime, mean_sd(theirs), mean_sd(mine)))
        return rows

    def _of(self, cell: str) -> dict[str, float]:
        return self.published.get("cells", {}).get(cell, {})

    def _compare(self, row: Any) -> tuple[str, list[str]]:
        theirs = self._of(row.cell)
        if row.cell not in set(self.found.finished.cell):
            return row.state if row.state != "finished" else "not evaluated", []
        if not theirs:
            return "not published", []
        pairs = {name: (getattr(row, name), theirs.get(name, math.nan)) for name in NUMBERS}
        if all(_same(*pair) for pair in pairs.values()):
            return SAME, []
        apart = [name.replace("_", " ") for name, pair in pairs.items() if not _close(name, *pair)]
        return APART if apart else WITHIN, apart

    def _verdict(self) -> str:
        if not self.published:
            return f"No runs of {self.found.preset} are published to compare with."
        if not len(self.found.finished):
            return f"No cell of {self.found.preset} has finished here, so that there is nothing to compare."
        counts = Counter(kind for kind, _ in self._compared.values())
        compared = sum(counts[kind] for kind in (SAME, WITHIN, APART))
        return (
            f"Of {counted(compared, 'cell')} that can be compared, {counts[SAME]} are the same to the last digit, "
            f"{counts[WITHIN]} within tolerance and {counts[APART]} apart; {len(self.readings) - compared} cannot "
            f"be compared."
        )

    def _why(self) -> str:
        """What can have made a difference, of what was recorded, as sentences; nothing where there is none."""
        kinds = {kind for kind, _ in self._compared.values()}
        if not self.published or not kinds & {WITHIN, APART}:
            return ""
        names = [name for name, _, _ in self.differing]
        if models := [name for name in names if name in ROLES]:
            return (
                f"The models are not the published ones ({listed(models)}). They are trained from scratch on each "
                "machine, and another processor or another PyTorch rounds their arithmetic otherwise, so that a cell "
                "here does not begin where the published one began. Compare regimes, not cells."
            )
        if names:
            return (
                f"The models are the published ones; what differs is: {listed(names)}. A last digit that is rounded "
                "otherwise changes a sampled token sooner or later, and from there on a run takes another way: most "
                "under a reward that makes training unstable."
            )
        return (
            "Nothing that is recorded differs, neither models, nor versions, nor processor. What is left is what no "
            "record holds, such as a library of the operating system or a change of the code that was not committed."
        )


def rerun(original: Results, again: Results) -> list[tuple[str, ...]]:
    """One row a cell of `again`: final pass@1 of both, the last step up to which their steps agree in every digit, the
    largest difference of pass@1 at an evaluation, and whether that is within `RERUN`."""
    rows = []
    for row in again.cells.itertuples():
        pair = [found.cells[found.cells.cell == row.cell] for found in (original, again)]
        states = [str(cells.state.iloc[0]) if len(cells) else "absent" for cells in pair]
        name = link(again, row.cell)
        if states != ["finished", "finished"]:
            rows.append((name, *[NOTHING] * 4, f"first: {states[0]}, again: {states[1]}"))
            continue
        finals = [number_or_dash(float(cells.final.iloc[0]), 3) for cells in pair]
        curves = [
            found.curves[found.curves.cell == row.cell].set_index("step")["pass@1"] for found in (original, again)
        ]
        gap = max((curves[0] - curves[1]).abs().dropna().tolist(), default=math.nan)
        agree = _agree(*(found.steps[found.steps.cell == row.cell] for found in (original, again)))
        whole = gap == 0 and agree == row.last_step
        reading = SAME if whole else WITHIN if gap <= RERUN + 1e-9 else APART if gap > RERUN else NOTHING
        rows.append((name, *finals, f"step {agree}" if agree else "none", number_or_dash(gap, 3), reading))
    return rows


def _agree(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """The last step up to which what was sampled and learned is the same to the last digit; times do not count."""
    names = [name for name in ("reward", "loss", "grad_norm", "advantage_std") if name in one and name in other]
    first, second = (frame.set_index("step")[names].astype(float).sort_index() for frame in (one, other))
    last = 0
    for step in first.index.intersection(second.index):
        if not np.array_equal(first.loc[step], second.loc[step], equal_nan=True):
            break
        last = int(step)
    return last if names else 0


def _same(one: Any, other: Any) -> bool:
    """To the last digit, but for the order of a sum; two numbers that are missing are the same, too."""
    one, other = float(one), float(other)
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


def _close(name: str, one: Any, other: Any) -> bool:
    if _same(one, other):
        return True
    if name == "peak_advantage_std":
        return abs(one - other) <= MAGNITUDE * abs(other)
    return abs(one - other) <= ACCURACY + 1e-9
