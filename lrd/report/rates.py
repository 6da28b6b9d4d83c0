"""The words of the page on learning rates: what each arm gets by the rules of `lrd.analysis.sweep`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lrd.analysis import sweep
from lrd.analysis.sweep import Arm
from lrd.cell import grid
from lrd.presets import read_preset
from lrd.report.display import Html
from lrd.report.text import NOTHING, arm_name, counted, listed, times

NOT_FINISHED, NOT_TRIED = "not finished", "–"


def choice(table: pd.DataFrame, row: Any) -> str | None:
    """A row's value by the rule, and whether it is at an end of the axis: `0.03 (at the end)`; None without one."""
    if (value := sweep.chosen(table).get(row)) is None:
        return None
    return f"{value:g}{' (at the end)' if sweep.at_end(table.columns, value) else ''}"


def rows(cells: pd.DataFrame) -> list[tuple[str, ...]]:
    """Reward and arm, mean area at each rate, the chosen one bold; why a field is empty stands in it."""
    table, windows, best = sweep.areas(cells), sweep.windows(cells), sweep.rates(cells)
    return [
        (
            f"{regime}, {arm_name(arm)}",
            *(
                NOT_TRIED if rate not in window else _area(table.loc[(regime, arm), rate], best.get(key) == rate)
                for rate in table.columns
            ),
            f"{best[key]:g}" if key in best else NOT_FINISHED,
        )
        for key, window in windows.items()
        for regime, arm in [key]
    ]


def _area(area: float, chosen: bool) -> str:
    if area != area:
        return NOT_FINISHED
    return Html(f"<b>{area:.3f}</b>") if chosen else f"{area:.3f}"


def verdict(cells: pd.DataFrame) -> str:
    """What the sweep chose, a sentence a reward; then which arms have no choice, or one at an end of their window."""
    best, windows = sweep.rates(cells), sweep.windows(cells)
    if not best:
        return "No arm's cells are all finished, so that none has been chosen."
    regimes = dict.fromkeys(regime for regime, _ in best)
    said = [f"Under {name}, {_by_rate({arm: r for (its, arm), r in best.items() if its == name})}." for name in regimes]
    if open_ := [key for key in windows if key not in best]:
        said.append(f"Not finished, and so without a choice: {_arms(open_)}.")
    if ends := [key for key, rate in best.items() if sweep.at_end(windows[key], rate)]:
        said.append(f"At an end of its window, so that a better rate may lie outside: {_arms(ends)}.")
    else:
        said.append("Every chosen rate lies inside its window.")
    return " ".join(said)


def _by_rate(best: Mapping[str, float]) -> str:
    """`ranks 1, 4 and 16 get 0.0001 and full fine-tuning gets 1e-05`."""
    by_rate: dict[float, list[str]] = {}
    for arm, rate in best.items():
        by_rate.setdefault(rate, []).append(arm)
    parts = [f"{_some(arms)} {'get' if len(arms) > 1 else 'gets'} {rate:g}" for rate, arms in by_rate.items()]
    return listed(parts)


def _some(arms: list[str]) -> str:
    """`ranks 1, 4 and full fine-tuning`, from labels of arms."""
    ranks = [arm[1:] for arm in arms if arm != "full"]
    said = [f"rank{'s' if len(ranks) > 1 else ''} {listed(ranks)}"] if ranks else []
    return listed(said + ["full fine-tuning"] * ("full" in arms))


def _arms(keys: list[Arm]) -> str:
    return "; ".join(
        f"{_some([arm for its, arm in keys if its == regime])} under {regime}"
        for regime in dict.fromkeys(regime for regime, _ in keys)
    )


def in_use(preset: str, cells: pd.DataFrame) -> str:
    """Which arms of a matrix do not train at the rate that its sweep chose, and which rates are a guess until then."""
    best, usual = sweep.rates(cells), sweep.in_use(preset)
    if not best:
        return f"The rates of preset {preset} are a guess until then."
    differing = sweep.unlike(preset, best)
    said = [
        f"Under {regime}, {arm_name(arm)} trains at {used:g} in preset {preset}, and the sweep chose {rate:g}. The "
        f"book gives no verdict that rests on {arm_name(arm)} under {regime} until it trains at that rate."
        for (regime, arm), (rate, used) in differing.items()
    ]
    others = "All other arms" if differing else "All arms"
    said.append(f"{others} with a choice train at it.")
    if guessed := [key for key in sweep.windows(cells) if key not in best]:
        each = "; ".join(f"{_arms([key])} at {usual[key]:g}" for key in guessed if key in usual)
        said.append(f"Without a choice, preset {preset} trains {each}.")
    return " ".join(said)


def ratio(cells: pd.DataFrame) -> str:
    """How many times full fine-tuning's rate the adapters' is, a reward at a time, and how coarse that is."""
    found = sweep.ratios(sweep.rates(cells))
    if not found:
        return "The ratio is not known: under no reward is the rate of full fine-tuning and of some adapter chosen."
    texts = [f"{_between(*ends)} under {regime}" for regime, ends in found.items()]
    return (
        f"The adapters' best rate is that of full fine-tuning times {listed(texts)}. The grid's rates lie a factor of "
        f"{times(sweep.spacing(cells))} apart, so each ratio is known to within that factor only."
    )


def _between(low: float, high: float) -> str:
    ends = dict.fromkeys(times(end) for end in (low, high))
    return " to ".join(ends)


def one_student(cells: pd.DataFrame) -> str:
    """For which arms a single student would choose another rate than the mean over students, in sentences."""
    best, alone = sweep.rates(cells), sweep.by_student(cells)
    if not best:
        return NOTHING
    each = [(key, world, rate) for world, its in alone.items() for key, rate in its.items()]
    other = [(key, world, rate) for key, world, rate in each if best.get(key, rate) != rate]
    same = len(best) - len({key for key, _, _ in other})
    text = f"For {same} of {counted(len(best), 'arm')} with a choice, each student alone would choose the same rate."
    if not other:
        return text
    named = "; ".join(f"student {world} {rate:g} for {_arms([key])}" for key, world, rate in other)
    return f"{text} Other choices: {named}."


def student_rows(cells: pd.DataFrame) -> list[tuple[str, ...]]:
    """Reward and arm, the rate that each student alone would choose, and that of the mean."""
    best, alone = sweep.rates(cells), sweep.by_student(cells)

    def shown(rates: Mapping[Arm, float], key: Arm) -> str:
        return f"{rates[key]:g}" if key in rates else NOT_FINISHED

    return [
        (f"{key[0]}, {arm_name(key[1])}", *(shown(its, key) for its in alone.values()), shown(best, key))
        for key in sweep.windows(cells)
    ]


def student(preset: str, runs: str | Path | None = None, *, base: str = "") -> str:
    """Whether the cells began from the students of `base`, else of the preset that they are for; empty without runs."""
    base = base or read_preset(preset)["base"]
    ours, theirs = sweep.students(preset, runs), sweep.students(base, runs)
    if not ours or not theirs:
        return ""
    same = "the student of" if len(ours) == 1 else f"the {len(ours)} students of"
    which = same if ours == theirs else "another training of the student than those of"
    return f"The cells of {preset} began from {which} {base}."


def seeds(preset: str) -> str:
    """Whether a sweep's seeds are among the matrix's."""
    base = read_preset(preset)["base"]
    ours, theirs = ({cell.seed for cell in grid(name)} for name in (preset, base))
    which = f"seed{'s' * (len(ours) > 1)} {listed([*map(str, sorted(ours))])}"
    return f"It trains with {which}, and {'shares some' if ours & theirs else 'shares none'} with preset {base}."
