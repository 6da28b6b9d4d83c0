"""The words and tables of the page on the collapse under intervention, which the reader knows as repairs and paces."""

import numpy as np
import pandas as pd

from lrd.analysis import interventions, learning_rates
from lrd.analysis.budget import capacity
from lrd.analysis.interventions import HOLDS, NONE, Link, effect, rank_effect, resolvable, share, shown
from lrd.analysis.learning_rates import Extent, last_steps
from lrd.analysis.stats import Difference
from lrd.presets import read_preset
from lrd.report.answer import exceptions
from lrd.report.text import NBSP, NOTHING, arm_name, difference, interval, listed, mean_sd, signed, unbroken
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
COLLAPSED = {  # by the earlier step, and by the later one
    (Extent.ALL, Extent.ALL): "By step {soon} every cell of {names} has collapsed.",
    (Extent.SOME, Extent.ALL): "By step {soon} some cells of {names} have, and all have by step {late}.",
    (Extent.SOME, Extent.SOME): "By step {soon} some cells of {names} have, and not all have by step {late}.",
    (Extent.NONE, Extent.ALL): "Of {names} none has by then, and all have by step {late}.",
    (Extent.NONE, Extent.SOME): "Of {names} none has by then, and some have by step {late}.",
    (Extent.NONE, Extent.NONE): "Of {names} none has by step {late}.",
}


def verdict(frame: pd.DataFrame) -> str:
    """What the declared statistics say, as sentences."""
    if not len(frame):
        return "Not run: no cell is finished."
    tame, kept, higher = shown(frame, "magnitude"), shown(frame, "lost"), shown(frame, "final", 1)
    texts = [
        f"Repairs that make the advantages smaller: {', '.join(tame) or 'none is shown to'}.",
        f"Repairs that lessen the loss of pass@1: {', '.join(kept) or 'none is shown to'}.",
        f"Both: {', '.join(name for name in tame if name in kept) or 'none'}.",
    ]
    if hollow := [name for name in kept if name not in higher]:
        texts.append(
            f"Of those that lessen it, {listed(hollow)} {'is' if len(hollow) == 1 else 'are'} not shown to end higher "
            f"than none, so that less may be lost because less was gained."
        )
    best = interventions.best_without_gold(frame)
    if best and (d := rank_effect(frame, best)) and d.n > 1:
        texts.append(
            f"Under {best} the smallest rank less full fine-tuning is {difference(d)}; a difference below "
            f"{resolvable(d):.2f} could not be told from none."
        )
    return " ".join(texts)


def of_adapters(frame: pd.DataFrame) -> str:
    """What is shown of adapters without full fine-tuning, which may lose nothing with any intervention or none."""
    adapters = frame[frame["rank"].notna()]
    if not len(adapters):
        return ""
    lessened, higher = (listed(names) or "none" for names in (shown(adapters, "lost"), shown(adapters, "final", 1)))
    return f"Of the adapters alone: shown to lose less with {lessened}, and to end higher with {higher}."


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
        return f"No repair is shown to lessen {name}: what it carries cannot be told."
    if not link.alone:
        return (
            f"Repairs that lessen {name} all move another link too, and their shares are of both: {savings} of the "
            f"loss."
        )
    unshown = f" Of {listed(link.unshown)} it is not shown that they save any." if link.unshown else ""
    return f"Repairs shown to lessen {name} and to move no other link save {savings} of the loss.{unshown}"


def across(results: Results, others: Results) -> str:
    """Whether another testbed's interventions do what those of the first do, as sentences."""
    frames = [interventions.table(each) for each in (results, others)]
    here, there = (read_preset(each.preset)["base"] for each in (results, others))
    if not len(frames[1]):
        return f"On the testbed {there} they have not been run."
    if (shared := interventions.transfer(*frames)) is None:
        return f"On {here} or {there} too few cells are finished for an interval."
    both, first, second, spared = (
        listed(names) or "none" for names in (shared.both, shared.first, shared.second, shared.spared)
    )
    return (
        f"With {len(frames[1])} of {len(others.cells)} cells on the testbed {there}, and of the repairs that both "
        f"testbeds have, those that are shown to lessen the loss of pass@1 on both: {both}; on {here} alone: {first}; "
        f"on {there} alone: {second}. Those that make the advantages smaller on both and are shown to lessen it on "
        f"neither: {spared}."
    )


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
    """The links that an intervention is shown to move and how, and both of its shares, with intervals."""
    rows = []
    for name, moved in interventions.moves(frame).items():
        brings = listed([f"{'less' if d.mean < 0 else 'more'} {LINKS[link]}" for link, d in moved.items()])
        rows.append((name, brings or "none", *(percentage(share(frame, name, value)) for value in ("lost", "final"))))
    return ["repair", "is shown to bring", "saves of the loss", "regained at the end"], rows


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


def settings(preset: str) -> str:
    """What a preset changes of its cells, beyond the regime: `deposit_rule = minimum`."""
    changed = read_preset(preset)["cell"].items() - read_preset(read_preset(preset)["base"])["cell"].items()
    return ", ".join(f"{key} = {value}" for key, value in sorted(changed) if key != "regime")


def rank_verdict(results: Results) -> str:
    """Which ranks are shown to end elsewhere than full fine-tuning, and what could have been seen, as sentences."""
    widths = [resolvable(d) for d in interventions.rank_effects(results).values() if d and d.n > 1]
    if not widths:
        return "Not run: no rank has an interval."
    return (
        f"{exceptions(results)} By the widest interval a difference below {max(widths):.2f} could not be told from "
        f"none."
    )


def ranks(results: Results) -> Table:
    """Each arm's final pass@1, its difference to full fine-tuning paired by seed, and what that could resolve."""
    rows, gaps = [], interventions.rank_effects(results)
    for arm in results.arms:
        d, least = gaps.get(arm), resolvable(gaps.get(arm))
        finals = mean_sd(results.finished.final[results.finished.arm == arm])
        rows.append((arm_name(arm), finals, difference(d) if d else "", f"{least:.2f}" if least == least else ""))
    return ["", "final pass@1", "less full fine-tuning", "resolves"], rows


def rate_verdict(results: Results) -> str:
    """Which arms and rates collapse by the earlier step, which only by the later one, and which never, as sentences."""
    soon, late = last_steps(results.preset)
    groups: dict[tuple[Extent, ...], list[str]] = {extent: [] for extent in COLLAPSED}
    for name, extent in learning_rates.extents(learning_rates.collapses(results, soon), soon, late).items():
        groups[extent].append(name)
    texts = [
        COLLAPSED[extent].format(soon=soon, late=late, names=listed(names)) for extent, names in groups.items() if names
    ]
    return " ".join(texts) or "Not run: no cell is finished."


def rates(results: Results) -> Table:
    """Arm and rate, pass@1 at its best, at the earlier step and at the last, and how many cells collapse by either."""
    soon, late = last_steps(results.preset)
    head = ["pace", "rate", "best", f"step {soon}", f"step {late}", f"collapsed by {soon}", f"by {late}", "at steps"]
    rows = []
    for name, cells in learning_rates.collapses(results, soon).groupby("pace", sort=False):
        values = [mean_sd(cells[column], 2) for column in ("peak", "at_soon", "final")]
        counts = [unbroken(f"{(cells.collapse <= step).sum()} of {len(cells)}") for step in (soon, late)]
        steps = ", ".join(f"{step:.0f}" for step in sorted(cells.collapse.dropna())) or "none"
        rows.append((name, f"{cells.learning_rate.iloc[0]:g}", *values, *counts, steps))
    return head, rows
