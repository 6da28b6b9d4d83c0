"""Numbers of the verification page: what `lrd.checks.verification` has recorded, and what the runs' own files say."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lrd import ROOT
from lrd.results import Results
from lrd.runs import published

RECORD = "verification"  # its name in runs/published/
PAIRS = ROOT / "tests" / "verifier" / "grading.tsv"
GAP = "sampling/sampling_logp_difference"


class Pair(NamedTuple):
    """What stands in a box, a gold answer, and the verdict that is due; a known limit says why it is not given."""

    kind: str
    box: str
    gold: str
    verdict: str  # right, wrong
    limit: str = ""


class Graded(NamedTuple):
    """How many pairs of one due verdict there are, and how many get it from our grading and from math-verify."""

    pairs: int
    ours: int
    theirs: int


def recorded() -> dict[str, Any]:
    """The record by its parts: `verifier`, `grading`, `loss`, `twice`, `forward`, `precision`; empty if there is none.

    Each is what `lrd.checks.verification.check_<part>` returned.
    """
    return published.record(RECORD) or {}


def grading_pairs(path: Path = PAIRS) -> list[Pair]:
    """The pairs of our own that the grading is held to."""
    return [Pair(*line.split("\t")) for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]


def graded(record: dict[str, Any]) -> dict[str, Graded]:
    """The record's pairs of all kinds by the verdict that is due: `right` and `wrong`."""
    kinds = record["grading"]["kinds"].values()
    return {due: Graded(*(sum(column) for column in zip(*(kind[due] for kind in kinds)))) for due in ("right", "wrong")}


def loss_difference(record: dict[str, Any]) -> float:
    """The largest difference to TRL of any recorded loss or gradient."""
    return max(max(row["loss"], row["gradient"]) for row in record["loss"]["aggregations"].values())


def bf16_barrier(learning_rate: float) -> float:
    """The size from which on a bf16 weight stays where it is if it is to move by `learning_rate`: a power of two.

    In [2^e, 2^(e+1)) neighbours are 2^(e−7) apart, and what is less than half of that is rounded away.
    """
    return 2.0 ** (math.floor(math.log2(learning_rate)) + 9)


def sampler_gap(results: Results) -> pd.DataFrame:
    """Sampler against learner, one row a regime: steps, mean |difference| of a token's log-probability, the largest."""
    names = [f"{GAP}/mean", f"{GAP}/max"]
    steps = results.of_finished(results.steps).reindex(columns=["regime", *names]).dropna()
    by_regime = steps.groupby("regime")
    table = pd.DataFrame({"steps": by_regime.size(), "mean": by_regime[names[0]].mean()})
    table["max"] = by_regime[names[1]].max()
    return table.reindex([regime for regime in results.regimes if regime in table.index])


def first_batches(results: Results) -> pd.DataFrame:
    """What cells of a seed have in common before their first update, one row a seed: cells, and distinct first batches.

    Untrained arms are one policy, and prompts and draws depend on the seed alone: there should be one batch a seed.
    """
    names = ["entropy", "completions/mean_length", "accuracy"]
    steps = results.of_finished(results.steps).reindex(columns=["seed", "step", *names])
    first = steps[steps.step == 1].dropna()
    counts = {
        seed: {"cells": len(rows), "batches": len(rows[names].drop_duplicates())}
        for seed, rows in first.groupby("seed")
    }
    return pd.DataFrame.from_dict(counts, orient="index", columns=["cells", "batches"])
