"""Codebooks that cells have learned, in bits: frames of runs and of what was published, and arrays. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lrd.cell import grid
from lrd.names import codebook_name
from lrd.results import Results
from lrd.runs import published

COLUMNS = ["cell", "regime", "adapter", "rank", "step", "replicate", "information", "parameters"]
COLUMNS += ["bits", "bits_raw", "pass@1"]  # of the rows that are published


@dataclass(frozen=True, eq=False)
class Measured:
    """Bits under a reward at its evaluations: R replicates, A arms by size, full fine-tuning last, I codebooks."""

    bits: np.ndarray  # [R, A, I, steps]
    parameters: np.ndarray  # [A]
    information: np.ndarray  # [I], bits
    steps: np.ndarray  # or exposures per key, see `measured`
    arms: list[str]
    regime: str

    @property
    def n(self) -> int:
        """Replicates."""
        return len(self.bits)

    def mean(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Over replicates, each as often as `weights` says: [A, I, steps]."""
        return self.bits.mean(0) if weights is None else np.tensordot(weights / weights.sum(), self.bits, 1)


Rewards = Mapping[str, Measured]  # of a preset, the densest first; without those of which no replicate is whole


def learned(results: Results) -> pd.DataFrame:
    """One row a finished cell and evaluation: bits learned, calibrated and raw, beside what the arm is and was asked.

    Of cells that are not at hand, the rows that were published. Cells that are not evaluated on all of their codebook
    have none. `exposures` says how often each key had been asked for by then.
    """
    here, rest = _at_hand(results), kept(results.preset)
    both = [rows for rows in (here, rest[~rest.cell.isin(here.cell)]) if len(rows)]
    frame = pd.concat(both, ignore_index=True) if both else here
    cells = grid(results.preset)
    asked, keys = (
        frame.cell.map({cell.name: getattr(cell, setting) for cell in cells}).astype(float)
        for setting in ("prompts_per_step", "eval_problems")
    )
    return frame.assign(exposures=frame.step * asked / keys)


def kept(preset: str) -> pd.DataFrame:
    """The rows that `lrd publish` left: a grid of cells is larger than a repository should be."""
    rows = published.rows(preset, ["replicate"])
    return pd.DataFrame(columns=COLUMNS) if rows is None else rows


def with_kept(results: Results) -> Results:
    """The same without the gaps that published rows fill: those cells are `published`."""
    cells = results.cells.copy()
    only = set(kept(results.preset).cell) & set(cells.cell[cells.state == "absent"])
    cells.loc[cells.cell.isin(only), "state"] = "published"
    filled = {f"{name}: absent" for name in only}
    return replace(results, cells=cells, problems=[text for text in results.problems if text not in filled])


def _at_hand(results: Results) -> pd.DataFrame:
    size = results.finished.set_index("cell").trainable_parameters
    about = []
    for cell in grid(results.preset):
        book = codebook_name(cell.eval_data)
        if cell.name in size.index and book is not None and book.keys == cell.eval_problems:
            row = {"cell": cell.name, "regime": cell.regime, "adapter": cell.point["adapter"], "rank": cell.rank}
            row |= {"replicate": f"{cell.seed}/{book.seed}", "information": book.keys * book.bits}
            about.append(row | {"parameters": float(size[cell.name]), "keys": book.keys})
    numbers = ["bits", "bits_raw", "correct"]
    evals = results.evals.reindex(columns=["cell", "step", *numbers]).astype(dict.fromkeys(numbers, float))
    sums = evals.groupby(["cell", "step"], as_index=False)[numbers].sum()
    frame = sums.merge(pd.DataFrame(about, columns=[*COLUMNS[:4], *COLUMNS[5:8], "keys"]), on="cell")
    return frame.assign(**{"pass@1": frame.correct / frame["keys"].astype(float)})[COLUMNS]


def rewards(results: Results, at: str = "step") -> dict[str, Measured]:
    """Each of the preset's rewards as `measured`, but for those of which no replicate is whole."""
    frame = learned(results)
    return {regime: m for regime in results.regimes if (m := measured(frame, regime, at)) is not None}


def measured(frame: pd.DataFrame, regime: str, at: str = "step") -> Measured | None:
    """A reward's rows as an array; replicates that lack a cell or an evaluation are left out. None without a whole one.

    Where a reward has no full fine-tuning, or no adapter, nothing can be compared: None too. `at` names what codebooks
    are set side by side at: `step`, or `exposures` where larger ones were trained for longer.
    """
    rows = frame[frame.regime == regime]
    size = rows.groupby("adapter").parameters.max().sort_values()
    full = list(rows.adapter[rows["rank"].isna()].unique())
    arms = [arm for arm in size.index if arm not in full] + full
    if len(full) != 1 or len(arms) < 2:
        return None
    axes = [arms, sorted(rows.information.unique()), sorted(rows[at].unique())]
    wide = rows.pivot_table(index="replicate", columns=["adapter", "information", at], values="bits")
    wide = wide.reindex(columns=pd.MultiIndex.from_product(axes)).dropna()
    if not len(wide):
        return None
    bits = wide.to_numpy().reshape(len(wide), *map(len, axes))
    return Measured(bits, size[arms].to_numpy(float), np.array(axes[1], float), np.array(axes[2], float), arms, regime)


def apart(a: pd.DataFrame, b: pd.DataFrame) -> pd.Series:
    """How far the cells that two frames of `learned` share ended apart, in shares of a codebook: one value a cell."""
    last = [frame[frame.step == frame.groupby("cell").step.transform("max")] for frame in (a, b)]
    both = last[0].merge(last[1], on=["cell", "step"], suffixes=("", "_again"))
    return ((both.bits_again - both.bits) / both.information).abs()
