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

from lrd.budget import capacity
from lrd.cell import labelled, read_preset
from lrd.results import Results, root
from lrd.run import read_jsonl
from lrd.stats import NOTHING, Difference, arm_name, interval, listed, mean_sd, of_gaps, signed

NONE = "none"  # the label of the axis that changes nothing
HOLDS = 0.1  # pass@1 that may be lost from the peak to the last step
VALUES = {  # column → what it is
    "lost": "pass@1 lost from peak to end",
    "final": "final pass@1",
    "magnitude": "peak advantage std",
    "length": "completion length, last quarter",
    "blind": "last deposit of wrong completions, last quarter",
}


DIGITS = {"length": 0}  # of a value, where it is not two


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
    return of_gaps((wide[repair] - wide[NONE]).dropna().groupby("seed").mean())


def share(frame: pd.DataFrame, repair: str) -> float:
    """Share of what is lost without a repair that the repair keeps: 1 if it loses nothing. NaN without a loss."""
    lost = frame[frame.repair == NONE].lost.mean()
    return float(1 - frame[frame.repair == repair].lost.mean() / lost) if lost > 0 else math.nan


def rank_effect(frame: pd.DataFrame, repair: str) -> Difference | None:
    """The smallest rank minus full fine-tuning at the end, under one repair, paired by seed; None without a pair."""
    mine = frame[frame.repair == repair]
    wide = mine.pivot_table(index="seed", columns="arm", values="final")
    ranks = mine["rank"].dropna()
    if not len(ranks) or not {"full", least := f"r{int(ranks.min())}"} <= set(wide):
        return None
    return of_gaps(wide[least] - wide["full"])


def settings(preset: str) -> str:
    """What a preset changes of its cells, beyond the regime: `deposit_rule = minimum`."""
    changed = read_preset(preset)["cell"].items() - read_preset(read_preset(preset)["base"])["cell"].items()
    return ", ".join(f"{key} = {value}" for key, value in sorted(changed) if key != "regime")


def rank_rows(results: Results) -> list[tuple[str, ...]]:
    """Of a preset's arms: final pass@1, its difference to full fine-tuning paired by seed, and what such an interval
    could resolve."""
    finals = results.finished.pivot_table(index="seed", columns="arm", values="final").reindex(columns=results.arms)
    rows = []
    for arm in results.arms:
        d = of_gaps((finals[arm] - finals["full"]).dropna()) if arm != "full" else None
        least = resolvable(d)
        rows.append(
            (
                arm_name(arm),
                mean_sd(finals[arm].dropna()),
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
        rows.append((repair, f"{(mine.lost <= HOLDS).sum()} of {len(mine)}", *values))
    return rows


def effect_rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The share of the loss that a repair keeps, and its effects on each value, with intervals."""
    rows = []
    for repair in (name for name in frame.repair.unique() if name != NONE):
        found = [effect(frame, repair, value) for value in VALUES]
        digits = [DIGITS.get(value, 2) for value in VALUES]
        texts = [f"{signed(d.mean, n)}{interval(d, n)}" if d else NOTHING for d, n in zip(found, digits)]
        kept = share(frame, repair)
        rows.append((repair, f"{100 * kept:.0f} %" if kept == kept else NOTHING, *texts))
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
    gold = [name for name, changed in labelled("repair")["repair"].items() if changed.get("outcome_weight")]
    means = frame[frame.repair.isin(set(kept) - set(gold))].groupby("repair").final.mean()
    return str(means.idxmax()) if len(means) else None


def verdict(frame: pd.DataFrame) -> str:
    """What the declared statistics say, as sentences."""
    if not len(frame):
        return "Not run: no cell is finished."
    tame, kept = [], []
    for repair in (name for name in frame.repair.unique() if name != NONE):
        magnitude, lost = effect(frame, repair, "magnitude"), effect(frame, repair, "lost")
        if magnitude and magnitude.high < 0:
            tame.append(repair)
        if lost and lost.high < 0:
            kept.append(repair)
    both = [repair for repair in tame if repair in kept]
    said = [
        f"Repairs that make the advantages smaller: {', '.join(tame) or 'none is shown to'}.",
        f"Repairs that keep pass@1 from being lost: {', '.join(kept) or 'none is shown to'}.",
        f"Both: {', '.join(both) or 'none'}.",
    ]
    if hollow := [repair for repair in kept if not getattr(effect(frame, repair, "final"), "low", math.nan) > 0]:
        said.append(
            f"Of those that keep it, {listed(hollow)} {'is' if len(hollow) == 1 else 'are'} not shown to end higher "
            f"than none: what is never gained cannot be lost."
        )
    if best := best_without_gold(frame, kept):
        d = rank_effect(frame, best)
        if d and d.n > 1:
            said.append(
                f"Under {best} the smallest rank less full fine-tuning is {signed(d.mean)}{interval(d)}; "
                f"a difference below {resolvable(d):.2f} could not be told from none."
            )
    return " ".join(said)
