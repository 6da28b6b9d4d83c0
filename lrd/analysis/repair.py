"""The collapse under intervention: what each repair does to magnitude, to length and to the collapse. Torch-free.

An axis `repair` changes one rule at a time; every repair is compared with none, paired by arm and seed.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrd.analysis.budget import capacity
from lrd.analysis.stats import Difference, mean_difference, paired, ratio_of_means
from lrd.cell import labelled, read_preset
from lrd.report.answer import exceptions
from lrd.report.text import NBSP, NOTHING, arm_name, interval, listed, mean_sd, signed
from lrd.results import Results, root
from lrd.runs.files import read_jsonl

NONE = "none"  # the label of the axis that changes nothing
HOLDS = 0.1  # pass@1 that may be lost from the peak to the last step
ROUNDING = 1e-9  # of differences between shares of some hundred problems
VALUES = {  # column → what it is
    "lost": "pass@1 lost from peak to end",
    "final": "final pass@1",
    "magnitude": "peak advantage std",
    "length": "completion length, last quarter",
    "blind": "last deposit of wrong completions, last quarter",
}
LINKS = {"magnitude": "magnitude", "length": "length", "blind": "blindness"}  # column → the link that it measures
DIGITS = {"length": 0, "magnitude": 1}  # of a value, where it is not two


def table(results: Results) -> pd.DataFrame:
    """One row a finished cell: the repair, the arm, and `VALUES`."""
    rows = []
    steps = dict(list(results.steps.groupby("cell")))
    for row in results.finished.itertuples():
        mine = steps.get(row.cell, results.steps[:0]).reindex(
            columns=["step", "completions/mean_length", "deposits/last_if_wrong"]
        )
        late = mine[mine.step > 0.75 * mine.step.max()].astype(float)
        about = {"cell": row.cell, "repair": row.repair, "arm": row.arm, "seed": row.seed, "rank": row.rank}
        about |= {"parameters": row.trainable_parameters, "final": row.final, "lost": row.peak - row.final}
        about |= {"magnitude": row.peak_advantage_std, "length": late["completions/mean_length"].mean()}
        rows.append(about | {"blind": late["deposits/last_if_wrong"].mean()})
    return pd.DataFrame(rows, columns=["cell", "repair", "arm", "seed", "rank", "parameters", *VALUES])


def exploits(results: Results, runs: str | Path | None = None, n: int = 3) -> list[dict[str, Any]]:
    """What the policy learned to exploit without a repair: logged completions of the last evaluation that are wrong.

    Of each finished cell the one of whose last step the reward model is surest; of these the `n` surest.
    """
    found = []
    for cell in results.finished[results.finished.repair == NONE].cell:
        logged = read_jsonl(root(runs) / results.preset / cell / "completions.jsonl")
        wrong = [row for row in logged if row["step"] == logged[-1]["step"] and not row["correct"]]
        found += [{"cell": cell} | row for row in sorted(wrong, key=_last_deposit)[-1:]]
    return sorted(found, key=_last_deposit)[: -n - 1 : -1]


def _last_deposit(row: dict[str, Any]) -> float:
    """Of a logged completion; one without any, or without a number, comes last."""
    made = [reward for reward, is_made in zip(row["token_rewards"], row["deposit_mask"]) if is_made]
    return -math.inf if not made or made[-1] is None else made[-1]


def effect(frame: pd.DataFrame, repair: str, value: str) -> Difference | None:
    """A repair minus none: mean over pairs of the same arm and seed, with Student's 95 % interval over seeds.

    A seed's arms share prompts and hence noise: they are averaged first, so that the interval speaks of seeds alone.
    None without a pair.
    """
    wide = frame.pivot_table(index=["seed", "arm"], columns="repair", values=value)
    if not {repair, NONE} <= set(wide):
        return None
    return mean_difference((wide[repair] - wide[NONE]).dropna().groupby("seed").mean())


def share(frame: pd.DataFrame, repair: str, value: str = "lost") -> Difference | None:
    """Of what is lost without a repair, the percentage that the repair saves, with Fieller's interval over seeds.

    With L = peak − final pass@1 of a cell and pairs of the same arm and seed, arms averaged first:
    100 · mean(L_none − L_repair) / mean(L_none). A repair also loses less if it never gains; of `value` `final` it is
    100 · mean(final_repair − final_none) / mean(L_none) instead, what of the loss is there at the end. None without a
    pair or a loss.
    """
    if not {repair, NONE} <= set(frame.repair):
        return None
    wide = frame.pivot_table(index=["seed", "arm"], columns="repair", values=["lost", "final"])
    saved = (1 if value == "final" else -1) * (wide[value][repair] - wide[value][NONE])
    by_seed = pd.DataFrame({"saved": saved, "lost": wide["lost"][NONE]}).dropna().groupby("seed").mean()
    d = ratio_of_means(100 * by_seed.saved, by_seed.lost)
    return d if d and d.mean == d.mean else None


def moves(frame: pd.DataFrame) -> dict[str, dict[str, Difference]]:
    """Repair → the links that it is shown to move: Student's interval of its effect excludes zero."""
    names = [name for name in frame.repair.unique() if name != NONE]
    found = {name: {link: effect(frame, name, link) for link in LINKS} for name in names}
    return {name: {k: d for k, d in of.items() if d and not d.includes_zero} for name, of in found.items()}


def percent(d: Difference | None) -> str:
    """`+6 % [−12, +24]`."""
    return f"{signed(d.mean, 0)}{NBSP}%{interval(d, 0)}" if d else NOTHING


SHARE_HEAD = ["repair", "is shown to bring", "saves of the loss", "regained at the end"]


def share_rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """A repair, the links that it is shown to move and how, and both of its shares, with intervals."""
    rows = []
    for name, moved in moves(frame).items():
        said = listed([f"{'less' if d.mean < 0 else 'more'} {LINKS[link]}" for link, d in moved.items()])
        rows.append((name, said or "none", *(percent(share(frame, name, value)) for value in ("lost", "final"))))
    return rows


def links_said(frame: pd.DataFrame) -> str:
    """What each link of the chain carries of the loss, as far as repairs can tell, as sentences.

    What a repair was made for does not count, only what it is shown to move. A link that carries a share of the
    collapse would make every repair that takes it away save that share, unless what else the repair does makes the loss
    larger: read off the repairs that lessen the link and are shown to move no other, all of them, since to pick one by
    what it saves is to pick by luck. Repairs that ask for gold pay for right answers past every link: apart.
    """
    if frame[frame.repair == NONE].lost.mean() <= 0:
        return "Without a repair nothing is lost that a link could carry."

    def savings(names: list[str]) -> str:
        return listed([f"{percent(share(frame, name))} ({name})" for name in names])

    moved = {name: of for name, of in moves(frame).items() if name not in gold()}
    said = []
    for link, name in LINKS.items() if moved else ():
        by = [repair for repair, of in moved.items() if link in of and of[link].high < 0]
        alone = [repair for repair in by if len(moved[repair]) == 1]
        if not by:
            said.append(f"No repair is shown to lessen {name}: what it carries cannot be told.")
        elif not alone:
            text = f"Repairs that lessen {name} all move another link too, and their shares are of both"
            said.append(f"{text}: {savings(by)} of the loss.")
        else:
            said.append(f"Repairs shown to lessen {name} and to move no other link save {savings(alone)} of the loss.")
            lost = {repair: effect(frame, repair, "lost") for repair in alone}
            if unshown := [repair for repair, d in lost.items() if d and d.includes_zero]:
                said.append(f"Of {listed(unshown)} it is not shown that they save any.")
    for name in (name for name in gold() if name in set(frame.repair)):
        said.append(f"Past every link, with gold answers, {name} saves {percent(share(frame, name))}.")
    return " ".join(said)


def rank_effect(frame: pd.DataFrame, repair: str) -> Difference | None:
    """The smallest rank minus full fine-tuning at the end, under one repair, paired by seed; None without a pair."""
    mine = frame[frame.repair == repair]
    wide = mine.pivot_table(index="seed", columns="arm", values="final")
    ranks = mine["rank"].dropna()
    if not len(ranks) or not {"full", least := f"r{int(ranks.min())}"} <= set(wide):
        return None
    return mean_difference(wide[least] - wide["full"])


def settings(preset: str) -> str:
    """What a preset changes of its cells, beyond the regime: `deposit_rule = minimum`."""
    changed = read_preset(preset)["cell"].items() - read_preset(read_preset(preset)["base"])["cell"].items()
    return ", ".join(f"{key} = {value}" for key, value in sorted(changed) if key != "regime")


RANK_HEAD = ["", "final pass@1", "less full fine-tuning", "resolves"]


def _of_ranks(results: Results) -> dict[str, Difference | None]:
    """Rank → its final pass@1 less full fine-tuning's, of a preset of one reward."""
    (regime,) = results.regimes
    return {arm: paired(results.finished, regime, arm, "full") for arm in results.arms if arm != "full"}


def rank_verdict(results: Results) -> str:
    """Which ranks are shown to end elsewhere than full fine-tuning, and what could have been seen, as sentences."""
    seen = [resolvable(d) for d in _of_ranks(results).values() if d and d.n > 1]
    if not seen:
        return "Not run: no rank has an interval."
    return (
        f"{exceptions(results)} By the widest interval a difference below {max(seen):.2f} could not be told from none."
    )


def rank_rows(results: Results) -> list[tuple[str, ...]]:
    """Of a preset's arms, under `RANK_HEAD`: final pass@1, its difference to full fine-tuning paired by seed, and what
    such an interval could resolve."""
    rows, gaps = [], _of_ranks(results)
    for arm in results.arms:
        d, finals = gaps.get(arm), results.finished.final[results.finished.arm == arm]
        least = resolvable(d)
        rows.append(
            (
                arm_name(arm),
                mean_sd(finals),
                f"{signed(d.mean)}{interval(d)}" if d else "",
                f"{least:.2f}" if least == least else "",
            )
        )
    return rows


def resolvable(d: Difference | None) -> float:
    """The least true difference that such an interval excludes 0 for half the time: its own half-width."""
    return (d.high - d.low) / 2 if d and d.n > 1 else math.nan


def value_rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """A repair's values: mean and sd over its cells, and in how many of them pass@1 holds to the last step."""
    rows = []
    for repair in frame.repair.unique():
        mine = frame[frame.repair == repair]
        values = [mean_sd(mine[v].replace([np.inf, -np.inf], np.nan), DIGITS.get(v, 2)) for v in VALUES]
        rows.append((repair, f"{_holds(mine).sum()} of {len(mine)}", *values))
    return rows


def effect_rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """A repair's effects on each value, with intervals."""
    rows = []
    for repair in (name for name in frame.repair.unique() if name != NONE):
        found = [effect(frame, repair, value) for value in VALUES]
        digits = [DIGITS.get(value, 2) for value in VALUES]
        rows.append(
            (repair, *(f"{signed(d.mean, n)}{interval(d, n)}" if d else NOTHING for d, n in zip(found, digits)))
        )
    return rows


def arm_head(frame: pd.DataFrame) -> list[str]:
    """Column names of `arm_rows`: each arm with its parameters and its capacity in bits."""
    size = frame.groupby("arm").parameters.max().sort_values()
    return ["repair", *(f"{arm_name(arm)} ({n:,.0f} parameters, {capacity(n):,.0f} bits)" for arm, n in size.items())]


def arm_rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Final pass@1 of each repair and arm, mean and sd over seeds."""
    arms = frame.groupby("arm").parameters.max().sort_values().index
    by = {key: mean_sd(found.final) for key, found in frame.groupby(["repair", "arm"])}
    return [(repair, *(by.get((repair, arm), NOTHING) for arm in arms)) for repair in frame.repair.unique()]


def best_without_gold(frame: pd.DataFrame, kept: list[str]) -> str | None:
    """Of these repairs that ask for no gold answer the one with the highest pass@1 in the end; None without one."""
    means = frame[frame.repair.isin(set(kept) - set(gold()))].groupby("repair").final.mean()
    return str(means.idxmax()) if len(means) else None


def gold() -> list[str]:
    """The repairs that ask for gold answers."""
    return [name for name, changed in labelled("repair")["repair"].items() if changed.get("outcome_weight")]


def shown(frame: pd.DataFrame, value: str, way: int = -1) -> list[str]:
    """The repairs that are shown to lower a value, or with `way` 1 to raise it: their interval excludes zero."""
    names = [name for name in frame.repair.unique() if name != NONE]
    return [name for name in names if (d := effect(frame, name, value)) and way * d.mean > 0 and not d.includes_zero]


def verdict(frame: pd.DataFrame) -> str:
    """What the declared statistics say, as sentences."""
    if not len(frame):
        return "Not run: no cell is finished."
    tame, kept, higher = shown(frame, "magnitude"), shown(frame, "lost"), shown(frame, "final", 1)
    both = [repair for repair in tame if repair in kept]
    said = [
        f"Repairs that make the advantages smaller: {', '.join(tame) or 'none is shown to'}.",
        f"Repairs that lessen the loss of pass@1: {', '.join(kept) or 'none is shown to'}.",
        f"Both: {', '.join(both) or 'none'}.",
    ]
    if hollow := [repair for repair in kept if repair not in higher]:
        said.append(
            f"Of those that lessen it, {listed(hollow)} {'is' if len(hollow) == 1 else 'are'} not shown to end higher "
            f"than none, so that less may be lost because less was gained."
        )
    if best := best_without_gold(frame, kept):
        d = rank_effect(frame, best)
        if d and d.n > 1:
            said.append(
                f"Under {best} the smallest rank less full fine-tuning is {signed(d.mean)}{interval(d)}; "
                f"a difference below {resolvable(d):.2f} could not be told from none."
            )
    return " ".join(said)


def of_adapters(frame: pd.DataFrame) -> str:
    """What is shown of adapters without full fine-tuning, which may lose nothing with any repair or none."""
    mine = frame[frame["rank"].notna()]
    if not len(mine):
        return ""
    lessened, higher = (listed(names) or "none" for names in (shown(mine, "lost"), shown(mine, "final", 1)))
    return f"Of the adapters alone: shown to lose less with {lessened}, and to end higher with {higher}."


def _holds(frame: pd.DataFrame) -> pd.Series:
    return frame.lost <= HOLDS + ROUNDING


def held(frame: pd.DataFrame) -> str:
    """Which cells hold to the last step, adapters and full fine-tuning apart, as a sentence; none of no cells."""
    if not len(frame):
        return ""

    def of(mine: pd.DataFrame) -> str:
        counts = [(name, int(_holds(cells).sum()), len(cells)) for name, cells in mine.groupby("repair", sort=False)]
        if all(n == size for _, n, size in counts):
            return "all"
        some = [f"{n} of {size} under {name}" for name, n, size in counts if n]
        return (listed(some) + (", none under the others" if len(some) < len(counts) else "")) if some else "none"

    full = frame["rank"].isna()
    kinds = {"adapters": frame[~full], "full fine-tuning": frame[full]}
    said = "; ".join(f"of {kind} {of(mine)}" for kind, mine in kinds.items() if len(mine))
    return f"Cells that lose {HOLDS:g} at most from their peak to the last step: {said}."


def across(results: Results, others: Results) -> str:
    """Whether another testbed's repairs do what those of the first do, as sentences."""
    frames = [table(found) for found in (results, others)]
    here, there = (read_preset(found.preset)["base"] for found in (results, others))
    if not len(frames[1]):
        return f"On the testbed {there} they have not been run."
    if min(frame[frame.repair == NONE].seed.nunique() for frame in frames) < 2:
        return f"On {here} or {there} too few cells are finished for an interval."
    shared = [name for name in frames[0].repair.unique() if name in set(frames[1].repair) - {NONE}]
    kept, tame = ([shown(frame, value) for frame in frames] for value in ("lost", "magnitude"))

    def named(*which: bool) -> str:
        """Of the repairs that both have, those that lessen the loss on the one and on the other, or do not."""
        return listed([name for name in shared if tuple(name in k for k in kept) == which]) or "none"

    spared = [name for name in shared if all(name in t and name not in k for t, k in zip(tame, kept))]
    return (
        f"With {len(frames[1])} of {len(others.cells)} cells on the testbed {there}, and of the repairs that both "
        f"testbeds have, those that are shown to lessen the loss of pass@1 on both: {named(True, True)}; on {here} "
        f"alone: {named(True, False)}; on {there} alone: {named(False, True)}. Those that make the advantages smaller "
        f"on both and are shown to lessen it on neither: {listed(spared) or 'none'}."
    )
