"""The collapse under intervention: what each does to magnitude, to length and to the collapse. Torch-free.

The axis `repair` of a preset changes one rule at a time; every intervention is compared with none, paired by arm and
seed. "Shown" is what Student's 95 % interval over seeds, or Fieller's, tells from zero.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lrd.analysis.stats import Difference, mean_difference, paired, ratio_of_means
from lrd.presets import labelled
from lrd.results import Results, root
from lrd.runs.files import read_jsonl

NONE = "none"  # the label of the axis that changes nothing
HOLDS = 0.1  # pass@1 that may be lost from the peak to the last step
ROUNDING = 1e-9  # of differences between shares of some hundred problems
LINKS = ("magnitude", "length", "blind")  # of the chain that was blamed, and beside it
VALUES = ("lost", "final", *LINKS)
LATE = {"completions/mean_length": "length", "deposits/last_if_wrong": "blind"}  # metric → its mean when it is late


def table(results: Results) -> pd.DataFrame:
    """One row a finished cell: intervention, whether it asks for gold answers, arm, seed, rank, parameters, `VALUES`.

    Lost is pass@1 from its peak to the last step, magnitude the peak advantage std. Length (tokens) and blindness (the
    last deposit of wrong completions) are means over the last quarter of the steps.
    """
    steps = results.steps.reindex(columns=["cell", "step", *LATE])
    late = steps[steps.step > 0.75 * steps.groupby("cell").step.transform("max")]
    means = late.set_index("cell").astype(float).groupby("cell").mean().rename(columns=LATE)
    gold = {label: bool(changed.get("outcome_weight")) for label, changed in labelled(results.preset)["repair"].items()}
    done = results.finished.join(means[[*LATE.values()]], on="cell")
    frame = done.assign(
        intervention=done.repair,
        gold=done.repair.map(gold).astype(bool),
        parameters=done.trainable_parameters,
        lost=done.peak - done.final,
        magnitude=done.peak_advantage_std,
    )
    return frame[["cell", "intervention", "gold", "arm", "seed", "rank", "parameters", *VALUES]]


def exploits(results: Results, runs: str | Path | None = None, n: int = 3) -> list[dict[str, Any]]:
    """What the policy learned to exploit without intervention: wrong logged completions of the last evaluation.

    Each finished cell has the one of whose last step the reward model is surest; of these the `n` surest.
    """
    surest = []
    for cell in results.finished[results.finished.repair == NONE].cell:
        logged = read_jsonl(root(runs) / results.preset / cell / "completions.jsonl")
        wrong = [row for row in logged if row["step"] == logged[-1]["step"] and not row["correct"]]
        surest += [{"cell": cell} | row for row in sorted(wrong, key=_last_deposit)[-1:]]
    return sorted(surest, key=_last_deposit)[: -n - 1 : -1]


def _last_deposit(row: dict[str, Any]) -> float:
    """The last deposit of a logged completion; one without any, or without a number, comes last."""
    made = [reward for reward, is_made in zip(row["token_rewards"], row["deposit_mask"]) if is_made]
    return -math.inf if not made or made[-1] is None else made[-1]


def names(frame: pd.DataFrame) -> list[str]:
    """The interventions, without none."""
    return [name for name in frame.intervention.unique() if name != NONE]


def effect(frame: pd.DataFrame, name: str, value: str) -> Difference | None:
    """An intervention minus none: mean over pairs of the same arm and seed, with Student's 95 % interval over seeds.

    A seed's arms share prompts and hence noise: they are averaged first, so that the interval speaks of seeds alone.
    None without a pair.
    """
    wide = frame.pivot_table(index=["seed", "arm"], columns="intervention", values=value)
    if not {name, NONE} <= set(wide):
        return None
    return mean_difference((wide[name] - wide[NONE]).dropna().groupby("seed").mean())


def share(frame: pd.DataFrame, name: str, value: str = "lost") -> Difference | None:
    """Percentage of what is lost without intervention that this one saves, with Fieller's interval over seeds.

    With L = peak − final pass@1 of a cell and pairs of the same arm and seed, arms averaged first:
    100 · mean(L_none − L_name) / mean(L_none). An intervention also loses less if it never gains; of `value` `final` it
    is 100 · mean(final_name − final_none) / mean(L_none) instead, what of the loss is there at the end. None without a
    pair or a loss.
    """
    if not {name, NONE} <= set(frame.intervention):
        return None
    wide = frame.pivot_table(index=["seed", "arm"], columns="intervention", values=["lost", "final"])
    saved = (1 if value == "final" else -1) * (wide[value][name] - wide[value][NONE])
    by_seed = pd.DataFrame({"saved": saved, "lost": wide["lost"][NONE]}).dropna().groupby("seed").mean()
    d = ratio_of_means(100 * by_seed.saved, by_seed.lost)
    return d if d and d.mean == d.mean else None


def shown(frame: pd.DataFrame, value: str, way: int = -1) -> list[str]:
    """The interventions that are shown to lower a value, or with `way` 1 to raise it: their interval excludes zero."""
    effects = {name: effect(frame, name, value) for name in names(frame)}
    return [name for name, d in effects.items() if d and way * d.mean > 0 and not d.includes_zero]


def moves(frame: pd.DataFrame) -> dict[str, dict[str, Difference]]:
    """Intervention → the links that it is shown to move."""
    effects = {name: {link: effect(frame, name, link) for link in LINKS} for name in names(frame)}
    return {name: {k: d for k, d in links.items() if d and not d.includes_zero} for name, links in effects.items()}


@dataclass(frozen=True)
class Link:
    """What interventions tell of a link of the chain."""

    name: str
    alone: bool  # whether it can be read off interventions that are shown to move no other link
    shares: dict[str, Difference | None]  # of the loss, saved by those; where there are none, by all that lessen it
    unshown: list[str]  # those of them that are not shown to save any of it


def links(frame: pd.DataFrame) -> list[Link]:
    """What each link of the chain carries of the loss, as far as interventions can tell; empty where none moves any.

    What an intervention was made for does not count, only what it is shown to move. A link that carries a share of the
    collapse would make every intervention that takes it away save that share, unless what else it does makes the loss
    larger: read off those that lessen the link and are shown to move no other, all of them, since to pick one by what
    it saves is to pick by luck. Those that ask for gold pay for right answers past every link: they are left out.
    """
    told, moved = [], moves(frame[~frame.gold])
    for link in LINKS if moved else ():
        lessen = [name for name, by_link in moved.items() if link in by_link and by_link[link].high < 0]
        alone = [name for name in lessen if len(moved[name]) == 1]
        lost = {name: effect(frame, name, "lost") for name in alone or lessen}
        unshown = [name for name, d in lost.items() if d and d.includes_zero]
        told.append(Link(link, bool(alone), {name: share(frame, name) for name in lost}, unshown))
    return told


def holding(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Intervention → in how many cells at most `HOLDS` is lost from peak to end, and how many cells there are."""
    kept = (frame.lost <= HOLDS + ROUNDING).groupby(frame.intervention, sort=False)
    return {name: (int(cells.sum()), len(cells)) for name, cells in kept}


def best_without_gold(frame: pd.DataFrame) -> str | None:
    """The one that ends highest of those that are shown to lessen the loss and ask for no gold; None without one."""
    kept = frame[frame.intervention.isin(shown(frame, "lost")) & ~frame.gold]
    means = kept.groupby("intervention").final.mean()
    return str(means.idxmax()) if len(means) else None


def rank_effect(frame: pd.DataFrame, name: str) -> Difference | None:
    """Smallest rank minus full fine-tuning at the end, under one intervention, paired by seed; None without a pair."""
    ranks = frame["rank"][frame.intervention == name].dropna()
    if not len(ranks):
        return None
    return paired(frame.assign(regime=frame.intervention), name, f"r{int(ranks.min())}", "full")


def resolvable(d: Difference | None) -> float:
    """The least true difference that such an interval excludes 0 for half the time: its own half-width."""
    return (d.high - d.low) / 2 if d and d.n > 1 else math.nan


def side_by_side(plain: Results, repaired: Results) -> pd.DataFrame:
    """A row a finished process cell of a preset, and of one that changes its rules: intervention, rank and `lost`."""
    process = plain.finished[plain.finished.regime == "process"]
    frames = {"the plain process reward": process, "the repaired one": repaired.finished}
    labelled = [cells.assign(intervention=name, lost=cells.peak - cells.final) for name, cells in frames.items()]
    return pd.concat(labelled, ignore_index=True)[["intervention", "rank", "lost"]]
