"""Bits that a cell's rewards can deliver, beside bits that its adapter can hold. Torch-free.

The argument and its assumptions are derived in book/theory.md. Bits of a run are sums over its episodes; an upper bound
counts values a deposit could have taken, a measurement asks how they were distributed.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrd import ROOT
from lrd.cell import Cell, grid
from lrd.models.shape import Shape, published
from lrd.report.text import NOTHING, arm_name, counted, listed
from lrd.results import Results, root
from lrd.runs.files import read_jsonl, read_log
from lrd.runs.published import record

BITS_A_PARAMETER = 2  # what a trained parameter can hold (Allen-Zhu and Li 2024)
LEVELS = 256  # values that a real-valued deposit is told apart to: 8 bits, 1/256 of a probability or of a nat
FAR = 0.1  # delivered over capacity: below this the page says `far below`
NUMBERS = ["parameters", "capacity", "episodes", "deposits", "at_most", "entropy", "kl", "measured"]


def shape_of(model: str) -> Shape | None:
    """A model's shape from `book/models.toml`, or for a path from its own `config.json`, or as it was published.

    None where none of them has it.
    """
    about: dict[str, Any] = published().get(model, {})
    if not about:
        try:
            about = json.loads((ROOT / model / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # models of a testbed are not in git: ./models/<preset>/<role>
            shapes = (record(Path(model).parent.name) or {}).get("shapes", {})
            about = shapes.get(model, {})
    names = Shape.__dataclass_fields__
    return Shape(**{name: about[name] for name in names}) if all(name in about for name in names) else None


def trained_parameters(cell: Cell) -> float:
    """What a cell trains, from its configuration alone; NaN where its student's shape does not tell."""
    shape = shape_of(cell.student)
    if shape is None:
        return math.nan
    if cell.rank is None:
        return shape.parameters
    if not set(cell.lora_targets) <= shape.linear.keys():
        return math.nan
    return shape.adapter_parameters(cell.rank, cell.lora_targets, cell.lora_layers)


def capacity(parameters: float) -> float:
    """Bits that trained parameters hold, at 2 each: the knowledge of Allen-Zhu and Li's language models (2024)."""
    return BITS_A_PARAMETER * parameters


def bits_a_deposit(regime: str, vocabulary: int | None = None) -> float:
    """log2 of the values that one deposit can take: an upper bound on its entropy, in bits.

    An outcome is right or wrong: 1. Any other deposit is a number of `LEVELS` levels; one of distillation is granted
    the name of the teacher's token, log2 V, where that is more.
    """
    if regime == "outcome":
        return 1.0
    return math.log2(max(LEVELS, vocabulary or 0) if regime == "distillation" else LEVELS)


def binary_entropy(p: float) -> float:
    """−p log2 p − (1 − p) log2 (1 − p), in bits; NaN for what is no probability."""
    if not 0 <= p <= 1:
        return math.nan
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def entropy(values: Sequence[float] | np.ndarray, width: float = 1 / LEVELS) -> float:
    """Entropy in bits of values rounded down to multiples of `width`, with Miller and Madow's correction.

    −Σ p log2 p + (K − 1) / (2 n ln 2) for n values in K occupied bins: the plug-in estimate alone is too small, the
    more so the fewer the values. NaN without values.
    """
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan
    counts = np.unique(np.floor(found / width), return_counts=True)[1]
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum()) + (len(counts) - 1) / (2 * len(found) * math.log(2))


def reverse_kl_bits(rewards: Sequence[float] | np.ndarray | pd.Series) -> float:
    """Reverse KL in bits a completion, −r̄ / ln 2, from sums r of log π_T − log π_θ over completions, in nats.

    A mean over samples can fall below zero, which no divergence does: then 0. NaN without values.
    """
    found = np.asarray(rewards, float)
    found = found[np.isfinite(found)]
    return max(0.0, -float(found.mean()) / math.log(2)) if len(found) else math.nan


def cells(results: Results, runs: str | Path | None = None) -> tuple[pd.DataFrame, list[str]]:
    """One row a finished cell, bits of the whole run, and what could not be read of their logged completions.

    `at_most` = episodes · deposits · `bits_a_deposit`. `entropy` = episodes · deposits · entropy of a deposit, each
    taken alone, so that joint entropy is no larger. `kl` = episodes · reverse KL, of distillation only. `measured` is
    `kl` where there is one, else `entropy`. A number that the records do not give is NaN.
    """
    rows, problems = [], []
    parameters = results.finished.set_index("cell").trainable_parameters
    by_cell = dict(list(results.steps.groupby("cell")))
    for cell in grid(results.preset):
        if cell.name not in parameters.index:
            continue
        steps = by_cell.get(cell.name, results.steps[:0]).reindex(columns=["reward", "deposits_per_episode"])
        episodes = len(steps) * cell.prompts_per_step * cell.samples_per_prompt
        deposits, reward = (float(steps[name].mean()) for name in ("deposits_per_episode", "reward"))
        if cell.regime == "outcome":
            bits = binary_entropy(reward)
        else:
            values, fault = logged_deposits(root(runs) / results.preset / cell.name / "completions.jsonl")
            bits = entropy(values)
            problems += [f"{cell.name}: {fault}"] if fault else []
        shape = shape_of(cell.student)
        kl = episodes * reverse_kl_bits(steps.reward) if cell.regime == "distillation" else math.nan
        row = {"cell": cell.name, "regime": cell.regime, "arm": cell.arm, "seed": cell.seed, "rank": cell.rank}
        row |= {
            "parameters": pd.to_numeric(parameters[cell.name], errors="coerce"),
            "episodes": episodes,
            "deposits": deposits,
            "at_most": episodes * deposits * bits_a_deposit(cell.regime, shape and shape.vocab_size),
            "entropy": episodes * deposits * bits,
            "kl": kl,
        }
        rows.append(row)
    return _finished(rows), problems


def scale(preset: str = "paper") -> pd.DataFrame:
    """One row a regime and arm of a preset whose student's shape is known: upper bounds from the configuration alone.

    An episode's deposits are bounded by its longest completion: a step may end on every token.
    """
    rows = []
    for cell in grid(preset):
        shape = shape_of(cell.student)
        if shape is None or any(row["regime"] == cell.regime and row["arm"] == cell.arm for row in rows):
            continue
        episodes = cell.steps * cell.prompts_per_step * cell.samples_per_prompt
        deposits = 1 if cell.regime == "outcome" else cell.max_completion_tokens
        row = {"cell": cell.name, "regime": cell.regime, "arm": cell.arm, "seed": cell.seed, "rank": cell.rank}
        bits = episodes * deposits * bits_a_deposit(cell.regime, shape.vocab_size)
        row |= {"parameters": trained_parameters(cell), "episodes": episodes, "deposits": deposits, "at_most": bits}
        rows.append(row | {"entropy": math.nan, "kl": math.nan})
    return _finished(rows)


def _finished(rows: list[dict[str, Any]]) -> pd.DataFrame:
    names = ["cell", "regime", "arm", "seed", "rank", "parameters", "episodes", "deposits", "at_most", "entropy", "kl"]
    frame = pd.DataFrame(rows, columns=names)
    frame["capacity"] = BITS_A_PARAMETER * frame.parameters
    frame["measured"] = frame.kl.fillna(frame.entropy)
    frame[NUMBERS] = frame[NUMBERS].astype(float)
    frame["ratio"] = frame.measured / frame.capacity
    frame["largest_ratio"] = frame.at_most / frame.capacity
    return frame


def logged_deposits(path: Path) -> tuple[list[float], str | None]:
    """The deposits of a run's logged completions, and what is wrong with the file, if anything."""
    rows = read_jsonl(path)
    try:
        lines = sum(bool(line.strip()) for line in read_log(path).decode(errors="replace").split("\n"))
        pairs = [p for row in rows for p in zip(row["token_rewards"], row["deposit_mask"])]
        found = [float(value) for value, deposited in pairs if deposited and value is not None]
    except OSError:
        return [], f"{path.name} is missing: the entropy of its deposits is not known"
    except (KeyError, TypeError, ValueError):
        return [], f"{path.name} has no deposits: their entropy is not known"
    return found, f"{path.name}: {lines - len(rows)} lines cannot be read" if lines > len(rows) else None


def required_rank(frame: pd.DataFrame, bits: float) -> float:
    """The rank whose adapter just holds `bits`: bits over the capacity of one rank; NaN without a LoRA cell."""
    ranked = frame[frame["rank"].notna()]
    one = (ranked.capacity / ranked["rank"]).mean()
    return bits / one if one > 0 else math.nan


def verdict(frame: pd.DataFrame, regime: str) -> str:
    """What a flat rank curve of this regime can mean, as a sentence; true whatever was measured."""
    mine = frame[(frame.regime == regime) & frame.largest_ratio.notna()]
    if not len(mine):
        return f"Under {regime} nothing has been measured."
    small, top, ratio = mine.capacity.min(), mine.largest_ratio.max(), mine.ratio.max()
    lead = (
        f"Under {regime} a run delivers at most {times(top)} times what its arm holds (the smallest: {small:,.0f} bits)"
    )
    nothing = "a flat curve decides nothing"
    if top < 1:
        return f"{lead}{', far below 1' if top < FAR else ''}: every arm has room for all of it, and {nothing}."
    if not ratio >= 0:
        return f"{lead}; what was delivered is not measured, and so {nothing} yet."
    if ratio < 1:
        far = ", far below 1" if ratio < FAR else ""
        return f"{lead}, but {times(ratio)} times at most was measured{far}: going by that, {nothing}."
    over = mine[mine.ratio >= 1]
    n = f"{len(over)} of {len(mine)} cells"
    beyond = "the others have room for all that was measured" if len(over) < len(mine) else "no arm has room for it"
    return (
        f"{lead}, and up to {times(ratio)} times was measured: {n} were sent more than they hold, {beyond}. Whether "
        f"that was anything to be stored, entropy alone does not tell."
    )


def times(ratio: float) -> str:
    """`0.19`, `5.2`, `1,300`: two digits that count, without an exponent."""
    if not math.isfinite(ratio) or ratio == 0:
        return "0" if ratio == 0 else "an unknown number of"
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:,.{max(0, 1 - math.floor(math.log10(abs(rounded))))}f}"


def facts(ours: pd.DataFrame, theirs: pd.DataFrame, results: Results) -> dict[str, str]:
    """What the budget's sentences say, keyed by the names that they are glued under; true whatever was measured."""

    def ranks(value: str) -> str:
        bits = {regime: float(ours[ours.regime == regime][value].mean()) for regime in results.regimes}
        needed = {regime: required_rank(ours, b) for regime, b in bits.items()}
        return ", ".join(f"{times(rank)} ({regime})" for regime, rank in needed.items() if rank >= 0) or NOTHING

    decided = [r for r in results.regimes if (ours[ours.regime == r].largest_ratio >= 1).any()]
    undecided = [r for r in results.regimes if r not in decided and ours[ours.regime == r].largest_ratio.notna().any()]
    size = ours.groupby("arm").parameters.max().reindex(results.arms).dropna()
    large = [arm_name(arm) for arm in size.index if "full" in size and size[arm] > size["full"]]
    known = ours[(ours.kl > 0) & (ours.entropy > 0)]
    silent = results.of_finished(results.steps)
    silent = silent[silent.regime == "outcome"].reindex(columns=["frac_reward_zero_std"]).dropna()
    share = silent.frac_reward_zero_std.to_numpy(float).mean() if len(silent) else math.nan
    one = theirs[theirs["rank"] == 1]
    return {
        "undecided": f"A flat rank curve decides nothing under {listed(undecided)}: no arm there can be overfilled."
        if undecided
        else "No finished regime is ruled out by its bound alone.",
        "cells": counted(len(ours), "finished cell"),
        "levels": str(LEVELS),
        "bits": str(BITS_A_PARAMETER),
        "oversize": listed(large) if large else "no arm",
        "rank_at_most": ranks("at_most"),
        "rank_measured": ranks("measured"),
        "two_measures": times((known.entropy / known.kl).mean()) if len(known) else NOTHING,
        "silent": f"{100 * share:.0f} %" if share >= 0 else NOTHING,
        "paper_rank_one": f"{one.parameters.iloc[0]:,.0f}" if len(one) else NOTHING,
        "paper_capacity": f"{one.capacity.iloc[0]:,.0f}" if len(one) else NOTHING,
        "paper_episodes": f"{one.episodes.iloc[0]:,.0f}" if len(one) else NOTHING,
        "paper_fill": f"{(one.capacity / one.episodes).iloc[0]:,.0f}" if len(one) else NOTHING,
    }


@dataclass(frozen=True)
class Budget:
    """Bits that a run's outcome reward can deliver at most, beside what its smallest adapter can hold."""

    episodes: int
    delivered: float
    parameters: float
    capacity: float

    @property
    def consequence(self) -> str:
        """What follows for a flat curve, as a sentence."""
        if not self.parameters > 0:
            return "Its size is on record once a cell has run."
        if self.delivered > self.capacity:
            return "That may be more than the adapter holds, so that this regime can speak against such a law."
        return (
            "That is less than the adapter holds: under outcome, both such a law and its absence predict a flat curve."
        )


def outcome_budget(results: Results) -> Budget:
    """The start page's caveat in numbers: an outcome deposit is one of two values, so at most one bit an episode."""
    cell = grid(results.preset)[0]
    episodes = cell.steps * cell.prompts_per_step * cell.samples_per_prompt
    mine = results.cells[results.cells.arm == results.arms[0]].trainable_parameters.dropna()
    parameters = float(mine.iloc[0]) if len(mine) else math.nan
    return Budget(episodes, episodes * bits_a_deposit("outcome"), parameters, capacity(parameters))
