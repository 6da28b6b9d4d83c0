"""The figures of the notebooks that make runs: of a cell, of the baseline, of the rewards.

A GPU host runs these notebooks and may lack the packages of extra `book`, so nothing here needs one.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lrd.analysis.baseline import estimates_at
from lrd.report import style
from lrd.results import measure

OF_A_CELL = ("reward", "advantage_std", "kl", "completions/mean_length", "completions/clipped_ratio")
AT_RIGHT = dict(
    xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom", fontsize=8.5, color="0.35"
)


def cell_curves(steps: pd.DataFrame, evals: pd.DataFrame) -> Figure:
    """One cell over its steps: pass@1 (or the score) on held-out problems, then the metrics of its training batches."""
    figure, grid = plt.subplots(2, 3, figsize=(style.WIDTH, 4.6), sharex=True)
    axes = grid.flat
    scored = len(evals) and measure(evals) == "score"
    if len(evals):
        curve = evals[measure(evals)].astype(float).groupby(evals.step).agg(["mean", "std", "count"])
        spread = curve["std"] if scored else (curve["mean"] * (1 - curve["mean"])) ** 0.5
        error = spread / curve["count"] ** 0.5
        axes[0].errorbar(curve.index, curve["mean"], error, color="0.15", marker="o", markersize=4, capsize=2)
        axes[0].axhline(curve["mean"].iloc[0], color="0.5", linestyle=":")
        axes[0].annotate("base", (1, curve["mean"].iloc[0]), (0, 2), **AT_RIGHT)
    axes[0].set(ylabel="score of greedy answers ± s.e.") if scored else axes[0].set(
        ylim=(-0.02, 1.02), ylabel="greedy pass@1 ± s.e."
    )
    for ax, key in zip(axes[1:], OF_A_CELL):
        if key in steps:
            ax.plot(steps.step, steps[key], color="0.15", linewidth=1.1)
        ax.set_ylabel(style.METRICS[key])
    axes[5].set_ylim(-0.02, 1.02)
    for ax in grid[1]:
        ax.set_xlabel("step")
    return style.finish(figure, grid)


def token_maps(tokens: list[str], rows: dict[str, dict[str, list[float]]]) -> Figure:
    """Values on the tokens of one completion: reward → name → one value a token, NaN where nothing stands.

    Each row has a scale of its own, symmetric about zero, since rewards differ in size; it stands beside the row.
    """
    flat = [(regime, name, np.array(values, float)) for regime, those in rows.items() for name, values in those.items()]
    figure, axes = plt.subplots(len(flat), 1, figsize=(style.WIDTH, 0.2 * len(flat) + 0.7), sharex=True)
    for ax, (regime, name, values) in zip(np.atleast_1d(axes), flat):
        scale = np.nanmax(np.abs(values), initial=0.0) or 1.0
        ax.imshow(values[None], aspect="auto", cmap="PuOr", vmin=-scale, vmax=scale, interpolation="nearest")
        ax.set_yticks([0], [f"{regime} · {name}"])
        ax.tick_params(length=0)
        ax.grid(False)
        ax.text(1.005, 0.5, f"±{scale:.2g}", transform=ax.transAxes, va="center", fontsize=8)
        for spine in ax.spines.values():
            spine.set_color("0.8")
    words = [token.replace("\n", "⏎").replace("$", r"\$") for token in tokens]
    np.atleast_1d(axes)[-1].set_xticks(range(len(words)), words, rotation=90, fontsize=8 if len(words) < 70 else 6)
    return figure


def pass_at_k(frame: pd.DataFrame) -> Figure:
    """Unbiased pass@k against k for each model of a baseline, ± standard error over problems; greedy as a bar."""
    figure, ax = plt.subplots(figsize=(style.WIDTH / 2, 2.8))
    estimates = estimates_at(frame)
    greedy: Any = frame[frame["sample"] == "greedy"].groupby("model").correct.mean()
    for i, model in enumerate(sorted(frame.model.unique())):
        means = [values[model].mean() for values in estimates.values()]
        errors = [values[model].sem() for values in estimates.values()]
        look = {"color": str(0.55 * i), "linestyle": style.DASHES[i], "marker": style.MARKERS[i]}
        ax.errorbar(list(estimates), means, errors, capsize=2, markersize=5, label=model, **look)
        ax.plot(1, greedy[model], marker="_", markersize=14, markeredgewidth=2, color=look["color"], linestyle="")
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(estimates), [str(k) for k in estimates])
    ax.set(xlabel="samples a problem, k", ylabel="pass@k (bar: greedy)", ylim=(0, 1))
    ax.legend()
    sns.despine(figure)
    return figure
