"""The words and tables of the page on the collapse under intervention, which the reader knows as repairs."""

import numpy as np
import pandas as pd

from lrd.analysis import fair, headline, interventions
from lrd.analysis.budget import capacity
from lrd.analysis.interventions import HOLDS, NONE, Link, effect, rank_effect, resolvable, share, shown
from lrd.analysis.stats import Difference
from lrd.report import answer
from lrd.report.text import NBSP, NOTHING, arm_name, difference, interval, listed, mean_sd, signed
from lrd.results import Results

Table = tuple[list[str], list[tuple[str, ...]]]  # column names and rows, for `display.table`
VALUES = {  # column → what it is
    "lost": "pass@1 lost from peak to end",
    "final": "final pass@1",
    "magnitude": "peak advantage std",
    "length": "completion length, last quarter",
    "blind": "last deposit of wrong completions, last quarter",
}
LINKS = {"magnitude": "magnitude", "length": "length", "blind": "blindness"}
DIGITS = {"lost": 2, "final": 2, "magnitude": 1, "length": 0, "blind": 2}


def verdict(frame: pd.DataFrame) -> str:
    """What the declared statistics say, as sentences."""
    if not len(frame):
        return "Not run: no cell is finished."
    tame, kept, higher = shown(frame, "magnitude"), shown(frame, "lost"), shown(frame, "final", 1)
    texts = [
        f"Repairs that make the advantages smaller: {', '.join(tame) or 'none significantly'}.",
        f"Repairs that lessen the loss of pass@1: {', '.join(kept) or 'none significantly'}.",
        f"Both: {', '.join(name for name in tame if name in kept) or 'none'}.",
    ]
    if hollow := [name for name in kept if name not in higher]:
        texts.append(
            f"Of those that lessen it, {listed(hollow)} {'does' if len(hollow) == 1 else 'do'} not end significantly "
            f"higher than without a repair, so that less may be lost because less was gained."
        )
    best = interventions.best_without_gold(frame)
    if best and (d := rank_effect(frame, best)) and d.n > 1:
        texts.append(
            f"Under {best} the smallest rank less full fine-tuning is {difference(d)}; a difference below "
            f"{resolvable(d):.2f} could not be told from none."
        )
    return " ".join(texts)


def finding(frame: pd.DataFrame) -> str:
    """Which interventions lessen the loss, and whether smaller advantages are enough for that, in words."""
    if not len(frame):
        return "Not run: no cell is finished."
    tame, kept = shown(frame, "magnitude"), shown(frame, "lost")
    text = f"The loss of pass@1 is significantly less with {listed(kept) or 'no intervention'}."
    if hollow := [name for name in tame if name not in kept]:
        text += f" With {listed(hollow)} the advantages are smaller, too, and the loss is not significantly less."
    return text


def of_adapters(frame: pd.DataFrame) -> str:
    """What is significant of adapters alone: full fine-tuning may lose nothing with any intervention or none."""
    adapters = frame[frame["rank"].notna()]
    if not len(adapters):
        return ""
    lessened, higher = (listed(names) or "none" for names in (shown(adapters, "lost"), shown(adapters, "final", 1)))
    return f"The adapters alone lose significantly less with {lessened}, and end significantly higher with {higher}."


def held(frame: pd.DataFrame) -> str:
    """Which cells hold to the last step, adapters and full fine-tuning apart, as a sentence; none of no cells."""
    if not len(frame):
        return ""
    full = frame["rank"].isna()
    kinds = {"adapters": frame[~full], "full fine-tuning": frame[full]}
    texts = "; ".join(f"of {kind} {_held(cells)}" for kind, cells in kinds.items() if len(cells))
    return f"Cells that lose {HOLDS:g} at most from their peak to the last step: {texts}."


def _held(frame: pd.DataFrame) -> str:
    counts = interventions.holding(frame)
    if all(n == cells for n, cells in counts.values()):
        return "all"
    some = [f"{n} of {cells} under {name}" for name, (n, cells) in counts.items() if n]
    return (listed(some) + (", none under the others" if len(some) < len(counts) else "")) if some else "none"


def links(frame: pd.DataFrame) -> str:
    """What each link of the chain carries of the loss, as far as interventions can tell, as sentences."""
    if frame[frame.intervention == NONE].lost.mean() <= 0:
        return "Without a repair nothing is lost that a link could carry."
    texts = [_link(link) for link in interventions.links(frame)]
    for name in frame[frame.gold].intervention.unique():
        texts.append(f"Past every link, with gold answers, {name} saves {percentage(share(frame, name))}.")
    return " ".join(texts)


def _link(link: Link) -> str:
    name, savings = LINKS[link.name], listed([f"{percentage(d)} ({name})" for name, d in link.shares.items()])
    if not link.shares:
        return f"No repair lessens {name} significantly, so that its share cannot be told."
    if not link.alone:
        return (
            f"Repairs that lessen {name} all move another link too, and their shares are of both: {savings} of the "
            f"loss."
        )
    unshown = (
        f" What {listed(link.unshown)} {'saves' if len(link.unshown) == 1 else 'save'} is not significant."
        if link.unshown
        else ""
    )
    return f"Repairs that lessen {name} significantly, and no other link, save {savings} of the loss.{unshown}"


def values(frame: pd.DataFrame) -> Table:
    """Each intervention: in how many cells pass@1 holds to the last step, and mean and sd of each value."""
    finite, holding = frame.replace([np.inf, -np.inf], np.nan), interventions.holding(frame)
    rows = [
        (name, "{} of {}".format(*holding[name]), *(mean_sd(cells[value], DIGITS[value]) for value in VALUES))
        for name, cells in finite.groupby("intervention", sort=False)
    ]
    return ["repair", "holds", *VALUES.values()], rows


def effects(frame: pd.DataFrame) -> Table:
    """The effect of each intervention on each value, with intervals."""
    rows = [
        (name, *(difference(effect(frame, name, value), DIGITS[value]) for value in VALUES))
        for name in interventions.names(frame)
    ]
    return ["repair", *VALUES.values()], rows


def shares(frame: pd.DataFrame) -> Table:
    """The links that an intervention moves significantly and how, and both of its shares, with intervals."""
    rows = []
    for name, moved in interventions.moves(frame).items():
        brings = listed([f"{'less' if d.mean < 0 else 'more'} {LINKS[link]}" for link, d in moved.items()])
        rows.append((name, brings or "none", *(percentage(share(frame, name, value)) for value in ("lost", "final"))))
    return ["repair", "brings significantly", "saves of the loss", "regained at the end"], rows


def percentage(d: Difference | None) -> str:
    """`+6 % [−12, +24]`."""
    return f"{signed(d.mean, 0)}{NBSP}%{interval(d, 0)}" if d else NOTHING


def arms(frame: pd.DataFrame) -> Table:
    """Final pass@1 of each intervention and arm, mean and sd over seeds; arms with their parameters and capacity."""
    size = frame.groupby("arm").parameters.max().sort_values()
    finals = {key: mean_sd(cells.final) for key, cells in frame.groupby(["intervention", "arm"])}
    rows = [(name, *(finals.get((name, arm), NOTHING) for arm in size.index)) for name in frame.intervention.unique()]
    head = [f"{arm_name(arm)} ({n:,.0f} parameters, {capacity(n):,.0f} bits)" for arm, n in size.items()]
    return ["repair", *head], rows


def of_ranks(repaired: Results) -> str:
    """What the ranks of a repaired preset are against full fine-tuning and to each other, as sentences."""
    lines = headline.lines(repaired)
    if not any(line.pooled for line in lines):
        return "Not run: too few cells are finished."
    said = (answer.verdict(lines), answer.near(lines), answer.rise(lines), answer.together(lines))
    return " ".join(text for text in said if text)


def of_repair(plain: Results, repaired: Results) -> str:
    """In which arms a repair changes pass@1 significantly, as cells are read, as a sentence; empty without any pair."""
    gaps = fair.brought(plain, repaired, headline.measure(repaired))
    if not gaps:
        return ""
    changed = [f"{arm_name(arm)} ({answer.with_interval(gap)})" for (_, arm), gap in gaps.items() if gap.differs]
    at = answer.read(repaired).capitalize()
    return f"{at} the repair changes pass@1 significantly for {listed(changed) or 'no arm'}."


def side_by_side(plain: Results, repaired: Results) -> Table:
    """Each arm's pass@1 under process as it is and repaired, and their difference, as cells are read and at the end."""
    measures = {"final": "at the last step"}
    if "chosen" in fair.measures(repaired):
        measures = {"chosen": "at the chosen step"} | measures
    head = ["", *(f"{where}: {what}" for where in measures.values() for what in ("as it is", "repaired", "difference"))]
    found = {m: [fair.answers(results, m).get("process", {}) for results in (plain, repaired)] for m in measures}
    gaps = {m: fair.brought(plain, repaired, m) for m in measures}
    rows = [
        (
            arm_name(arm),
            *(
                text
                for m, (before, after) in found.items()
                for text in (_mean(before, arm), _mean(after, arm), answer.with_interval(gaps[m].get(("process", arm))))
            ),
        )
        for arm in repaired.arms
    ]
    return head, rows


def _mean(arms: dict[str, np.ndarray], arm: str) -> str:
    return answer.number(float(arms[arm].mean())) if arm in arms else NOTHING
