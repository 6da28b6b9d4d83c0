"""Bits that a cell's rewards can deliver, beside bits that its adapter can hold. Torch-free.

The argument and its assumptions are derived in book/theory.md. Bits of a run are sums over its episodes; an upper bound
counts values a deposit could have taken, a measurement asks how they were distributed.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrd import ROOT
from lrd.cell import Cell, grid
from lrd.models.shape import Shape, published
from lrd.results import Results, root
from lrd.runs.files import read_jsonl, read_log
from lrd.runs.published import record

BITS_A_PARAMETER = 2  # what a trained parameter can hold (Allen-Zhu and Li 2024)
LEVELS = 256  # values that a real-valued deposit is told apart to: 8 bits, 1/256 of a probability or of a nat


def shape_of(model: str) -> Shape | None:
    """A model's shape from `book/models.toml`, or for a path from its own `config.json`, or as it was published.

    None where none of them has it.
    """
    about: dict[str, Any] = published().get(model, {})
    if not about:
        try:
            about = json.loads((ROOT / model / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # models of a testbed are not in git: ./models/<preset>/[<training>/]<role>
            shapes = (record(Path(model).parts[1]) or {}).get("shapes", {}) if len(Path(model).parts) > 2 else {}
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
        kl = episodes * reverse_kl_bits(steps.reward) if cell.regime == "distillation" else math.nan
        trained = pd.to_numeric(parameters[cell.name], errors="coerce")
        rows.append(_row(cell, trained, episodes, deposits, episodes * deposits * bits, kl))
    return _frame(rows), problems


def scale(preset: str) -> pd.DataFrame:
    """One row a regime and arm of a preset whose student's shape is known: upper bounds from the configuration alone.

    An episode's deposits are bounded by its longest completion: a step may end on every token.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in grid(preset):
        if (cell.regime, cell.arm) not in rows and shape_of(cell.student) is not None:
            deposits = 1 if cell.regime == "outcome" else cell.max_completion_tokens
            rows[cell.regime, cell.arm] = _row(cell, trained_parameters(cell), episodes_of(cell), deposits)
    return _frame(list(rows.values()))


def episodes_of(cell: Cell) -> int:
    """Completions that a whole run samples."""
    return cell.steps * cell.prompts_per_step * cell.samples_per_prompt


def _row(
    cell: Cell, parameters: float, episodes: int, deposits: float, entropy: float = math.nan, kl: float = math.nan
) -> dict[str, Any]:
    shape = shape_of(cell.student)
    row = {"cell": cell.name, "regime": cell.regime, "arm": cell.arm, "seed": cell.seed, "rank": cell.rank}
    at_most = episodes * deposits * bits_a_deposit(cell.regime, shape and shape.vocab_size)
    numbers = {"parameters": parameters, "episodes": episodes, "deposits": deposits, "at_most": at_most}
    return row | numbers | {"entropy": entropy, "kl": kl}


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    numbers = ["parameters", "episodes", "deposits", "at_most", "entropy", "kl"]
    frame = pd.DataFrame(rows, columns=["cell", "regime", "arm", "seed", "rank", *numbers])
    frame[numbers] = frame[numbers].astype(float)
    frame["capacity"] = BITS_A_PARAMETER * frame.parameters
    frame["measured"] = frame.kl.fillna(frame.entropy)
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


class Room(Enum):
    """Whether a regime's arms have room for what its runs deliver."""

    NOT_MEASURED = auto()  # no cell says
    BY_BOUND = auto()  # even the bound fits into every arm
    UNDECIDED = auto()  # the bound does not fit, and what was delivered is not known
    BY_MEASURE = auto()  # what was measured fits into every arm
    OVERFILLED = auto()  # some arm was sent more than it holds


@dataclass(frozen=True)
class Filling:
    """What a regime's cells deliver over what they hold, the largest of all cells, and how many were overfilled."""

    smallest: float  # capacity of the smallest arm, bits
    at_most: float
    measured: float
    cells: int
    overfilled: int

    @property
    def room(self) -> Room:
        """The classification; true whatever was measured."""
        if not self.cells:
            return Room.NOT_MEASURED
        if self.at_most < 1:
            return Room.BY_BOUND
        if not self.measured >= 0:
            return Room.UNDECIDED
        return Room.BY_MEASURE if self.measured < 1 else Room.OVERFILLED


def filling(frame: pd.DataFrame, regime: str) -> Filling:
    """A regime's cells of a frame of `cells` or `scale`; those whose bound is known."""
    rows = frame[(frame.regime == regime) & frame.largest_ratio.notna()]
    largest = rows.largest_ratio.max(), rows.ratio.max()
    return Filling(rows.capacity.min(), *largest, len(rows), int((rows.ratio >= 1).sum()))


def oversized(frame: pd.DataFrame) -> list[str]:
    """Arms with more parameters than full fine-tuning has."""
    size = frame.groupby("arm").parameters.max()
    return [arm for arm in size.index if "full" in size and size[arm] > size["full"]]


def measures_apart(frame: pd.DataFrame) -> float:
    """Entropy over reverse KL of the same cells, their mean; NaN where no cell has both."""
    known = frame[(frame.kl > 0) & (frame.entropy > 0)]
    return float((known.entropy / known.kl).mean())


def silent_share(results: Results) -> float:
    """Share of the prompts of finished outcome cells whose completions all had the same outcome; NaN without."""
    steps = results.of_finished(results.steps)
    steps = steps[steps.regime == "outcome"].reindex(columns=["frac_reward_zero_std"]).dropna()
    return float(steps.frac_reward_zero_std.to_numpy(float).mean()) if len(steps) else math.nan


@dataclass(frozen=True)
class Budget:
    """Bits that a run's outcome reward can deliver at most, beside what its smallest adapter can hold."""

    episodes: int
    delivered: float
    parameters: float  # NaN until a cell has run
    capacity: float


def outcome_budget(results: Results) -> Budget:
    """The start page's caveat in numbers: an outcome deposit is one of two values, so at most one bit an episode."""
    episodes = episodes_of(grid(results.preset)[0])
    sizes = results.cells[results.cells.arm == results.arms[0]].trainable_parameters.dropna()
    parameters = float(sizes.iloc[0]) if len(sizes) else math.nan
    return Budget(episodes, episodes * bits_a_deposit("outcome"), parameters, capacity(parameters))
