"""A sweep over one field of a cell: which value each arm gets, by a rule that its preset states before it runs.

The rule: the value of the highest area under the pass@1 curve, the mean over seeds; of equal ones the smaller.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from pathlib import Path

import pandas as pd

from lrd.cell import grid, read_preset
from lrd.report.text import NOTHING, arm_name, mean_sd
from lrd.results import Results, trained_with


def areas(results: Results, axis: str) -> pd.DataFrame:
    """Mean area of the finished cells: one row an arm, one column a value of the axis in rising order, NaN for none."""
    table = results.finished.pivot_table(index="arm", columns=axis, values="area", aggfunc="mean")
    return table.reindex(index=results.arms, columns=sorted(results.cells[axis].unique())).astype(float)


def chosen(results: Results, axis: str) -> dict[str, float]:
    """Arm → its value by the rule. An arm of which a cell is not finished has none yet."""
    unfinished = set(results.cells.arm[~results.cells.cell.isin(results.finished.cell)])
    best = areas(results, axis).drop(index=list(unfinished))
    return best.idxmax(axis=1).to_dict()  # the first of equal ones, and columns rise


def rows(results: Results, axis: str) -> list[tuple[str, ...]]:
    """Arm, mean area at each value, the chosen value and whether it is at an end of the axis: it may not be best."""
    table, best = areas(results, axis), chosen(results, axis)
    ends = (table.columns[0], table.columns[-1])
    return [
        (
            arm_name(arm),
            *(NOTHING if area != area else f"{area:.3f}" for area in table.loc[arm]),
            f"{best[arm]:g}{' (at the end)' if best[arm] in ends else ''}" if arm in best else "not finished",
        )
        for arm in table.index
    ]


def verdict(results: Results, axis: str) -> str:
    """What the sweep says, in one sentence."""
    best = chosen(results, axis)
    if not best:
        return "No arm's cells are all finished, so that none has been chosen."
    texts = [f"{arm_name(arm)} gets {value:g}" for arm, value in best.items()]
    return "; ".join(texts)[0].upper() + "; ".join(texts)[1:] + "."


def unlike(results: Results, axis: str) -> dict[str, tuple[float, float]]:
    """Arms whose value in the preset that the sweep is for is not the one that the rule chose: (chosen, the preset's).

    Empty before an arm's cells are all finished.
    """
    usual = {cell.arm: getattr(cell, axis) for cell in grid(read_preset(results.preset)["base"])}
    return {arm: (value, usual[arm]) for arm, value in chosen(results, axis).items() if usual.get(arm) != value}


def in_use(results: Results, axis: str) -> str:
    """Whether the preset that the sweep is for has what was chosen, in one sentence."""
    base, differing = read_preset(results.preset)["base"], unlike(results, axis)
    if not chosen(results, axis):
        return f"What preset {base} has is a guess until then."
    if not differing:
        return f"Preset {base} has these values."
    texts = [f"{usual:g} in place of {best:g} for {arm_name(arm)}" for arm, (best, usual) in differing.items()]
    return f"Preset {base} has others: {'; '.join(texts)}."


def student(results: Results, runs: str | Path | None = None, *, base: str = "") -> str:
    """Whether the cells began from the student of `base`, else of the preset that they are for; empty without runs."""
    base = base or read_preset(results.preset)["base"]
    ours, theirs = trained_with(results.preset, runs), trained_with(base, runs)
    if not ours or not theirs:
        return ""
    which = "the student of" if ours == theirs else "another training of the student than those of"
    return f"The cells of {results.preset} began from {which} {base}."


def past_best(studied: Results, regime: str) -> str:
    """What arms of a preset that a sweep is for lose of pass@1 from their best to the last step, as a sentence."""
    mine = studied.finished[studied.finished.regime == regime]
    lost, full = mine.peak - mine.final, mine.arm == "full"
    return (
        f"From its best evaluation to the last step of {studied.preset} an adapter's cell loses {mean_sd(lost[~full])} "
        f"of pass@1 under {regime}, one of full fine-tuning {mean_sd(lost[full])}."
    )
