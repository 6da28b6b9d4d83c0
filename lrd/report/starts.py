"""The page on the first trials with a pretrained language model: its numbers, its tables, what was expected."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lrd.analysis import starts
from lrd.analysis.bootstrap import Estimate
from lrd.analysis.starts import GAIN, LEAST_BASE, MOST_BASE, Serves
from lrd.report import setup
from lrd.report.display import Html, folded, link, table
from lrd.report.expected import FALSE, TRUE
from lrd.report.text import NOTHING, arm_name, bracketed, counted, listed, signed
from lrd.results import Results

Row = tuple[str, ...]
TRIED = ["supervised start", "before RL", "what outcome RL made of it"]
COLUMNS = {  # column of the cells' table → problems, part and digits
    "pass@1": ("all", "pass@1", 3),
    "ends and boxes": ("all", "form", 3),
    "right if it does": ("all", "content", 3),
    "tokens": ("all", "length", 0),
    "works it out": ("all", "worked", 3),
    "right if it does so": ("all", "content if worked", 3),
    "pass@1, seen templates": ("seen", "pass@1", 3),
    "pass@1, unseen templates": ("unseen", "pass@1", 3),
}


def glued(results: Results, frame: pd.DataFrame, card: Mapping[str, Any] | None) -> dict[str, str]:
    """Keyed by the names that they are glued under; ranges over cells, but for `form` at the smaller rates."""
    train = (card or {}).get("train", {})
    slow = starts.at_smaller_rate(frame)
    numbers = {"gain": gains(slow), "gain_seen": gains(slow, "seen"), "gain_unseen": gains(slow, "unseen")}
    numbers |= {"form": gains(frame, part="form"), "worked_right": gains(slow, part="content if worked")}
    for name, (problems, part, digits) in {
        "content": ("all", "content", 2),
        "length": ("all", "length", 0),
        "worked": ("all", "worked", 2),
        "unseen": ("unseen", "pass@1", 3),
        "unseen_worked": ("unseen", "worked", 2),
    }.items():
        rows = part_of(slow, part, problems)
        numbers |= {f"{name}_{when}": ranged(rows[when], digits) for when in ("before", "after")}
    cells = starts.at_smaller_rate(results.finished)
    faster = results.finished.drop(cells.index)
    test, seeds = results.evals.problem.drop_duplicates(), results.finished.groupby("start").seed.nunique()
    return numbers | {
        "verdict": verdict(results),
        "steps": ranged(results.finished.last_step, 0),
        "seeds": listed([f"{counted(n, 'seed')} of start {start}" for start, n in seeds.items()]) or NOTHING,
        "unseen": f"{test.str.startswith('unseen-').sum()} of {len(test)}",
        "adapter": str(train.get("adapter", NOTHING)),
        "train_steps": str(train.get("steps", NOTHING)),
        "rising": f"{(cells.final == cells.peak).sum()} of {counted(len(cells), 'cell')}",
        "fallen": f"{(faster.final < faster.peak).sum()} of {counted(len(faster), 'cell')}",
        "finished": f"{len(results.finished)} of {len(results.cells)}",
        "at_once": str(starts.AT_ONCE),
    }


def part_of(frame: pd.DataFrame, part: str, problems: str = "all") -> pd.DataFrame:
    """The rows of `analysis.starts.table` of one part, a cell each."""
    return frame[(frame.part == part) & (frame.problems == problems)]


def cut(frame: pd.DataFrame) -> list[float]:
    """The share of problems right without the form, before and after: what form times content lacks of pass@1."""
    pass_at_1, form, content = (
        part_of(frame, part)[["before", "after"]].stack() for part in ("pass@1", "form", "content")
    )
    return [right - share * of for right, share, of in zip(pass_at_1, form, content)]


def changes(frame: pd.DataFrame, part: str, problems: str = "all") -> list[Estimate]:
    """The changes of a part, a cell each."""
    return list(part_of(frame, part, problems).change)


def gains(frame: pd.DataFrame, problems: str = "all", part: str = "pass@1") -> str:
    """`+0.052 to +0.120`, the smallest change of a part and the largest."""
    values = [change.value for change in changes(frame, part, problems)]
    return f"{signed(min(values))} to {signed(max(values))}" if values else NOTHING


def ranged(values: Iterable[float], digits: int) -> str:
    """`0.07–0.13`, or the one value that there is."""
    ends = [f"{x:.{digits}f}" for x in (min(known), max(known))] if (known := list(values)) else [NOTHING]
    return "\N{EN DASH}".join(dict.fromkeys(ends))


def verdict(results: Results) -> str:
    """Which starts meet the preset's rule, as a sentence."""
    judged = starts.judged(results.cells)
    if not len(results.finished):
        return "Not run: no cell is finished."
    if set(judged.values()) == {Serves.NO}:
        return f"No start of the {len(judged)} meets the rule."
    by_word = {word: [start for start in judged if judged[start] is word] for word in Serves}
    return " ".join(f"Start {listed(of)}: {word.value}." for word, of in by_word.items() if of)


def expected(frame: pd.DataFrame) -> list[Row]:
    """What the preset expected, clause by clause, beside what came out."""
    slow = starts.at_smaller_rate(frame)
    more = [change.low > 0 for change in changes(frame, "worked")]
    enough = [round(change.value, 9) >= GAIN for change in changes(slow, "pass@1")]
    return [
        (
            "RL picks the habit of working it out",
            _came(more),
            f"Significantly more is worked out in {sum(more)} of {counted(len(more), 'cell')}.",
        ),
        (
            "Full fine-tuning and rank 16 gain 0.12 or more in 100 steps",
            _came(enough),
            f"{sum(enough)} of {counted(len(enough), 'cell')} at the smaller rate; gains {gains(slow)}.",
        ),
    ]


def _came(each: list[bool]) -> str:
    return NOTHING if not each else TRUE if all(each) else FALSE


def tried(results: Results, card: Mapping[str, Any] | None) -> list[Row]:
    """The starts of this preset and the earlier ones, which were measured without published runs."""
    models, judged = (card or {}).get("models", {}), starts.judged(results.cells)
    made = [
        (_start(start, models.get(f"{start}/student", {})), *_outcome(its, models.get(f"{start}/student", {}), judged))
        for start, its in results.cells.groupby("start")
    ]
    return [*made, *setup.tried("smollm")]


def _start(start: str, model: Mapping[str, Any]) -> str:
    """`start a: direct 0.1 to 0.8, unboxed 0.05 to 0.15`."""
    habits = [f"{name} {low:g} to {high:g}" for name, (low, high) in model.get("habits", {}).items() if high]
    return f"start {start}: {', '.join(habits) or NOTHING}"


def _outcome(cells: pd.DataFrame, model: Mapping[str, Any], judged: Mapping[str, Serves]) -> tuple[str, str]:
    known = cells.dropna(subset=["base", "final"])
    if not len(known):
        return NOTHING, NOTHING
    base, start = known.base.mean(), known.start.iloc[0]
    sampled = [f"{name} {model[name]:.3f}" for name in ("pass@1", "pass@4", "pass@8") if name in model]
    texts = []
    for _, its in known.groupby(["arm", "learning_rate"]):
        each = listed([signed(gain) for gain in its.final - its.base])
        texts.append(f"{arm_name(its.arm.iloc[0])} at {its.learning_rate.iloc[0]:g}: {each}")
    low = "" if LEAST_BASE <= base <= MOST_BASE else f", its base outside {LEAST_BASE:g} to {MOST_BASE:g}"
    text = f"{'; '.join(texts)}. It {judged[start].value if judged[start] is not Serves.OPEN else 'is undecided'}{low}."
    return f"greedy {base:.3f}; sampled {', '.join(sampled) or NOTHING}", text[0].upper() + text[1:]


def every_cell(results: Results, frame: pd.DataFrame) -> Html:
    """Each cell's parts before and after, and in brackets the interval of the change, folded away."""
    rows = []
    for cell, its in frame.groupby("cell", sort=False):
        parts = its.set_index(["problems", "part"])
        values = [_moved(parts.loc[(problems, part)], digits) for problems, part, digits in COLUMNS.values()]
        rows.append((link(results, str(cell)), *values))
    return folded("Every cell, part by part", table(["cell", *COLUMNS], rows))


def _moved(row: pd.Series, digits: int) -> str:
    """`0.079 → 0.155 [+0.042, +0.117]`."""
    if row.before != row.before:
        return f"none → {row.after:.{digits}f}" if row.after == row.after else "none"
    return f"{row.before:.{digits}f} → {row.after:.{digits}f} {bracketed(row.change.low, row.change.high, digits)}"
