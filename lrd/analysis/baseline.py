"""What `lrd baseline` measured before any training: pass@1 and pass@k of the base models, and the gaps between them.

All functions take the frame of `lrd.results.baseline`: one row a model, problem and sample.
"""

from typing import Any

import numpy as np
import pandas as pd

from lrd.results import unbiased


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Greedy pass@1 and unbiased pass@k of each model: columns (`greedy` or `pass@k`, `mean` or `error`).

    `error` is the standard error over problems.
    """
    columns: dict[str, Any] = {"greedy": frame[frame["sample"] == "greedy"].set_index(["model", "problem"]).correct}
    columns |= {f"pass@{k}": estimates for k, estimates in estimates_at(frame).items()}
    models = {name: values.astype(float).groupby("model") for name, values in columns.items()}
    each = {name: pd.DataFrame({"mean": grouped.mean(), "error": grouped.sem()}) for name, grouped in models.items()}
    return pd.concat(each, axis=1)


def estimates_at(frame: pd.DataFrame) -> dict[int, Any]:
    """k → unbiased pass@k of each (model, problem), for k = 1, 2, 4, 8, … up to the number of samples."""
    counts = frame[frame["sample"] != "greedy"].groupby(["model", "problem"]).correct.agg(["size", "sum"])
    ks = [2**i for i in range(16) if 2**i <= counts["size"].min()]
    return {k: counts.apply(lambda row, k=k: unbiased(int(row["size"]), int(row["sum"]), k), axis=1) for k in ks}


def pass_at_1_by(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Problems, greedy and sampled pass@1 of each model by what `key` says of a problem: `level` or `subject`."""
    kinds = frame.assign(kind=np.where(frame["sample"] == "greedy", "greedy", "pass@1"))
    table = kinds.pivot_table(index=key, columns=["model", "kind"], values="correct", aggfunc="mean").round(3)
    table.insert(0, ("problems", ""), frame.groupby(key).problem.nunique())
    return table


def gaps(frame: pd.DataFrame) -> dict[str, float]:
    """Exploration gap (the student's pass@k − pass@1 at the largest k) and teacher gap (greedy, and sampled)."""
    estimates = {k: values.groupby("model").mean() for k, values in estimates_at(frame).items()}
    greedy: Any = frame[frame["sample"] == "greedy"].groupby("model").correct.mean()
    k = max(estimates)
    return {
        "k": k,
        "exploration": estimates[k]["student"] - estimates[1]["student"],
        "teacher": greedy["teacher"] - greedy["student"],
        "teacher_sampled": estimates[1]["teacher"] - estimates[1]["student"],
    }
