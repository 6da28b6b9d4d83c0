"""The words of the page on learning rates: what each arm gets by the rule of `lrd.analysis.sweep`."""

from pathlib import Path
from typing import Any

import pandas as pd

from lrd.analysis import sweep
from lrd.presets import read_preset
from lrd.report.text import NOTHING, arm_name, mean_sd
from lrd.results import Results, trained_with


def choice(table: pd.DataFrame, row: Any) -> str | None:
    """A row's value by the rule, and whether it is at an end of the axis: `0.03 (at the end)`; None without one."""
    if (value := sweep.chosen(table).get(row)) is None:
        return None
    return f"{value:g}{' (at the end)' if sweep.at_end(table.columns, value) else ''}"


def rows(results: Results, axis: str) -> list[tuple[str, ...]]:
    """Arm, mean area at each value, the chosen value and whether it is at an end of the axis: it may not be best."""
    table = sweep.areas(results, axis)
    return [
        (
            arm_name(arm),
            *(NOTHING if area != area else f"{area:.3f}" for area in table.loc[arm]),
            choice(table, arm) or "not finished",
        )
        for arm in table.index
    ]


def verdict(results: Results, axis: str) -> str:
    """What the sweep says, in one sentence."""
    best = sweep.chosen(sweep.areas(results, axis))
    if not best:
        return "No arm's cells are all finished, so that none has been chosen."
    text = "; ".join(f"{arm_name(arm)} gets {value:g}" for arm, value in best.items())
    return f"{text[0].upper()}{text[1:]}."


def in_use(results: Results, axis: str) -> str:
    """Whether the preset that the sweep is for has what was chosen, in one sentence."""
    base, differing = read_preset(results.preset)["base"], sweep.unlike(results, axis)
    if not sweep.chosen(sweep.areas(results, axis)):
        return f"What preset {base} has is a guess until then."
    if not differing:
        return f"Preset {base} has these values."
    texts = [f"{usual:g} in place of {best:g} for {arm_name(arm)}" for arm, (best, usual) in differing.items()]
    return f"Preset {base} has others: {'; '.join(texts)}."


def student(preset: str, runs: str | Path | None = None, *, base: str = "") -> str:
    """Whether the cells began from the student of `base`, else of the preset that they are for; empty without runs."""
    base = base or read_preset(preset)["base"]
    ours, theirs = trained_with(preset, runs), trained_with(base, runs)
    if not ours or not theirs:
        return ""
    which = "the student of" if ours == theirs else "another training of the student than those of"
    return f"The cells of {preset} began from {which} {base}."


def past_best(results: Results, regime: str) -> str:
    """What arms of a preset that a sweep is for lose of pass@1 from their best to the last step, as a sentence."""
    cells = results.finished[results.finished.regime == regime]
    lost, full = cells.peak - cells.final, cells.arm == "full"
    return (
        f"From its best evaluation to the last step of {results.preset} an adapter's cell loses {mean_sd(lost[~full])} "
        f"of pass@1 under {regime}, one of full fine-tuning {mean_sd(lost[full])}."
    )
