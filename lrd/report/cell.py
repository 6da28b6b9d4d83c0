"""What a cell's own notebook shows of its training. It needs no package of extra `book`, which a GPU host may lack."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

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
